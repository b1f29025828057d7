"""Tables for programs: one JSON document or CSV on standard output, and nothing else there."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from boards import undraw
from command import Called, called
from kept import made
from places import few, refusal, small
from stores import held

import isoflop as public
from methods import METHODS
from orchestrator.board.verdict import verdict


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two studies that can be compared."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [replace(row, params={**row.params, "recipe.epochs": 4}) for row in few()]
    for name in ("demo", "other"):
        held(f"sqlite:///{folder / 'mlflow.db'}", folder, small(name), rows)
    return folder


@pytest.fixture(autouse=True)
def isoflop(
    undrawn: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., Called]:
    """The command, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(called, capsys)


def documents(isoflop: Callable[..., Called], *words: str) -> tuple[Any, pd.DataFrame]:
    """What a command prints with --json and with --csv."""
    printed = [isoflop(*words, way) for way in ("--json", "--csv")]
    assert [(each.code, each.err) for each in printed] == [(0, "")] * 2
    return json.loads(printed[0].out), pd.read_csv(io.StringIO(printed[1].out))


def test_a_board_is_the_public_frame(isoflop: Callable[..., Called], out: Path) -> None:
    document, frame = documents(isoflop, "board", "demo", "--out", str(out))
    results = public.open("demo", out=out)
    board = results.board()
    assert list(frame.columns) == list(board.columns) == list(document["board"][0])
    assert frame["mean"].tolist() == pytest.approx(board["mean"].tolist(), rel=1e-9)
    assert [row["mean"] for row in document["board"]] == board["mean"].tolist(), "every digit"
    assert document["board"][0]["worth"] is None, "no NaN, which is no JSON"
    assert document["verdict"] == verdict(results.outcome().board)
    assert Path(document["report"]).is_file()


def test_pairs_and_differences_are_the_public_frames(
    isoflop: Callable[..., Called], out: Path
) -> None:
    document, frame = documents(isoflop, "compare", "demo", "--at", "1,2", "--out", str(out))
    pairs = public.open("demo", out=out).compare(at=[1, 2])
    assert len(frame) == len(document["pairs"]) == len(pairs)
    assert [row["difference"] for row in document["pairs"]] == pairs["difference"].tolist()
    document, frame = documents(isoflop, "compare", "demo", "other", "--out", str(out))
    assert (document["first"], document["second"]) == ("demo", "other")
    assert set(frame["method"]) == {"dense", "skipnet"}


def test_curves_are_printed_in_place_of_a_file(
    isoflop: Callable[..., Called], out: Path, tmp_path: Path
) -> None:
    document, frame = documents(isoflop, "table", "demo", "--out", str(out))
    assert len(document["rows"]) == len(frame) > 10
    assert list(tmp_path.iterdir()) == []
    assert isoflop("table", "demo", "--out", str(out), "--csv", "--to", "x").code == 2


def test_methods_and_their_fields_are_rows(isoflop: Callable[..., Called]) -> None:
    document, frame = documents(isoflop, "methods")
    assert frame["method"].tolist() == list(METHODS)
    assert [row["method"] for row in document["methods"]] == list(METHODS)
    document, frame = documents(isoflop, "methods", "skipnet")
    assert frame["field"].tolist() == list(METHODS["skipnet"].model_fields)
    assert document["method"] == "skipnet"
    assert set(document["published"]) == set(METHODS["skipnet"].PUBLISHED)


def test_a_plan_has_a_row_a_method(isoflop: Callable[..., Called]) -> None:
    document, frame = documents(isoflop, "plan", "quickstart", "--steps", "0")
    assert frame["method"].tolist() == [each["method"] for each in document["methods"]]
    assert frame["trials"].tolist() == [each["trials"] for each in document["methods"]]


def test_a_verification_lists_flaws_and_fails_in_any_format(
    isoflop: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undraw(monkeypatch)
    place = made(tmp_path / "runs")
    document, frame = documents(isoflop, "verify", "kept", "--out", str(place.out))
    assert document["follows"]
    assert sum(document["checked"].values()) > 100
    assert (document["flaws"], len(frame)) == ([], 0)
    evidence = next((place.out / "mlartifacts").rglob("*.parquet"))
    content = bytearray(evidence.read_bytes())
    content[-20] ^= 1
    evidence.write_bytes(content)
    done = isoflop("verify", "kept", "--out", str(place.out), "--json")
    assert done.code == 1
    assert json.loads(done.out)["flaws"]
    assert len(done.err.splitlines()) == 1


def test_the_verdict_stands_last_and_alone_where_quiet(
    isoflop: Callable[..., Called], out: Path
) -> None:
    said = verdict(public.open("demo", out=out).outcome().board)
    whole = isoflop("board", "demo", "--out", str(out)).out
    brief = isoflop("board", "demo", "--out", str(out), "--quiet").out
    for printed in (whole, brief):
        assert " ".join(printed.split()).endswith(" ".join(said.split()))
    assert "letters" in whole
    assert "letters" not in brief
    assert brief.startswith("Report:")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("board demo --json --csv", "one document"),
        ("methods --csv --json", "one document"),
        ("board demo --axis parameters --csv", "--axis"),
    ],
)
def test_formats_that_exclude_each_other_are_refused(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refusal(words.split(), capsys)
