"""Logs of sweeps that no driver wrote, in a study's folder as a driver would leave them."""

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from orchestrator.record.events import (
    Begun,
    End,
    EndState,
    Epoch,
    Event,
    Figures,
    Metrics,
    Point,
    Role,
    Start,
    encode,
)
from orchestrator.record.provenance import Provenance
from orchestrator.study.file import Study
from orchestrator.study.params import parts
from orchestrator.study.space import spaces

STUDY = Study.model_validate(
    {
        "name": "watched",
        "data": "digits",
        "budgets": [0.1, 0.3],
        "recipe": {"epochs": 4, "lr": {"low": 0.05, "high": 0.2, "log": True}},
        "methods": {
            "dense": {"depth": 8, "width": {"choices": [0.25, 0.5]}},
            "skipnet": {"depth": 8, "width": 0.25},
        },
        "search": {"trials": 2, "published": False},
        "confirm": {"seeds": 2},
    }
)
BEGAN = 1_800_000_000_000
"""Milliseconds since 1970 at which these sweeps begin."""
SECRET = 0.87654321
"""The test accuracy of their confirm runs, which nobody may see before the end."""


def begun(study: Study = STUDY, lag: int = 2, time: int = BEGAN) -> Begun:
    content = study.model_dump(mode="json")
    origin = Provenance(study=content, study_hash=study.hash, classes=10, image=(1, 8, 8))
    return Begun(study.name, study.hash, origin, lag, "cpu", time)


def start(trial: str, study: Study = STUDY, attempt: int = 1, time: int = BEGAN) -> Start:
    config, _, seed = trial.partition("-seed")
    method = config.split("-", 1)[0]
    space = spaces(study)[method]
    values = {"dense": {"width": 0.25, "recipe.lr": 0.1}}.get(method, {"recipe.lr": 0.1})
    drawn = {name: values.get(name, _first(space.free[name])) for name in space.free}
    role: Role = "confirm" if seed else "search"
    params = space.params(drawn)
    parts(method, params)
    budgets = study.budgets if seed else ()
    index = int(seed or 0)
    return Start(
        trial, role, method, params, index, attempt, config, "0" * 12, tuple(budgets), time=time
    )


def epoch(trial: str, step: int, accuracy: float, time: int = BEGAN) -> Epoch:
    metrics = Metrics(train_loss=1.0, val_acc=accuracy, val_loss=1.0, macs_mean_m=0.05, seconds=1.0)
    return Epoch(trial, step, metrics, time)


def end(
    trial: str, state: EndState = "COMPLETE", reason: str | None = None, time: int = BEGAN
) -> End:
    test = Figures(SECRET, 5e4) if "-seed" in trial else None
    points = (Point("", Figures(0.5, 5e4), test),) if state == "COMPLETE" else ()
    return End(trial, state, reason, 4, 4.0, points, time=time)


def whole(trial: str) -> list[Event]:
    """A trial from its start to its end."""
    return [start(trial), *(epoch(trial, step, 0.1 * step) for step in range(1, 5)), end(trial)]


def search(study: Study = STUDY) -> list[Event]:
    """Every search trial, one after another."""
    names = [f"{m}-{i:05}" for i in range(study.search.trials) for m in study.methods]
    return [begun(study), *(event for name in names for event in whole(name))]


def write(folder: Path, events: list[Event], study: Study = STUDY, mode: str = "w") -> None:
    """The events in a study's folder, at the end of its log with the mode 'a'."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"hash": study.hash, **study.model_dump(mode="json")}
    (folder / "study.json").write_text(json.dumps(content))
    with (folder / "wal.jsonl").open(mode) as wal:
        wal.writelines(json.dumps(encode(event)) + "\n" for event in events)


@contextlib.contextmanager
def driver(folder: Path) -> Iterator[None]:
    """This process holds the folder's lock inside the block, as a driver does."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
        yield


def _first(distribution: object) -> object:
    choices = getattr(distribution, "choices", None)
    return choices[0] if choices else getattr(distribution, "low", None)
