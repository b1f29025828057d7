"""A store of two small studies, one of them with all that no board may show."""

import math
from pathlib import Path
from typing import Any

import pytest
from boards import study_rows
from mlflow import MlflowClient
from mlflow.entities import Run
from stores import study

from orchestrator import store
from orchestrator.cli import main
from orchestrator.record.rows import Row
from orchestrator.study.file import Study

METHODS = ("dense", "skipnet")
BUDGETS = (1.0, 2.0)
BAD = {
    "val_acc is missing": {"val_acc": math.nan},
    "val_acc must lie in [0, 1], got inf": {"val_acc": math.inf},
    "val_acc must lie in [0, 1], got 1.02": {"val_acc": 1.02},
    "val_macs_mean must lie in (0, 1e+18), got 1.797e+308": {"val_macs_mean": 1.797e308},
    "val_macs_mean must lie in (0, 1e+18), got inf": {"val_macs_mean": math.inf},
    "val_macs_mean must lie in (0, 1e+18), got 0": {"val_macs_mean": 0.0},
    "val_macs_max must lie in (0, 1e+18), got -1": {"val_macs_max": -1.0},
    "FAIL: loss is nan at epoch 3": {"state": "FAIL", "reason": "loss is nan at epoch 3"},
    "RUNNING": {"state": "RUNNING"},
}
"""Why a row has no figure, and what it holds."""


def small(name: str = "demo", **changes: Any) -> Study:
    fields = {"budgets": list(BUDGETS), "methods": {name: {} for name in METHODS}}
    return study(name, **{**fields, **changes})


def few(seeds: int = 3) -> list[Row]:
    """Six search trials a method, and the confirm runs."""
    rows = study_rows(seeds=seeds, methods=METHODS, budgets=BUDGETS)
    chosen = {r.config for r in rows if r.role == "confirm"}
    return [r for r in rows if r.role == "confirm" or r.trial in chosen or r.trial[-1] in "0246"]


class Place:
    """A folder as `--out`, with a store of two studies in it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.file = out / "mlflow.db"
        self.uri = f"sqlite:///{self.file}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def runs(self, query: str = "tags.role LIKE 'trial-%'", name: str = "demo") -> list[Run]:
        experiment = self.client.get_experiment_by_name(name)
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], query))

    def run(self, trial: str) -> Run:
        (run,) = self.runs(f"tags.trial = '{trial}'")
        return run

    def read(self, *, refresh: bool = False) -> list[Row]:
        return store.read_trials(self.uri, "demo", cache=self.out / "cache", refresh=refresh)

    def truth(self) -> list[Row]:
        return store.read_trials(self.uri, "demo")

    def cached(self) -> Path:
        (file,) = (self.out / "cache").glob("trials-*.parquet")
        return file


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
