"""The projection into a real MLflow: nothing lost, nothing doubled, every digit back."""

import contextlib
import itertools
import json
import math
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mirrored import STUDY, agrees, events, forked, logged, runs
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from orchestrator import store
from orchestrator.record import evidence
from orchestrator.record.events import decode_points
from orchestrator.store import mirror
from orchestrator.store import tags as layout


def test_everything_arrives_and_comes_back(tmp_path: Path, uri: str) -> None:
    lines = events()
    store.project(logged(tmp_path, lines), uri, STUDY)
    agrees(uri, lines)
    by_key = {run.data.tags["key"]: run for run in runs(uri)}
    assert by_key["dense-00000"].info.status == "FINISHED"
    assert by_key["dense-00090"].info.status == "FAILED"
    assert by_key["dense-00090"].data.tags["reason"] == "diverged: loss is nan at epoch 1"
    assert by_key["dense-00091"].info.status == "FINISHED"
    outcomes = [by_key[f"dense-{n:05d}"].data.tags.get("outcome") for n in (0, 90, 91, 92)]
    assert outcomes == ["COMPLETE", "FAIL", "over budget", None]
    assert by_key["dense-00092"].info.status == "RUNNING"
    confirm = by_key["skipnet-00000-seed1"]
    parent = by_key["sweep/skipnet"]
    assert confirm.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert confirm.data.tags["role"] == "trial-confirm"
    assert json.loads(confirm.data.tags["budget_mmac"]) == [0.5, 1.0]
    assert parent.info.status == "FINISHED"
    assert confirm.data.params["depth"] == "14"
    end = next(e for e in lines if e["event"] == "end" and e["trial"] == "skipnet-00000-seed1")
    assert confirm.data.metrics["test/acc"] == round(end["points"][0]["test_acc"], 4)
    assert confirm.data.metrics["policy/test/acc"] == round(end["points"][1]["test_acc"], 4)
    assert store.read_study(uri, STUDY).classes == 10


def test_projecting_again_changes_nothing(tmp_path: Path, uri: str) -> None:
    lines = events()
    log = logged(tmp_path, lines)
    store.project(log, uri, STUDY)
    before = {run.info.run_id: run.to_dictionary() for run in runs(uri, ViewType.ALL)}
    store.project(log, uri, STUDY)
    after = {run.info.run_id: run.to_dictionary() for run in runs(uri, ViewType.ALL)}
    assert after == before


@pytest.mark.parametrize("writes", [1, 5, 6, 12])
def test_a_projection_that_died_after_any_write_is_finished_by_the_next(
    tmp_path: Path, uri: str, writes: int
) -> None:
    lines = events(trials=1)
    log = logged(tmp_path, lines)
    left = itertools.count(writes - 1, -1)

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            outcome = write(*arguments, **named)
            if next(left) == 0:
                os._exit(9)
            return outcome

        return call

    def project() -> None:
        for name in ("create_run", "log_batch", "set_terminated", "update_run", "log_dict"):
            setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
        store.project(log, uri, STUDY)

    assert forked(project) == 9
    store.project(log, uri, STUDY)
    agrees(uri, lines)


def test_many_operating_points_lose_no_digit(tmp_path: Path, uri: str) -> None:
    lines = events(trials=1)
    end = next(event for event in lines if event["event"] == "end")
    only = end["points"][0]
    end["points"] = [{**only, "point": f"width/{i}", "val_acc": i / 97} for i in range(97)]
    assert len(json.dumps(end["points"])) > 8000
    store.project(logged(tmp_path, lines), uri, STUDY)
    agrees(uri, lines)


def test_what_is_not_finite_stays_out_of_the_metrics_and_stops_nothing(
    tmp_path: Path, uri: str
) -> None:
    lines = events(trials=1)
    end = next(event for event in lines if event["event"] == "end")
    end["points"][0] |= {"val_acc": math.inf, "val_macs_mean": 0.0}
    epoch = next(event for event in lines if event["event"] == "epoch")
    epoch["metrics"]["curve/train_loss"] = math.nan
    store.project(logged(tmp_path, lines), uri, STUDY)
    agrees(uri, lines)
    run = next(run for run in runs(uri) if run.data.tags.get("trial") == "dense-00000")
    assert "val/acc" not in run.data.metrics
    assert all(math.isfinite(value) for value in run.data.metrics.values())


def test_what_is_refused_for_good_is_set_aside(tmp_path: Path, uri: str) -> None:
    lines = events(trials=1)
    again = {**lines[1], "params": {"depth": 20}, "attempt": 2}  # no other value of a parameter
    log = logged(tmp_path, [*lines[:2], again, *lines[2:]])
    store.project(log, uri, STUDY)
    agrees(uri, lines)
    text = (tmp_path / "mlflow-refused.jsonl").read_text()
    refused = [json.loads(line) for line in text.splitlines()]
    assert [entry["event"]["params"] for entry in refused] == [{"depth": 20}]


def test_what_alone_fails_again_and_again_holds_up_nothing(tmp_path: Path, uri: str) -> None:
    lines = events(trials=1)
    epoch = next(event for event in lines if event["event"] == "epoch")
    epoch["metrics"]["curve/lr"] = 0.5
    store.claim(uri, STUDY, "ab12")
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        database.execute(  # an error of the database's own, as a server's 5xx is: worth a retry
            "CREATE TRIGGER bad BEFORE INSERT ON metrics WHEN NEW.key = 'curve/lr' "
            "BEGIN SELECT abs(-9223372036854775807 - 1); END"
        )
    writer = mirror.Projection(logged(tmp_path, lines), uri, STUDY)
    failures = 0
    while writer.offset < writer.size():
        try:
            writer.advance()
        except MlflowException:
            failures += 1
            writer.forget()
        assert failures < 20
    assert failures >= mirror.TRIES - 1
    text = (tmp_path / "mlflow-refused.jsonl").read_text()
    refused = [json.loads(line) for line in text.splitlines()]
    assert [entry["event"]["key"] for entry in refused] == ["curve/lr"]
    del epoch["metrics"]["curve/lr"]
    agrees(uri, lines)


def test_a_store_that_takes_nothing_blames_no_event(tmp_path: Path, uri: str) -> None:
    lines = events(trials=1)
    store.claim(uri, STUDY, "ab12")
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        for table in ("runs", "experiment_tags"):
            database.execute(
                f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} "
                "BEGIN SELECT abs(-9223372036854775807 - 1); END"
            )
    writer = mirror.Projection(logged(tmp_path, lines), uri, STUDY)
    for _ in range(2 * mirror.TRIES):
        with pytest.raises(MlflowException):
            writer.advance()
        writer.forget()
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        for table in ("runs", "experiment_tags"):
            database.execute(f"DROP TRIGGER no_{table}")
    writer.advance()
    agrees(uri, lines)
    assert not writer.refused


def test_a_run_that_a_lost_answer_doubled_is_one_again(tmp_path: Path, uri: str) -> None:
    lines = events(trials=1)
    log = logged(tmp_path, lines)
    store.project(log, uri, STUDY)
    original = runs(uri)[0]
    MlflowClient(uri).create_run(original.info.experiment_id, tags=original.data.tags)
    store.project(log, uri, STUDY)
    agrees(uri, lines)


def test_evidence_is_an_artefact_before_its_run_ends(tmp_path: Path, uri: str) -> None:
    lines = events(trials=1)
    end = next(e for e in lines if e["event"] == "end" and e["trial"] == "skipnet-00000-seed1")
    end["evidence"] = "ab" * 32
    name = evidence.file_name(end["trial"], end["evidence"])
    evidence.place(b"a file", tmp_path / evidence.FOLDER / name)
    log = logged(tmp_path, lines)
    store.project(log, uri, STUDY)
    agrees(uri, lines)
    run = next(run for run in runs(uri) if run.data.tags.get("trial") == end["trial"])
    client = MlflowClient(uri)
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == [name]
    assert run.data.tags["evidence"] == end["evidence"]
    assert store.read_stored(uri, STUDY).evidence == {run.info.run_id: b"a file"}


def test_evidence_that_is_gone_holds_nothing_up(tmp_path: Path, uri: str) -> None:
    lines = events(trials=1)
    end = next(e for e in lines if e["event"] == "end" and e["trial"] == "skipnet-00000-seed1")
    end["evidence"] = "ab" * 32
    store.project(logged(tmp_path, lines), uri, STUDY)
    agrees(uri, lines)
    refused = [json.loads(t) for t in (tmp_path / "mlflow-refused.jsonl").read_text().splitlines()]
    assert [line["event"]["trial"] for line in refused] == [end["trial"]]
    assert store.read_stored(uri, STUDY).evidence == {}


def test_the_layout_names_the_chosen_point_first() -> None:
    points = decode_points(
        [
            {"point": "a", "val_acc": 0.11111, "val_macs_mean": 1e5},
            {"point": "b", "val_acc": 0.2, "val_macs_mean": 1e7, "parameters": 9000},
        ]
    )
    figures = layout.figures(points, "a")
    assert figures["val/acc"] == figures["a/val/acc"] == 0.1111
    assert figures["b/macs/mean_m"] == 10.0
    assert figures["macs/log10"] == 5.0
    assert layout.figures(points, "")["val/acc"] == 0.2
    assert figures["b/size/parameters"] == layout.figures(points, "b")["size/parameters"] == 9000
    assert "size/parameters" not in figures, "an earlier version did not measure it"
    assert layout.figures([], "a") == {}


def test_a_server_error_is_tried_again_and_a_refusal_is_not() -> None:
    assert mirror._passing(MlflowException("away"))
    assert mirror._passing(ConnectionResetError())
    assert not mirror._passing(MlflowException.invalid_parameter_value("@"))
    assert not mirror._passing(PermissionError())
    assert not mirror._passing(KeyError("points"))
