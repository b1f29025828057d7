"""The commands for Kubernetes: chart, submit, status, logs, cancel."""

import contextlib
import shlex
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from methods.errors import KubernetesError, ServerAway
from orchestrator.cli.console import StudyFile
from orchestrator.cli.console import console as answers
from orchestrator.report.table import table, text

if TYPE_CHECKING:
    from orchestrator.kube.api import Api
    from orchestrator.kube.cluster import Cluster
    from orchestrator.kube.preface import Effort
    from orchestrator.kube.render import Rendered
    from orchestrator.kube.sweeps import Sweep

Name = typer.Argument(help="Name the study, its file, or the sweep.")
ClusterFile = Annotated[
    str,
    typer.Option(
        "--cluster",
        help="Use this cluster file (YAML), or one that isoflop ships, by its name.",
        envvar="ISOFLOP_CLUSTER",
    ),
]
NamespaceOf = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Use the namespace of this cluster file.",
        envvar="ISOFLOP_CLUSTER",
        show_default="none",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        help="Look for the sweep in this namespace.",
        show_default="the cluster file's, else the context's, else isoflop",
    ),
]
Context = Annotated[
    str | None,
    typer.Option(help="Use this context of the kubeconfig.", show_default="the current one"),
]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the sweep until it ends.")]
Timeout = Annotated[
    float | None,
    typer.Option(help="Wait at most this many seconds.", min=1, show_default="no limit"),
]
LOOK = 15.0
"""Seconds between two looks at the pods and the driver's last line."""

console = Console(stderr=True)
"""Where progress is shown; answers go to standard output."""


def chart() -> None:
    """Print the folder of the Helm chart that prepares a namespace for sweeps.

    `helm install isoflop "$(isoflop chart)"` installs it: namespace, rights, network policies,
    quota, storage, MLflow and PostgreSQL. values.yaml in that folder explains every value;
    production.yaml is for a cluster of nodes. For kubectl without Helm, rendered/ has plain
    objects of both.
    """
    from isoflop.shipped import chart_folder

    print(chart_folder())


def submit(  # noqa: PLR0917
    study: StudyFile,
    cluster: ClusterFile = "local",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the objects as YAML, and their requirements, without contacting a cluster.",
        ),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="IMAGES_PER_SECOND",
            help="Print with --dry-run the hours that `isoflop plan --rate` derives for this "
            "cluster.",
            show_default="none",
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            metavar="PER_GPU_HOUR",
            help="Print with --dry-run what GPUs cost for those hours, at this price of one for "
            "one hour, in any currency.",
            min=0,
            max=1e6,
            show_default="none",
        ),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    context: Context = None,
) -> None:
    """Run a study on Kubernetes, as a RayJob. The same command resumes it."""
    from isoflop.shipped import cluster_file, study_file
    from orchestrator.kube.cluster import load
    from orchestrator.kube.preface import preface
    from orchestrator.kube.render import dump, render

    _check_estimate(rate, price, dry_run=dry_run)
    place, file = load(cluster_file(cluster)), study_file(study)
    rendered = render(file, place)
    if dry_run:
        effort = None if rate is None else _effort(file, rendered, place, rate, price)
        typer.echo(preface(rendered, place, effort) + dump(rendered.objects), nl=False)
        return
    api = _api(context)
    from orchestrator.kube.submit import submit as create

    try:
        with console.status("Checking the cluster"):
            submitted = create(api, rendered, place)
    except KeyboardInterrupt:
        raise KubernetesError(
            f"{rendered.name} was not submitted: it was interrupted; nothing was created"
        ) from None
    options = Options(rendered.namespace, context)
    state = "is already running" if submitted.was_running else "submitted"
    _say(f"{rendered.name} {state} in namespace {rendered.namespace}")
    if wait:
        _follow(api, submitted.sweep, options, timeout)
        _say(f"  The board:  isoflop board {rendered.study} --mlflow URI")
    else:
        _say(_next(rendered.name, options))


def status(  # noqa: PLR0917
    sweep: Annotated[str | None, Name] = None,
    namespace: Namespace = None,
    cluster: NamespaceOf = None,
    wait: Wait = False,
    timeout: Timeout = None,
    context: Context = None,
) -> None:
    """Show the state of a sweep on Kubernetes, or list all of them."""
    api, space = _connect(namespace, cluster, context)
    from orchestrator.kube.logs.read import details
    from orchestrator.kube.names import resolve
    from orchestrator.kube.sweeps import RESUMES, find, sweeps

    if sweep is None:
        listed = sweeps(api, space)
        answers.print(_listing(listed) if listed else f"No sweep is in namespace {space}.")
        return
    state = find(api, space, resolve(sweep))
    options = Options(space, context)
    if wait:
        _follow(api, state, options, timeout)
        return
    typer.echo(f"{state.name}  {state.line}\n  since  {state.created}")
    if state.ended and not state.succeeded:
        typer.echo(f"  why    {state.why}")
        if state.deployment != "ValidationFailed":
            typer.echo(f"  then   {RESUMES}")
    for detail in details(api, space, state):
        typer.echo(f"  {detail}")
    if not state.ended:
        _say(_next(state.name, options))


def logs(
    sweep: Annotated[str, Name],
    namespace: Namespace = None,
    cluster: NamespaceOf = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the sweep ends.")
    ] = False,
    context: Context = None,
) -> None:
    """Print the log of a sweep's driver; without its pods, say where all their logs are kept."""
    api, space = _connect(namespace, cluster, context)
    from orchestrator.kube.logs.read import driver_log
    from orchestrator.kube.names import resolve
    from orchestrator.kube.sweeps import find

    name = find(api, space, resolve(sweep)).name
    with contextlib.suppress(KeyboardInterrupt):
        for line in driver_log(api, space, name, follow=follow):
            typer.echo(line)


def cancel(
    sweep: Annotated[str, Name],
    namespace: Namespace = None,
    cluster: NamespaceOf = None,
    context: Context = None,
) -> None:
    """Stop a sweep and delete its pods. Submitting the same study resumes it."""
    api, space = _connect(namespace, cluster, context)
    from orchestrator.kube.names import resolve
    from orchestrator.kube.submit import remove
    from orchestrator.kube.sweeps import RESUMES, find

    state = find(api, space, resolve(sweep))
    with console.status(f"Stopping {state.name}: its driver, then its pods"):
        remove(api, space, state)
    _say(f"{state.name} is cancelled; {RESUMES}")


def _check_estimate(rate: float | None, price: float | None, *, dry_run: bool) -> None:
    """Refuse options that would have no effect."""
    if rate is not None and not dry_run:
        raise KubernetesError(
            "--rate changes what --dry-run prints, but there is no --dry-run; give both, or none"
        )
    if price is not None and rate is None:
        raise KubernetesError(
            "--price needs the hours that --rate gives, but there is no --rate; add the images per "
            "second that one GPU trains, as `--rate 2500`"
        )


def _effort(
    file: Path, rendered: "Rendered", cluster: "Cluster", rate: float, price: float | None
) -> "Effort":
    """Hours and cost of a sweep on the pods of a cluster file.

    Raises:
        KubernetesError: trials use no GPU.
    """
    from orchestrator.kube.preface import Effort
    from orchestrator.search.plan import plan
    from orchestrator.study.file import load

    if not rendered.trial.gpu:
        raise KubernetesError(
            "--rate is the throughput of a GPU, so that trials must use one, but they take none; "
            "write `trial: {gpu: 1}` in the cluster file, or leave --rate out"
        )
    at_once = rendered.trial.model_copy(update={"concurrency": rendered.slots})
    gpus = sum(group.most * group.gpu for group in cluster.workers)
    study = load(file).model_copy(update={"resources": at_once})
    planned = next(iter(plan(study, rate=rate, gpus=(gpus,)).hours), None)
    hours, busy = (planned.hours, planned.busy) if planned else (None, 0)
    return Effort(rate=rate, hours=hours, gpus=gpus, busy=busy, price=price)


@dataclass(frozen=True)
class Options:
    """The options that a command needs to address the same sweep."""

    namespace: str
    context: str | None

    def __str__(self) -> str:
        context = f" --context {shlex.quote(self.context)}" if self.context else ""
        return f"--namespace {self.namespace}{context}"


def _connect(namespace: str | None, cluster: str | None, context: str | None) -> "tuple[Api, str]":
    """The API server, and the namespace to look into; a cluster file is read only for that."""
    from orchestrator.kube.names import namespace_of

    if namespace is None and cluster is not None:
        from isoflop.shipped import cluster_file
        from orchestrator.kube.cluster import load

        namespace = load(cluster_file(cluster)).namespace
    namespace_of(namespace, None)  # a wrong name is refused before the server is asked
    api = _api(context)
    return api, namespace_of(namespace, api.namespace)


def _api(context: str | None) -> "Api":
    from orchestrator.kube.names import check_kubeconfig

    check_kubeconfig()  # importing the client takes half a second
    try:
        from orchestrator.kube.api import Api
    except ModuleNotFoundError as error:
        raise KubernetesError(
            f"this needs the Kubernetes client, but {error.name} is not installed; "
            "`pip install 'isoflop[k8s]'` installs it"
        ) from None
    return Api(context)


def _follow(api: "Api", sweep: "Sweep", options: Options, timeout: float | None) -> None:
    """Show a sweep until it ends.

    Raises:
        SweepFailed: it did not end well.
        typer.Exit: 130 for Ctrl-C, 124 for the time-out; the sweep continues.
    """
    from orchestrator.kube.follow import follow
    from orchestrator.kube.logs.read import details

    view, looked, lines = _View(sweep.name), 0.0, list[str]()
    try:
        with view.live():
            states = follow(api, options.namespace, sweep.name, uid=sweep.uid, timeout=timeout)
            for state in states:
                if isinstance(state, ServerAway):
                    view.show(
                        f"{sweep.line}, by the server's last answer", [f"{state}; asking again"]
                    )
                    continue
                if state.line != sweep.line or time.monotonic() - looked > LOOK:
                    looked, lines = time.monotonic(), details(api, options.namespace, state)
                sweep = state
                view.show(sweep.line, lines)
    except KeyboardInterrupt:
        _say(f"\nDetached; {sweep.name} continues ({sweep.line}).\n{_next(sweep.name, options)}")
        raise typer.Exit(130) from None
    except TimeoutError:
        _say(f"isoflop: {sweep.name} continues ({sweep.line}), the time of --timeout has passed")
        _say(_next(sweep.name, options))
        raise typer.Exit(124) from None
    if sweep.succeeded:
        _say(f"{sweep.name} is complete")
        return
    if causes := details(api, options.namespace, sweep):
        _say("\n  ".join(["Kubernetes reports:", *causes]))
    lines = [line for line in sweep.message.splitlines() if line.strip()]
    if len(lines) > 1:
        _say("\n  ".join(["The driver's log ends with:", *lines[-15:]]))
    raise sweep.failure


class _View:
    """The line with a sweep's state: live in a terminal, printed on each change elsewhere."""

    def __init__(self, name: str) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._name = name
        self._printed = ""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[name]}"),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(overflow="ellipsis", no_wrap=True),
            ),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("asking", name=name)

    def show(self, words: str, details: list[str]) -> None:
        """The state from now on."""
        text = "\n  ".join([words, *details])
        self._progress.update(self._task, description=text)
        if not console.is_terminal and text != self._printed:
            elapsed = timedelta(seconds=int(self._progress.tasks[0].elapsed or 0))
            _say(f"{elapsed}  {self._name}: {text}")
            self._printed = text

    def live(self) -> contextlib.AbstractContextManager[object]:
        """In a terminal the line stays in its place and its clock runs."""
        return self._progress if console.is_terminal else contextlib.nullcontext()


def _listing(sweeps: "list[Sweep]") -> Table:
    grid = table(text("sweep", wrap=False), "state", text("since", wrap=False))
    for sweep in sweeps:
        grid.add_row(sweep.name, sweep.line, sweep.created)
    return grid


def _next(name: str, options: Options) -> str:
    return (
        f"  Follow it:  isoflop status {name} {options} --wait\n"
        f"  Its log:    isoflop logs {name} {options} --follow\n"
        f"  Cancel it:  isoflop cancel {name} {options}"
    )


def _say(text: str) -> None:
    typer.echo(text, err=True)
