"""A first study of a folder of images, as a commented file.

Budgets come from what the methods cost at least, the effort from a few timed steps of each.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods import METHODS
from methods.api import Task
from methods.data.load import Data, load
from methods.data.parts import Source
from methods.errors import DataError, MethodError
from methods.files import digest
from methods.machine import threads
from orchestrator.board.words import duration
from orchestrator.search.samples import sampled
from orchestrator.study.check import slots_here
from orchestrator.study.file import LONGEST_NAME, Study
from orchestrator.study.params import derive, parts
from orchestrator.study.space import spaces
from orchestrator.trial.timing import time_trial

SIDES = (32, 64, 96)
"""Sides in pixels that images of several sizes, or of large ones, are brought to."""
EPOCHS = (60, 40, 30, 20, 12, 8)
"""Lengths of a trial, the first that leaves room for `TRIALS` is taken."""
TRIALS = (8, 40)
"""Search trials of a method, least and most."""
SEEDS = 5
"""Confirm runs of a choice, as many as a test needs."""
STEPS = 2
"""Optimiser steps in one of the timing's short epochs."""
WIDTHS = {"choices": [0.25, 0.5]}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "dense": {"depth": {"choices": [8, 14, 20]}, "width": WIDTHS},
    "skipnet": {"depth": {"choices": [14, 20]}, "width": WIDTHS},
    "condensenet": {
        "stages": {"choices": ["2-2-2", "4-4-4"]},
        "growth": {"choices": [4, 8]},
        "condense_factor": {"choices": [2, 4]},
        "groups": {"choices": [2, 4]},
    },
    "condconv": {
        "depth": {"choices": [8, 14, 20]},
        "width": WIDTHS,
        "experts": {"choices": [2, 4]},
    },
    "dsnet": {
        "depth": 8,
        "width": {"choices": [0.5, 0.75]},
        "choices": {"choices": [3, 4]},
        "narrowest": {"choices": [0.25, 0.5]},
        "routing_start": 0,
        "routing_size": 3,
    },
    "resrep": {"depth": {"choices": [8, 14, 20]}, "width": WIDTHS},
}
"""Networks for a machine without a GPU."""
BATCHES = (128, 64, 32, 16, 8, 4, 2)
STEPS_AN_EPOCH = 10
"""Optimiser steps that an epoch should have, at least."""
REACHED = (0.2, 0.7)
"""Share of each method's space that the least and the largest budget should hold."""


@dataclass(frozen=True)
class Draft:
    """A study of some images, before it is written."""

    fields: Mapping[str, Any]
    notes: Mapping[str, str]
    """A comment beside some of the fields."""
    about: tuple[str, ...]
    """What the images are, and how long the study takes."""

    @property
    def study(self) -> Study:
        """The study that the file holds."""
        return Study.model_validate(self.fields)

    def text(self) -> str:
        """The study file."""
        lines = [f"# {line}" for line in self.about]
        for name, value in self.fields.items():
            if isinstance(value, dict):
                lines.append(_commented(f"{name}:", self.notes.get(name)))
                lines += [
                    _commented(f"  {key}: {_flow(entry)}", self.notes.get(f"{name}.{key}"))
                    for key, entry in value.items()
                ]
            else:
                lines.append(_commented(f"{name}: {_flow(value)}", self.notes.get(name)))
        return "\n".join(lines) + "\n"


def draft(data: str, *, hours: float) -> Draft:
    """A study of the images at a path that takes about so many hours on this machine.

    Raises:
        DataError: there are no images to train on.
    """
    size, loaded = _sized(data)
    assert loaded.origin is not None, "this process read it"
    source = loaded.origin.source
    fields: dict[str, Any] = {"version": 1, "name": _name(data), "data": _place(data)}
    fields |= {"size": size} if size else {}
    fields |= {"seed": 0, "budgets": [1.0]}
    batch = next((b for b in BATCHES if b * STEPS_AN_EPOCH <= len(loaded.train)), BATCHES[-1])
    lr = {"low": 0.03, "high": 0.3, "log": True}
    fields["recipe"] = {"epochs": EPOCHS[0], "batch_size": batch, "lr": lr}
    gpu = torch.cuda.is_available()
    fields["methods"] = {name: {} if gpu else SMALL.get(name, {}) for name in METHODS.own}
    fields["search"] = {"trials": TRIALS[1]} | ({} if gpu else {"published": False})
    fields["confirm"] = {"seeds": SEEDS}
    if gpu:
        fields["resources"] = {"cpu": 2, "gpu": 0.25}
    fields["budgets"] = budgets = _budgets(fields, loaded.task)
    on = load(data, size=size, device="cuda") if gpu else loaded
    epochs, trials, seconds = _effort(Study.model_validate(fields), on, hours)
    fields["recipe"]["epochs"], fields["search"]["trials"] = epochs, trials
    runs = (trials + SEEDS * len(budgets)) * len(METHODS.own)
    about = (
        f"Which method is best on {Path(data).name}? Written by `isoflop init`; change what you "
        "like.",
        *_described(loaded, source),
        f"It trains {runs:,} networks at most, which takes up to about {duration(seconds)} on this "
        "machine.",
        "`isoflop plan` estimates it in detail, and `isoflop run` runs it.",
    )
    return Draft(fields, _notes(source), about)


def _sized(data: str) -> tuple[int | None, Data]:
    """The side that images are brought to, if they must be, and the images."""
    try:
        loaded = load(data)
        side = min(loaded.task.height, loaded.task.width)
        square = loaded.task.height == loaded.task.width
        if square and side <= SIDES[-1]:
            return None, loaded
    except DataError:  # of several sizes, or not to be read at any
        loaded = load(data, size=SIDES[0])
        assert loaded.origin is not None
        sizes = loaded.origin.source.train.census.sizes
        sides = [min(size) for size, count in sizes.items() for _ in range(count)]
        side = int(np.median(sides))
    most = SIDES[-1] if torch.cuda.is_available() else SIDES[0]
    size = max((s for s in SIDES if s <= min(side, most)), default=SIDES[0])
    return size, load(data, size=size)


def _budgets(fields: Mapping[str, Any], task: Task) -> list[float]:
    """Three budgets, each of which every method can meet with a good part of its space."""
    study = Study.model_validate(fields)
    floors = []
    for space in spaces(study).values():
        costs = []
        for place in sampled(study, space):
            try:
                costs.append(space.method_at(place).floor(task))
            except MethodError:
                continue
        floors.append(costs)
    low, high = (max(float(np.quantile(c, share)) for c in floors) / 1e6 for share in REACHED)
    return sorted({_two_digits(budget) for budget in (low, math.sqrt(low * high), high)})


def _two_digits(value: float) -> float:
    """The next number with two digits that is no smaller."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.2g}")


def _effort(study: Study, data: Data, hours: float) -> tuple[int, int, float]:
    """Epochs and trials that fit the hours on this machine, and the seconds that they take.

    From the defaults of each method, as `isoflop plan` times them.
    """
    device = "cuda" if study.resources.gpu else "cpu"
    timings = []
    with threads(max(1, int(study.resources.cpu))):
        for space in spaces(study).values():
            method, recipe = parts(space.method, {**space.fixed, **space.defaults()})
            seed = derive(study, f"{space.method}/plan", 0)
            timings.append(time_trial(method, recipe, data, steps=STEPS, seed=seed, device=device))
    trial = sum(timing.seconds for timing in timings)
    confirm = SEEDS * len(study.budgets) * sum(t.seconds + t.test_seconds for t in timings)
    slots = slots_here(study.resources)
    for epochs in EPOCHS:
        share = epochs / EPOCHS[0]
        trials = int((hours * 3600 * slots - share * confirm) / (share * trial))
        if trials >= TRIALS[0]:
            break
    trials = min(max(trials, TRIALS[0]), TRIALS[1])
    return epochs, trials, share * (trials * trial + confirm) / slots


def _described(loaded: Data, source: Source) -> Iterable[str]:
    images = sum(len(part.labels) for part in source.parts.values())
    classes = ", ".join(map(_printable, source.class_names[:6]))
    more = ", ..." if source.classes > 6 else ""
    yield f"{images:,} images of {source.classes:,} classes: {classes}{more}."
    splits = ", ".join(
        f"{len(getattr(loaded, role)):,} {role}" for role in ("train", "validation", "test")
    )
    yield f"Divided into {splits}; `isoflop data` shows them, and what is left out."


def _notes(source: Source) -> dict[str, str]:
    sizes = source.train.census.sizes
    common = max(sizes, key=lambda size: sizes[size])
    stored = f"{common[0]} x {common[1]}" + (" most often" if len(sizes) > 1 else "")
    return {
        "name": "folder and MLflow experiment",
        "size": f"pixels a side; the files have {stored}",
        "budgets": "million MACs (fvcore FLOPs) per image; the last is tested",
        "recipe": "the same for every method",
        "recipe.lr": "searched",
        "methods": "what is searched of each; `isoflop methods NAME` lists its other fields",
        "search.trials": "for each method",
        "search.published": "papers train large networks for hundreds of epochs",
        "confirm.seeds": "fresh trainings of each choice; tests need 5",
        "resources": "a trial takes so many",
    }


def _name(data: str) -> str:
    """The folder's name as a study's; its digest where nothing of it may stay."""
    plain = re.sub(r"[^a-z0-9]+", "-", Path(data).absolute().name.lower()).strip("-")
    letters = re.sub(r"^[^a-z]+", "", plain)[:LONGEST_NAME].strip("-")
    return letters or f"images-{digest(data)[:6]}"


def _place(data: str) -> str:
    """The path as a study's, which is no data set's name."""
    return data if "/" in data else f"./{data}"


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:40]


def _flow(value: object) -> str:
    """A value on one line of YAML."""
    if isinstance(value, dict):
        inner = ", ".join(f"{name}: {_flow(entry)}" for name, entry in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    plain = isinstance(value, int) or re.fullmatch(r"[./]*[A-Za-z][\w./-]*", str(value))
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def _commented(line: str, note: str | None) -> str:
    return f"{line}   # {note}" if note else line
