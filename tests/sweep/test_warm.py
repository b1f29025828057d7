"""What an earlier study found out teaches a later one, and does not change under its feet."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from arrays import repainted, source, surveyed
from boards import undraw

from methods.api import Task
from methods.errors import StudyError
from orchestrator import store
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.record.events import decode_points
from orchestrator.record.ledger import Ledger
from orchestrator.record.provenance import provenance
from orchestrator.record.result import Ending
from orchestrator.report.content import Report
from orchestrator.report.drawing import write_report
from orchestrator.search.samplers import propose
from orchestrator.study.file import Study
from orchestrator.study.space import spaces
from orchestrator.sweep import warm

SAME = surveyed(source()).digest
TASK = Task("digits", 1, 8, 8, 10)


def study(name: str, low: float = 0.25, **search: Any) -> Study:
    return Study.model_validate(
        {
            "name": name,
            "data": "digits",
            "budgets": [1, 4],
            "recipe": {"epochs": 4},
            "methods": {
                "dense": {"depth": 8, "width": {"low": low, "high": 1, "step": 0.25}},
            },
            "search": {"trials": 40, "sampler": "tpe", **search},
        }
    )


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, template: Path) -> str:
    """The store of a small study that has ended."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(template, folder)
    found, uri = study("early"), f"sqlite:///{folder / 'mlflow.db'}"
    ledger = Ledger(folder / "early", found)
    facts = provenance(found, TASK, 270, SAME)
    ledger.history.begin(facts, lag=1, device="cpu")
    for width in (0.25, 0.5, 0.75):
        ticket = ledger.history.add(spaces(found)["dense"], {"width": width})
        ledger.history.start(ticket)
        base = {"point": "base", "val_acc": 0.1, "val_macs_mean": 2e6}
        point = {"point": "prune", "val_acc": 0.9, "val_macs_mean": 1e6 * width}
        ledger.history.end(ticket.trial, Ending("COMPLETE", points=decode_points([base, point])))
    failed = ledger.history.add(spaces(found)["dense"], {"width": 1.0})
    ledger.history.start(failed)
    ledger.history.end(failed.trial, Ending("FAIL", reason="diverged"))
    store.project(ledger.wal, uri, "early")
    board = leaderboard(ledger.history.rows(), Rules(budgets=(1, 4), primary=4, methods=("dense",)))
    content = Report(board=board, rows=ledger.history.rows(), provenance=facts)
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        report = write_report(content, folder / "early" / "report")
    store.write_board(uri, "early", board, report.parent)
    ledger.close()
    return uri


def test_the_trials_that_lie_in_the_space_teach_the_sampler(tmp_path: Path, uri: str) -> None:
    later = study("later", 0.5, **{"from": "early"})
    trials = warm.taken(later, uri, tmp_path / "later")
    space = spaces(later)["dense"]
    found = warm.within({"dense": space}, trials)["dense"]
    assert sorted(trial.params["width"] for trial in found) == [0.5, 0.75]
    assert sorted(trial.values[1] for trial in found) == [0.5e6, 0.75e6]
    assert [trial.values[0] for trial in found] == pytest.approx([0.1, 0.1])
    assert propose(space, found, later, 30)["width"] in (0.5, 0.75, 1.0)


def test_what_was_taken_once_stands(tmp_path: Path, uri: str) -> None:
    later = study("later", **{"from": "early"})
    folder = tmp_path / "later"
    folder.mkdir()
    first = warm.taken(later, uri, folder)
    warm.keep(first, folder)
    assert warm.taken(later, "sqlite:////nowhere/mlflow.db", folder) == first
    assert len(first) == 3


def test_a_study_that_is_not_there_or_on_other_data_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(StudyError, match=r"search\.from: .*'nowhere'"):
        warm.taken(study("later", **{"from": "nowhere"}), uri, tmp_path / "later")
    other = study("later", **{"from": "early"}).model_copy(update={"data": "mnist5k"})
    with pytest.raises(StudyError, match="must name a study on mnist5k, but 'early' is on digits"):
        warm.taken(other, uri, tmp_path / "later")


def test_a_study_on_other_images_of_one_name_is_refused(tmp_path: Path, uri: str) -> None:
    later, folder = study("later", **{"from": "early"}), tmp_path / "later"
    assert len(warm.taken(later, uri, folder, SAME)) == 3
    other = surveyed(source(train=repainted(7))).digest
    with pytest.raises(StudyError, match="same images, but 'early' read others from digits: train"):
        warm.taken(later, uri, folder, other)


def test_nothing_usable_is_said(tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture) -> None:
    later = study("later", **{"from": "early"}).model_copy(
        update={"methods": {"dense": {"depth": 14}}}
    )
    assert warm.within(spaces(later), warm.taken(later, uri, tmp_path / "later")) == {"dense": []}
    assert "none of its 3 trials lies in a space of this study" in caplog.text
