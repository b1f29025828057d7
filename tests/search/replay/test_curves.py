"""A sweep's curves as a table that stands alone."""

from pathlib import Path

import pandas as pd
import pytest
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
    with pytest.raises(StorageError, match="isoflop table"):
        curves.read(tmp_path / "y.parquet")
