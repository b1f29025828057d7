"""The commands for Kubernetes: submit, status, logs, cancel."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from methods.errors import KubernetesError, ServerAway

if TYPE_CHECKING:
    from orchestrator.kube.api import Api
    from orchestrator.kube.cluster import Cluster
    from orchestrator.kube.follow import Seen

Sweep = Annotated[str, typer.Argument(help="The study file, the study's name, or the sweep's.")]
ClusterFile = Annotated[
    Path,
    typer.Option("--cluster", help="The cluster file (YAML).", envvar="ISOFLOP_CLUSTER"),
]
Context = Annotated[
    str | None, typer.Option(help="Context of the kubeconfig.", show_default="the current one")
]
HERE = Path("k8s/clusters/local.yaml")
LOOK = 15.0
"""Seconds between two looks at the pods and the driver's last line."""

console = Console(stderr=True)
"""What happens."""
answer = Console()
"""What was asked for."""


def submit(  # noqa: PLR0917
    study: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    cluster: ClusterFile = HERE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the objects as YAML; needs no cluster.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the sweep to its end.")] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait, at most.", min=1, show_default="no limit")
    ] = None,
    context: Context = None,
) -> None:
    """Run a study's sweep on Kubernetes, as a RayJob; again, and it goes on where it was."""
    from orchestrator.kube.render import dump, render

    where = _cluster(cluster)
    rendered = render(study, where)
    if dry_run:
        sys.stdout.write(dump(rendered.objects))
        return
    api = _api(context)
    from orchestrator.kube.submit import submit as submitted

    try:
        with console.status("Checking the cluster"):
            outcome = submitted(api, rendered, where)
    except KeyboardInterrupt:
        raise KubernetesError(
            f"{rendered.name} was not submitted: stopped by hand; nothing was created"
        ) from None
    told = "is running already" if outcome.was_there else "submitted"
    console.print(f"{rendered.name} {told} in namespace {rendered.namespace}", **_PLAIN)
    if wait:
        _wait(api, rendered.namespace, outcome.job, timeout)
        console.print(f"  The board:  isoflop board {rendered.study} --mlflow URI", **_PLAIN)
    else:
        _next(rendered.name)


def status(
    sweep: Annotated[
        str | None, typer.Argument(help="The study file, the study's name, or the sweep's.")
    ] = None,
    cluster: ClusterFile = HERE,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the sweep to its end.")] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait, at most.", min=1, show_default="no limit")
    ] = None,
    context: Context = None,
) -> None:
    """Say where a sweep on Kubernetes stands, or list all of them."""
    namespace, api = _cluster(cluster).namespace, _api(context)
    from orchestrator.kube.submit import find, sweeps

    if sweep is None:
        _list(sweeps(api, namespace), namespace)
        return
    job = find(api, namespace, _name(sweep))
    if wait:
        _wait(api, namespace, job, timeout)
        return
    _card(api, namespace, job)


def logs(
    sweep: Sweep,
    cluster: ClusterFile = HERE,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the sweep ends.")
    ] = False,
    context: Context = None,
) -> None:
    """Print what a sweep's driver has told, while its pods are there."""
    namespace, api = _cluster(cluster).namespace, _api(context)
    from orchestrator.kube.logs import driver_log
    from orchestrator.kube.submit import find

    job = find(api, namespace, _name(sweep))
    with contextlib.suppress(KeyboardInterrupt):
        for line in driver_log(api, namespace, job.name, follow=follow):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def cancel(sweep: Sweep, cluster: ClusterFile = HERE, context: Context = None) -> None:
    """Stop a sweep and take its pods down; the same submit goes on where it was."""
    namespace, api = _cluster(cluster).namespace, _api(context)
    from orchestrator.kube.submit import find, remove

    job = find(api, namespace, _name(sweep))
    with console.status(f"Stopping {job.name}: its driver, then its pods"):
        remove(api, namespace, job)
    console.print(
        f"{job.name} is cancelled; nothing is lost: the same submit goes on from there", **_PLAIN
    )


def _cluster(file: Path) -> "Cluster":
    from orchestrator.kube.cluster import load

    return load(file)


def _api(context: str | None) -> "Api":
    try:
        from orchestrator.kube.api import Api
    except ModuleNotFoundError as error:
        raise KubernetesError(
            f"this needs the Kubernetes client, but {error.name} is not installed; "
            "`pip install 'isoflop[k8s]'` installs it"
        ) from None
    return Api(context)


def _name(sweep: str) -> str:
    """The sweep's name, or the study's, of what a user wrote."""
    if not sweep.endswith((".yaml", ".yml")):
        return sweep
    from orchestrator.kube.render import sweep_name
    from orchestrator.study.file import load

    return sweep_name(load(Path(sweep)))


class _View:
    """The line that says where a sweep stands: live in a terminal, elsewhere on each change."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._words = "asking"
        self._details: list[str] = []
        self._spinner = Spinner("dots")
        self._began = time.monotonic()
        self._told = ""

    def show(self, words: str, details: list[str]) -> None:
        """What is so now."""
        self._words, self._details = words, details
        text = "\n  ".join([words, *details])
        if not console.is_terminal and text != self._told:
            console.print(f"{self._clock()}  {self._name}: {text}", **_PLAIN)
            self._told = text

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """In a terminal the line stays in its place and its clock runs."""
        if not console.is_terminal:
            yield
            return
        with Live(
            get_renderable=self._render, console=console, refresh_per_second=8, transient=True
        ):
            yield

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        line = Text.assemble((self._name, "bold"), f"  {self._words}  ", (self._clock(), "dim"))
        grid.add_row(self._spinner, line)
        for detail in self._details:
            grid.add_row("", Text(detail, style="dim", overflow="ellipsis", no_wrap=True))
        return grid

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


_PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}


def _wait(api: "Api", namespace: str, job: "Seen", timeout: float | None) -> None:
    """Follow a sweep to its end.

    Raises:
        SweepFailed: it did not end well.
        typer.Exit: 130 for Ctrl-C, 124 for the time-out; the sweep goes on.
    """
    from orchestrator.kube.follow import failure, follow

    view, looked, details = _View(job.name), 0.0, list[str]()
    last = job
    try:
        with view.shown():
            for found in follow(api, namespace, job.name, uid=job.uid, timeout=timeout):
                if isinstance(found, ServerAway):
                    view.show(f"{last.line}, when last seen", [f"{found}; asking again"])
                    continue
                changed, last = found.line != last.line, found
                if changed or time.monotonic() - looked > LOOK:
                    looked, details = time.monotonic(), _details(api, namespace, found)
                view.show(found.line, details)
    except KeyboardInterrupt:
        console.print(f"\nDetached; {job.name} goes on ({last.line}).", **_PLAIN)
        _next(job.name)
        raise typer.Exit(130) from None
    except TimeoutError:
        console.print(f"isoflop: {job.name} goes on ({last.line}); --timeout is over", **_PLAIN)
        _next(job.name)
        raise typer.Exit(124) from None
    if not last.succeeded:
        _tail(last.message)
        raise failure(last)
    console.print(f"{job.name} is complete", **_PLAIN)


def _details(api: "Api", namespace: str, job: "Seen") -> list[str]:
    """What else there is to tell: pods in trouble, else the driver's last line."""
    from orchestrator.kube.follow import troubles
    from orchestrator.kube.logs import last_line

    if job.ended or job.deleting:
        return []
    found = troubles(api, namespace, job.cluster)[:5]
    if found or job.job != "RUNNING":
        return found
    line = last_line(api, namespace, job.cluster)
    return [line] if line else []


def _tail(message: str) -> None:
    """The last lines that a failed driver told."""
    lines = [line for line in message.splitlines() if line.strip()]
    if len(lines) > 1:
        console.print("Its driver's last words:", **_PLAIN)
        for line in lines[-15:]:
            console.print(f"  {line}", **_PLAIN)


def _card(api: "Api", namespace: str, job: "Seen") -> None:
    answer.print(f"{job.name}  {job.line}", **_PLAIN)
    answer.print(f"  since  {job.created}", **_PLAIN)
    if job.ended and not job.succeeded:
        answer.print(f"  why    {job.why}", **_PLAIN)
    for detail in _details(api, namespace, job):
        answer.print(f"  {detail}", **_PLAIN)
    if not job.ended:
        _next(job.name)


def _list(found: "list[Seen]", namespace: str) -> None:
    if not found:
        answer.print(f"No sweep is in namespace {namespace}.", **_PLAIN)
        return
    names, lines = (max(len(getattr(job, key)) for job in found) for key in ("name", "line"))
    for job in found:
        answer.print(f"{job.name:<{names}}  {job.line:<{lines}}  {job.created}", **_PLAIN)


def _next(name: str) -> None:
    for words, command in (
        ("Follow it:", "status {} --wait"),
        ("Its log:", "logs {} --follow"),
        ("Cancel it:", "cancel {}"),
    ):
        console.print(f"  {words:<11} isoflop {command.format(name)}", **_PLAIN)
