"""Faults that a real sweep meets, one after the other: no trial is blamed, nothing is lost.

Another driver, a terminal that closes, a pipe without a reader, no Unicode, a clock that jumps, a
poisonous trial, a frozen worker, a full disk.
"""

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from command import called
from faults import (
    FILE,
    RAYLET,
    ROOT,
    STUDY,
    WORKER,
    Ballast,
    Sweep,
    below,
    clean,
    mount,
    nothing_lost,
    runs,
    strike,
    unmount,
)
from mirrored import forked
from sqlalchemy import event
from sqlalchemy.engine import Engine

from methods.errors import StorageError
from methods.files import write
from orchestrator import store
from orchestrator.record import evidence
from orchestrator.record.ledger import Ledger

POISON = "dense-00001"
"""The trial whose workers are killed as often as it starts."""
MINUTES = 0.3
"""Longer than any epoch of the sweep takes, on a busy machine too."""
HASTE = """
from orchestrator.record import log; log.PATIENCE = 4.0
from orchestrator.sweep import tune; tune.SILENCE = 0
"""
JUMPING = """
import time
from pathlib import Path
file, real, state = Path(__file__).with_name("hours"), time.time_ns, [0.0, 0]
def jumped():
    if time.monotonic() - state[0] > 0.5:
        state[:] = time.monotonic(), int(file.read_text())
    return real() + state[1] * 3600 * 10**9
time.time_ns = jumped
time.time = lambda: jumped() / 1e9
"""
"""What each Python process of the sweep imports first: a clock that jumps when a file says so."""


class Piped(Sweep):
    """The command before a pipe whose reader leaves after a line, without input or Unicode."""

    def start(self) -> None:
        clock = self.file.parent / "clock"
        clock.mkdir(exist_ok=True)
        (clock / "sitecustomize.py").write_text(JUMPING)
        self.jump(0)
        surroundings = {"PYTHONIOENCODING": "ascii", "TERM": "dumb", "COLUMNS": "40"}
        command = [*self.program, "run", str(self.file), "--out", str(self.out)]
        with self.output.open("ab") as errors:
            self._process = subprocess.Popen(
                ["sh", "-c", 'exec "$@" <&-', "sh", *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                start_new_session=True,
                env={**os.environ, **surroundings, "PYTHONPATH": str(clock)},
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith(b"Study tiny on digits")
        self._process.stdout.close()

    def jump(self, hours: int) -> None:
        """The wall clock is now wrong by so much."""
        write(self.file.parent / "clock" / "hours", str(hours))


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_meets_all_but_kills_loses_nothing(
    tmp_path: Path, template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sweep, one fault after the other: each needs a sweep that has begun, none its end."""
    place = tmp_path / "sweep"
    text = FILE + f"resources: {{concurrency: 1, timeout: {MINUTES}}}\n"
    both = [Piped(place, text, before=HASTE) for _ in "ab"]
    both[1].output = place / "second.txt"
    unmounted = mount(both[0].out, "48m")
    uri = f"sqlite:///{both[0].out / 'mlflow.db'}"
    shutil.copy(template, both[0].out)
    try:
        sweep = the_one_that_runs(both)
        close_the_terminal(sweep, uri)
        sweep.start()
        poison(sweep)
        freeze_a_worker(sweep)
        if not unmounted:
            fill_the_disk(sweep)
            sweep.start()
        assert sweep.wait(400) == 0, sweep.printed()
        clean(sweep.printed())
        nothing_lost(sweep, uri)
        rows = {row.trial: row for row in sweep.rows()}
        assert sum(row.role == "confirm" for row in rows.values()) >= 4
        poisonous = rows.pop(POISON)
        assert poisonous.state == "FAIL"
        reason = "lost 3 times in a row without a new epoch; last cause: its worker died"
        assert str(poisonous.reason).startswith(reason)
        assert {row.state for row in rows.values()} == {"COMPLETE"}

        code, out, _ = called(capsys, "run", str(sweep.file), "--out", str(sweep.out))
        assert code == 0
        assert "The sweep is complete" in out
        assert_verified(sweep, capsys)
    finally:
        for each in both:
            each.close()
        if not unmounted:
            unmount(both[0].out)
    if unmounted:
        pytest.skip(f"all but the full disk was shown: {unmounted}")


def the_one_that_runs(both: list[Piped]) -> Piped:
    """One of two commands at once runs, and the other says why it does not."""
    for sweep in both:
        sweep.start()
    deadline = time.monotonic() + 120
    while all(sweep.code is None for sweep in both) and time.monotonic() < deadline:
        time.sleep(0.05)
    loser, winner = sorted(both, key=lambda sweep: sweep.code is None)
    assert loser.code == 2, loser.printed()
    assert "one driver runs a study at a time" in loser.printed().splitlines()[-1]
    clean(loser.printed())
    return winner


def close_the_terminal(sweep: Piped, uri: str) -> None:
    """All of its processes hear that; the driver stops, and no worker dies of it."""
    sweep.until("epoch", 1)
    sweep.jump(1)
    sweep.until("epoch", 3)
    while sweep.events()[-1]["event"] != "start":
        assert sweep.code is None, sweep.printed()
        time.sleep(0.02)
    os.killpg(sweep.pid, signal.SIGHUP)
    assert sweep.wait(120) == 128 + signal.SIGHUP, sweep.printed()
    said = "standard output has no reader any more; the sweep continues"
    assert sweep.printed().count(said) == 1
    assert "RUNNING" not in {run.info.status for run in runs(uri, sweep.study)}
    assert sweep.events()[-1]["event"] == "paused"
    assert not [event for event in sweep.events() if event["event"] == "lost"]


def freeze_a_worker(sweep: Piped) -> None:
    """As a disk does that hangs, or SIGSTOP: its trial is served again."""
    sweep.until("epoch", 1 + sum(event["event"] == "epoch" for event in sweep.events()))
    workers: list[int] = []
    while not workers:
        assert sweep.code is None, sweep.printed()
        workers = below(sweep.pid, WORKER)
        time.sleep(0.02)
    os.kill(workers[0], signal.SIGSTOP)
    sweep.jump(-1)
    sweep.until("lost", 1 + sum(event["event"] == "lost" for event in sweep.events()))
    lost = [event for event in sweep.events() if event["event"] == "lost"][-1]
    assert lost["reason"].startswith("its worker was silent for 0."), lost


def poison(sweep: Sweep) -> None:
    """A trial that kills its workers fails alone, and the sweep continues."""
    killed: set[int] = set()
    while not any(e["event"] == "end" and e["trial"] == POISON for e in sweep.events()):
        assert sweep.code is None, sweep.printed()
        if started_last(sweep) == POISON:
            killed |= {worker for worker in below(sweep.pid, WORKER) if strike(worker)}
        time.sleep(0.02)
    assert len(killed) >= 3


def started_last(sweep: Sweep) -> str | None:
    """The trial that was started last and has no end."""
    events = [event for event in sweep.events() if event["event"] in ("start", "end", "lost")]
    return events[-1]["trial"] if events and events[-1]["event"] == "start" else None


def fill_the_disk(sweep: Sweep) -> None:
    """A disk that stays full is a line."""
    ballast = Ballast(sweep.out)
    assert sweep.wait(120) == 1, sweep.printed()
    assert sweep.printed().splitlines()[-1].startswith("isoflop: there must be space")
    clean(sweep.printed())
    ballast.drop()


def assert_verified(swept: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    """The board follows from what MLflow holds, and no more so once a bit of it is another."""
    rows = [row for row in swept.rows() if row.role == "confirm"]
    images = evidence.images(swept.folder, rows)
    assert {(row.trial, row.point): row.test_acc for row in rows} == {
        name: per_image.correct.mean() for name, per_image in images.items()
    }
    shutil.rmtree(swept.folder)

    words = ("verify", swept.study.name, "--out", str(swept.out))
    code, out, err = called(capsys, *words)
    assert (code, err) == (0, ""), out
    assert "follows from its evidence" in out
    file = next((swept.out / "mlartifacts").rglob(f"{rows[0].trial}-*.parquet"))
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    code, out, err = called(capsys, *words)
    assert code == 1
    assert err.startswith("isoflop: the board of 'tiny' must follow from its evidence, but")
    assert f"{rows[0].trial} (" in out
    assert f"SHA-256 of the evidence: stored {rows[0].evidence}, recomputed" in out


def race(folder: Path, way: Connection) -> None:
    """Opens one ledger after another, beside others that do; says what came of each."""
    for number in iter(way.recv, None):
        try:
            ledger = Ledger(folder / str(number), STUDY)
        except StorageError as error:
            way.send("refused" if "another one holds" in str(error) else str(error))
            way.recv()
        else:
            way.send("won")
            way.recv()
            ledger.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_of_many_drivers_at_once_one_has_the_folder(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    ways, racers = [], []
    for _ in range(3):
        way, its = fork.Pipe()
        racers.append(fork.Process(target=race, args=(tmp_path, its)))
        racers[-1].start()
        ways.append(way)
    for number in range(40):
        for way in ways:
            way.send(number)
        assert sorted(way.recv() for way in ways) == ["refused", "refused", "won"], number
        for way in ways:
            way.send("close")
    for way, racer in zip(ways, racers, strict=True):
        way.send(None)
        racer.join(60)
        assert racer.exitcode == 0


@pytest.mark.parametrize("statements", [40, 400])
def test_a_kill_while_mlflow_makes_its_tables_breaks_nothing(
    tmp_path: Path, statements: int
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    left = itertools.count(statements - 1, -1)

    def die(*_: object) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def claim() -> None:
        event.listen(Engine, "after_cursor_execute", die)
        store.claim(uri, "demo", "ab12")

    assert forked(claim) == -signal.SIGKILL
    identity = store.claim(uri, "demo", "ab12")
    assert store.claim(uri, "demo", "ab12") == identity


def test_a_raylet_that_dies_is_found_below_its_driver_only() -> None:
    assert below(os.getpid(), RAYLET) == []
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    name = Path(sys.executable).name
    processes = below(os.getpid(), name)
    child.kill()
    child.wait()
    assert child.pid in processes
