"""Learning curves: whose are shown, and that the log tells them as they were."""

import random
from pathlib import Path

from boards import BUDGETS, row, study_rows
from stores import events, study

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.record.events import decode
from orchestrator.record.log import Log, logged
from orchestrator.report.content import SEARCHED, shown


def test_the_confirm_runs_and_some_of_a_long_search_are_shown() -> None:
    rows = study_rows()
    rows += [row(trial=f"dense-{i:05d}", val_macs_mean=9e6) for i in range(100, 400)]
    rows.append(row(trial="dense-00500", state="FAIL", reason="refused: 9 MMACs"))
    board = leaderboard(rows, Rules(budgets=BUDGETS, primary=2))
    found = shown(board, rows)
    names = [one.trial for one in found]
    assert len(names) == len(set(names))
    cells = {seed.trial for cell in board.cells for seed in cell.seeds}
    assert {one.trial for one in found if one.role == "confirm"} == cells
    searched = [one.trial for one in found if one.method == "dense" and one.role == "search"]
    assert len(searched) == SEARCHED
    assert (searched[0], searched[-1]) == ("dense-00000", "dense-00399")
    random.Random(2).shuffle(rows)
    assert shown(board, rows) == found


def test_the_log_tells_the_curves_that_are_asked_for(tmp_path: Path) -> None:
    rows = study_rows(methods=("dense",))[:4]
    told = events(study(), rows)
    log = Log(tmp_path / "wal.jsonl")
    for event in told:
        log.append(decode(event))
    for event in (
        e for e in told if e["event"] == "epoch"
    ):  # a trial that went on from a checkpoint
        log.append(decode(event))
    log.close()
    curves = logged(tmp_path / "wal.jsonl", rows[1:3])
    assert list(curves) == [one.trial for one in rows[1:3]]
    for trial, curve in curves.items():
        assert curve == [
            (event["step"], event["metrics"]["curve/val_acc"])
            for event in told
            if event["event"] == "epoch" and event["trial"] == trial
        ]
    assert logged(tmp_path / "none.jsonl", rows) == {}
