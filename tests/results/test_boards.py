"""Boards and comparisons from a real MLflow store alone."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from places import BUDGETS, METHODS, Place, few, refusal, small
from stores import held

from methods.errors import StudyError
from orchestrator import store
from orchestrator.board.verdict import notes
from orchestrator.cli import main
from orchestrator.results import boards
from orchestrator.store.lines import board_note


def test_a_board_comes_from_the_store_alone_and_twice_the_same(place: Place) -> None:
    first = boards.show("demo", place.out)
    assert first.board.cell("skipnet", 2).n == 3
    files = {path.name: path.read_bytes() for path in first.report.parent.iterdir()}
    assert b"Learning curves" in files["report.html"]
    shutil.rmtree(place.out / "demo")
    again = boards.show("demo", place.out, refresh=True)
    assert {path.name: path.read_bytes() for path in again.report.parent.iterdir()} == files


def test_every_number_of_the_board_leads_to_its_runs(place: Place, tmp_path: Path) -> None:
    board = boards.at_budgets("demo", [], place.out)
    (tmp_path / "files").mkdir()
    store.write_board(place.uri, "demo", board, tmp_path / "files")
    lines = {run.data.tags["method"]: run for run in place.runs("tags.role = 'leaderboard'")}
    for name in METHODS:
        note = lines[name].data.tags["mlflow.note.content"]
        for cell in (board.cell(name, budget) for budget in BUDGETS):
            assert cell.choice is not None
            for trial in (cell.choice.config, *(r.trial for r in cell.seeds)):
                assert f"/runs/{place.run(trial).info.run_id})" in note
    long = board_note(board, "dense", "1" * 1000, "ab", {r.trial: "ab" for r in few()})
    assert len(long) < 8000


def test_another_primary_budget_is_exploratory_and_leaves_the_declared_report(place: Place) -> None:
    declared = boards.show("demo", place.out)
    content = declared.report.read_bytes()
    other = boards.show("demo", place.out, primary=1)
    assert other.board.primary == 1
    assert any("exploratory" in note for note in notes(other.board))
    assert all(g.p_holm is None for g in other.board.gains if g.budget != 1)
    assert other.report != declared.report
    assert declared.report.read_bytes() == content
    assert b"Exploratory: the study declared another" in other.report.read_bytes()
    with pytest.raises(StudyError, match="one of the study's budgets, 1, 2, but got 3"):
        boards.show("demo", place.out, primary=3)


def test_at_other_budgets_only_what_was_confirmed_is_chosen(place: Place) -> None:
    board = boards.at_budgets("demo", [1, 1.9, 2, 0.1], place.out)
    assert board.rules.undeclared == (0.1, 1.9)
    for name in METHODS:
        assert board.cell(name, 1.9).choice is not None
        assert board.cell(name, 1.9).seeds == board.cell(name, 1).seeds
        assert board.cell(name, 0.1).state == "no point"
    whole = boards.at_budgets("demo", [], place.out)
    assert board.cell("skipnet", 2) == whole.cell("skipnet", 2)
    better = {(c.method, c.budget): c.config for c in board.passed_over}
    macs = {r.trial: r.val_macs_mean or 0 for r in few()}
    assert all(macs[config] <= 1.9e6 for config in better.values())
    assert any("never confirmed" in note for note in notes(board)) == bool(better)


def test_methods_are_named_and_dense_stands(place: Place) -> None:
    board = boards.at_budgets("demo", [], place.out, methods=["skipnet"])
    assert set(board.methods) == {"dense", "skipnet"}
    assert board.budgets == BUDGETS
    assert boards.at_budgets("bad", [], place.out, methods=["dense"]).methods == ("dense",)
    with pytest.raises(StudyError, match="did you mean 'skipnet'"):
        boards.at_budgets("demo", [], place.out, methods=["skipnt"])


def test_two_studies_side_by_side(place: Place, tmp_path: Path) -> None:
    better = [
        dataclasses.replace(r, test_acc=r.test_acc + 0.02 if r.test_acc is not None else None)
        for r in few()
    ]
    later = small("later", recipe={"epochs": 8}, seed=4, budgets=[1, 4], primary=4)
    held(place.uri, tmp_path / "logs", later, better)
    found = boards.two_studies("demo", "later", [], place.out)
    assert [(d.method, d.budget) for d in found.differences] == [
        (name, 1.0) for name in found.methods
    ]
    for difference in found.differences:
        assert difference.result.difference == pytest.approx(0.02)
        assert difference.p_holm is not None
        assert difference.result.p is not None
        assert difference.p_holm >= difference.result.p
    assert found.exploratory
    assert ("recipe.epochs", "4", "8") in found.unlike
    assert any("different images" in note for note in found.notes)
    wider = boards.two_studies("demo", "later", [1, 2], place.out)
    assert wider.second.board.rules.undeclared == (2.0,)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": "mnist5k"}, "same data"),
        ({"budgets": [7], "primary": 7}, "share a budget"),
        ({"methods": {"condconv": {}}}, "share a method"),
    ],
)
def test_studies_that_cannot_be_compared_say_why(
    place: Place, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    held(place.uri, tmp_path / "logs", small("other", **changes), [])
    with pytest.raises(StudyError, match=sentence):
        boards.two_studies("demo", "other", [], place.out)


def test_compare_prints_both_kinds(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(place.out)]
    with pytest.raises(SystemExit) as ended:
        main(["compare", "demo", "--at", "1,1.5", *out])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "<=1.5†" in shown
    assert "skipnet \N{MINUS SIGN} dense" in shown
    with pytest.raises(SystemExit):
        main(["compare", "demo", "bad", *out])
    shown = capsys.readouterr().out
    assert "Test accuracy of bad less that of demo" in shown
    assert "methods.condconv" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["compare", "demo", "--at", "ten"], "--at must be positive numbers"),
        (["compare", "demo", "--at=-1"], "--at must be positive numbers"),
        (["compare", "demo", "demo"], "both are 'demo'"),
        (["compare", "dmo"], "did you mean 'demo'"),
        (["board", "demo", "--primary", "3"], "one of the study's budgets"),
    ],
)
def test_a_mistake_is_one_line(
    place: Place, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refusal([*words, "--out", str(place.out)], capsys)
