"""The commands that list studies, open one in a browser, and begin a new one."""

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from methods.errors import DatabaseAway, DataError, StorageError, StudyError
from orchestrator.cli.console import (
    AsCsv,
    AsJson,
    Out,
    Store,
    StudyName,
    console,
    for_programs,
    near,
    print_frame,
)
from orchestrator.record.address import Address
from orchestrator.report.table import number, table, text

if TYPE_CHECKING:
    from orchestrator.results.studies import Listed

ANSWER = 300.0
"""Seconds that MLflow's server has to start."""


def studies(
    out: Out = Path("runs"),
    mlflow: Store = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the studies with their data, ended trials, state and the time of the verdict."""
    programs = for_programs(as_json=as_json, as_csv=as_csv)
    with Console(stderr=True).status("Reading the studies"):
        if programs:
            import isoflop

            frame = isoflop.studies(out=out, mlflow=mlflow)
            frame["verdict"] = frame["verdict"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        else:
            from orchestrator.results.studies import studies as listed

            rows = listed(out, mlflow)
    if programs:
        print_frame(frame, "studies", {}, as_json=as_json)
    elif rows:
        _print_studies(rows)
    else:
        console.print(f"No study is in {out}; `isoflop run quickstart` runs the first.")


def _print_studies(rows: "Sequence[Listed]") -> None:
    grid = table(text("study", wrap=False), "data", number("trials"), "state", "verdict")
    for row in rows:
        date = "-"
        if row.verdict is not None:
            moment = datetime.fromtimestamp(row.verdict / 1000, UTC)
            date = f"{moment:%Y-%m-%d %H:%M} UTC"
        grid.add_row(row.study, escape(row.data), f"{row.trials:,}", row.state, date)
    console.print(grid)
    console.print("`isoflop board STUDY` prints the board of one, `isoflop open STUDY` its report.")


def open_study(
    study: StudyName,
    mlflow: Annotated[
        bool,
        typer.Option("--mlflow", help="Start MLflow's server on this machine and open the board."),
    ] = False,
    out: Out = Path("runs"),
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            help="Use the MLflow store at this tracking URI.",
            envvar="ISOFLOP_MLFLOW",
            show_default="an SQLite file in --out",
        ),
    ] = None,
) -> None:
    """Open the report of a study in the browser, or its board in MLflow."""
    import isoflop

    with Console(stderr=True).status("Reading the study"):
        outcome = isoflop.open(study, out=out, mlflow=store).outcome()
    if not mlflow:
        console.print(f"Report:  {near(outcome.report)}", highlight=False, soft_wrap=True)
        _browse(outcome.report.as_uri())
        return
    if outcome.link is None:
        raise StudyError(f"study {study!r} must have a board in MLflow, but it has none yet")
    address = Address(outcome.uri)
    if address.is_server:
        _show(f"{address.page}/{outcome.link}")
        return
    with _server(address) as (server, page):
        _show(f"{page}/{outcome.link}")
        console.print("Ctrl-C stops the server.")
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()


def watch(
    study: StudyName,
    out: Out = Path("runs"),
    port: Annotated[
        int,
        typer.Option(help="Serve the page on this port; 0 takes a free one.", min=0, max=65535),
    ] = 8642,
    host: Annotated[
        str,
        typer.Option(
            help="Listen on this address. Only this machine reaches the default; there is no "
            "password."
        ),
    ] = "127.0.0.1",
    browser: Annotated[
        bool,
        typer.Option("--browser/--no-browser", help="Show the page in the browser of the desktop."),
    ] = True,
) -> None:
    """Serve a page of a sweep while it runs: progress, curves, what waits, and an interim board.

    It reads the study's folder and writes nothing there.
    """
    folder = _watched(study, out)
    with Console(stderr=True).status("Reading the log"):
        from orchestrator.live import server

    server.serve(
        folder,
        host,
        port,
        lambda url: _serving(url, folder, began=(folder / "wal.jsonl").exists(), browser=browser),
    )


def _watched(study: str, out: Path) -> Path:
    """The folder of a study that runs, ran, or may yet run.

    Raises:
        StudyError: there is none, and nothing that could begin.
    """
    from isoflop import Study
    from isoflop.shipped import FILES, study_names

    if (Path(study) / "wal.jsonl").is_file():
        return Path(study).absolute()
    if Path(study).suffix in FILES:
        return out.absolute() / Study.load(study).name
    folder = out.absolute() / study
    if not (folder / "wal.jsonl").is_file() and study not in study_names():
        raise StudyError(
            f"STUDY must be a study that ran in {near(out.absolute())}, a study file, or a study "
            f"that isoflop ships, but got {study!r}; `isoflop studies` lists those that ran"
        )
    return folder


def _serving(url: str, folder: Path, *, began: bool, browser: bool) -> None:
    """Says where the page is, and shows it."""
    console.print(f"Watch:  {url}", highlight=False, markup=False, soft_wrap=True)
    if not began:
        console.print(f"{near(folder)} has no sweep yet: the page waits for it.", highlight=False)
    console.print("Ctrl-C ends the watch; the sweep continues.")
    if browser:
        _browse(url)


def init(
    folder: Annotated[str, typer.Argument(help="Use the images in this folder or Parquet file.")],
    to: Annotated[
        Path | None, typer.Option(help="Write to this file.", show_default="FOLDER.yaml")
    ] = None,
    hours: Annotated[
        float,
        typer.Option(
            help="Choose epochs and trials that take about this many hours on this machine.",
            min=0.01,
        ),
    ] = 8,
) -> None:
    """Write a commented study file for your own images, with a proposed size, budgets and
    effort."""
    if not Path(folder).exists():
        raise DataError(
            f"FOLDER must be a folder of images or a Parquet file, but there is none at {folder}"
        )
    file = to or Path(f"{Path(folder).absolute().stem}.yaml")
    if file.suffix not in (".yaml", ".yml"):
        raise StudyError(f"--to must be a YAML file (*.yaml), but got {file}")
    if file.exists():
        raise StudyError(f"--to must be a new file, but {file} exists; name another")
    with Console(stderr=True).status("Reading the images, pricing and timing each method"):
        from orchestrator.search.draft import draft

        sketch = draft(folder, hours=hours)
        study, content = sketch.study, sketch.text()
    try:
        with file.open("x") as new:
            new.write(content)
    except OSError as error:
        raise StorageError(
            f"--to must be a file that can be written, but {file}: {error.strerror}"
        ) from None
    console.print(f"Study [bold]{study.name}[/]: {file}", highlight=False, soft_wrap=True)
    for line in sketch.about[1:]:
        console.print(line, highlight=False, markup=False)
    console.print(f"Next:  isoflop plan {shlex.quote(str(file))}", highlight=False, soft_wrap=True)


def _show(page: str) -> None:
    console.print(f"MLflow:  {page}", highlight=False, markup=False, soft_wrap=True)
    _browse(page)


def _browse(page: str) -> None:
    """Shows a page in a browser of a desktop; one of the terminal would hide what is printed."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    in_terminal = isinstance(browser, webbrowser.GenericBrowser)
    in_terminal = in_terminal and not isinstance(browser, webbrowser.BackgroundBrowser)
    if not in_terminal or "BROWSER" in os.environ:
        browser.open(page)


@contextlib.contextmanager
def _server(address: Address) -> "Iterator[tuple[subprocess.Popen[bytes], str]]":
    """MLflow's server of a store on a free port of this machine alone, as long as the block runs.

    Raises:
        StorageError: it ended.
        DatabaseAway: it does not answer.
    """
    uri, folder = address.client, None
    if address.is_file:  # MLflow makes a folder of a quoted name, so it is told the bare one
        uri, folder = f"sqlite:///{address.file.name}", address.file.parent
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    server = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "MLFLOW_BACKEND_STORE_URI": uri},  # a password, which `ps` would show
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with Console(stderr=True).status("Starting MLflow"):
            _await(server, port)
        yield server, f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 9)


def _await(server: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + ANSWER
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline:
            raise DatabaseAway(f"MLflow's server must answer, but has not within {ANSWER:g} s")
        time.sleep(0.2)
    raise StorageError(f"MLflow's server must run, but ended with exit code {server.returncode}")
