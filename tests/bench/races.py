"""The comparison of searches in docs/search.md, from a table of recorded curves.

    python -m tests.bench.peers install
    python -m tests.bench.races curves.parquet --to docs/search.svg --replicates 20

Runs isoflop's searchers, Optuna's samplers alone, and the searchers of other tools, each of which
has an environment of its own, with equal epochs and the same seeds. A peer whose environment is not
installed is left out with a line.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from rich.console import Console
from rich.table import Table as Grid

from methods.errors import SearcherError
from orchestrator.board.stats.intervals import summary
from orchestrator.report.table import number, table
from orchestrator.search.replay import curves, tournament
from orchestrator.search.replay.searchers import Stock, named
from orchestrator.search.replay.simulate import Searcher
from orchestrator.search.replay.tournament import FRACTIONS, SHOWN, Standing
from tests.bench.peers import ENVIRONMENTS, PEERS, python_of, searcher

OURS = "default,ehvi,ehvi+predictive,random,sobol"


def nsga2(seed: int, trials: int) -> BaseSampler:
    """Four generations at least: Optuna's fifty a generation would be random in short searches."""
    return NSGAIISampler(seed=seed, population_size=min(50, max(4, trials // 4)))


def gp(seed: int, _trials: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(seed=seed)


ALONE = {
    "optuna-tpe": Stock("TPE (Optuna alone)", lambda seed, _: TPESampler(seed=seed), "tpe"),
    "optuna-nsga2": Stock("NSGA-II (Optuna alone)", nsga2, "nsga2"),
    "optuna-gp": Stock("GP (Optuna alone)", gp, "gp"),
}
"""Optuna's samplers with its own settings, by its ask and tell. What a sweep spreads evenly is
spread here, too: from trials over the budget TPE and GP learn nothing, and propose them again."""


def chosen(names: str, peers: str, environments: Path, console: Console) -> list[Searcher]:
    """Searchers by name, and those peers that are installed."""
    found = named(names) if names else []
    wanted = [*ALONE, *PEERS] if peers == "all" else [name for name in peers.split(",") if name]
    for name in wanted:
        if name in ALONE:
            found.append(ALONE[name])
        elif (python := python_of(name, environments)) is not None:
            found.append(searcher(name, python))
        else:
            how = f"python -m tests.bench.peers install {name}"
            console.print(f"{name} is left out: `{how}` installs it", highlight=False)
    return found


def paired(races: list[Standing], baseline: str) -> Grid | None:
    """Differences from one searcher on the same seeds; None where it did not run."""
    base = next((race for race in races if race.searcher == baseline), None)
    if base is None:
        return None
    columns = [number(f"{100 * fraction:.0f} % of epochs", wrap=True) for fraction in SHOWN]
    title = f"Paired difference from {baseline}, 95 % interval"
    grid = table("searcher", *columns, title=title)
    for race in races:
        gains = [race.confirmed[:, i] - base.confirmed[:, i] for i in map(FRACTIONS.index, SHOWN)]
        grid.add_row(race.searcher, *(cell(gain.tolist()) for gain in gains))
    return grid


def cell(gains: list[float]) -> str:
    each = summary(gains)
    if each.mean is None or each.hi is None:
        return ""
    return f"{each.mean:+.3f} ± {each.hi - each.mean:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--to", type=Path, default=Path("search.svg"))
    parser.add_argument(
        "--searchers", default=OURS, help="as `isoflop simulate --searcher` has them"
    )
    listed = ", ".join([*ALONE, *PEERS])
    parser.add_argument("--peers", default="all", help=f"all, or some of {listed}, by commas")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=48)
    asked = parser.parse_args()
    if unknown := set(asked.peers.split(",")) - {"all", "", *ALONE, *PEERS}:
        parser.error(f"no peer is called {min(unknown)!r}; the peers are {listed}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    console = Console(width=110)
    searchers = chosen(asked.searchers, asked.peers, asked.environments, console)
    track = tournament.Track.of(curves.read(asked.table))
    console.print(tournament.qualities(track))
    races = []
    seeds = range(asked.replicates)
    for each in searchers:
        try:
            race = tournament.race(
                track, each, workers=asked.workers, trials=asked.trials, seeds=seeds
            )
        except SearcherError as error:
            console.print(f"{each.name} is left out: {error}", highlight=False)
            continue
        races.append(race)
        console.print(tournament.line(race), highlight=False)
    if not races:
        sys.exit(1)
    console.print(tournament.standings(races))
    if (grid := paired(races, "random")) is not None:
        console.print(grid)
    for race in races:
        means = " ".join(f"{mean:.4f}" for mean in race.confirmed.mean(axis=0))
        console.print(f"{race.searcher}: {means}", highlight=False, soft_wrap=True)
    tournament.write_figure(races, asked.to)


if __name__ == "__main__":
    main()
