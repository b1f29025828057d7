"""Faults that a real sweep meets: another driver, a stop by hand, poison, a full disk, time."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

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
    mount,
    nothing_lost,
    runs,
    strike,
    unmount,
)

from orchestrator import store
from orchestrator.cli import main
from orchestrator.record import evidence

POISON = "dense-00001"
"""The trial whose workers are killed as often as it starts."""
PATIENCE = "from orchestrator.record import log; log.PATIENCE = 4.0\n"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_meets_all_but_kills_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sweep, one fault after the other: each needs a sweep that has begun, none its end."""
    place = tmp_path / "sweep"
    both = [Sweep(place, FILE + "resources: {concurrency: 1}\n", before=PATIENCE) for _ in "ab"]
    both[1].output = place / "second.txt"
    unmounted = mount(both[0].out, "48m")
    uri = f"sqlite:///{both[0].out / 'mlflow.db'}"
    try:
        sweep = the_one_that_runs(both)
        stop_by_hand(sweep, uri)
        sweep.start()
        poison(sweep)
        if not unmounted:
            fill_the_disk(sweep)
            sweep.start()
        assert sweep.wait(400) == 0, sweep.printed()
        assert "Report:" in sweep.printed()
        clean(sweep.printed())
        nothing_lost(sweep, uri)
        rows = {row.trial: row for row in sweep.rows()}
        assert sum(row.role == "confirm" for row in rows.values()) >= 4
        poisonous = rows.pop(POISON)
        assert poisonous.state == "FAIL"
        reason = "lost 3 times in a row without a new epoch, at last: its worker died"
        assert str(poisonous.reason).startswith(reason)
        assert {row.state for row in rows.values()} == {"COMPLETE"}

        code, out, _ = called(capsys, "run", str(sweep.file), "--out", str(sweep.out))
        assert code == 0
        assert "Everything is done already" in out
        assert_verified(sweep, capsys)
    finally:
        for each in both:
            each.close()
        if not unmounted:
            unmount(both[0].out)
    if unmounted:
        pytest.skip(f"all but the full disk was shown: {unmounted}")


def the_one_that_runs(both: list[Sweep]) -> Sweep:
    """Of two commands at once one runs, and the other says why it does not."""
    for sweep in both:
        sweep.start()
    deadline = time.monotonic() + 120
    while all(sweep.code is None for sweep in both) and time.monotonic() < deadline:
        time.sleep(0.05)
    loser, winner = sorted(both, key=lambda sweep: sweep.code is None)
    assert loser.code == 2, loser.printed()
    assert "one driver runs a study at a time" in loser.printed().splitlines()[-1]
    clean(loser.printed())
    winner.until("epoch", 3)
    assert winner.code is None
    return winner


def stop_by_hand(sweep: Sweep, uri: str) -> None:
    while started_last(sweep) is None:
        time.sleep(0.02)
    os.kill(sweep.pid, signal.SIGINT)
    assert sweep.wait(60) == 130, sweep.printed()
    assert "Stopped; nothing is lost" in sweep.printed()
    assert "RUNNING" not in {run.info.status for run in runs(uri, sweep.study)}
    assert sweep.events()[-1]["event"] == "paused"


def poison(sweep: Sweep) -> None:
    """A trial that kills its workers fails alone, and the sweep goes on."""
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
    assert sweep.printed().splitlines()[-1].startswith("isoflop: there must be room")
    clean(sweep.printed())
    ballast.drop()


def assert_verified(swept: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    """The board follows from what MLflow holds, and no more so once a bit of it is another."""
    rows = [row for row in swept.rows() if row.role == "confirm"]
    correct = evidence.correctness(swept.folder, rows)
    assert {(row.trial, row.point): row.test_acc for row in rows} == {
        name: right.mean() for name, right in correct.items()
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


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The command in this process: its exit code and what it printed."""
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    capsys.readouterr()
    try:
        main(list(words))
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_what_takes_too_long_fails_and_the_sweep_goes_on(tmp_path: Path) -> None:
    text = """
name: slow
data: digits
budgets: [1]
recipe: {epochs: 400, batch_size: 64}
methods: {dense: {depth: 8, width: {choices: [0.25, 0.5]}}}
search: {trials: 1}
resources: {concurrency: 1, timeout: 0.02}
"""
    sweep = Sweep(tmp_path, text)
    sweep.start()
    try:
        assert sweep.wait(280) == 0, sweep.printed()
    finally:
        sweep.close()
    clean(sweep.printed())
    rows = sweep.rows()
    assert len(rows) == 4, "each counts for a quarter of its length"
    assert {(row.state, row.reason) for row in rows} == {("FAIL", "took longer than 0.02 minutes")}
    nothing_lost(sweep, f"sqlite:///{sweep.out / 'mlflow.db'}")


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
    assert [output.readline() for _, output in ways if output] == ["ready\n"] * 3
    for number in range(40):
        for line in ("go", "close"):
            for way, _ in ways:
                assert way is not None
                way.write(f"{line}\n")
                way.flush()
            if line == "go":
                words = sorted(output.readline().strip() for _, output in ways if output)
                assert words == ["refused", "refused", "won"], (number, words)
    for racer in racers:
        racer.communicate(timeout=60)
    assert [racer.returncode for racer in racers] == [0, 0, 0]


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
    processes = below(os.getpid(), name)
    child.kill()
    child.wait()
    assert child.pid in processes
