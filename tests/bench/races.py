"""The comparison of searches in docs/races.md, from the tables of recorded curves.

    python -m tests.bench.peers install
    python -m tests.bench.races studies/tables/sums.parquet studies/tables/digits.parquet

Runs isoflop's searchers, Optuna's samplers alone, and the searchers of other tools, each of which
has an environment of its own, with equal epochs and the same seeds. A peer whose environment is not
installed is left out with a line. What ran is kept by searcher: an interrupted comparison resumes.
"""

import argparse
import hashlib
import itertools
import json
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler
from rich.console import Console

from methods.errors import SearcherError
from orchestrator.search.replay import curves, tournament
from orchestrator.search.replay.searchers import STOCK, Stock, named
from orchestrator.search.replay.simulate import Searcher
from orchestrator.search.replay.tournament import Standing, Track
from tests.bench.ideas import IDEAS
from tests.bench.peers import ENVIRONMENTS, PEERS, python_of, searcher
from tests.bench.perfect import Perfect
from tests.bench.verdicts import PERFECT, Field, page

OURS = "random,sobol,default,prior,shared,default+promote,random+promote"
DRAWN = ("random", "default", "default+promote", "optuna-tpe", "one-epoch", "moasha", PERFECT)
"""Searchers of the figure: a colour each."""
KEPT = Path("build/races")
ARRAYS = ("confirmed", "observed", "times", "timed")


def gp(seed: int, _trials: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(seed=seed)


def nsga2(seed: int, trials: int) -> BaseSampler:
    """Four generations at least: Optuna's fifty a generation would be random in short searches."""
    return NSGAIISampler(seed=seed, population_size=min(50, max(4, trials // 4)))


OPTUNA = {stock.name: stock for stock in STOCK}
ALONE = {
    "optuna-tpe": replace(OPTUNA["tpe"], name="TPE (Optuna alone)", sampler="tpe"),
    "optuna-nsga2": Stock("NSGA-II (Optuna alone)", nsga2, "nsga2"),
    "optuna-gp": Stock("GP (Optuna alone)", gp, "tpe", seeded_as="gp"),
}
"""Optuna's samplers with its own settings, by its ask and tell. What a sweep spreads evenly is
spread here, too, for TPE and GP: from trials over the budget they learn nothing, and propose them
again. GP has the starts that `tpe` has in a study."""


def chosen(
    names: str, peers: str, environments: Path, console: Console
) -> list[tuple[str, Searcher]]:
    """Searchers by name, and those peers that are installed."""
    found = [(name, IDEAS.get(name) or named(name)[0]) for name in names.split(",") if name]
    wanted = [*ALONE, *PEERS] if peers == "all" else [name for name in peers.split(",") if name]
    for name in wanted:
        if name in ALONE:
            found.append((name, ALONE[name]))
        elif (python := python_of(name, environments)) is not None:
            found.append((name, searcher(name, python)))
        else:
            how = f"python -m tests.bench.peers install {name}"
            console.print(f"{name} is left out: `{how}` installs it", highlight=False)
    return found


@dataclass(frozen=True)
class Setting:
    """What all searchers of one comparison have in common."""

    table: Path
    trials: int
    workers: int
    replicates: int

    @property
    def title(self) -> str:
        """As the page calls it."""
        return f"{self.table.stem}, {self.trials} trials a method, {self.workers} at once"

    def file(self, name: str, folder: Path) -> Path:
        """Where the result of a searcher is kept: another table or search is another file."""
        digest = hashlib.sha256(self.table.read_bytes()).hexdigest()[:8]
        of = f"{self.table.stem}-{digest}-{self.trials}x{self.workers}x{self.replicates}"
        return folder / of / f"{name}.json"

    def kept(self, name: str, folder: Path) -> "Setting | None":
        """This setting with as many replicates of a searcher as are kept, if any are."""
        for replicates in range(self.replicates, 0, -1):
            fewer = replace(self, replicates=replicates)
            if fewer.file(name, folder).exists():
                return fewer
        return None


def raced(setting: Setting, track: Track, name: str, each: Searcher, folder: Path) -> Standing:
    """A searcher's replicates, from the folder if they are kept there.

    Raises:
        SearcherError: a searcher of others fails.
    """
    path = setting.file(name, folder)
    if path.exists():
        content = json.loads(path.read_text())
        return Standing(**{**content, **{key: np.array(content[key]) for key in ARRAYS}})
    sizes = {"workers": setting.workers, "trials": setting.trials}
    standing = tournament.race(track, each, **sizes, seeds=range(setting.replicates))
    path.parent.mkdir(parents=True, exist_ok=True)
    lists = {key: getattr(standing, key).tolist() for key in ARRAYS}
    path.write_text(json.dumps({**vars(standing), **lists}))
    return standing


def compared(
    setting: Setting,
    searchers: Sequence[tuple[str, Searcher]],
    folder: Path,
    console: Console,
    *,
    kept: bool = False,
) -> dict[str, Standing]:
    """The races of one setting, by searcher; one that fails is left out with a line.

    Of `kept` races those alone that the folder has, also where they have fewer replicates.
    """
    console.rule(setting.title)
    track = Track.of(curves.read(setting.table))
    races = {}
    for name, each in [*searchers, (PERFECT, Perfect(track))]:
        of = setting.kept(name, folder) if kept else setting
        if of is None:
            continue
        try:
            races[name] = raced(of, track, name, each, folder)
        except SearcherError as error:
            console.print(f"{each.name} is left out: {error}", highlight=False)
            continue
        console.print(tournament.line(races[name]), highlight=False)
    if races:
        console.print(tournament.standings(list(races.values())))
    return races


def repeated(words: Sequence[str]) -> str:
    """The command that was given, without where it writes and keeps."""
    skipped = ("--page", "--figure", "--keep", "--environments")
    pairs = zip(words, ["", *words], strict=False)
    left = [word for word, before in pairs if not {word, before} & {*skipped}]
    left = [word for word in left if word != "--kept"]
    return shlex.join(["python", "-m", "tests.bench.races", *left])


def numbers(text: str) -> list[int]:
    """Numbers by commas."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", type=Path, nargs="+")
    parser.add_argument(
        "--searchers", default=OURS, help="as `isoflop simulate` has them, or prior, shared"
    )
    listed = ", ".join([*ALONE, *PEERS])
    parser.add_argument("--peers", default="all", help=f"all, or some of {listed}, by commas")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--workers", type=numbers, default=[2, 32])
    parser.add_argument("--trials", type=numbers, default=[16, 48])
    parser.add_argument("--keep", type=Path, default=KEPT, help="the results, by searcher")
    parser.add_argument("--kept", action="store_true", help="race nothing: show what is kept")
    parser.add_argument("--page", type=Path, default=None, help="write the results as Markdown")
    parser.add_argument("--figure", type=Path, default=None, help="draw some of the first setting")
    asked = parser.parse_args()
    if unknown := set(asked.peers.split(",")) - {"all", "", *ALONE, *PEERS}:
        parser.error(f"no peer is called {min(unknown)!r}; the peers are {listed}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    console = Console(width=110)
    searchers = chosen(asked.searchers, asked.peers, asked.environments, console)
    fields = []
    for table, trials, workers in itertools.product(asked.table, asked.trials, asked.workers):
        setting = Setting(table, trials, workers, asked.replicates)
        races = compared(setting, searchers, asked.keep, console, kept=asked.kept)
        if races:
            fields.append(Field(setting.title, races))
    if not fields:
        sys.exit(1)
    if asked.figure:
        races = fields[0].races
        drawn = [races[name] for name in DRAWN if name in races]
        tournament.write_figure(drawn or list(races.values()), asked.figure)
    if asked.page:
        figure = asked.figure.name if asked.figure else ""
        asked.page.write_text(page(fields, asked.replicates, repeated(sys.argv[1:]), figure))


if __name__ == "__main__":
    main()
