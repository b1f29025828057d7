"""Learning curves as a table, and searches replayed on it."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.console import Out, console


def table(
    study: Annotated[str, typer.Argument(help="The study file, or the study's name.")],
    out: Out = Path("runs"),
    to: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="NAME.parquet")
    ] = None,
) -> None:
    """Export a study's learning curves and costs as a Parquet table, to simulate searches on."""
    from orchestrator.search.replay import curves
    from orchestrator.study.file import load

    name = load(Path(study)).name if study.endswith((".yaml", ".yml")) else study
    table = curves.export(out.absolute() / name)
    file = to or Path(f"{name}.parquet")
    curves.write(table, file)
    trials = table.rows["trial"].nunique()
    console.print(f"{trials} trials, {len(table.rows)} epochs: {file}", highlight=False)


def simulate(  # noqa: PLR0917
    table: Annotated[Path, typer.Argument(help="A file that `isoflop table` wrote.")],
    searcher: Annotated[
        str, typer.Option(help="Names of searchers, joined by commas; an unknown name lists all.")
    ] = "default,random,nsga2,tpe",
    workers: Annotated[int, typer.Option(help="Trials that run at once.", min=1)] = 4,
    trials: Annotated[
        int, typer.Option(help="Effort per method, in trials of full length.", min=1)
    ] = 48,
    replicates: Annotated[int, typer.Option(help="Searches with each searcher.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the first search.", min=0)] = 0,
    figure: Annotated[
        Path | None, typer.Option(help="Write the figure to this png, svg or html file.")
    ] = None,
) -> None:
    """Replay searches on a table of curves, in simulated time, and compare their fronts."""
    from orchestrator.search.replay import curves, tournament
    from orchestrator.search.replay.searchers import named

    track, searchers = tournament.Track.of(curves.read(table)), named(searcher)
    console.print(tournament.qualities(track))
    races = []
    for each in searchers:
        with console.status(f"{each.name}: {replicates} searches"):
            seeds = range(seed, seed + replicates)
            races.append(tournament.race(track, each, workers=workers, trials=trials, seeds=seeds))
        console.print(tournament.line(races[-1]), highlight=False)
    console.print(tournament.standings(races))
    if figure:
        tournament.write_figure(races, figure)
        console.print(f"Figure:  {figure}", highlight=False)
