"""Real kills at random instants, against a sweep that nobody touched."""

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from executor import rows_without_ray
from faults import (
    PROJECTOR,
    RAYLET,
    REPEATS,
    WORKER,
    Event,
    Sweep,
    below,
    clean,
    different,
    nothing_lost,
    strike,
)
from stores import Server

from orchestrator.record.rows import Row
from orchestrator.study.file import load
from orchestrator.trial.run import INTERVAL

logger = logging.getLogger(__name__)

SEED = 7
FEW = dict.fromkeys(("driver", "worker", "raylet", "projector"), 1)
"""A server that dies is shown by tests/store/test_projector.py, and by the many kills."""
MANY = {"driver": 6, "worker": 7, "raylet": 2, "server": 3, "projector": 2}
FILE = """
name: drill
data: digits
budgets: [0.3, 1]
recipe: {epochs: 4, batch_size: 16, lr: {low: 0.05, high: 0.2, log: true}}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
  skipnet: {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn}
"""
SHORT = "search: {trials: 2}\nconfirm: {seeds: 1}\n"
LONG = "search: {trials: 4}\nconfirm: {seeds: 3}\n"
INNOCENT = "resources: {concurrency: 2, retries: 40}\n"
"""The drill may hit a trial more often than a poisonous one may start."""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_of_each_kind_loses_nothing(tmp_path: Path, template: Path) -> None:
    """Against the same trials without Ray, one after the other in this process."""
    text = FILE + SHORT + INNOCENT
    rows = drilled(tmp_path / "drill", text, FEW, template)
    study = load(tmp_path / "drill" / "study.yaml")
    assert different(rows, rows_without_ray(study, tmp_path / "whole", lag=2)) == []


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_many_kills_at_random_instants_lose_nothing(tmp_path: Path, template: Path) -> None:
    """Against a real sweep that nobody touched."""
    text = FILE + LONG + INNOCENT
    rows = drilled(tmp_path / "drill", text, MANY, template)
    whole = Sweep(tmp_path / "whole", text)
    whole.start()
    try:
        assert whole.wait(600) == 0, whole.printed()
    finally:
        whole.close()
    assert different(rows, whole.rows()) == []


def drilled(folder: Path, text: str, kills: Mapping[str, int], template: Path) -> list[Row]:
    """The rows of a sweep through all these kills, which lost nothing."""
    place = folder / "server"
    place.mkdir(parents=True)
    shutil.copy(template, place)
    server = Server(place)
    server.start()
    sweep = Sweep(folder, text, "--mlflow", server.uri, before=REPEATS)
    drill = Drill(sweep, server, random.Random(SEED))
    began = time.monotonic()
    try:
        drill.run(kills)
        restarts = 0
        while sweep.wait(600) != 0:
            restarts += 1
            assert restarts < 5, sweep.printed()
            drill.up()
        clean(sweep.printed())
        nothing_lost(sweep, server.uri)
        redone = redone_epochs(sweep)
    finally:
        drill.close()
    epochs = sum(event["event"] == "epoch" for event in sweep.events())
    logger.info(
        "seed %d, %d kills: %.0f s; %d epochs, %d of them done again",
        SEED,
        sum(kills.values()),
        time.monotonic() - began,
        epochs,
        redone,
    )
    return sweep.rows()


class Drill:
    """Kills one thing after another, each after a random wait; what ended is started again."""

    def __init__(self, sweep: Sweep, server: Server, draw: random.Random) -> None:
        self._sweep = sweep
        self._server = server
        self._draw = draw
        self._starting: threading.Thread | None = None
        self._known = 0
        self._killed: list[str] = []

    def run(self, kills: Mapping[str, int]) -> None:
        """All these kills, in a random order."""
        plan = [kind for kind, count in kills.items() for _ in range(count)]
        self._draw.shuffle(plan)
        strikes: dict[str, Callable[[], bool]] = {
            "driver": self._driver,
            "worker": lambda: self._one(WORKER),
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
        self._server.kill()

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

    def _one(self, *what: str) -> bool:
        self.up()
        self._news()
        processes = below(self._sweep.pid, *what)
        return bool(processes) and strike(self._draw.choice(processes))

    def _outage(self) -> bool:
        """The server's death; it is back after a moment."""
        if self._starting is not None:
            self._starting.join()
        self._news()
        self._server.kill()
        self._starting = threading.Thread(target=self._back, args=(self._draw.uniform(0, 2),))
        self._starting.start()
        return True

    def _back(self, pause: float) -> None:
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
