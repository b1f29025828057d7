"""A trial's process maps the data set instead of reading it, and imports little."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from ray.tune import RunConfig, TuneConfig, Tuner

from methods.data.load import load
from orchestrator.record.result import decode_result
from orchestrator.study.file import Resources
from orchestrator.sweep import cluster, shared
from orchestrator.sweep.worker import TOLD, Trial

IDLE = ("matplotlib", "mlflow", "moocore", "optuna", "scipy", "sklearn")
"""What a trial never needs. pandas is not among them: `ray.tune` imports it."""


def settings(folder: Path) -> dict[str, Any]:
    params = {"depth": 8, "width": 0.25, "recipe.epochs": 1, "recipe.batch_size": 64}
    return {
        "trial": "dense-00000",
        "method": "dense",
        "params": params,
        "role": "confirm",
        "seed": 3,
        "data": "digits",
        "data_seed": 0,
        "folder": str(folder),
        "device": "cpu",
        "threads": 1,
    }


@pytest.mark.ray
def test_a_worker_maps_the_data_set_and_imports_little(tmp_path: Path) -> None:
    class Probe(Trial):
        """A trial that tells of its process."""

        def step(self) -> dict[str, Any]:
            told = super().step()
            address = shared.held(self.config).train.store.pixels.data_ptr()
            lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
            spans = [(*(int(end, 16) for end in line[0].split("-")), line[5:]) for line in lines]
            files = [file for first, end, file in spans if first <= address < end]
            about = {"modules": sorted(sys.modules), "files": files}
            (tmp_path / "about.json").write_text(json.dumps(about))
            return told

    alone = next(Trial(settings(tmp_path / "alone"))._results)
    with cluster.started(Resources(), "local"):
        config = settings(tmp_path / "mapped") | {"shared": shared.put(load("digits"))}
        found = Tuner(
            tune.with_resources(Probe, {"cpu": 1}),
            param_space=config,
            tune_config=TuneConfig(reuse_actors=True),
            run_config=RunConfig(name="probe", storage_path=str(tmp_path), verbose=0),
        ).fit()
    result = decode_result(json.loads(found[0].metrics[TOLD]))
    assert result.ending is not None
    assert alone.ending is not None
    assert result.ending.points == alone.ending.points
    about = json.loads((tmp_path / "about.json").read_text())
    assert "plasma" in about["files"][0][0]
    assert "torch" in about["modules"]
    assert not set(IDLE) & set(about["modules"])


def test_without_a_handle_the_data_set_is_read_and_kept(tmp_path: Path) -> None:
    first = shared.held(settings(tmp_path))
    assert shared.held(settings(tmp_path)) is first
    assert torch.equal(first.train.labels, load("digits").train.labels)
