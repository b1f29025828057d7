"""What the fault tests share: a study, its sweep as a process, real kills, and what must hold."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from methods.files import digest
from orchestrator import store
from orchestrator.record import evidence
from orchestrator.record.ledger import Ledger
from orchestrator.record.log import read_lines
from orchestrator.record.rows import Row
from orchestrator.study.file import Study, load
from orchestrator.study.identity import search_of, trial_name
from orchestrator.study.space import searches

FILE = """
name: tiny
data: digits
budgets: [0.3, 1]
recipe: {epochs: 3, batch_size: 64, lr: {low: 0.05, high: 0.2, log: true}}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
  skipnet: {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn}
search: {trials: 3}
confirm: {seeds: 2}
"""
MAIN = "from orchestrator.cli import main; main()"
ROOT = Path(__file__).parents[2]
Event = dict[str, Any]


class Sweep:
    """`isoflop run` on one study, as often as it takes; only processes below it are killed."""

    def __init__(self, folder: Path, text: str = FILE, *words: str, before: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "study.yaml"
        self.file.write_text(text)
        self.study: Study = load(self.file)
        self.out = folder / "runs"
        self.folder = self.out / self.study.name
        self.output = folder / "output.txt"
        self.cwd = ROOT
        """The working folder of the command."""
        self.program = [sys.executable, "-c", before + MAIN]
        """The command before its words."""
        self._words = words
        self._read: tuple[int, list[Event]] = (-1, [])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """The same command, once more."""
        with self.output.open("ab") as file:
            self._process = subprocess.Popen(
                [*self.program, "run", str(self.file), "--out", str(self.out), *self._words],
                stdout=file,
                stderr=file,
                cwd=self.cwd,
                start_new_session=True,
            )

    @property
    def started(self) -> bool:
        """Whether it was ever started."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The driver."""
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The driver's exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    def wait(self, timeout: float = 240) -> int:
        """The exit code."""
        assert self._process is not None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it never ended:\n{self.printed()[-3000:]}") from None

    def until(self, what: str, count: int = 1, timeout: float = 120) -> None:
        """Until the log holds so many events of a kind."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.code is None:
            if sum(event["event"] == what for event in self.events()) >= count:
                return
            time.sleep(0.02)
        raise AssertionError(f"the log never held {count} {what}:\n{self.printed()[-3000:]}")

    def events(self) -> list[Event]:
        """The log, read again where it has grown."""
        file = self.folder / "wal.jsonl"
        size = file.stat().st_size if file.exists() else 0
        if size != self._read[0]:
            self._read = (size, read_lines(file)[0])
        return self._read[1]

    def printed(self) -> str:
        """All that the command printed."""
        return self.output.read_text()

    def rows(self) -> list[Row]:
        """The ledger's rows."""
        ledger = self.ledger()
        rows = ledger.history.rows()
        ledger.close()
        return rows

    def ledger(self) -> Ledger:
        """Its ledger, while no driver runs."""
        return Ledger(self.folder, self.study)

    def kill(self) -> None:
        """The driver alone, at once."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """End what is left of it."""
        if self._process is not None and self.code is None:
            self.kill()


def below(root: int, name: str, argument: str = "") -> list[int]:
    """The processes that descend from one and whose command line begins so, by its file's name.

    With `argument`, those that have it in one of their arguments.
    """
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            commands[int(stat.parent.name)] = (stat.parent / "cmdline").read_text()
        except OSError:
            continue

    def ancestors(process: int) -> Iterator[int]:
        while process > 1:
            process = parents.get(process, 0)
            yield process

    named = []
    for process, command in commands.items():
        file, _, arguments = command.partition("\0")
        if file.rsplit("/", 1)[-1].startswith(name) and argument in arguments:
            named.append(process)
    return sorted(process for process in named if root in ancestors(process))


WORKER = "ray::ResourceTrainable."
RAYLET = "raylet"
PROJECTOR = ("python", "orchestrator.store.projector")


def strike(process: int) -> bool:
    """SIGKILL; False where it was dead already."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def decided(rows: list[Row]) -> dict[tuple[object, ...], dict[str, Any]]:
    """All that a sweep decides, by trial and point: every field but the clock's and MLflow's."""
    return {
        (row.trial, row.point): {
            name: value for name, value in vars(row).items() if name not in ("seconds", "run_id")
        }
        for row in rows
    }


def different(rows: list[Row], expected: list[Row]) -> list[str]:
    """Which rows two sweeps decided differently, and how."""
    left, right = decided(rows), decided(expected)
    return [
        f"{name}: {left.get(name)} instead of {right.get(name)}"
        for name in sorted(left.keys() | right.keys(), key=str)
        if left.get(name) != right.get(name)
    ]


def runs(uri: str, study: Study) -> list[Run]:
    """Every run of a study's experiment, deleted ones left out."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY))


def nothing_lost(sweep: Sweep, uri: str) -> None:
    """Each planned trial once, ended, in Optuna, the log and MLflow, with the same numbers."""
    study, rows, events = sweep.study, sweep.rows(), sweep.events()
    ends = Counter(event["trial"] for event in events if event["event"] == "end")
    starts = {event["trial"] for event in events if event["event"] == "start"}
    assert set(ends.values()) == {1}, [name for name, count in ends.items() if count > 1]
    assert set(ends) == starts
    unfit = {row.trial for row in rows if not row.outcome.took_a_worker}
    begun = {search_of(row.trial) for row in rows if row.role == "search"}
    for search in begun | searches(study).keys():
        searched = [r.trial for r in rows if r.role == "search" and search_of(r.trial) == search]
        assert len(set(searched) - unfit) >= study.search.trials, sorted(searched)

    ledger = sweep.ledger()
    for search, trials in ledger.history._trials.items():
        for trial in trials:
            row = next(r for r in rows if r.trial == trial_name(search, trial.number))
            assert trial.state.name == row.state, (trial, row)
            if trial.state.name == "COMPLETE":
                last = [r for r in rows if r.trial == row.trial][-1]
                points = [event for event in events if event.get("trial") == row.trial]
                point = points[-1]["points"][-1]
                spent = point["ms" if study.cost.clocked else "val_macs_mean"]
                assert trial.values == [1.0 - point["val_acc"], spent], last
    ledger.close()

    assert different(store.read_rows(uri, study.name), rows) == []
    digests = {r.trial: r.evidence for r in rows if r.role == "confirm" and r.state == "COMPLETE"}
    assert all(evidence.read(sweep.folder, *item) is not None for item in digests.items()), digests
    stored = store.read_stored(uri, study.name)
    tags = {run.run_id: run.tags["evidence"] for run in stored.trials if "evidence" in run.tags}
    assert sorted(tags.values()) == sorted(digests.values())
    assert tags == {run: digest(content) for run, content in stored.evidence.items()}
    mirrored = runs(uri, study)
    assert {run.info.status for run in mirrored} <= {"FINISHED", "FAILED"}
    names = Counter(run.data.tags["trial"] for run in mirrored if "trial" in run.data.tags)
    assert names == Counter(set(ends))
    client = MlflowClient(uri)
    for run in mirrored:
        if "trial" in run.data.tags:
            trial = run.data.tags["trial"]
            curve = sorted(
                (event["step"], event["time"], event["metrics"]["curve/val_acc"])
                for event in events
                if event["event"] == "epoch" and event["trial"] == trial
            )
            assert [step for step, _, _ in curve] == list(range(1, len(curve) + 1)), trial
            history = client.get_metric_history(run.info.run_id, "curve/val_acc")
            assert sorted((m.step, m.timestamp, m.value) for m in history) == curve, trial


def clean(text: str) -> None:
    """No traceback was shown."""
    assert "Traceback" not in text, text[-4000:]


def parsed(path: Path) -> list[Event]:
    """Every line of a log that is whole; a torn one fails."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def mount(folder: Path, size: str) -> str:
    """Give a folder its own small file system; why that cannot be, or nothing."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no mount command"
    return f"a small file system cannot be mounted: {done.stderr.strip()}" * bool(done.returncode)


def unmount(folder: Path) -> None:
    """Take it away, whoever still uses it."""
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; skips where none may be mounted."""
    if reason := mount(folder, size):
        pytest.skip(reason)
    try:
        yield folder
    finally:
        unmount(folder)


class Ballast:
    """A file that takes all the room there is, and whatever is freed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ballast"
        self._file = self._path.open("ab", buffering=0)
        self._free = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        while not self._free.wait(0.005):
            with contextlib.suppress(OSError):
                while self._file.write(bytes(4096)):
                    pass

    def drop(self) -> None:
        """Give the room back."""
        self._free.set()
        self._thread.join()
        self._file.close()
        self._path.unlink()


STUDY = Study.model_validate(
    {
        "name": "s",
        "data": "digits",
        "budgets": [1],
        "recipe": {"epochs": 2},
        "methods": {"dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}}},
        "confirm": {"seeds": 1},
        "search": {"trials": 2, "sampler": "random"},
    }
)

POINT = {"point": "", "val_acc": 0.9, "val_macs_mean": 4e5, "test_acc": 0.9, "test_macs_mean": 4e5}

COMPLETE = {"state": "COMPLETE", "points": [POINT]}


REPEATS = """
from orchestrator.record.history import History
heard = History.epoch
def hear(self, trial, step, time, metrics):
    if step <= self.records[trial].step:
        with (self.book.folder / "repeats.txt").open("a") as file:
            print(trial, self.records[trial].attempts, step, time, file=file)
    heard(self, trial, step, time, metrics)
History.epoch = hear
"""
"""Run before the command: notes the epochs that the ledger hears a second time."""
