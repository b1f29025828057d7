"""The gain of a search by what its proposals see, with many trials at once (docs/search.md).

    python -m tests.bench.slots studies/tables/sums.parquet --shares 2

Replays one sampler, by default that of `isoflop run`, on a table of recorded curves under several
rules: what a proposal waits for and sees. `--noise 0.25` makes seeds differ by a quarter of what
they did, so that configurations differ beyond them; `--slow dsnet=4` makes a method's epochs take
four times as long; `--random` draws every proposal at random, which is enough to measure how long
workers wait. CPU seconds are the median over replicates, of one search of all methods.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial
from rich.console import Console

from methods.api import Task
from methods.values import Params
from orchestrator.board.stats.intervals import summary
from orchestrator.report.table import number, table
from orchestrator.search.agenda import Agenda
from orchestrator.search.model.gaussian import Array
from orchestrator.search.replay import curves, tournament
from orchestrator.search.replay.searchers import in_memory
from orchestrator.search.replay.simulate import by_epochs, shares, simulate
from orchestrator.search.samplers import sampled
from orchestrator.search.window import Window
from orchestrator.study.file import Study
from orchestrator.study.params import derive
from orchestrator.study.space import Space


@dataclass(frozen=True)
class Rule:
    """A sampler whose proposals look back by one rule."""

    name: str
    sampler: str
    share: float | None = None
    """The lag as a multiple of a search's equal share of the slots; None is all of them."""
    running: bool = False
    drawn: bool = False
    """Whether every proposal is drawn at random."""

    def agenda(self, study: Study, spaces: Mapping[str, Space], task: Task, lag: int) -> Agenda:
        """A fresh search in memory."""
        of = lag if self.share is None else min(lag, int(np.ceil(self.share * lag / len(spaces))))
        window = Window(of, self.running)
        sample = drawn if self.drawn else sampled
        return Agenda(in_memory(study, spaces, self.sampler), task, window=window, sample=sample)


def drawn(space: Space, _: Sequence[FrozenTrial], study: Study, number: int) -> Params:
    """Free parameters at random."""
    draw = np.random.default_rng(derive(study, f"{space.search}/drawn", number))
    return space.at(draw.random(len(space.free)).tolist())


def rules(sampler: str, shares_: Sequence[float], *, at_random: bool) -> list[Rule]:
    """The former rule, random search, and lags by share without and with running trials."""
    former = Rule("lag: all slots", sampler, drawn=at_random)
    found = [former] if at_random else [Rule("random", "random"), former]
    for share in shares_:
        name = f"lag: {share:g} x share"
        found.append(Rule(name, sampler, share, drawn=at_random))
        if not at_random:
            found.append(Rule(f"{name}, running shown", sampler, share, running=True))
    return found


def measured(
    track: tournament.Track, rule: Rule, *, slots: int, trials: int, seeds: Sequence[int]
) -> Array:
    """Seeds x (share of the best hypervolume at 40 % and all of the epochs, makespan, CPU seconds
    of the simulated search)."""
    found = []
    for seed in seeds:
        began = time.process_time()
        trace = simulate(
            track.table, track.surrogates, rule, workers=slots, trials=trials, seed=seed
        )
        volumes = [
            shares(run, track.goals[method], by_epochs(run, (0.4, 1.0), trials))[1]
            for method, run in trace.runs.items()
        ]
        found.append([*np.mean(volumes, axis=0), trace.seconds, time.process_time() - began])
    return np.array(found)


def altered(track: tournament.Track, noise: float, slow: Mapping[str, float]) -> tournament.Track:
    """The track with less noise between seeds, and slower methods."""
    known = {}
    for method, surrogate in track.surrogates.items():
        pace = replace(surrogate.pace, mean=surrogate.pace.mean + np.log(slow.get(method, 1.0)))
        recorded = {} if noise != 1 or method in slow else surrogate.recorded
        known[method] = replace(
            surrogate, noise=noise * surrogate.noise, pace=pace, recorded=recorded
        )
    return replace(track, surrogates=known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--sampler", default="auto")
    parser.add_argument("--slots", default="2,8,32")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--replicates", type=int, default=24)
    parser.add_argument("--shares", default="1,1.5,2")
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--slow", default="", help="method=factor, joined by commas")
    parser.add_argument("--random", action="store_true")
    asked = parser.parse_args()
    slow = {name: float(f) for name, f in (p.split("=") for p in asked.slow.split(",") if p)}
    track = altered(tournament.Track.of(curves.read(asked.table)), asked.noise, slow)
    console, seeds = Console(width=100), range(asked.replicates)
    shares_ = [float(share) for share in asked.shares.split(",")]
    for slots in map(int, asked.slots.split(",")):
        columns = ("40 % of epochs", "all", "against the former", "makespan", "CPU s")
        title = (
            f"{asked.table.stem}, {asked.sampler}, {slots} slots, {asked.trials} trials a method"
        )
        grid = table("rule", *map(number, columns), title=f"{title}, x {len(seeds)}")
        races = {
            rule.name: measured(track, rule, slots=slots, trials=asked.trials, seeds=seeds)
            for rule in rules(asked.sampler, shares_, at_random=asked.random)
        }
        former = races["lag: all slots"]
        for name, race in races.items():
            paired = summary((race[:, 1] - former[:, 1]).tolist())
            gained = (
                ""
                if race is former or paired.hi is None or paired.mean is None
                else (f"{paired.mean:+.3f} ± {paired.hi - paired.mean:.3f}")
            )
            early, late, seconds, _ = race.mean(axis=0)
            ends = (gained, f"{seconds:.0f} s", f"{np.median(race[:, 3]):.2g}")
            grid.add_row(name, f"{early:.3f}", f"{late:.3f}", *ends)
        console.print(grid)


if __name__ == "__main__":
    main()
