"""A sweep whose processes are killed one after the other, at random instants."""

import logging
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from faults import (
    PROJECTOR,
    RAYLET,
    REPEATS,
    WORKER,
    Event,
    Sweep,
    below,
    clean,
    nothing_lost,
    strike,
)
from shadows import shadow
from stores import Server

from orchestrator.trial.run import INTERVAL

logger = logging.getLogger(__name__)

SEED = 7
FEW = dict.fromkeys(("driver", "worker", "raylet", "projector"), 1)
"""A server that dies is shown by tests/store/test_projector.py, and by the many kills."""
MANY = {"driver": 6, "worker": 7, "raylet": 2, "server": 3, "projector": 2}
SHORT = """
name: quickstart
data: digits
budgets: [0.1, 0.3]
recipe: {epochs: 2, batch_size: 64}
resources: {concurrency: 2, retries: 40}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
  skipnet: {depth: 8, width: 0.25, gate: rnn}
search: {trials: 2}
confirm: {seeds: 2}
"""
"""A kill may hit one trial more often than a poisonous one may start."""
LONG = """
name: drill
data: digits
budgets: [0.3, 1]
recipe: {epochs: 4, batch_size: 16, lr: {low: 0.05, high: 0.2, log: true}}
resources: {concurrency: 2, retries: 40}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
  skipnet: {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn}
search: {trials: 4}
confirm: {seeds: 3}
"""
COMMAND = """
if __name__ == "__main__":
    from orchestrator.cli import main
    main()
"""


def drilled_in_shadows(folder: Path, template: Path) -> Sweep:
    """A short sweep through one kill of each kind, in a folder with files named like modules."""
    sweep = Sweep(folder, SHORT)
    sweep.out.mkdir(exist_ok=True)
    shutil.copy(template, sweep.out)
    sweep.cwd = shadow(folder / "work")
    command = folder / "command.py"  # whose folder Python searches first, as that of a script
    command.write_text(REPEATS + COMMAND)
    sweep.program = [sys.executable, str(command)]
    drilled(sweep, FEW, f"sqlite:///{sweep.out / 'mlflow.db'}")
    return sweep


def drilled_with_a_server(folder: Path, template: Path) -> Sweep:
    """A long sweep through many kills, whose MLflow server dies, too."""
    place = folder / "server"
    place.mkdir(parents=True)
    shutil.copy(template, place)
    server = Server(place)
    server.start()
    sweep = Sweep(folder, LONG, "--mlflow", server.uri, before=REPEATS)
    try:
        drilled(sweep, MANY, server.uri, server)
    finally:
        server.kill()
    return sweep


def drilled(sweep: Sweep, kills: Mapping[str, int], uri: str, server: Server | None = None) -> None:
    """Runs a sweep through all these kills to its end; nothing is lost, in no store."""
    drill = Drill(sweep, random.Random(SEED), server)
    began = time.monotonic()
    try:
        drill.run(kills)
        restarts = 0
        while sweep.wait(600) != 0:
            restarts += 1
            assert restarts < 5, sweep.printed()
            drill.up()
        clean(sweep.printed())
        nothing_lost(sweep, uri)
        redone = redone_epochs(sweep)
    finally:
        drill.close()
    logger.info(
        "seed %d, %d kills: %.0f s; %d epochs, %d of them done again",
        SEED,
        sum(kills.values()),
        time.monotonic() - began,
        sum(event["event"] == "epoch" for event in sweep.events()),
        redone,
    )


class Drill:
    """Kills one thing after another, each after a random wait; what ended is started again."""

    def __init__(self, sweep: Sweep, draw: random.Random, server: Server | None) -> None:
        self._sweep = sweep
        self._draw = draw
        self._server = server
        self._starting: threading.Thread | None = None
        self._known = 0
        self._killed: list[str] = []

    def run(self, kills: Mapping[str, int]) -> None:
        """All these kills, in a random order."""
        plan = [kind for kind, count in kills.items() for _ in range(count)]
        self._draw.shuffle(plan)
        strikes: dict[str, Callable[[], bool]] = {
            "driver": self._driver,
            "worker": self._worker,
            "raylet": lambda: self._one(RAYLET),
            "projector": lambda: self._one(*PROJECTOR),
            "server": self._outage,
        }
        for kind in plan:
            deadline = time.monotonic() + 200
            while not strikes[kind]():
                logger.info("no %s to kill after %d events", kind, len(self._sweep.events()))
                assert time.monotonic() < deadline, f"no {kind} to kill:\n{self._sweep.printed()}"
                self.up()
                time.sleep(0.05)
            self._killed.append(kind)
            logger.info("killed a %s after %d events", kind, len(self._sweep.events()))
            self.up()

    def up(self) -> None:
        """The same command again, if it has ended; the server first."""
        if self._sweep.started and self._sweep.code is None:
            return
        assert self._sweep.code != 0, f"the sweep ended before the drill: {self._killed}"
        if self._starting is not None:
            self._starting.join()
        self._known = len(self._sweep.events())
        self._sweep.start()

    def close(self) -> None:
        """End all of it."""
        self._sweep.close()
        if self._starting is not None:
            self._starting.join()

    def _driver(self) -> bool:
        """Anywhere from its first import to the midst of training."""
        self.up()
        if len(self._sweep.events()) == self._known:
            time.sleep(self._draw.uniform(0, 8))
        else:
            self._news()
        if self._sweep.code is not None:
            return False
        self._sweep.kill()
        return True

    def _worker(self) -> bool:
        """A worker's death, which the sweep takes as a lost trial; not all of Ray's."""
        known = self._lost()
        if not self._one(WORKER):
            return False
        deadline = time.monotonic() + 30
        while self._lost() == known and self._sweep.code is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self._lost() > known  # one that had just handed over its trial's end lost nothing

    def _lost(self) -> int:
        return sum(event["event"] == "lost" for event in self._sweep.events())

    def _one(self, *what: str) -> bool:
        self.up()
        self._news()
        processes = below(self._sweep.pid, *what)
        return bool(processes) and strike(self._draw.choice(processes))

    def _outage(self) -> bool:
        """The server's death; it is back after a moment."""
        assert self._server is not None
        if self._starting is not None:
            self._starting.join()
        self._news()
        self._server.kill()
        self._starting = threading.Thread(target=self._back, args=(self._draw.uniform(0, 2),))
        self._starting.start()
        return True

    def _back(self, pause: float) -> None:
        assert self._server is not None
        time.sleep(pause)
        self._server.start()

    def _news(self) -> None:
        """Until something new is in the log, and up to half a second on."""
        known = len(self._sweep.events())
        deadline = time.monotonic() + 60
        while self._sweep.code is None and time.monotonic() < deadline:
            if len(self._sweep.events()) > known:
                break
            time.sleep(0.02)
        time.sleep(self._draw.uniform(0, 0.5))


def redone_epochs(sweep: Sweep) -> int:
    """How many epochs were trained twice; each start repeats those since its checkpoint alone.

    Those that its checkpoint holds come with the time of whoever trained them, and are not trained.
    """
    first: dict[tuple[str, int], Event] = {
        (event["trial"], event["step"]): event
        for event in sweep.events()
        if event["event"] == "epoch"
    }
    trained = {(*epoch, str(event["time"])) for epoch, event in first.items()}
    starts: dict[tuple[str, int], list[int]] = {}
    notes = sweep.folder / "repeats.txt"
    for line in notes.read_text().splitlines() if notes.exists() else []:
        trial, attempt, step, when = line.split()
        if (trial, int(step), when) not in trained:
            trained.add((trial, int(step), when))
            starts.setdefault((trial, int(attempt)), []).append(int(step))
    for (trial, attempt), steps in starts.items():
        seconds = sum(first[trial, step]["metrics"]["curve/seconds"] for step in steps)
        assert seconds <= INTERVAL + 0.5, (trial, attempt, steps, seconds)
    return sum(len(steps) for steps in starts.values())
