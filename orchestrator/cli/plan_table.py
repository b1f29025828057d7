"""A plan for the terminal: readable in 80 columns and without colour."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.board.model import TESTED_FROM
from orchestrator.board.words import budget_text, duration, percent, plural
from orchestrator.report.table import number, table, text
from orchestrator.search.plan import Plan
from orchestrator.search.samples import BUILT, SAMPLES
from orchestrator.search.split import (
    ACCURACY,
    CONFIG_SD,
    SEED_SD,
    Detectable,
    Splits,
)
from orchestrator.search.window import Sight
from orchestrator.trial.packing import Packing
from orchestrator.trial.rate import HOUR

if TYPE_CHECKING:
    import pandas as pd

DEVIATIONS = (0.2, 0.5, 1.0)
"""Seed-to-seed standard deviations that the detectable difference is shown for, in points."""
ACROSS = 6
"""Budgets in one table."""
IN_MS = (
    "* primary budget. Milliseconds are lower bounds, predicted from a table of layers; trials "
    "are measured. <=B: share of the samples of the space that can take B or less. least: the "
    "smallest configuration. most: the slowest sample. refused: samples whose values are "
    "incompatible."
)
NOTE = (
    f"* primary budget. <=B: share of {SAMPLES} samples of the space that can cost B or less; "
    "training decides what a dynamic network costs. least: the cheapest configuration. "
    f"untrained: the most expensive of {BUILT} untrained networks. refused: samples whose values "
    "are incompatible."
)


def terminal(plan: Plan) -> RenderableType:
    """The tables of space, budgets, effort, time and detectable differences, with legends."""
    parts: list[RenderableType] = [_space(plan)]
    parts += [_reach(plan, start, start + ACROSS) for start in range(0, len(plan.budgets), ACROSS)]
    parts.append(Text(IN_MS if plan.cost.clocked else NOTE))
    parts += [Text(), _effort(plan), Text(_effort_note(plan))]
    if plan.hours:
        parts += [Text(), _gpu_hours(plan), _hours(plan), Text(_hours_note(plan))]
    parts += [Text(line) for line in _sights(plan)]
    parts += [Text(packed(plan.packing)), Text()] if plan.packing else [Text()]
    parts += list(_detectable(plan))
    parts += list(_splits(plan.splits, plan)) if plan.splits else []
    if plan.warnings:
        parts += [Text(), *(Text(f"! {warning}") for warning in plan.warnings)]
    return Group(*parts)


def frame(plan: Plan) -> "pd.DataFrame":
    """A row per method: its space, budgets, effort and time; costs in MACs, times in seconds."""
    import pandas as pd

    records = [
        {
            "method": method.method,
            "searched": "; ".join(f"{name} {span}" for name, span in method.free.items()),
            "least_macs": method.least,
            "most_macs": method.most,
            "refused": method.refused,
            **{
                f"fits_{budget:g}m": share
                for budget, share in zip(plan.budgets, method.fits, strict=True)
            },
            "trials": method.trials,
            "confirm": method.confirm,
            "epochs_low": method.epochs[0],
            "epochs_high": method.epochs[1],
            "epochs_most": method.most_epochs,
            "trial_seconds": method.trial_seconds,
            "search_seconds": method.search_seconds,
            "base_seconds": method.base_seconds,
            "confirm_seconds": method.confirm_seconds,
            "seconds": method.seconds,
            **{f"study_hours_{each.gpus}_gpus": each.hours for each in plan.hours},
            "see_none": method.sight and method.sight.unseeing,
            "last_sees": method.sight and method.sight.last,
        }
        for method in plan.methods
    ]
    return pd.DataFrame(records)


def _space(plan: Plan) -> Table:
    grid = table(text("method", wrap=False), "searched")
    for method in plan.methods:
        ranges = "; ".join(f"{name} {span}" for name, span in method.free.items())
        first = "; the first trial as published" if method.opening else ""
        what = f"{len(method.free)}: {ranges}" if ranges else "nothing"
        grid.add_row(method.method, f"{what}{first}")
    return grid


def _reach(plan: Plan, start: int, stop: int) -> Table:
    budgets = plan.budgets[start:stop]
    heads = [f"<={budget_text(b)}{'*' if b == plan.primary else ''}" for b in budgets]
    most = "most" if plan.cost.clocked else "untrained"
    columns = ("least", most, "refused", *heads)
    grid = table(text(plan.cost.unit, wrap=False), *map(number, columns))
    for method in plan.methods:
        most = plan.cost.text(method.most)
        shares = [f"{percent(share, 0)} %" for share in (method.refused, *method.fits[start:stop])]
        grid.add_row(method.method, plan.cost.text(method.least), f"to {most}", *shares)
    return grid


def _effort(plan: Plan) -> Table:
    heads = ("runs", "epochs", "at most", "a trial", "search", "in all")
    grid = table(text("effort", wrap=False), *map(number, heads))
    for method in plan.methods:
        low, high = method.epochs
        grid.add_row(
            method.method,
            f"{method.trials:,} + <={method.confirm + method.unreduced:,}",
            f"x {low:,}" if low == high else f"x {low:,}-{high:,}",
            f"= {method.most_epochs:,}",
            *map(duration, (method.trial_seconds, method.search_seconds)),
            f"<={duration(method.seconds)}" if method.seconds is not None else "-",
        )
    return grid


def _effort_note(plan: Plan) -> str:
    trials = sum(method.trials for method in plan.methods)
    confirm = sum(method.confirm for method in plan.methods)
    wholes = sum(method.unreduced for method in plan.methods)
    epochs = sum(method.most_epochs for method in plan.methods)
    based = [f"{method.method} {method.base:,}" for method in plan.methods if method.base]
    of_them = f" and {plural(wholes, 'run')} of unreduced networks," if wholes else ""
    note = (
        f"In all {plural(trials, 'search trial')}, at most {plural(confirm, 'confirm run')}"
        f"{of_them} and {plural(epochs, 'epoch')}. "
    )
    if based:
        note += f"Epochs of a base, once, count in full: {', '.join(based)}. "
    if plan.untimed:
        return f"{note}Time: {plan.untimed}."
    if plan.rate and plan.seconds is not None:
        return f"{note}About {duration(plan.seconds)} of one GPU at most."
    if plan.seconds is None or plan.slots is None:
        return f"{note}Time: not known for every method."
    steps = sum(method.steps for method in plan.methods)
    return (
        f"{note}About {duration(plan.seconds)} of device time at most, "
        f"{duration(plan.seconds / plan.slots)} on this machine with "
        f"{plural(plan.slots, 'trial')} at once. An estimate from {plural(steps, 'step')}, of the "
        "defaults and of the sample of median cost, each timed alone."
    )


def _gpu_hours(plan: Plan) -> Table:
    """What each method asks of GPUs, as if all were one."""
    heads = ("a trial", "base", "search", "confirm", "in all")
    grid = table(text("GPU-hours", wrap=False), *map(number, heads))
    for method in plan.methods:
        seconds = (
            *(method.trial_seconds, method.base_seconds or None, method.search_seconds),
            *(method.confirm_seconds, method.seconds),
        )
        grid.add_row(method.method, *(_amount(each and each / HOUR) for each in seconds))
    return grid


def _hours(plan: Plan) -> Table:
    """Hours of the whole study, and what it takes, by number of GPUs."""
    heads = [f"{each.gpus} GPU{'s' if each.gpus > 1 else ''}" for each in plan.hours]
    grid = table(text("all methods", wrap=False), *map(number, heads))
    grid.add_row("hours", *(_amount(each.hours) for each in plan.hours))
    grid.add_row("GPUs busy, at most", *(_amount(each.busy or None) for each in plan.hours))
    grid.add_row("trials at once", *(f"{each.trials:,}" for each in plan.hours))
    grid.add_row("CPU cores for them", *(f"{each.cores:,g}" for each in plan.hours))
    return grid


def _hours_note(plan: Plan) -> str:
    rate = plan.rate
    if rate is None:
        return ""
    note = (
        f"An estimate; nothing was timed. One GPU trains {rate.images_per_second:,g} images/s of "
        f"{rate.network}, {rate.training_macs / 1e6:,.0f} million MACs each with the backward "
        "pass, and every other network at as many MACs per second. Assumed: images arrive in time, "
        "trials on one GPU share its rate, the GPUs of one trial add up, and trials cost what the "
        "defaults and the sample of median cost do. Depthwise and small networks take longer than "
        "their MACs say; starts, checkpoints and the ends of phases are left out. Hours are at "
        "least those of the trials that wait for each other."
    )
    if plan.stand_in:
        train, validation, test = plan.images
        note += (
            f" {plan.data} was not read: it is known to have {train + validation:,} images for "
            f"training and validation, and {test:,} for test."
        )
    return note


def _amount(value: float | None) -> str:
    """A number of hours or GPUs, to two or more digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _sights(plan: Plan) -> Iterator[str]:
    """What proposals see, in a line for the methods that have it in common."""
    methods: dict[Sight, list[str]] = {}
    for method in plan.methods:
        if method.sight is not None:
            methods.setdefault(method.sight, []).append(method.method)
    for sight, names in methods.items():
        who = "each method" if len(names) == len(plan.methods) else ", ".join(names)
        at_once = f"Proposals ({sight.sampler}, {plural(sight.slots, 'trial')} at once): of {who}"
        if not sight.last:
            yield f"{at_once}, no trial of {sight.trials} sees another."
            continue
        yield (
            f"{at_once}, the last trial of {sight.trials} sees {sight.last} that ended and "
            f"{sight.running} that run; trials 1 to {sight.unseeing} see none."
        )


def packed(packing: Packing) -> str:
    """The measured throughput of trials at once on one GPU, and what to write into the study."""
    alone = packing.throughput[1]
    paces = ", ".join(f"{count} x{rate / alone:.2f}" for count, rate in packing.throughput.items())
    return (
        f"Trials at once on one {packing.device}, and their total throughput ({packing.method}, "
        f"defaults): {paces}; one trial takes {packing.memory:.0%} of its memory. Proposed: "
        f"`resources: {{gpu: {1 / packing.trials:g}}}`, {plural(packing.trials, 'trial')} on each."
        f"{_by_engine(packing)}"
    )


def _by_engine(packing: Packing) -> str:
    """The measured throughput of one trial by each engine, and what to write into the study."""
    if not packing.engines:
        return ""
    paces = ", ".join(
        f"{name} does not train" if rate is None else f"{name} x{rate / packing.throughput[1]:.2f}"
        for name, rate in packing.engines.items()
    )
    advice = "no other engine is worth its compilation"
    if packing.engine != "eager":
        advice = f"`recipe: {{engine: {packing.engine}}}`, at the cost of minutes of compilation"
    return f" Engines of one trial: {paces}. Proposed: {advice}."


def _detectable(plan: Plan) -> Iterator[RenderableType]:
    if not plan.detectable:
        return
    of = plural(plan.compared, "pair")
    yield Text(
        f"Configurations: smallest difference between two at {plan.cost.amount(plan.primary)} "
        "that the tests detect with a power of 80 % (Welch, level 0.05, the first of Holm's steps "
        f"over {of}), in points of accuracy, by the standard deviation between seeds, which only "
        "the confirm runs show:"
    )
    grid = table(text("seed-to-seed sd", wrap=False), *(number(f"{sd:g}") for sd in DEVIATIONS))
    for index, detectable in enumerate(plan.detectable):
        seeds = plural(detectable.seeds, "seed") + (", as planned" if index == 0 else "")
        grid.add_row(seeds, *(_points(detectable, sd) for sd in DEVIATIONS))
    yield grid
    if plan.detectable[0].deviations is None:
        yield Text("With only 1 seed planned, no difference can be detected.")
    image = 100 / plan.images[2]
    yield Text(f"One of the {plan.images[2]:,} test images is {image:.2g} points.")


def _splits(splits: Splits, plan: Plan) -> Iterator[RenderableType]:
    """The differences that repeated searches of the same effort could detect between methods."""
    if plan.detectable:
        yield Text()
    effort = f"{splits.runs:,} runs per method, confirm runs included"
    if not splits.others and splits.planned.repeats < TESTED_FROM:
        yield Text(
            f"Methods: a claim about a method needs {TESTED_FROM} repeated searches of "
            f"{splits.least} or more trials, "
            f"{TESTED_FROM * (splits.least + len(plan.budgets)):,} runs per method at these "
            f"budgets; the study plans {effort}."
        )
        return
    yield Text(
        "Methods: smallest difference between two that repeated searches detect with a power of "
        "80 % (Welch, level 0.05, the first of Holm's steps over "
        f"{plural(splits.pairs, 'pair')}), in points of accuracy, for each split of the effort "
        f"({effort}):"
    )
    heads = ("repeats", "trials", "seeds", "difference", "accuracy")
    grid = table(text("split", wrap=False), *map(number, heads))
    for name, split in (("planned", splits.planned), *(("", other) for other in splits.others)):
        grid.add_row(
            "proposed" if split is splits.proposed else name,
            *(f"{count:,}" for count in (split.repeats, split.trials, split.seeds)),
            "none" if split.found is None else f"{split.found:.2f}",
            f"{split.accuracy - splits.planned.accuracy:+.2f}",
        )
    yield grid
    yield Text(
        f"Assumed: a standard deviation of {CONFIG_SD:g} point between configurations and "
        f"{SEED_SD:g} between seeds, and {percent(ACCURACY, 0)} % accuracy. {TESTED_FROM} repeats "
        "are the minimum. accuracy: what searches of that length gain or lose against the "
        f"planned ones; a claim is about a method with that much search. On {plan.images[2]:,} "
        f"test images no number of repeats detects less than {splits.floor:.2g} points."
    )
    if (best := splits.proposed) is not None:
        yield Text(
            f"Proposed: `search: {{trials: {best.trials}, repeats: {best.repeats}}}`, "
            f"`confirm: {{seeds: {best.seeds}}}`."
        )


def _points(detectable: Detectable, sd: float) -> str:
    return "none" if detectable.deviations is None else f"{detectable.deviations * sd:.2f}"
