"""Learning curves as a table, and searches replayed on it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from methods.errors import SearcherError, StudyError
from orchestrator.cli.console import (
    AsCsv,
    AsJson,
    Out,
    StudyName,
    console,
    for_programs,
    print_frame,
)


def table(
    study: StudyName,
    out: Out = Path("runs"),
    to: Annotated[
        Path | None, typer.Option(help="Write to this file.", show_default="NAME.parquet")
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Export the learning curves and costs of a study as a table, to simulate searches on."""
    from orchestrator.search.replay import curves
    from orchestrator.study.file import load

    programs = for_programs(as_json=as_json, as_csv=as_csv)
    if programs and to is not None:
        raise StudyError("--to names a Parquet file, but --json and --csv print; drop one of them")
    name = load(Path(study)).name if study.endswith((".yaml", ".yml")) else study
    table = curves.export(out.absolute() / name)
    if programs:
        print_frame(table.rows, "rows", {"study": name}, as_json=as_json)
        return
    file = to or Path(f"{name}.parquet")
    curves.write(table, file)
    trials = table.rows["trial"].nunique()
    console.print(f"{trials} trials, {len(table.rows)} epochs: {file}", highlight=False)


def simulate(  # noqa: PLR0917
    table: Annotated[
        Path, typer.Argument(help="Replay the curves in this file, which `isoflop table` wrote.")
    ],
    searcher: Annotated[
        str,
        typer.Option(
            help="Replay these searchers, joined by commas: default, ehvi, tpe, random, sobol, "
            "default+promote, random+promote, ehvi+promote or tpe+promote. A class of your own is "
            "`package.module:Class`; another Python interpreter runs it as "
            "`PYTHON:package.module:Class`."
        ),
    ] = "default,random,tpe",
    workers: Annotated[int, typer.Option(help="Run this many trials at once.", min=1)] = 4,
    trials: Annotated[
        int,
        typer.Option(help="Give each method the effort of this many full-length trials.", min=1),
    ] = 48,
    replicates: Annotated[
        int, typer.Option(help="Repeat the search this many times with each searcher.", min=1)
    ] = 5,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed the first search with this number, and each further one with the next.",
            min=0,
        ),
    ] = 0,
    patience: Annotated[
        float,
        typer.Option(help="Wait this many seconds for an answer of a searcher of yours.", min=0.1),
    ] = 60,
    figure: Annotated[
        Path | None, typer.Option(help="Write a figure to this file (.png, .svg or .html).")
    ] = None,
) -> None:
    """Replay searches on a table of curves in simulated time, and compare their Pareto fronts."""
    from orchestrator.search.replay import curves, tournament
    from orchestrator.search.replay.searchers import named

    track, searchers = tournament.Track.of(curves.read(table)), named(searcher, patience)
    console.print(tournament.qualities(track))
    races = []
    for each in searchers:
        seeds = range(seed, seed + replicates)
        try:
            with console.status(f"{each.name}: {replicates} searches"):
                race = tournament.race(track, each, workers=workers, trials=trials, seeds=seeds)
        except SearcherError as error:  # the others are not to blame
            print(f"isoflop: {error}", file=sys.stderr)
            continue
        races.append(race)
        console.print(tournament.line(race), highlight=False)
    if not races:
        raise typer.Exit(SearcherError.exit_code)
    console.print(tournament.standings(races))
    if figure:
        tournament.write_figure(races, figure)
        console.print(f"Figure:  {figure}", highlight=False)
