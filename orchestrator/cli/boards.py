"""The commands that print the board of a study and compare methods and studies, from the MLflow
store alone."""

import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from methods.errors import EvidenceError, StudyError
from orchestrator.cli.console import (
    AsCsv,
    AsJson,
    Out,
    Quiet,
    Store,
    StudyName,
    console,
    for_programs,
    near,
    print_frame,
    run_before,
)
from orchestrator.record.address import Address, redact
from orchestrator.report.table import number, table

if TYPE_CHECKING:
    from orchestrator.report.publish import Outcome
    from orchestrator.results.findings import Findings

Refresh = Annotated[
    bool,
    typer.Option(
        "--refresh", help="Read every run again, to show what was deleted or edited in MLflow."
    ),
]


def board(  # noqa: PLR0917
    study: Annotated[
        str | None,
        typer.Argument(
            help="Name the study, or its file. Without it, isoflop lists the studies.",
            autocompletion=run_before,
        ),
    ] = None,
    out: Out = Path("runs"),
    mlflow: Store = None,
    primary: Annotated[
        float | None,
        typer.Option(help="Test at another of the study's budgets. Such a test is exploratory."),
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(
            help="Print accuracy over another cost instead. Name its column in leaderboard.csv: "
            "parameters, weight_bytes, activation_bytes, latency_1_ms, ..."
        ),
    ] = None,
    refresh: Refresh = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the board of a finished or running study, computed from the MLflow store alone."""
    import isoflop

    if study is None:
        from orchestrator.cli.studies import studies

        studies(out, mlflow, as_json=as_json, as_csv=as_csv)
        return
    programs = for_programs(as_json=as_json, as_csv=as_csv)
    if axis is not None and (programs or quiet):
        raise StudyError(
            "--axis prints a separate table and must stand without --json, --csv and --quiet; "
            "`isoflop board --csv` prints a column for every axis"
        )
    with Console(stderr=True).status("Reading the runs of the study"):
        results = isoflop.open(study, out=out, mlflow=mlflow)
        outcome = results.outcome(primary=primary, refresh=refresh)
    if programs:
        from orchestrator.report.frames import board_table

        frame = board_table(outcome.board, outcome.times)
        print_frame(frame, "board", _facts(outcome), as_json=as_json)
        return
    if axis is None:
        print_board(outcome, quiet=quiet)
        return
    from orchestrator.report.axes import axis_table

    console.print(axis_table(outcome.board, outcome.times, axis))


def compare(  # noqa: PLR0917
    study: StudyName,
    other: Annotated[
        str | None, typer.Argument(help="Compare with this second study on the same data.")
    ] = None,
    at: Annotated[
        str,
        typer.Option(
            help="Compare at these budgets, in the study's unit, joined by commas.",
            show_default="the study's",
        ),
    ] = "",
    methods: Annotated[
        str,
        typer.Option(
            help="Compare only these methods, joined by commas, and dense.", show_default="all"
        ),
    ] = "",
    out: Out = Path("runs"),
    mlflow: Store = None,
    refresh: Refresh = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Compare a study's methods pair by pair at any budgets, or two studies method by method."""
    from orchestrator.board.verdict import notes
    from orchestrator.report import frames, terminal
    from orchestrator.results import boards

    programs = for_programs(as_json=as_json, as_csv=as_csv)
    budgets, names = _budgets(at), [name.strip() for name in methods.split(",") if name.strip()]
    if other is None:
        board = boards.at_budgets(study, budgets, out, methods=names, uri=mlflow, refresh=refresh)
        if programs:
            of = {"study": board.rules.study, "notes": list(notes(board))}
            print_frame(frames.pairs_table(board), "pairs", of, as_json=as_json)
        else:
            console.print(terminal.comparison(board))
        return
    both = boards.two_studies(
        study, other, budgets, out, methods=names, uri=mlflow, refresh=refresh
    )
    if programs:
        facts: dict[str, object] = {
            "first": both.first.study.name,
            "second": both.second.study.name,
            "exploratory": both.exploratory,
            "notes": list(both.notes),
        }
        print_frame(frames.differences_table(both), "differences", facts, as_json=as_json)
    else:
        console.print(terminal.side_by_side(both))


def verify(
    study: StudyName,
    out: Out = Path("runs"),
    mlflow: Store = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Recompute every published number from its evidence in MLflow, and fail where one differs."""
    import isoflop

    programs = for_programs(as_json=as_json, as_csv=as_csv)
    with Console(stderr=True).status("Reading every run of the study"):
        findings = isoflop.open(study, out=out, mlflow=mlflow).verify()
    if programs:
        facts: dict[str, object] = {
            "study": findings.study,
            "follows": not findings.flaws,
            "notes": findings.notes,
            "checked": dict(sorted(findings.checked.items())),
        }
        import pandas as pd

        columns = ["where", "what", "stored", "recomputed"]
        flaws = pd.DataFrame([vars(flaw) for flaw in findings.flaws], columns=columns)
        print_frame(flaws, "flaws", facts, as_json=as_json)
    else:
        _print_findings(findings)
    if findings.flaws:
        raise EvidenceError(
            f"the board of {findings.study!r} must follow from its evidence, but "
            f"{len(findings.flaws):,} of {findings.checked.total():,} comparisons differ; the "
            "lines above list them"
        )


def _print_findings(findings: "Findings") -> None:
    grid = table("checked", number("comparisons"))
    for kind, count in sorted(findings.checked.items()):
        grid.add_row(kind, f"{count:,}")
    console.print(grid)
    for flaw in findings.flaws:
        line = f"{flaw.where}: {flaw.what}: stored {flaw.stored}, recomputed {flaw.recomputed}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for note in findings.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if not findings.flaws:
        console.print(f"The board of {findings.study} follows from its evidence.", highlight=False)


def _budgets(text: str) -> list[float]:
    """Budgets from text such as 10,20,40."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        budgets = [float(part) for part in parts]
    except ValueError:
        budgets = [math.nan]
    if not all(0 < budget < math.inf for budget in budgets):
        raise StudyError(
            f"--at must be positive numbers joined by commas, as 10,20,40; got {text!r}"
        )
    return budgets


def print_board(outcome: "Outcome", *, quiet: bool = False) -> None:
    """Print the board, the path of its report, the command that opens it in MLflow and, last, the
    verdict.

    `quiet` leaves the tables out.
    """
    from orchestrator.board.verdict import verdict

    if not quiet:
        from orchestrator.report.terminal import terminal

        console.print(terminal(outcome.board, times=outcome.times))
        console.print()
    for line in _places(outcome):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print()
    console.print(verdict(outcome.board), style="bold", highlight=False, markup=False)


def _facts(outcome: "Outcome") -> dict[str, object]:
    """The facts of a board that are not in its table."""
    from orchestrator.board.verdict import notes, verdict

    return {
        "study": outcome.board.rules.study,
        "primary_mmac": outcome.board.primary,
        "verdict": verdict(outcome.board),
        "notes": list(notes(outcome.board)),
        "report": str(outcome.report),
        "mlflow": redact(outcome.uri),
    }


def _places(outcome: "Outcome") -> Iterator[str]:
    """The path of the report, and the commands that open the board in MLflow."""
    yield f"Report:  {near(outcome.report)}"
    address = Address(outcome.uri)
    server = address.page if address.is_server else "http://127.0.0.1:5000"
    if not address.is_server:
        yield f"MLflow:  {_server_command(address)}"
    if outcome.link:
        yield f"   then  {server}/{outcome.link}"


def _server_command(address: Address) -> str:
    """The command that shows a store in MLflow's pages, for a shell."""
    program, where, uri = near(Path(sys.executable).with_name("mlflow")), "", str(address)
    if address.is_file and {"%", "?"} & set(uri):  # MLflow makes a folder of the quoted name
        program, uri = program.absolute(), f"sqlite:///{address.file.name}"
        where = f"cd {shlex.quote(str(near(address.file.parent)))} && "
    return f"{where}{program} server --backend-store-uri {shlex.quote(uri)} --port 5000"


def export(  # noqa: PLR0917
    run: Annotated[
        str,
        typer.Argument(
            help="Export STUDY/METHOD, STUDY/TRIAL, the MLflow run id of a trial, or a folder "
            "that `isoflop train` wrote."
        ),
    ],
    kind: Annotated[
        Literal["torch", "pt2", "onnx"],
        typer.Option(
            "--format",
            help="Write weights that isoflop loads (torch), or a graph for PyTorch alone (pt2) or "
            "for any ONNX runtime (onnx).",
        ),
    ] = "torch",
    at: Annotated[
        float | None,
        typer.Option(
            help="Take the METHOD's network at this budget, in the study's unit.",
            show_default="primary",
        ),
    ] = None,
    point: Annotated[
        str | None, typer.Option(help="Take this operating point of a TRIAL that has several.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Write to this folder.", show_default="exports/ in the study's folder"),
    ] = None,
    out: Out = Path("runs"),
    mlflow: Store = None,
) -> None:
    """Write a deployed network to a file, test it against the measured one, and add a model
    card."""
    from orchestrator.results import export as exports
    from orchestrator.trial import kept

    with Console(stderr=True).status("Exporting, and comparing with the network as measured"):
        if (Path(run) / kept.FILE).is_file():
            if at is not None:
                raise StudyError(
                    "--at selects a cell of a study's board, but a network trained by hand has no "
                    "board; drop --at"
                )
            source = exports.trained(Path(run), point)
        else:
            source = exports.find(run, out, uri=mlflow, at=at, point=point)
        folder = exports.export(source, kind, to)
    console.print(f"{source.row.trial} {source.row.point}".rstrip(), highlight=False)
    console.print(f"Network: {near(folder)}", highlight=False, soft_wrap=True)
    console.print(f"Card:    {near(folder / 'card.md')}", highlight=False, soft_wrap=True)
