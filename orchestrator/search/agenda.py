"""What runs next: equal effort over the methods, then the configurations to confirm.

A proposal is a pure function of the seed, the trial's number and the trials that are numbered at
least `lag` before it; so the same study makes the same trials, however the workers race.
"""

import logging
from typing import Any

from orchestrator.board.choose import choose
from orchestrator.board.racing import planned
from orchestrator.record.history import History
from orchestrator.record.trials import Ticket
from orchestrator.study.file import Study
from orchestrator.study.params import derive

logger = logging.getLogger(__name__)


def confirm_plan(history: History) -> list[Ticket]:
    """The chosen configurations on fresh seeds; one chosen at two budgets runs once.

    Seeds go round: every configuration gets its first seed before any gets its second.
    """
    study, rows = history.study, history.rows()
    choices = choose(rows, study.budgets)
    seeds = planned(rows, study).given
    return [
        Ticket(
            trial=f"{config}-seed{index}",
            method=own[0].method,
            role="confirm",
            config=config,
            seed=index,
            params=own[0].params,
            budgets=tuple(choice.budget for choice in own),
            point=own[0].point,
        )
        for index in range(1, max(seeds.values(), default=0) + 1)
        for config in dict.fromkeys(choice.config for choice in choices)
        if index <= seeds[config]
        if (own := [choice for choice in choices if choice.config == config])
    ]


def wire(study: Study, ticket: Ticket) -> dict[str, Any]:
    """What a worker is sent: names and numbers."""
    return {
        "trial": ticket.trial,
        "method": ticket.method,
        "params": dict(ticket.params),
        "role": ticket.role,
        "seed": derive(study, ticket.config, ticket.seed),
    }
