"""How often a board claims what is not so: studies drawn at random, through the real board.

    python -m tests.bench.trust --studies 2000 --to trust.csv

A study has six methods, all of them one, or one of them better. A configuration is right on an
image if its quality, the image's ease and noise add up to more than 0 (probit); configurations
differ by a standard deviation of `config` points of accuracy, runs of one by `seed`, and the images
that a method finds hard are partly its own. Each search validates its configurations once and
confirms the best; rows, evidence, choice, tests and letters are the project's own. Deviations are
stated at an accuracy of 90 %.
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.racing import planned
from orchestrator.board.rules import Rules
from orchestrator.record.evidence import PerImage
from orchestrator.record.rows import Row
from orchestrator.study.file import Study

METHODS = ("dense", "condconv", "condensenet", "dsnet", "resrep", "skipnet")
BETTER = "skipnet"
"""The method that is better, where one is."""
HARD, OWN, NOISE = 3.0, 1.0, 1.0
"""Deviations of the images' ease, of a method's own share of it, and of a run on an image."""
SCALE = float(np.sqrt(HARD**2 + OWN**2 + NOISE**2))
LEVEL = 0.9
POINT = float(norm.pdf(norm.ppf(LEVEL))) / SCALE * 100
"""Points of accuracy in a unit of quality."""
VALIDATION = 1000
"""Images that a search trial is validated on."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One kind of study."""

    repeats: int
    trials: int
    seeds: int = 1
    config: float = 0.0
    """From configuration to configuration, points."""
    seed: float = 0.5
    """From seed to seed, points."""
    uneven: bool = False
    """Whether the methods' deviations differ, by a factor of three from the first to the last."""
    images: int = 2000
    extra: int = 0
    """What a race may add: confirm runs, or searches where they are repeated; 0: none."""
    margin: float = 0.0
    """Points that a method may be worse; 0: that is not tested."""
    better: float = 0.0
    """Points that one method is better than the others."""


@dataclass
class Found:
    """What one study claimed, and how its intervals stood to the truth."""

    claims: int = 0
    """Claims that are false: pairs apart, letters, not worse by a margin that is exceeded."""
    found: bool = False
    """Whether the better method is said to beat the baseline."""
    covered: int = 0
    intervals: int = 0
    families: int = 0
    """Whether all intervals of the tested pairs cover their differences."""


@dataclass(frozen=True)
class Truth:
    """What the searches of each method come to, on the probit scale."""

    quality: Mapping[str, float]
    shift: Mapping[str, float]
    """What is added to a method's configurations, so that all methods come to the same: a wider
    spread would find better ones."""


def drawn(line: Line, number: int, true: Truth) -> Found:
    """One study."""
    world = _World(line, number, true.shift)
    rows, chosen = world.searched()
    while True:
        now = planned(rows, world.study)
        done = {row.trial for row in rows}
        begun = {(row.method, row.repeat) for row in rows}
        new = [
            row
            for name, count in now.searches.items()
            for repeat in range(1, count + 1)
            if (name, repeat) not in begun
            for row in world.search(name, repeat)[0]
        ]
        new += [
            world.confirmed(trial)
            for config, seeds in now.given.items()
            for seed in range(1, seeds + 1)
            if (trial := f"{config}-seed{seed}") not in done
        ]
        if not new:
            break
        rows += new
        if not line.extra:
            break
    rules = replace(Rules.of(world.study), images=line.images, chance=0.1)
    board = leaderboard(rows, rules, world.images)
    return _judged(board, line, true.quality if line.repeats > 1 else chosen)


class _World:
    """The configurations of one study and what their runs give."""

    def __init__(self, line: Line, number: int, shift: Mapping[str, float]) -> None:
        self.line = line
        self._shift = shift
        self._draw = np.random.default_rng([number, line.repeats, line.trials, line.images])
        draw = self._draw
        ease = draw.normal(0, HARD, line.images)
        self._ease = {name: ease + draw.normal(0, OWN, line.images) for name in METHODS}
        factors = np.geomspace(1 / 3**0.5, 3**0.5, len(METHODS)) if line.uneven else np.ones(6)
        self._factor = dict(zip(METHODS, factors.tolist(), strict=True))
        self._quality: dict[str, float] = {}
        self._methods: dict[str, tuple[str, int]] = {}
        self.images: dict[tuple[str, str], PerImage] = {}
        search: dict[str, Any] = {"trials": line.trials, "published": False}
        search |= {"repeats": line.repeats} if line.repeats > 1 else {}
        confirm: dict[str, Any] = {"seeds": line.seeds}
        confirm |= {"race": True, "budget": line.extra} if line.extra else {}
        self.study = Study.model_validate(
            {
                "name": "trust",
                "data": "digits",
                "budgets": [1],
                "methods": {name: {} for name in METHODS},
                "search": search,
                "confirm": confirm,
                **({"margin": line.margin} if line.margin else {}),
            }
        )

    def searched(self) -> tuple[list[Row], dict[str, float]]:
        """The search trials, and the true quality of what a single search chose."""
        rows, chosen = [], {}
        for name in METHODS:
            for repeat in range(1, self.line.repeats + 1):
                trials, chosen[name] = self.search(name, repeat)
                rows += trials
        return rows, chosen

    def search(self, name: str, repeat: int) -> tuple[list[Row], float]:
        """The trials of one search, and the true quality of what it chose."""
        rows, line, draw = [], self.line, self._draw
        search = name if line.repeats == 1 else f"{name}-r{repeat}"
        spread = line.config * self._factor[name] / POINT
        better = line.better / POINT if name == BETTER else 0.0
        shift = better + self._shift.get(name, 0.0)
        qualities = SCALE * norm.ppf(LEVEL) + shift + draw.normal(0, spread, line.trials)
        trained = qualities + self._run(name, line.trials)
        right = draw.binomial(VALIDATION, norm.cdf(trained / SCALE)) / VALIDATION
        for number in range(line.trials):
            trial = f"{search}-{number:05d}"
            self._quality[trial] = float(qualities[number])
            self._methods[trial] = (name, repeat)
            rows.append(_row(name, repeat, trial, val_acc=float(right[number])))
        best = min(range(line.trials), key=lambda i: (-right[i], i))
        return rows, float(qualities[best])

    def confirmed(self, trial: str) -> Row:
        """A confirm run of a configuration."""
        config, _, seed = trial.rpartition("-seed")
        name, repeat = self._methods[config]
        quality = self._quality[config] + float(self._run(name, 1)[0])
        noise = self._draw.normal(0, NOISE, self.line.images)
        right = quality + self._ease[name] + noise > 0
        self.images[trial, ""] = PerImage(
            right, np.ones(len(right)), np.zeros(len(right), np.int64)
        )
        changes = {"role": "confirm", "config": config, "seed": int(seed)}
        return _row(name, repeat, trial, test_acc=float(right.mean()), **changes)

    def _run(self, name: str, runs: int) -> Floats:
        """What training adds to a configuration's quality."""
        spread = self.line.seed * self._factor[name] / POINT
        return self._draw.normal(0, spread, runs)


def _row(method: str, repeat: int, trial: str, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "study": "trust",
        "method": method,
        "repeat": repeat,
        "trial": trial,
        "config": trial,
        "config_hash": "",
        "role": "search",
        "point": "",
        "seed": 0,
        "state": "COMPLETE",
        "reason": None,
        "params": {},
        "epochs": 1,
        "seconds": 1.0,
        "val_acc": 0.5,
        "val_macs_mean": 1e6,
        "test_macs_mean": 1e6 if "test_acc" in changes else None,
    }
    return Row(**{**values, **changes})


def _judged(board: Board, line: Line, quality: Mapping[str, float]) -> Found:
    """A board against the truth: of the methods, or of the configurations of a single search."""
    found, missed, true = Found(), 0, {n: float(norm.cdf(q / SCALE)) for n, q in quality.items()}
    for pair in board.pairs:
        gap = true[pair.method] - true[pair.other]
        claimed = np.sign(pair.result.difference or 0.0) if pair.separated else 0
        shared = set(board.cell(pair.method, 1).letters) & set(board.cell(pair.other, 1).letters)
        lettered = bool(board.cell(pair.method, 1).letters and board.cell(pair.other, 1).letters)
        false = claimed and np.sign(round(gap, 12)) != claimed
        found.claims += bool(false) or (lettered and not shared and not claimed)
        if pair.result.lo is not None and pair.result.hi is not None:
            missed += not pair.result.lo <= gap <= pair.result.hi
    found.families = not missed
    for test in board.not_worse:
        gap = true[test.method] - true[test.other]
        found.claims += test.shown and gap <= -line.margin / 100
    for cell in board.cells:
        if cell.accuracy.lo is not None and cell.accuracy.hi is not None:
            found.intervals += 1
            found.covered += cell.accuracy.lo <= true[cell.method] <= cell.accuracy.hi
    gain = board.gain(BETTER, 1)
    found.found = bool(line.better and gain is not None and gain.ahead)
    return found


def settled(line: Line, studies: int) -> Truth:
    """What the methods come to, by searches of their own, brought to one and the same."""
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    single = replace(line, repeats=1, seeds=1, extra=0, margin=0.0, better=0.0)
    for number in range(max(200, 5 * studies)):
        _, chosen = _World(single, 10**6 + number, {}).searched()
        for name, quality in chosen.items():
            found[name].append(float(norm.cdf(quality / SCALE)))
    own = {name: SCALE * float(norm.ppf(np.mean(of))) for name, of in found.items()}
    usual = float(np.mean(list(own.values())))
    uneven = line.uneven and line.config > 0
    shift = {name: usual - quality for name, quality in own.items()} if uneven else {}
    quality = dict.fromkeys(METHODS, usual)
    quality[BETTER] += line.better / POINT
    return Truth(quality, shift)


def _part(work: tuple[Line, range, Truth]) -> list[Found]:
    line, numbers, true = work
    return [drawn(line, number, true) for number in numbers]


def measured(line: Line, studies: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """One row of the table."""
    began = time.perf_counter()
    true = settled(line, min(studies, 400))
    parts = [range(start, min(start + 50, studies)) for start in range(0, studies, 50)]
    all_found = [
        one for part in pool.map(_part, [(line, part, true) for part in parts]) for one in part
    ]
    return {
        **asdict(line),
        "studies": studies,
        "false": round(100 * float(np.mean([one.claims > 0 for one in all_found])), 1),
        "found": round(100 * float(np.mean([one.found for one in all_found])), 1),
        "cells covered": _percent(
            sum(one.covered for one in all_found), sum(one.intervals for one in all_found)
        ),
        "pages covered": _percent(sum(one.families for one in all_found), studies),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def lines() -> Iterator[Line]:
    """The table: no difference, at several spreads and numbers of searches; then one."""
    for config in (0.0, 0.3, 1.0):
        for repeats in (5, 10):
            for uneven in (False, True):
                yield Line(repeats=repeats, trials=8, config=config, uneven=uneven)
    for images in (269, 10_000):
        yield Line(repeats=5, trials=8, config=1.0, images=images)
    yield Line(repeats=5, trials=8, seeds=3, config=1.0)
    yield Line(repeats=5, trials=8, config=1.0, margin=0.3)
    yield Line(repeats=5, trials=8, config=1.0, margin=0.3, better=-0.3)
    for seeds, extra in ((5, 0), (10, 0), (5, 12)):
        yield Line(repeats=1, trials=8, seeds=seeds, config=1.0, extra=extra)
    for config in (0.3, 1.0):
        for better in (1.0, 2.0):
            yield Line(repeats=1, trials=40, seeds=5, config=config, better=better)
            yield Line(repeats=5, trials=8, config=config, better=better)
            yield Line(repeats=10, trials=4, config=config, better=better)
    for better in (0.0, 2.0):
        yield Line(repeats=5, trials=8, config=1.0, extra=12, better=better)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of lines, from 0")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    table = [line for i, line in enumerate(lines()) if asked.only is None or i in asked.only]
    with ProcessPoolExecutor(asked.processes) as pool:
        writer = None
        target = asked.to.open("w") if asked.to else sys.stdout
        for line in table:
            row = measured(line, asked.studies, pool)
            if writer is None:
                writer = csv.DictWriter(target, list(row))
                writer.writeheader()
            writer.writerow(row)
            target.flush()


if __name__ == "__main__":
    main()
