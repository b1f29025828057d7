"""A board that an earlier version published, with less on it, is compared as far as it goes."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import pytest
from places import few, small

from methods.api import Task
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Rules
from orchestrator.record.provenance import provenance
from orchestrator.report import frames
from orchestrator.report.content import facts
from orchestrator.results.board_check import check_board
from orchestrator.results.findings import Findings
from orchestrator.store import Stored, StoredRun
from orchestrator.store.lines import LAYOUT, board_run


@pytest.fixture(scope="module")
def board() -> Board:
    study = small()
    return leaderboard(few(), Rules.of(study, provenance(study, Task("digits", 1, 8, 8, 10), 360)))


@pytest.fixture(scope="module")
def published(board: Board) -> Stored:
    """What a store holds of the board, as far as the board's check reads it."""
    files = {
        "leaderboard.csv": frames.csv(frames.board_table(board)),
        "leaderboard.parquet": frames.parquet(frames.board_table(board)),
        "seeds.csv": frames.csv(frames.seeds_table(board)),
        "pairs.csv": frames.csv(frames.pairs_table(board)),
        "provenance.json": json.dumps({"board": facts(board)}, default=str).encode(),
    }
    runs = []
    for method in board.methods:
        line = board_run(board, method)
        tags = {"method": method, **LAYOUT, **line.words}
        runs.append(StoredRun(method, "FINISHED", tags, line.params, line.metrics))
    return Stored("", (), tuple(runs), None, files, {})


def checked(stored: Stored, board: Board) -> Findings:
    findings = Findings("demo")
    check_board(stored, board, findings)
    return findings


def with_files(stored: Stored, **files: bytes) -> Stored:
    named = {name.replace("_", "."): content for name, content in files.items()}
    return replace(stored, files={**stored.files, **named})


def table(stored: Stored, name: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(stored.files[name]), dtype=str, keep_default_na=False)


def without(content: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in content.items() if key != name}


def earlier(stored: Stored, column: str) -> Stored:
    """The board by a version whose tables had no such column."""
    parquet = pd.read_parquet(io.BytesIO(stored.files["leaderboard.parquet"]))
    return with_files(
        stored,
        leaderboard_csv=frames.csv(table(stored, "leaderboard.csv").drop(columns=column)),
        leaderboard_parquet=frames.parquet(parquet.drop(columns=column)),
    )


def test_a_board_as_it_was_published_has_no_notes(board: Board, published: Stored) -> None:
    findings = checked(published, board)
    assert (findings.flaws, findings.notes) == ([], [])


@pytest.mark.parametrize("column", ["p_best", "gain_p_holm", "params"])
def test_a_column_that_an_earlier_version_lacked_is_a_note(
    board: Board, published: Stored, column: str
) -> None:
    findings = checked(earlier(published, column), board)
    assert findings.flaws == []
    assert findings.notes == [
        f"report/leaderboard.{form} was published before it had {column}: not compared."
        for form in ("csv", "parquet")
    ]


def test_the_other_columns_of_such_a_board_are_compared(board: Board, published: Stored) -> None:
    old = table(earlier(published, "p_best"), "leaderboard.csv")
    old.loc[1, "mean"] = "0.5"
    forged = with_files(earlier(published, "p_best"), leaderboard_csv=frames.csv(old))
    assert [(flaw.what, flaw.stored) for flaw in checked(forged, board).flaws] == [("mean", "0.5")]


def test_a_column_that_names_its_row_is_never_missing(board: Board, published: Stored) -> None:
    keyless = table(published, "pairs.csv").drop(columns="other")
    findings = checked(with_files(published, pairs_csv=frames.csv(keyless)), board)
    assert {flaw.what for flaw in findings.flaws} == {"other"}


def test_a_fact_or_a_metric_that_an_earlier_version_lacked_is_a_note(
    board: Board, published: Stored
) -> None:
    content = json.dumps({"board": without(facts(board), "area")}, default=str).encode()
    runs = tuple(
        replace(run, metrics={n: v for n, v in run.metrics.items() if not n.startswith("seeds/")})
        for run in published.boards
    )
    old = with_files(replace(published, boards=runs), provenance_json=content)
    findings = checked(old, board)
    assert findings.flaws == []
    assert findings.notes == [
        "report/provenance.json, board was published before it had area: not compared.",
        "the board in MLflow was published before it had seeds: not compared.",
    ]


def test_one_run_without_a_metric_that_others_have_is_a_flaw(
    board: Board, published: Stored
) -> None:
    first, *others = published.boards
    lacking = replace(first, metrics=dict(list(first.metrics.items())[1:]))
    findings = checked(replace(published, boards=(lacking, *others)), board)
    assert [flaw.stored for flaw in findings.flaws] == ["nothing"]
    assert findings.notes == []


@pytest.fixture
def former(published: Stored) -> Stored:
    """The board by a version that grouped methods, and tested each budget for itself."""
    content = json.loads(published.files["provenance.json"])
    del content["board"]["statistics"]
    content["board"]["verdict"] = "resrep beats dense."
    old = table(published, "leaderboard.csv").drop(columns="letters").assign(group="A", lo="0.1")
    parquet = pd.read_parquet(io.BytesIO(published.files["leaderboard.parquet"]))
    pairs = table(published, "pairs.csv").assign(p_holm="0.01", images_lo="")
    runs = tuple(
        replace(
            run,
            metrics={n: 1.0 if n.startswith("acc_lo/") else v for n, v in run.metrics.items()},
            tags={n: f"{v}, group A" if n.startswith("at_") else v for n, v in run.tags.items()},
        )
        for run in published.boards
    )
    return with_files(
        replace(published, boards=runs),
        provenance_json=json.dumps(content).encode(),
        leaderboard_csv=frames.csv(old),
        leaderboard_parquet=frames.parquet(parquet.assign(group="A", lo=0.1)),
        pairs_csv=frames.csv(pairs),
    )


def test_a_board_of_other_claims_is_compared_by_its_figures(board: Board, former: Stored) -> None:
    findings = checked(former, board)
    assert findings.flaws == []
    assert "with other statistics" in findings.notes[0]


@pytest.mark.parametrize("name", ["leaderboard.csv", "leaderboard.parquet", "seeds.csv"])
def test_a_forged_figure_of_such_a_board_is_found(board: Board, former: Stored, name: str) -> None:
    column = "test_acc" if name == "seeds.csv" else "mean"
    if name.endswith("csv"):
        old = table(former, name)
        old.loc[1, column] = "0.5"
        forged = frames.csv(old)
    else:
        frame = pd.read_parquet(io.BytesIO(former.files[name]))
        frame.loc[1, column] = 0.5
        forged = frames.parquet(frame)
    files = {**former.files, name: forged}
    assert [flaw.what for flaw in checked(replace(former, files=files), board).flaws] == [column]
