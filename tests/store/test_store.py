"""The projection into a real MLflow: nothing lost, nothing doubled, every digit back."""

import contextlib
import json
import math
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boards import BUDGETS, study_rows
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from stores import Server

from methods.errors import StorageError, StudyError
from orchestrator import store
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import verdict
from orchestrator.record import evidence
from orchestrator.record.events import End, Lost, Start, decode, decode_points
from orchestrator.record.log import Log, read
from orchestrator.record.rows import Row, trial_rows
from orchestrator.store import mirror
from orchestrator.store import tags as layout

STUDY = "demo"
Event = dict[str, Any]


def events(trials: int = 4, epochs: int = 3) -> list[Event]:
    """A small study: searched, confirmed, one diverged, one refused, one still running."""
    clock = iter(range(1_700_000_000_000, 1_800_000_000_000, 7))
    draw = random.Random(3)
    facts = {"study": {"name": STUDY}, "classes": 10}
    found: list[Event] = [
        {"event": "study", "study": STUDY, "hash": "ab12", "provenance": facts, "time": next(clock)}
        | {"lag": 2, "device": "cpu"}
    ]

    def point(name: str, *splits: str) -> Event:
        figures = ("acc", "macs_mean", "macs_p95", "macs_max")
        return {"point": name} | {f"{s}_{f}": draw.random() for s in splits for f in figures}

    def start(trial: str, role: str = "search") -> None:
        method, config = trial.split("-", maxsplit=1)[0], "-".join(trial.split("-")[:2])
        found.append(
            {
                "event": "start",
                "time": next(clock),
                "trial": trial,
                "role": role,
                "method": method,
                "params": {"depth": 14, "recipe.lr": draw.random(), "gate": "rnn"},
                "seed": 0 if role == "search" else 1,
                "attempt": 1,
                "config": config,
                "config_hash": "cd34",
                "budgets": [] if role == "search" else [0.5, 1.0],
                "point": "" if role == "search" else "supervised",
            }
        )

    def curve(trial: str) -> None:
        for step in range(1, epochs + 1):
            metrics = {"curve/val_acc": draw.random(), "curve/train_loss": draw.random()}
            found.append(
                {
                    "event": "epoch",
                    "time": next(clock),
                    "trial": trial,
                    "step": step,
                    "metrics": metrics,
                }
            )

    def end(trial: str, points: list[Event], state: str = "COMPLETE", reason: Any = None) -> None:
        found.append(
            {
                "event": "end",
                "time": next(clock),
                "trial": trial,
                "state": state,
                "reason": reason,
                "seconds": draw.random(),
                "epochs": epochs,
                "points": points,
                "device": "cpu",
            }
        )

    for number in range(trials):
        for method in ("dense", "skipnet"):
            trial = f"{method}-{number:05d}"
            names = ("",) if method == "dense" else ("supervised", "policy")
            start(trial)
            curve(trial)
            end(trial, [point(name, "val") for name in names])
    start("skipnet-00000-seed1", "confirm")
    curve("skipnet-00000-seed1")
    end(
        "skipnet-00000-seed1",
        [point(name, "val", "test") for name in ("supervised", "policy")],
    )
    start("dense-00090")
    end("dense-00090", [], "FAIL", "diverged: loss is nan at epoch 1")
    start("dense-00091")
    end("dense-00091", [], "FAIL", "refused: costs 9 MMACs at least, the largest budget is 1")
    start("dense-00092")
    curve("dense-00092")
    return found


def logged(folder: Path, found: list[Event]) -> Path:
    log = Log(folder / "wal.jsonl")
    for event in found:
        log.append(decode(event))
    log.close()
    return folder / "wal.jsonl"


def runs(uri: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], run_view_type=view))


def agrees(uri: str, found: list[Event]) -> None:
    """The store holds each trial once, with every point of its curve once and all its digits."""
    by_key = {run.data.tags["key"]: run for run in runs(uri) if "key" in run.data.tags}
    assert len(by_key) == sum("key" in run.data.tags for run in runs(uri))
    starts = {event["trial"]: event for event in found if event["event"] == "start"}
    ends = {event["trial"]: event for event in found if event["event"] == "end"}
    parents = {f"sweep/{event['method']}" for event in starts.values()}
    assert set(by_key) == {*starts, *parents, "report"}
    client = MlflowClient(uri)
    for trial in starts:
        told = {
            (event["step"], event["time"], value)
            for event in found
            if event["event"] == "epoch" and event["trial"] == trial
            for value in [event["metrics"]["curve/val_acc"]]
        }
        history = client.get_metric_history(by_key[trial].info.run_id, "curve/val_acc")
        assert sorted((m.step, m.timestamp, m.value) for m in history) == sorted(told)
    expected = [
        row
        for trial, end in sorted(ends.items())
        for row in rows_of(starts[trial], end, by_key[trial].info.run_id)
    ]
    assert store.read_rows(uri, STUDY) == expected


def rows_of(start: Event, end: Event, run_id: str) -> list[Row]:
    begun, ended = decode(start), decode(end)
    assert isinstance(begun, Start)
    assert isinstance(ended, End)
    return trial_rows(STUDY, begun, ended, run_id)


@pytest.fixture
def uri(tmp_path: Path, template: Path) -> str:
    place = tmp_path / "mlflow.db"
    place.write_bytes(template.read_bytes())
    return f"sqlite:///{place}"


def test_everything_arrives_and_comes_back(tmp_path: Path, uri: str) -> None:
    found = events()
    store.project(logged(tmp_path, found), uri, STUDY)
    agrees(uri, found)
    by_key = {run.data.tags["key"]: run for run in runs(uri)}
    assert by_key["dense-00000"].info.status == "FINISHED"
    assert by_key["dense-00090"].info.status == "FAILED"
    assert by_key["dense-00090"].data.tags["reason"] == "diverged: loss is nan at epoch 1"
    assert by_key["dense-00092"].info.status == "RUNNING"
    confirm = by_key["skipnet-00000-seed1"]
    parent = by_key["sweep/skipnet"]
    assert confirm.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert confirm.data.tags["role"] == "trial-confirm"
    assert json.loads(confirm.data.tags["budget_mmac"]) == [0.5, 1.0]
    assert parent.info.status == "FINISHED"
    assert confirm.data.params["depth"] == "14"
    end = next(e for e in found if e["event"] == "end" and e["trial"] == "skipnet-00000-seed1")
    assert confirm.data.metrics["test/acc"] == round(end["points"][0]["test_acc"], 4)
    assert confirm.data.metrics["policy/test/acc"] == round(end["points"][1]["test_acc"], 4)
    assert store.read_study(uri, STUDY)[1]["classes"] == 10


def test_projecting_again_changes_nothing(tmp_path: Path, uri: str) -> None:
    found = events()
    log = logged(tmp_path, found)
    store.project(log, uri, STUDY)
    before = {run.info.run_id: run.to_dictionary() for run in runs(uri, ViewType.ALL)}
    store.project(log, uri, STUDY)
    after = {run.info.run_id: run.to_dictionary() for run in runs(uri, ViewType.ALL)}
    assert after == before


@pytest.mark.parametrize("writes", [1, 5, 6, 12])
def test_a_projection_that_died_after_any_write_is_finished_by_the_next(
    tmp_path: Path, uri: str, writes: int
) -> None:
    found = events(trials=1)
    log = logged(tmp_path, found)
    child = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from orchestrator import store\n"
        "from mlflow import MlflowClient\n"
        "left = int(sys.argv[3])\n"
        "def dying(write):\n"
        "    def call(*arguments, **named):\n"
        "        global left\n"
        "        result = write(*arguments, **named)\n"
        "        left -= 1\n"
        "        if left == 0:\n"
        "            os._exit(9)\n"
        "        return result\n"
        "    return call\n"
        "for name in ('create_run', 'log_batch', 'set_terminated', 'update_run', 'log_dict'):\n"
        "    setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))\n"
        "store.project(Path(sys.argv[1]), sys.argv[2], 'demo')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, str(log), uri, str(writes)], check=False, cwd=ROOT
    )
    assert done.returncode == 9
    store.project(log, uri, STUDY)
    agrees(uri, found)


def test_the_projector_follows_the_log(tmp_path: Path, uri: str) -> None:
    found = events(trials=2)
    log = Log(tmp_path / "wal.jsonl")
    log.append(decode(found[0]))
    store.claim(uri, STUDY, "ab12")
    projector = store.Projector(tmp_path / "wal.jsonl", uri, STUDY)
    projector.start()
    for event in found[1:]:
        log.append(decode(event))
    assert projector.flush(timeout=60)
    agrees(uri, found)
    projector.stop()
    status = {run.data.tags["key"]: run.info.status for run in runs(uri)}
    assert "RUNNING" not in status.values()
    assert status["dense-00092"] == "KILLED"
    log.append(decode({**found[-4], "attempt": 2}))
    end = next(event for event in found if event["event"] == "end")
    found.append({**end, "trial": "dense-00092", "time": found[-1]["time"] + 1})
    log.append(decode(found[-1]))
    log.close()
    store.project(tmp_path / "wal.jsonl", uri, STUDY)
    agrees(uri, found)


def test_many_operating_points_lose_no_digit(tmp_path: Path, uri: str) -> None:
    found = events(trials=1)
    end = next(event for event in found if event["event"] == "end")
    only = end["points"][0]
    end["points"] = [{**only, "point": f"width/{i}", "val_acc": i / 97} for i in range(97)]
    assert len(json.dumps(end["points"])) > 8000
    store.project(logged(tmp_path, found), uri, STUDY)
    agrees(uri, found)


def test_what_is_not_finite_stays_out_of_the_metrics_and_stops_nothing(
    tmp_path: Path, uri: str
) -> None:
    found = events(trials=1)
    end = next(event for event in found if event["event"] == "end")
    end["points"][0] |= {"val_acc": math.inf, "val_macs_mean": 0.0}
    epoch = next(event for event in found if event["event"] == "epoch")
    epoch["metrics"]["curve/train_loss"] = math.nan
    store.project(logged(tmp_path, found), uri, STUDY)
    agrees(uri, found)
    run = next(run for run in runs(uri) if run.data.tags.get("trial") == "dense-00000")
    assert "val/acc" not in run.data.metrics
    assert all(math.isfinite(value) for value in run.data.metrics.values())


def test_what_is_refused_for_good_is_set_aside(tmp_path: Path, uri: str) -> None:
    found = events(trials=1)
    again = {**found[1], "params": {"depth": 20}, "attempt": 2}  # no other value of a parameter
    log = logged(tmp_path, [*found[:2], again, *found[2:]])
    store.project(log, uri, STUDY)
    agrees(uri, found)
    lines = (tmp_path / "mlflow-refused.jsonl").read_text().splitlines()
    refused = [json.loads(line) for line in lines]
    assert [entry["event"]["params"] for entry in refused] == [{"depth": 20}]
    projector = store.Projector(log, uri, STUDY)
    projector.start()
    assert projector.flush(timeout=60)
    projector.stop()
    assert projector.refused == 1


def test_what_alone_fails_again_and_again_holds_up_nothing(tmp_path: Path, uri: str) -> None:
    found = events(trials=2)
    epoch = next(event for event in found if event["event"] == "epoch")
    epoch["metrics"]["curve/lr"] = 0.5
    store.claim(uri, STUDY, "ab12")
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        database.execute(  # an error of the database's own, as a server's 5xx is: worth a retry
            "CREATE TRIGGER bad BEFORE INSERT ON metrics WHEN NEW.key = 'curve/lr' "
            "BEGIN SELECT abs(-9223372036854775807 - 1); END"
        )
    writer = mirror.Projection(logged(tmp_path, found), uri, STUDY)
    failures = 0
    while writer.offset < writer.size():
        try:
            writer.advance()
        except MlflowException:
            failures += 1
            writer.forget()
        assert failures < 20
    assert failures >= mirror.TRIES - 1
    lines = (tmp_path / "mlflow-refused.jsonl").read_text().splitlines()
    refused = [json.loads(line) for line in lines]
    assert [entry["event"]["key"] for entry in refused] == ["curve/lr"]
    del epoch["metrics"]["curve/lr"]
    agrees(uri, found)


def test_a_store_that_takes_nothing_blames_no_event(tmp_path: Path, uri: str) -> None:
    found = events(trials=1)
    store.claim(uri, STUDY, "ab12")
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        for table in ("runs", "experiment_tags"):
            database.execute(
                f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} "
                "BEGIN SELECT abs(-9223372036854775807 - 1); END"
            )
    writer = mirror.Projection(logged(tmp_path, found), uri, STUDY)
    for _ in range(2 * mirror.TRIES):
        with pytest.raises(MlflowException):
            writer.advance()
        writer.forget()
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        for table in ("runs", "experiment_tags"):
            database.execute(f"DROP TRIGGER no_{table}")
    writer.advance()
    agrees(uri, found)
    assert not writer.refused


def test_a_projector_that_is_killed_is_started_again(tmp_path: Path, uri: str) -> None:
    found = events(trials=3)
    log = Log(tmp_path / "wal.jsonl")
    log.append(decode(found[0]))
    store.claim(uri, STUDY, "ab12")
    projector = store.Projector(tmp_path / "wal.jsonl", uri, STUDY)
    projector.start()
    for number, event in enumerate(found[1:]):
        log.append(decode(event))
        if number in (len(found) // 3, 2 * len(found) // 3):
            assert projector.flush(timeout=60)
            assert projector.pid is not None
            os.kill(projector.pid, signal.SIGKILL)
    log.close()
    assert projector.flush(timeout=60)
    projector.stop()
    agrees(uri, found)
    assert projector.pid is None


def test_a_projector_ends_with_its_driver(tmp_path: Path, uri: str) -> None:
    log = logged(tmp_path, events(trials=1))
    store.claim(uri, STUDY, "ab12")
    child = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from orchestrator import store\n"
        "projector = store.Projector(Path(sys.argv[1]), sys.argv[2], 'demo')\n"
        "projector.start()\n"
        "assert projector.flush(60)\n"
        "print(projector.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", child, str(log), uri],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    place = Path("/proc") / done.stdout.strip()
    deadline = time.monotonic() + 30
    while place.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert done.stdout.strip().isdigit()
    assert not place.exists()


def test_a_run_that_a_lost_answer_doubled_is_one_again(tmp_path: Path, uri: str) -> None:
    found = events(trials=1)
    log = logged(tmp_path, found)
    store.project(log, uri, STUDY)
    original = runs(uri)[0]
    MlflowClient(uri).create_run(original.info.experiment_id, tags=original.data.tags)
    store.project(log, uri, STUDY)
    agrees(uri, found)


def test_evidence_is_an_artefact_before_its_run_ends(tmp_path: Path, uri: str) -> None:
    found = events(trials=1)
    end = next(e for e in found if e["event"] == "end" and e["trial"] == "skipnet-00000-seed1")
    end["evidence"] = "ab" * 32
    name = evidence.file_name(end["trial"], end["evidence"])
    evidence.place(b"a file", tmp_path / evidence.FOLDER / name)
    log = logged(tmp_path, found)
    store.project(log, uri, STUDY)
    agrees(uri, found)
    run = next(run for run in runs(uri) if run.data.tags.get("trial") == end["trial"])
    client = MlflowClient(uri)
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == [name]
    assert run.data.tags["evidence"] == end["evidence"]
    assert store.read_stored(uri, STUDY).evidence == {run.info.run_id: b"a file"}


def test_evidence_that_is_gone_holds_nothing_up(tmp_path: Path, uri: str) -> None:
    found = events(trials=1)
    end = next(e for e in found if e["event"] == "end" and e["trial"] == "skipnet-00000-seed1")
    end["evidence"] = "ab" * 32
    store.project(logged(tmp_path, found), uri, STUDY)
    agrees(uri, found)
    refused = [json.loads(t) for t in (tmp_path / "mlflow-refused.jsonl").read_text().splitlines()]
    assert [line["event"]["trial"] for line in refused] == [end["trial"]]
    assert store.read_stored(uri, STUDY).evidence == {}


def test_a_name_belongs_to_one_study(uri: str) -> None:
    first = store.claim(uri, STUDY, "ab12")
    assert store.claim(uri, STUDY, "ab12") == first
    with pytest.raises(StudyError, match="another name, or another store"):
        store.claim(uri, STUDY, "ffff")
    MlflowClient(uri).delete_experiment(first)
    with pytest.raises(StudyError, match="experiments restore"):
        store.claim(uri, STUDY, "ab12")
    with pytest.raises(StudyError, match="no study 'other'"):
        store.read_rows(uri, "other")


def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database, but longer than the header of one" * 9)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # bound, not listening: nobody answers
        places = {
            f"sqlite:///{tmp_path}/file": "must be an SQLite database",
            f"sqlite:///{tmp_path}/file/mlflow.db": "must be writable",
            f"http://127.0.0.1:{silent.getsockname()[1]}": "must answer",
            "ftp://somewhere": "starts with sqlite:///",
        }
        for place, sentence in places.items():
            with pytest.raises(StorageError, match=sentence):
                store.check(place)
    store.check(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert not (tmp_path / "new").exists()


def test_more_runs_than_a_page_are_all_read(tmp_path: Path, uri: str) -> None:
    found = events(trials=1)
    store.project(logged(tmp_path, found), uri, STUDY)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    one = next(run for run in runs(uri) if run.data.tags.get("trial") == "dense-00000")
    for i in range(1005):
        tags = {**one.data.tags, "trial": f"copy-{i:05d}"}
        client.create_run(experiment.experiment_id, tags=tags)
    names = [row.trial for row in store.read_rows(uri, STUDY)]
    assert sum(name.startswith("copy") for name in names) == 1005


def board() -> Board:
    return leaderboard(study_rows(), Rules(budgets=BUDGETS, primary=2.0))


def written(uri: str, folder: Path, what: Board) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "report.html").write_text("<h1>The report</h1>")
    return store.write_board(uri, STUDY, what, folder)


def test_a_board_is_written_once_and_replaced_where_it_changed(tmp_path: Path, uri: str) -> None:
    store.project(logged(tmp_path, events(trials=1)), uri, STUDY)
    what = board()
    link = written(uri, tmp_path / "report", what)
    assert link == store.link(uri, STUDY)
    lines = {run.data.tags["method"]: run for run in runs(uri) if leads(run)}
    assert set(lines) == set(what.methods)
    cell = what.cell("skipnet", 2.0)
    assert cell.accuracy.mean is not None
    assert lines["skipnet"].data.metrics["acc/at_2m"] == round(cell.accuracy.mean, 4)
    assert cell.choice is not None
    assert cell.choice.config in lines["skipnet"].data.tags["at_2m"]
    assert written(uri, tmp_path / "report", what) == link
    assert {r.info.run_id for r in runs(uri) if leads(r)} == {
        run.info.run_id for run in lines.values()
    }

    fewer = leaderboard(
        study_rows(methods=("dense", "skipnet")), Rules(budgets=BUDGETS, primary=2.0)
    )
    written(uri, tmp_path / "report", fewer)
    assert sorted(r.data.tags["method"] for r in runs(uri) if leads(r)) == ["dense", "skipnet"]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    assert experiment.tags["mlflow.note.content"].startswith(verdict(fewer))
    report = [run for run in runs(uri) if run.data.tags["role"] == "report"]
    assert len(report) == 1
    names = {item.path for item in client.list_artifacts(report[0].info.run_id)}
    assert names == {"provenance.json", "report.html"}


def leads(run: Run) -> bool:
    return run.data.tags["role"] == "leaderboard"


ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path, template: Path) -> Iterator[Server]:
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    found = Server(tmp_path)
    found.start()
    yield found
    found.kill()


@pytest.mark.slow
def test_a_server_that_dies_and_returns_loses_and_doubles_nothing(
    tmp_path: Path, server: Server
) -> None:
    found = events(trials=12, epochs=8)
    log = Log(tmp_path / "wal.jsonl")
    log.append(decode(found[0]))
    store.check(server.uri)
    store.claim(server.uri, STUDY, "ab12")
    projector = store.Projector(tmp_path / "wal.jsonl", server.uri, STUDY)
    projector.start()
    outages = {len(found) // 4, len(found) // 2}
    for number, event in enumerate(found[1:]):
        log.append(decode(event))
        time.sleep(0.02)
        if number in outages:
            server.kill()
            assert not projector.flush(timeout=0.5)
            threading.Timer(1.0, server.start).start()
    log.close()
    assert projector.flush(timeout=120)
    projector.stop()
    agrees(server.uri, found)
    assert "RUNNING" not in {run.info.status for run in runs(server.uri)}
    assert not (tmp_path / "mlflow-refused.jsonl").exists()
    server.kill()
    with pytest.raises(StorageError, match="cannot be used"):
        store.read_rows(server.uri, STUDY)


def test_events_after_the_last_newline_wait(tmp_path: Path) -> None:
    path = tmp_path / "wal.jsonl"
    path.write_bytes(b'{"event": "lost", "trial": "dense-00000", "reason": "x"}\n{"event": "sta')
    found, offset = read(path)
    assert found == [Lost("dense-00000", "x")]
    assert read(path, offset) == ([], offset)
    log = Log(path)
    log.append(Lost("dense-00000", "its worker died"))
    log.close()
    assert len(read(path, offset)[0]) == 1


def test_the_layout_names_the_chosen_point_first() -> None:
    points = decode_points(
        [
            {"point": "a", "val_acc": 0.11111, "val_macs_mean": 1e5},
            {"point": "b", "val_acc": 0.2, "val_macs_mean": 1e7},
        ]
    )
    found = layout.figures(points, "a")
    assert found["val/acc"] == found["a/val/acc"] == 0.1111
    assert found["b/macs/mean_m"] == 10.0
    assert found["macs/log10"] == 5.0
    assert layout.figures(points, "")["val/acc"] == 0.2
    assert layout.figures([], "a") == {}


def test_a_server_error_is_tried_again_and_a_refusal_is_not() -> None:
    assert mirror._passing(MlflowException("away"))
    assert mirror._passing(ConnectionResetError())
    assert not mirror._passing(MlflowException.invalid_parameter_value("@"))
    assert not mirror._passing(PermissionError())
    assert not mirror._passing(KeyError("points"))
