"""A study that an earlier version left half done is finished by this one, to the last digit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from executor import job, rows_without_ray

from methods.data.load import load as load_data
from orchestrator.record.events import encode_points
from orchestrator.record.ledger import Ledger
from orchestrator.record.trials import Ticket
from orchestrator.study.file import Study, load
from orchestrator.trial.run import results

RECORDED = Path(__file__).parents[1] / "data" / "halfdone"
FIGURES = ("val_acc", "val_macs_mean", "test_acc", "test_macs_mean")


@pytest.mark.full
@pytest.mark.slow
def test_a_recorded_half_of_a_study_is_finished_as_it_was(tmp_path: Path) -> None:
    """Last digits depend on the processor's kernels: they are compared where one ended trial that
    is trained again here has the recorded figures."""
    study, folder = load(RECORDED / "study.yaml"), tmp_path / "halfdone"
    shutil.copytree(RECORDED, folder)
    rows = rows_without_ray(study, folder, lag=1)
    ends = {end["trial"]: end for end in json.loads((RECORDED / "finished-rows.json").read_text())}
    assert len(ends) == 20
    assert {row.trial: (row.state, row.reason, row.epochs) for row in rows} == {
        name: (end["state"], end["reason"], end["epochs"]) for name, end in ends.items()
    }
    if trained_again(study, folder, "dense-00000") != ends["dense-00000"]["points"]:
        pytest.skip("all but the last digits was shown: other kernels than the recorded ones")
    figures = {(r.trial, r.point): tuple(getattr(r, name) for name in FIGURES) for r in rows}
    assert figures == {
        (name, point["point"]): tuple(point.get(figure) for figure in FIGURES)
        for name, end in ends.items()
        for point in end["points"]
    }


def trained_again(study: Study, folder: Path, trial: str) -> list[dict[str, Any]]:
    """The operating points of a recorded search trial, trained anew in this process."""
    ledger = Ledger(folder, study)
    start = ledger.history.records[trial].start
    ledger.close()
    ticket = Ticket(trial, start.method, "search", start.config, start.seed, start.params)
    data = load_data(study.data, seed=study.seed)
    *_, last = results(job(study, ticket, folder / "again"), lambda: data)
    assert last.ending is not None
    return encode_points(last.ending.points)
