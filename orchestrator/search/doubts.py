"""What a plan warns of."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from methods.machine import cores
from orchestrator.board.model import TESTED_FROM
from orchestrator.board.rules import BASELINE, LOOKS
from orchestrator.search.window import sight, warning
from orchestrator.study.file import Study
from orchestrator.study.sections import Resources
from orchestrator.study.space import Space
from orchestrator.trial.rate import GPUS, slots_on

if TYPE_CHECKING:
    from orchestrator.search.plan import MethodPlan


def spread_over_workers(resources: Resources, *, timed: bool) -> list[str]:
    """What the times leave out where several workers train a trial."""
    if not timed or resources.spread == 1:
        return []
    return [
        f"Times are those of one worker: the {resources.spread} workers of a trial take less, "
        f"1/{resources.spread} of it at best."
    ]


def warnings(study: Study, methods: Sequence["MethodPlan"], *, timed: bool) -> list[str]:
    """Warnings about budgets that nothing fits, wasted proposals, and tests without power."""
    said, cost, costs = [], study.cost, "takes about" if study.cost.clocked else "costs"
    if any(math.isnan(method.least) for method in methods):
        return ["This machine lacks the device of the study: no time is predicted."]
    for index, budget in enumerate(study.budgets):
        without = [method for method in methods if not method.fits[index]]
        if len(without) == len(methods):
            cheapest = min(methods, key=lambda method: method.least)
            said.append(
                f"No sample of any method fits {cost.amount(budget)}; the cheapest configuration "
                f"({cheapest.method}) {costs} {cost.text(cheapest.least)}."
            )
            continue
        for method in without:
            rare = method.least <= cost.cap(budget)
            said.append(
                f"No sample of {method.method} fits {cost.amount(budget)}; its cheapest "
                f"configuration {'fits, at' if rare else costs} {cost.text(method.least)}."
            )
    for method in methods:
        if 0 < method.fits[-1] < 0.5:
            said.append(
                f"{1 - method.fits[-1]:.0%} of {method.method}'s samples fit no budget or are "
                "refused by the method: narrow its ranges, or its search wastes proposals."
            )
        if timed and method.trial_seconds is None and method.fits[-1]:
            said.append(f"{method.method} diverged within its first steps and was not timed.")
    if blind := warning(study, {m.method: m.sight for m in methods if m.sight}):
        said.append(blind)
    if BASELINE not in study.methods:
        said.append("The static baseline dense is not in the study: nothing is tested against it.")
    if study.confirm.race:
        said.append(
            f"Race: up to {_most_added(study, methods)} are added where the order at "
            f"{cost.amount(study.primary_budget)} is not decided. They are not counted above, but "
            f"every test is corrected for {LOOKS} looks."
        )
    if 1 < study.search.repeats < TESTED_FROM:
        said.append(f"With fewer than {TESTED_FROM} repeats no claim about methods is possible.")
    if study.search.repeats == 1 and study.confirm.seeds < TESTED_FROM:
        said.append(f"With fewer than {TESTED_FROM} confirm seeds nothing will be tested.")
    return said


def blind_on_gpus(
    study: Study, opened: Mapping[str, Space], methods: Sequence["MethodPlan"]
) -> Iterator[str]:
    """A warning at the fewest GPUs on which the search sees next to nothing."""
    each = {method.method: method.trials // study.search.repeats for method in methods}
    for slots in filter(None, (slots_on(study.resources, gpus) for gpus in GPUS)):
        seen = {name: sight(study, opened[name], trials, slots) for name, trials in each.items()}
        if said := warning(study, seen):
            yield said
            return


def _most_added(study: Study, methods: Sequence["MethodPlan"]) -> str:
    """What a race may add, in words."""
    budget, repeats = study.confirm.budget or 0, study.search.repeats
    if repeats == 1:
        return f"{budget:,} further confirm runs"
    of_search = [(m.trials + m.confirm + m.unreduced) // repeats for m in methods]
    runs = budget * max(of_search)
    return f"{budget:,} further searches, {runs:,} runs at most, trials included,"


def busy(load_average: float) -> list[str]:
    """A warning that the times include another load."""
    if load_average < cores():
        return []
    return [
        f"The machine is busy (load {load_average:.1f} on {cores()} cores): the estimated times "
        "include that load."
    ]
