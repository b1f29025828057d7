"""A sweep's curves as a table that stands alone."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from command import called
from tables import synthetic

from methods.api import Task
from methods.errors import StorageError
from orchestrator.record.events import decode_metrics, decode_points
from orchestrator.record.ledger import Ledger
from orchestrator.record.provenance import provenance
from orchestrator.record.result import Ending
from orchestrator.search.replay import curves
from orchestrator.study.file import Study
from orchestrator.study.space import spaces

STUDY = Study.model_validate(
    {
        "name": "s",
        "data": "digits",
        "budgets": [0.5, 1],
        "recipe": {"epochs": 2},
        "methods": {"dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}}},
    }
)
PROVENANCE = provenance(STUDY, Task("digits", 1, 8, 8, 10), 360)
POINT = {"point": "", "val_acc": 0.9, "val_macs_mean": 4e5, "val_macs_p95": 4e5}


def metrics(accuracy: float) -> dict[str, float]:
    return {
        "curve/val_acc": accuracy,
        "curve/val_loss": 0.3,
        "curve/macs_mean_m": 0.4,
        "curve/seconds": 0.5,
    }


def recorded(folder: Path) -> Ledger:
    """One whole trial, one failed, one refused, one that runs."""
    ledger = Ledger(folder, STUDY)
    ledger.history.begin(PROVENANCE, lag=1, device="cpu")
    space = spaces(STUDY)["dense"]
    whole, failed, refused, running = (
        ledger.history.add(space, {"width": width}) for width in (0.5, 0.25, 1.0, 0.75)
    )
    for ticket in (whole, failed, refused, running):
        ledger.history.start(ticket)
    for step in (1, 2):
        ledger.history.epoch(whole.trial, step, step, decode_metrics(metrics(0.4 * step)))
    ledger.history.end(whole.trial, Ending("COMPLETE", points=decode_points([POINT]), seconds=1.5))
    ledger.history.epoch(failed.trial, 1, 3, decode_metrics(metrics(0.1)))
    ledger.history.end(failed.trial, Ending("FAIL", reason="diverged"))
    ledger.history.end(refused.trial, Ending("FAIL", reason="refused: too dear"))
    ledger.history.epoch(running.trial, 1, 4, decode_metrics(metrics(0.2)))
    return ledger


def test_a_table_holds_what_ended_while_the_driver_runs(tmp_path: Path) -> None:
    ledger = recorded(tmp_path)
    table = curves.export(tmp_path)
    ledger.close()
    frame = table.rows
    assert list(frame["trial"]) == ["dense-00000", "dense-00000", "dense-00001"]
    assert frame["val_acc"].tolist() == [0.4, 0.8, 0.1]
    assert frame["macs_mean"].tolist() == [4e5] * 3
    assert frame["final_acc"].tolist()[:2] == [0.9, 0.9]
    assert pd.isna(frame["final_acc"][2])
    assert frame["state"].tolist() == ["COMPLETE", "COMPLETE", "FAIL"]
    assert (frame["floor_macs"] > 0).all()
    assert table.free["dense"] == spaces(STUDY)["dense"].free


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    for i, table in enumerate((curves.export(tmp_path), synthetic(3))):
        file = tmp_path / f"{i}.parquet"
        curves.write(table, file)
        again = curves.read(file)
        assert again.rows.equals(table.rows.sort_values(["trial", "step"], ignore_index=True))
        assert (again.study, again.free, again.fixed) == (table.study, table.free, table.fixed)
        assert again.provenance == table.provenance
        twin = tmp_path / "twin.parquet"
        curves.write(again, twin)
        assert twin.read_bytes() == file.read_bytes()


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing ran"):
        curves.export(tmp_path)
    with pytest.raises(StorageError, match="is a folder; `isoflop table STUDY` writes"):
        curves.read(tmp_path)
    (tmp_path / "x.parquet").write_text("no table")
    with pytest.raises(StorageError, match="must be a table of curves"):
        curves.read(tmp_path / "x.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "y.parquet")
    with pytest.raises(StorageError, match="of version 1, but is none; `isoflop table`"):
        curves.read(tmp_path / "y.parquet")


def test_a_table_that_is_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    file, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    curves.write(synthetic(3), file)
    content = file.read_bytes()
    for end in [*range(0, len(content), len(content) // 40), len(content) - 1]:
        cut.write_bytes(content[:end])
        with pytest.raises(StorageError, match=f"^{cut} must be a table of curves") as refused:
            curves.read(cut)
        assert len(str(refused.value).splitlines()) == 1


def altered(file: Path, *, first: int | None = None, lacking: str = "", **facts: Any) -> None:
    """Writes a table with its first rows, a column less, or other facts (None: without them)."""
    curves.write(synthetic(3), file)
    content = pq.read_table(file)
    kept = json.loads(content.schema.metadata[curves.KEY]) | facts
    kept = {name: value for name, value in kept.items() if value is not None}
    content = content.slice(0, first).replace_schema_metadata({curves.KEY: json.dumps(kept)})
    pq.write_table(content.drop_columns([lacking]) if lacking else content, file)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "of version 1, but is one of version 2; `isoflop table` writes one"),
        ({"version": None}, "of version 1, but is none; `isoflop table` writes one"),
        ({"first": 10}, "a whole table of curves, but has 10 of 36 rows; `isoflop table` writes"),
        ({"first": 0}, "a whole table of curves, but has 0 of 36 rows; `isoflop table` writes"),
        ({"lacking": "val_acc"}, "a whole table of curves, but lacks val_acc; `isoflop table`"),
        ({"free": None}, "its study, spaces and provenance, but they cannot be read ('free')"),
        ({"fixed": 3}, "its study, spaces and provenance, but they cannot be read ('int' object"),
        ({"study": {"name": "s"}}, "but they cannot be read (3 validation errors for Study"),
        ({"provenance": 3}, "but they cannot be read (a provenance must be a JSON object"),
    ],
)
def test_another_version_or_a_part_of_a_table_is_one_line_and_exit_code_2(
    change: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.parquet"
    altered(file, **change)
    done = called(capsys, "simulate", str(file), "--searcher", "random")
    assert done.code == 2
    assert done.err.startswith(f"isoflop: {file} must be a")
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1


def test_a_table_of_before_its_rows_were_counted_is_read(tmp_path: Path) -> None:
    altered(tmp_path / "t.parquet", rows=None)
    assert len(curves.read(tmp_path / "t.parquet").rows) == 36
