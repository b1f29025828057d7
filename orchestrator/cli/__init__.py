"""The commands of isoflop. A user's mistake ends in one line and exit code 2, a failure of the
machine in one line and exit code 1; a traceback is a bug in isoflop.
"""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch reads it once; see cluster.ENVIRONMENT
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it searches every package

import typer

from methods.errors import IsoflopError
from orchestrator.cli import usage
from orchestrator.cli.boards import board, compare, export, verify
from orchestrator.cli.data import data
from orchestrator.cli.kubernetes import cancel, chart, logs, status, submit
from orchestrator.cli.methods import methods, train
from orchestrator.cli.replay import simulate, table
from orchestrator.cli.run import plan, run, schema
from orchestrator.cli.streams import guarded
from orchestrator.cli.studies import init, open_study, studies, watch
from orchestrator.cli.usage import Usage
from orchestrator.record.address import redact

__all__ = ["app", "main"]

app = typer.Typer(
    name="isoflop",
    help="Which dynamic CNN is best at your compute budget? isoflop trains every method of a study "
    "with equal effort and compares them on a leaderboard at equal cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run a study": (run, init, plan, data, schema),
    "Read the results": (watch, board, studies, open_study, compare, verify, export),
    "Methods and searchers": (methods, train, table, simulate),
    "Kubernetes": (chart, submit, status, logs, cancel),
}
for heading, commands in COMMANDS.items():
    for command in commands:
        name = command.__name__.removesuffix("_study")  # `open` is Python's
        app.command(name, rich_help_panel=heading)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"isoflop {version('isoflop')}")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[  # its callback prints it
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


class _Redacted(logging.Formatter):
    """Log lines, the libraries' own included, without the passwords of URLs."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def main(arguments: Sequence[str] | None = None) -> None:
    """The `isoflop` command."""
    with guarded():
        _main(arguments)


def _main(arguments: Sequence[str] | None) -> None:
    warnings_only = logging.StreamHandler()
    warnings_only.setLevel(logging.WARNING)
    warnings_only.setFormatter(_Redacted("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[warnings_only])
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # what we start imports nothing from this folder
    gc.set_threshold(50_000, 20, 20)  # rows are no cycles, and to look for some takes as long again
    try:
        words = list(arguments) if arguments is not None else None
        status = app(words, prog_name="isoflop", standalone_mode=False)
    except IsoflopError as error:
        print(f"isoflop: {redact(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if not isinstance(error, Usage):
            raise
        print(redact(usage.line(error)), file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(status if isinstance(status, int) else 0)
