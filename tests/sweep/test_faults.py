"""Faults that a real sweep meets one at a time: full disks, time-outs, dead nodes, two drivers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from faults import (
    FILE,
    RAYLET,
    ROOT,
    WORKER,
    Ballast,
    Sweep,
    below,
    clean,
    mounted,
    nothing_lost,
    strike,
)

from orchestrator import store


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_disk_that_stays_full_is_a_line_and_loses_nothing(tmp_path: Path) -> None:
    patience = "from orchestrator.record import log; log.PATIENCE = 4.0\n"
    sweep = Sweep(tmp_path / "sweep", before=patience)
    with mounted(sweep.out, "32m") as folder:
        try:
            sweep.start()
            sweep.until("epoch", 3)
            ballast = Ballast(folder)
            assert sweep.wait(120) == 1
            told = sweep.told()
            assert told.splitlines()[-1].startswith("isoflop: there must be room")
            clean(told)
            ballast.drop()
            sweep.start()
            assert sweep.wait() == 0, sweep.told()
            nothing_lost(sweep, f"sqlite:///{folder / 'mlflow.db'}")
        finally:
            sweep.close()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_kills_its_worker_fails_alone(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, FILE + "resources: {concurrency: 1, retries: 1}\n")
    killed: set[int] = set()
    sweep.start()
    try:
        while sweep.code is None:
            running = _running(sweep)
            if running == "dense-00001":
                killed |= {worker for worker in below(sweep.pid, WORKER) if strike(worker)}
            time.sleep(0.02)
    finally:
        sweep.close()
    assert sweep.code == 0, sweep.told()
    clean(sweep.told())
    rows = {row.trial: row for row in sweep.rows()}
    poison = rows.pop("dense-00001")
    assert poison.state == "FAIL"
    assert str(poison.reason).startswith("lost 2 times in a row without a new epoch, at last: its")
    assert {row.state for row in rows.values()} == {"COMPLETE"}
    assert len(killed) >= 2
    nothing_lost(sweep, f"sqlite:///{sweep.out / 'mlflow.db'}")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_takes_too_long_fails_and_the_sweep_goes_on(tmp_path: Path) -> None:
    text = """
name: slow
data: digits
budgets: [1]
recipe: {epochs: 400, batch_size: 64}
methods: {dense: {depth: 8, width: {choices: [0.25, 0.5]}}}
search: {trials: 1}
resources: {concurrency: 1, timeout: 0.05}
"""
    sweep = Sweep(tmp_path, text)
    sweep.start()
    assert sweep.wait(280) == 0, sweep.told()
    clean(sweep.told())
    rows = sweep.rows()
    assert len(rows) == 4, "each counts for a quarter of its length"
    assert {(row.state, row.reason) for row in rows} == {("FAIL", "took longer than 0.05 minutes")}
    nothing_lost(sweep, f"sqlite:///{sweep.out / 'mlflow.db'}")


def _running(sweep: Sweep) -> str | None:
    """The trial that was started last and has no end."""
    events = [event for event in sweep.events() if event["event"] in ("start", "end", "lost")]
    return events[-1]["trial"] if events and events[-1]["event"] == "start" else None


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_node_that_dies_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    for name, value in {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    sweep = Sweep(tmp_path, FILE, "--address", cluster.address)
    try:
        nodes = [cluster.add_node(num_cpus=1, wait=False) for _ in range(2)]
        cluster.wait_for_nodes(60)
        sweep.start()
        sweep.until("epoch", 6)
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        busy: list[int] = []
        while not busy:
            assert sweep.code is None, sweep.told()
            busy = [raylet for raylet in raylets if below(raylet, WORKER)]
        assert strike(busy[0])
        assert sweep.wait() == 0, sweep.told()
        clean(sweep.told())
        assert {row.state for row in sweep.rows()} == {"COMPLETE"}
        nothing_lost(sweep, f"sqlite:///{sweep.out / 'mlflow.db'}")
    finally:
        sweep.close()
        cluster.shutdown()


RACER = """
import sys
from pathlib import Path
from methods.errors import StorageError
from orchestrator.record.ledger import Ledger
from orchestrator.study.file import load

study, folder = load(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)
for number, _ in enumerate(sys.stdin):
    try:
        ledger = Ledger(folder / str(number), study)
    except StorageError as error:
        assert "another one holds" in str(error)
        print("refused", flush=True)
        next(sys.stdin)
        continue
    print("won", flush=True)
    next(sys.stdin)
    ledger.close()
"""


def test_of_many_drivers_at_once_one_has_the_folder(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(FILE)
    command = [sys.executable, "-c", RACER, str(study), str(tmp_path / "runs")]
    racers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(3)
    ]
    ways = [(racer.stdin, racer.stdout) for racer in racers]
    assert [told.readline() for _, told in ways if told] == ["ready\n"] * 3
    for number in range(40):
        for line in ("go", "close"):
            for way, _ in ways:
                assert way is not None
                way.write(f"{line}\n")
                way.flush()
            if line == "go":
                words = sorted(told.readline().strip() for _, told in ways if told)
                assert words == ["refused", "refused", "won"], (number, words)
    for racer in racers:
        racer.communicate(timeout=60)
    assert [racer.returncode for racer in racers] == [0, 0, 0]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_of_two_commands_at_once_one_runs_and_the_other_says_why_not(tmp_path: Path) -> None:
    for number in range(3):
        both = [Sweep(tmp_path / str(number)) for _ in range(2)]
        both[1].output = both[1].output.with_name("second.txt")
        for sweep in both:
            sweep.start()
        try:
            deadline = time.monotonic() + 120
            while all(sweep.code is None for sweep in both) and time.monotonic() < deadline:
                time.sleep(0.05)
            loser, winner = sorted(both, key=lambda sweep: sweep.code is None)
            assert loser.code == 2, loser.told()
            assert "one driver runs a study at a time" in loser.told().splitlines()[-1]
            clean(loser.told())
            winner.until("start")
            assert winner.code is None
        finally:
            for sweep in both:
                sweep.close()


DYING = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from orchestrator import store

left = int(sys.argv[2])

@event.listens_for(Engine, "after_cursor_execute")
def count(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

store.claim(sys.argv[1], "demo", "ab12")
"""


@pytest.mark.parametrize("statements", [40, 400])
def test_a_kill_while_mlflow_makes_its_tables_breaks_nothing(
    tmp_path: Path, statements: int
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-c", DYING, uri, str(statements)]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == -signal.SIGKILL
    identity = store.claim(uri, "demo", "ab12")
    assert store.claim(uri, "demo", "ab12") == identity


def test_a_raylet_that_dies_is_found_below_its_driver_only() -> None:
    assert below(os.getpid(), RAYLET) == []
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    name = Path(sys.executable).name
    found: list[Any] = below(os.getpid(), name)
    child.kill()
    child.wait()
    assert child.pid in found
