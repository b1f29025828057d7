"""The searches and confirm runs that a study plans after the trials ended so far, and their largest
numbers."""

from collections.abc import Collection
from dataclasses import replace

from orchestrator.board.choose import Choice, to_confirm
from orchestrator.board.racing import Round, planned
from orchestrator.board.rules import BASELINE
from orchestrator.record.history import History
from orchestrator.record.trials import Ticket
from orchestrator.search.bases import effort, failed, of_search
from orchestrator.study.file import Study
from orchestrator.study.identity import confirm_name, search_name, unreduced_name
from orchestrator.study.params import unreduced
from orchestrator.study.space import Space

UNFIT = 20
"""Trials, as a multiple of the planned ones, after which a search ends: most of them are unfit."""


def current(history: History) -> Round:
    """The searches and confirm runs that a study plans after the trials ended so far."""

    def done(method: str, repeat: int) -> bool:
        search = search_name(method, repeat)
        ended = history.trials(search, history.numbers(search)) is not None
        return ended and searched(history, search)

    return planned(history.rows(), history.study, done)


def confirm_plan(history: History, asked: Round | None = None) -> list[Ticket]:
    """The chosen configurations on fresh seeds; one chosen at two budgets runs once.

    Seeds go round: every configuration gets its first seed before any gets its second. What a
    choice is reduced from has the study's seeds, and no further ones in a race. `asked` is what is
    asked for now, where that is at hand.
    """
    study, asked = history.study, asked or current(history)
    choices = to_confirm(
        filter(asked.holds, history.rows()),
        study.budgets,
        study.primary_budget,
        BASELINE,
        study.cost,
        matched=study.confirm.matched,
    )
    seeds = dict(asked.given)
    by_config: dict[str, list[Choice]] = {}
    for choice in choices:
        by_config.setdefault(choice.config, []).append(choice)
    firsts = [
        Ticket(
            trial=confirm_name(config, 1),
            method=chosen[0].method,
            role="confirm",
            config=config,
            seed=1,
            params=chosen[0].params,
            budgets=tuple(choice.budget for choice in chosen),
            point=chosen[0].point,
            repeat=chosen[0].repeat,
        )
        for config, chosen in by_config.items()
    ]
    if study.confirm.unreduced:
        at_primary = [ticket for ticket in firsts if study.primary_budget in ticket.budgets]
        wholes = [
            whole
            for ticket in at_primary
            if ticket.method not in study.controls and (whole := _unreduced(ticket)) is not None
        ]
        seeds |= dict.fromkeys((whole.config for whole in wholes), study.confirm.seeds)
        firsts += wholes
    return [
        replace(first, trial=confirm_name(first.config, index), seed=index)
        for index in range(1, max(seeds.values(), default=0) + 1)
        for first in firsts
        if index <= seeds[first.config]
    ]


def settled(history: History, over: Collection[str]) -> list[Ticket]:
    """The confirm runs that are certain while searches go on; `over` are those without any trial
    left.

    A search changes no choice of other methods, but the baseline's where it is matched to their
    costs. In a race nothing is certain before every search is over.
    """
    open_ = {space.method for search, space in history.spaces.items() if search not in over}
    if history.study.confirm.race or len(open_) == len(history.study.methods):
        return []
    if open_ and history.study.confirm.matched:
        open_.add(BASELINE)
    return [ticket for ticket in confirm_plan(history) if ticket.method not in open_]


def _unreduced(ticket: Ticket) -> Ticket | None:
    """The run of what a choice is reduced from, which is for no budget; None if of nothing."""
    params = unreduced(ticket.method, ticket.params)
    if params is None:
        return None
    config = unreduced_name(ticket.config)
    return replace(ticket, config=config, params=params, budgets=(), point="")


def searches(asked: Round) -> list[str]:
    """The names of repeated searches: the first ones of all methods, then the second ones."""
    most = max(asked.searches.values(), default=0)
    return [
        search_name(method, repeat)
        for repeat in range(1, most + 1)
        for method, count in asked.searches.items()
        if repeat <= count
    ]


def searched(history: History, search: str) -> bool:
    """Whether a search gets no further trial: its effort is spent, few of its trials fit, or what
    they start from failed."""
    if failed(history, search):
        return True
    unfit = history.numbers(search) >= history.study.search.trials * UNFIT
    return unfit or spent(history, search)


def spent(history: History, search: str) -> bool:
    """Whether a search has had its effort."""
    plan = history.study.search
    epochs = plan.trials * history.space(search).epochs
    return effort(history, search) >= (epochs if plan.seconds is None else plan.seconds)


def awaited(history: History, search: str) -> str | None:
    """The base that must end before a search proposes its first trial; None where none must.

    The agenda starts bases first, so that one which a search needs was started before.
    """
    records = of_search(history, search)
    return next((record.start.trial for record in records if record.end is None), None)


def confirm_runs(study: Study, space: Space) -> int:
    """Confirm runs of a method, of all repeats: a choice of its own at every budget."""
    choices = len(study.budgets)
    if study.confirm.matched and space.method == BASELINE:
        choices += len(study.methods) - 1
    return study.search.repeats * study.confirm.seeds * choices


def unreduced_runs(study: Study, space: Space) -> int:
    """Runs of what a method's choices at the primary budget are reduced from, of all repeats."""
    if not study.confirm.unreduced or space.method in study.controls or not space.unreduced():
        return 0
    return study.search.repeats * study.confirm.seeds
