"""The board as it was published, compared with the one that the evidence gives."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from orchestrator.board.model import Board
from orchestrator.report import frames
from orchestrator.report.axes import CLOCKED
from orchestrator.report.content import STATISTICS, facts
from orchestrator.results.findings import Findings
from orchestrator.store import Stored
from orchestrator.store.lines import INTERVAL, board_run, is_earlier

CLOSE = 1e-12
"""Relative difference between the last digits of two machines, where a file holds more digits than
it shows."""
CLAIMS = ("state", "lo", "hi", "gain_lo", "gain_hi", "gain_p", "gain_p_holm", "p_best")
"""Columns with a version's claims, beside the figures themselves."""


def check_board(stored: Stored, board: Board, findings: Findings) -> None:
    """Compares the tables, the words and the runs of the published board with `board`.

    The claims of a version with other statistics cannot be recomputed: only the figures of its
    board are compared, and a note says so.
    """
    published = json.loads(stored.files["provenance.json"].decode(errors="replace")).get("board")
    if not (alike := claims_alike(stored)):
        findings.notes.append(
            "The board was published by a version with other statistics: its figures are compared, "
            "its claims are not; `isoflop run` publishes it again."
        )
    expected = {
        "leaderboard.csv": (frames.board_table(board).drop(columns=CLOCKED), 2),
        "seeds.csv": (frames.seeds_table(board), 3),
        "pairs.csv": (frames.pairs_table(board), 3),
    }
    if not alike:
        expected = {
            name: (frame.drop(columns=[column for column in CLAIMS if column in frame]), keys)
            for name, (frame, keys) in expected.items()
            if name != "pairs.csv"
        }
    for name, (frame, keys) in expected.items():
        if name in stored.files:
            _csv(name, stored.files[name], frames.csv(frame), keys, findings)
    if (content := stored.files.get("leaderboard.parquet")) is not None:
        _parquet(content, *expected["leaderboard.csv"], findings, whole=alike)
    if alike:
        _words(published, board, findings)
    _lines(stored, board, findings, words=alike)


def claims_alike(stored: Stored) -> bool:
    """Whether the board was published by a version that makes its claims as this one does."""
    published = json.loads(stored.files["provenance.json"].decode(errors="replace")).get("board")
    return isinstance(published, dict) and published.get("statistics") == STATISTICS


def written_earlier(stored: Stored) -> bool:
    """Whether the board's runs were written by a version that gave them another form."""
    return all(is_earlier(run.tags) for run in stored.boards)


def _words(published: dict[str, Any], board: Board, findings: Findings) -> None:
    """The verdict, the notes and the effort."""
    recomputed = json.loads(json.dumps(facts(board), default=str))
    published = dict(published)
    if published.pop("words", 1) != recomputed.pop("words"):
        findings.notes.append(
            "The board was published by a version with another wording: its verdict and notes are "
            "not compared; `isoflop run` publishes it again."
        )
        for name in ("verdict", "notes"):
            published.pop(name, None)
            del recomputed[name]
    fields = _present("report/provenance.json, board", published, recomputed, 0, findings)
    recomputed = {name: recomputed[name] for name in fields}
    for path, one, other in _leaves(published, recomputed, "board"):
        findings.same("board: words and effort", "report/provenance.json", path, one, other)


def _csv(name: str, content: bytes, recomputed: bytes, keys: int, findings: Findings) -> None:
    """Cell by cell, as text: the digits that are published."""
    tables = [
        csv.DictReader(io.StringIO(text.decode(errors="replace"))) for text in (content, recomputed)
    ]
    heads, expected = ([*(table.fieldnames or ())] for table in tables)
    old, new = (list(table) for table in tables)
    where = f"report/{name}"
    columns = _present(where, heads, expected, keys, findings)
    findings.same("board: tables", where, "rows", len(old), len(new))
    for one, other in zip(old, new, strict=False):
        at = " ".join(list(other.values())[:keys])
        for column in columns:
            findings.same("board: tables", f"{where}, {at}", column, one.get(column), other[column])


def _parquet(
    content: bytes, recomputed: pd.DataFrame, keys: int, findings: Findings, *, whole: bool
) -> None:
    where = "report/leaderboard.parquet"
    try:
        old = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError) as error:
        findings.same("board: tables", where, "table", "a table", f"cannot be read: {error}")
        return
    old = old.drop(columns=CLOCKED, errors="ignore")
    columns = _present(where, old.columns, recomputed.columns, keys, findings)
    if whole:
        findings.same("board: tables", where, "columns", list(old.columns), columns)
    findings.same("board: tables", where, "rows", len(old), len(recomputed))
    cells = list(zip(recomputed["method"], recomputed.iloc[:, 1], strict=True))
    for column in [name for name in columns if name in old]:
        pairs = zip(cells, old[column].tolist(), recomputed[column].tolist(), strict=False)
        for (method, budget), one, other in pairs:
            at = f"{where}, {method} {budget:g}"
            value = other if _close(one, other) else one
            findings.same("board: tables", at, str(column), value, other)


def _present(
    where: str, stored: Iterable[str], recomputed: Iterable[str], keys: int, findings: Findings
) -> list[str]:
    """The columns, or fields, to compare: an earlier version wrote fewer, but always the keys."""
    stored, recomputed = set(stored), list(recomputed)
    absent = [name for name in recomputed[keys:] if name not in stored]
    if absent:
        findings.notes.append(
            f"{where} was published before it had {', '.join(absent)}: not compared."
        )
    return [name for name in recomputed if name not in absent]


def _lines(stored: Stored, board: Board, findings: Findings, *, words: bool) -> None:
    """The runs of the board in MLflow: a line per method, with its claims where `words`."""
    kind = "board: runs in MLflow"
    lines = {run.tags.get("method", ""): run for run in stored.boards}
    earlier = written_earlier(stored)
    computed = {
        method: board_run(board, method, earlier=earlier)
        for method in board.methods
        if method in lines
    }
    figures = _present(
        "the board in MLflow",
        {_figure(metric) for run in lines.values() for metric in run.metrics},
        sorted({_figure(metric) for each in computed.values() for metric in each.metrics}),
        0,
        findings,
    )
    for method in sorted({*board.methods, *lines}):
        run = lines.get(method)
        if run is None or method not in board.methods:
            there, expected = ("a run", "no run") if run else ("no run", "a run")
            findings.same(kind, f"board: {method}", "run", there, expected)
            continue
        told = computed[method].words
        metrics = {
            name: value
            for name, value in computed[method].metrics.items()
            if _figure(name) in figures
        }
        where = f"board: {method} ({run.run_id})"
        claimed = () if words else [name for name in run.metrics if _figure(name) in INTERVAL]
        for name in sorted((metrics.keys() | run.metrics.keys()) - {*claimed}):
            findings.same(kind, where, name, run.metrics.get(name), metrics.get(name))
        tags = {name: value for name, value in run.tags.items() if name.startswith("at_")}
        for name in sorted(told.keys() | tags.keys()) if words else ():
            findings.same(kind, where, name, tags.get(name), told.get(name))


def _figure(metric: str) -> str:
    """What a metric is a figure of: the part of its name before the budget."""
    return metric.partition("/")[0]


def _leaves(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """The values of two JSON trees, by their paths; values that are close enough come as equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from _leaves(one.get(key), other.get(key), f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _leaves(a, b, f"{path}[{i}]")
    else:
        yield path, other if _close(one, other) else one, other


def _close(one: object, other: object) -> bool:
    if not (isinstance(one, float) and isinstance(other, float)):
        return False
    return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)
