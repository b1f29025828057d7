"""The projection into a real MLflow: nothing lost, nothing doubled, every digit back."""

import contextlib
import itertools
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mirrored import STUDY, agrees, events, forked, logged, runs
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy import Insert
from sqlalchemy.orm import Session

from orchestrator import store
from orchestrator.record import evidence
from orchestrator.record.events import decode_points
from orchestrator.store import mirror
from orchestrator.store import tags as layout
from orchestrator.store.client import passing


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


@pytest.mark.parametrize("at_once", [True, False])
def test_a_paused_trial_says_so_until_it_resumes(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    lines = [line for line in events() if line.get("trial") in (None, "dense-00000")]
    steps = [n for n, line in enumerate(lines) if line["event"] == "epoch"]
    end = next(n for n, line in enumerate(lines) if line["event"] == "end")
    begun = next(line for line in lines if line["event"] == "start")
    rung = {"event": "rung", "trial": "dense-00000", "step": 1, "time": lines[steps[0]]["time"]}
    if not at_once:
        monkeypatch.setattr(mirror.Projection, "_at_once", lambda *_: False)

    def outcome(*log: dict[str, Any]) -> Any:
        store.project(logged(tmp_path, list(log)), uri, STUDY)
        (run,) = [run for run in runs(uri) if run.data.tags.get("trial") == "dense-00000"]
        return run.info.status, run.data.tags.get("outcome")

    paused = [*lines[: steps[0] + 1], rung]
    resumed = [*paused, {**begun, "attempt": 2}]
    assert outcome(*paused) == ("RUNNING", "paused")
    assert outcome(*resumed) == ("RUNNING", "running")
    assert outcome(*resumed, *lines[steps[0] + 1 : end + 1]) == ("FINISHED", "COMPLETE")


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
    tmp_path: Path, uri: str, writes: int, one_by_one: None
) -> None:
    lines = events(trials=1)
    log = logged(tmp_path, lines)

    left = itertools.count(writes - 1, -1)

    def project() -> None:
        for name in ("create_run", "log_batch", "set_terminated", "update_run", "log_dict"):
            setattr(MlflowClient, name, dying(getattr(MlflowClient, name), left))
        store.project(log, uri, STUDY)

    assert forked(project) == 9
    store.project(log, uri, STUDY)
    agrees(uri, lines)


@pytest.mark.parametrize("statements", [1, 3, 5])
def test_trials_in_one_transaction_arrive_all_or_none(
    tmp_path: Path, uri: str, statements: int
) -> None:
    lines = events()
    log = logged(tmp_path, lines)

    def project() -> None:
        calls = itertools.count(1)

        def insert(self: Session, statement: Any, *arguments: Any, **named: Any) -> Any:
            outcome = execute(self, statement, *arguments, **named)
            if isinstance(statement, Insert) and next(calls) == statements:
                os._exit(9)
            return outcome

        execute = Session.execute
        setattr(Session, "execute", insert)  # noqa: B010, mypy knows a method when it sees one
        store.project(log, uri, STUDY)

    assert forked(project) == 9
    assert "dense-00000" not in {run.data.tags["key"] for run in runs(uri)}
    store.project(log, uri, STUDY)
    agrees(uri, lines)


def test_trials_in_one_transaction_are_those_that_the_client_writes(
    tmp_path: Path, uri: str, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = events()
    twice = next(event for event in lines if event["event"] == "epoch")
    lines.insert(lines.index(twice), twice)
    log = logged(tmp_path, lines)
    store.project(log, uri, STUDY)
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "mlflow.db"
    other.write_bytes(template.read_bytes())
    monkeypatch.setattr(mirror, "takes_many", lambda _: False)
    store.project(log, f"sqlite:///{other}", STUDY)
    assert content(tmp_path / "mlflow.db") == content(other)


def content(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a store's runs, a run by its key in place of its id."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        keys = dict(database.execute("SELECT run_uuid, value FROM tags WHERE key = 'key'"))

        def named(value: Any) -> Any:
            for run_id, key in keys.items():
                if isinstance(value, str) and run_id in value:
                    return value.replace(run_id, key).rpartition("mlartifacts")[2]
            return value

        tables = ("runs", "tags", "params", "metrics", "latest_metrics")
        return {
            table: sorted(
                (tuple(map(named, row)) for row in database.execute(f"SELECT * FROM {table}")),
                key=repr,
            )
            for table in tables
        }


def test_trials_that_a_transaction_does_not_take_are_written_one_by_one(
    tmp_path: Path, uri: str
) -> None:
    lines = events()
    store.claim(uri, STUDY, "ab12")
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        database.execute(
            "CREATE TRIGGER bad BEFORE INSERT ON params WHEN NEW.value = '0' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    bad = next(event for event in lines if event["event"] == "start")
    bad["params"] = {"depth": 0}
    store.project(logged(tmp_path, lines), uri, STUDY)
    agrees(uri, lines)
    text = (tmp_path / "mlflow-refused.jsonl").read_text()
    refused = [json.loads(line) for line in text.splitlines()]
    assert [entry["event"]["event"] for entry in refused] == ["start"]
    by_key = {run.data.tags["key"]: run for run in runs(uri)}
    assert "depth" not in by_key[bad["trial"]].data.params
    assert by_key["skipnet-00000"].data.params["depth"] == "14"


def test_ends_arrive_in_the_order_of_the_log(tmp_path: Path, uri: str) -> None:
    """A reader asks for what ended since: no end may come before an earlier one."""
    lines = events()
    first = next(event for event in lines if event["event"] == "start")
    again = {**first, "attempt": 2}  # the log begins it twice: it is written alone
    log = logged(tmp_path, [*lines[:2], again, *lines[2:]])
    arrived: list[list[str]] = []
    write, finish = mirror.write_whole, MlflowClient.set_terminated

    def many(client: MlflowClient, experiment: str, trials: Any, tags: Any) -> list[str]:
        arrived.append([trial.name for trial in trials])
        return write(client, experiment, trials, tags)

    def alone(client: MlflowClient, run_id: str, *arguments: Any) -> None:
        arrived.append([client.get_run(run_id).data.tags["key"]])
        finish(client, run_id, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror, "write_whole", many)
        patch.setattr(mirror, "MANY", 3)
        patch.setattr(MlflowClient, "set_terminated", alone)
        store.project(log, uri, STUDY)
    agrees(uri, lines)
    ends = [event["trial"] for event in lines if event["event"] == "end"]
    assert [key for keys in arrived for key in keys if key in ends] == ends
    assert max(map(len, arrived)) == 3


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a server: each trial's writes are calls of MLflow's client."""
    monkeypatch.setattr(mirror, "takes_many", lambda _: False)


def dying(write: Callable[..., Any], left: Iterator[int]) -> Callable[..., Any]:
    """A write that kills its process once so many are done."""

    def call(*arguments: Any, **named: Any) -> Any:
        outcome = write(*arguments, **named)
        if next(left) == 0:
            os._exit(9)
        return outcome

    return call


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
    lines = events(trials=3)
    epoch = next(event for event in lines if event["event"] == "epoch")
    epoch["metrics"]["curve/lr"] = 0.5
    store.claim(uri, STUDY, "ab12")
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        database.execute(  # an error of the database's own, as a server's 5xx is: worth a retry
            "CREATE TRIGGER bad BEFORE INSERT ON metrics WHEN NEW.key = 'curve/lr' "
            "BEGIN SELECT abs(-9223372036854775807 - 1); END"
        )
    log = logged(tmp_path, lines)
    writer = mirror.Projection(log, uri, STUDY)
    failures = 0
    while writer.offset < log.stat().st_size:
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
    assert passing(MlflowException("away"))
    assert passing(ConnectionResetError())
    assert not passing(MlflowException.invalid_parameter_value("@"))
    assert not passing(PermissionError())
    assert not passing(KeyError("points"))
