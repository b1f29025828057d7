"""What the page shows of a sweep at this moment, as one small value that is sent as JSON."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from orchestrator.board.words import duration, percent, plural
from orchestrator.live.follow import Follower, Sweep, Told
from orchestrator.live.tally import Running, clock
from orchestrator.live.waiting import Outlook, Waiting
from orchestrator.record.ledger import driven
from orchestrator.record.result import OVER_BUDGET, REFUSED
from orchestrator.report.palette import INK, colour, places

Phase = Literal["waiting", "running", "stopped", "ending", "finished"]
SHOWN = 24
"""Running trials whose curves are shown; the others are counted."""
POINTS = 100
"""Epochs of a curve that are sent, evenly spaced."""
SILENCE = 300.0
"""Seconds without an event after which that is said, where the driver cannot be looked at."""


@dataclass(frozen=True)
class OfMethod:
    """The trials of one method, counted."""

    method: str
    colour: str
    """As the report has it, for a style sheet."""
    done: int
    running: int
    waiting: int | None
    """At most; None where the search is bounded by time."""
    failed: int
    refused: int
    over_budget: int
    of: int | None
    best: str
    """On validation."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial that a worker has, with its curve."""

    trial: str
    method: str
    role: str
    taken: str
    """Since it was started."""
    step: int
    epochs: int
    """Epochs of the whole trial; 0 where they are not recorded."""
    accuracy: float | None
    """On validation, a fraction."""
    curve: list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class State:
    """One moment of a sweep."""

    study: str
    phase: Phase
    headline: str
    """What happens, in a few words that change seldom."""
    detail: str = ""
    done: int = 0
    planned: int | None = None
    """In all, or at most; None where that is not known."""
    where: str = ""
    left: str = ""
    """The time left, where it can be told."""
    methods: tuple[OfMethod, ...] = ()
    running: tuple[RunningTrial, ...] = ()
    hidden: int = 0
    """Running trials that are not shown."""
    waiting: tuple[Waiting, ...] = ()
    latest: tuple[Told, ...] = ()
    board: int = 0
    """Which interim board can be asked for; 0: none yet."""
    final: bool = False
    """Whether the report of the finished study is there."""


def state(
    follower: Follower, outlook: Outlook | None, now: float, *, board: int = 0, problem: str = ""
) -> State:
    """The state at `now`, in seconds since 1970; `board` is the interim board that is offered."""
    sweep, name = follower.sweep, follower.folder.name
    if problem:
        return State(study=name, phase="stopped", headline="Cannot be read", detail=problem)
    if sweep is None or outlook is None or sweep.history.begun is None:
        detail = f"`isoflop run {name}` starts it; this page follows as soon as trials run."
        return State(study=name, phase="waiting", headline="Waits to begin", detail=detail)
    final = follower.report is not None
    phase, headline, detail = _phase(follower, outlook, now, final=final)
    tally, training = sweep.tally, phase == "running" and not outlook.ended
    running = list(tally.running.items()) if phase == "running" else []
    return State(
        study=name,
        phase=phase,
        headline=headline,
        detail=detail,
        done=tally.done,
        planned=tally.planned,
        where=f"{tally.where} trials",
        left=tally.left(now) if training else "",
        methods=tuple(_methods(sweep, outlook, runs=bool(running))),
        running=tuple(_running(sweep, trial, each, now) for trial, each in running[:SHOWN]),
        hidden=max(0, len(running) - SHOWN),
        waiting=tuple(_waiting(outlook, phase)),
        latest=tuple(reversed(sweep.latest)),
        board=board,
        final=final,
    )


def _phase(
    follower: Follower, outlook: Outlook, now: float, *, final: bool
) -> tuple[Phase, str, str]:
    """What happens, in a few words and in a sentence."""
    sweep = follower.sweep
    assert sweep is not None, "a phase is asked for of a sweep that began"
    if final:
        return "finished", "Finished", "Every trial has ended. The board below is the final one."
    if follower.finished:
        return (
            "ending",
            "Writing the board",
            (
                "Every trial has ended; the driver draws the report. If it was stopped meanwhile, "
                f"`isoflop board {sweep.study.name}` draws it."
            ),
        )
    driver = driven(follower.folder)
    if driver is False:
        unended = len(sweep.tally.running) + len(sweep.tally.paused) + len(sweep.lost)
        left = f"; {plural(unended, 'trial')} had not ended" if unended else ""
        return (
            "stopped",
            "Interrupted",
            (
                f"No driver runs this study{left}. Nothing is lost: the same `isoflop run` resumes "
                "it, and this page follows."
            ),
        )
    silent = now - sweep.time / 1000
    detail = ""
    if driver is None and silent > SILENCE:
        detail = (
            f"Nothing was logged for {duration(silent)}. The driver is on another machine, and "
            "whether it runs cannot be seen from here."
        )
    headline = "Searching" if outlook.confirms is None else "Confirming on fresh seeds"
    if outlook.ended and outlook.timed < outlook.to_time:
        headline = "Measuring latency"
        detail = f"Pair {outlook.timed + 1} of {outlook.to_time}."
    elif outlook.ended:
        headline = "Writing to MLflow"
    return "running", headline, detail


def _waiting(outlook: Outlook, phase: Phase) -> list[Waiting]:
    """What waits, and why: without a driver everything waits for one."""
    if phase == "running":
        return outlook.waiting()
    if phase == "stopped":
        return [Waiting("everything that is left", "a driver")]
    return []


def _methods(sweep: Sweep, outlook: Outlook, *, runs: bool) -> list[OfMethod]:
    """A line per method; where nothing runs, what ran waits."""
    most, plan = sweep.tally.most_confirm, sweep.study.search
    searches = Counter(sweep.history.space(search).method for search in outlook.searches)
    confirms = Counter(ticket.method for ticket in outlook.confirms or ())
    order = places(sweep.study.methods)
    shades = {method: colour(order.get(method)) for method in sweep.study.methods}
    lines = []
    for method, own in sweep.tally.counts.items():
        running = len(own.running) if runs else 0
        begun = own.ended.total() + running
        total: int | None = None
        if outlook.confirms is not None:
            total = max(begun, own.by_role["search"] + confirms[method])
        elif plan.seconds is None:
            total = max(begun, plan.trials * searches[method] + most.get(method, 0))
        lines.append(
            OfMethod(
                method=method,
                colour="var(--ink)" if shades.get(method, INK) == INK else shades[method],
                done=own.done,
                running=running,
                waiting=None if total is None else total - begun,
                failed=own.failed,
                refused=own.unfit[REFUSED],
                over_budget=own.unfit[OVER_BUDGET],
                of=total,
                best="" if own.best is None else f"{percent(own.best, 1)} % at {own.spent}",
            )
        )
    return lines


def _running(sweep: Sweep, trial: str, running: Running, now: float) -> RunningTrial:
    curve = sweep.curves.get(trial)
    return RunningTrial(
        trial=trial,
        method=running.start.method,
        role=running.start.role,
        taken=clock(max(0.0, now - running.since)),
        step=running.step,
        epochs=running.epochs,
        accuracy=None if math.isnan(running.accuracy) else running.accuracy,
        curve=curve.points(POINTS) if curve else [],
    )
