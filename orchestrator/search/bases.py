"""The plain backbones that a study trains first, once each, and from which its trials start.

A base is a trial of its own, `base-00000`, with the study's recipe. It stands before the trials
that start from it, and every search that uses it pays for it in full.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

from methods.errors import StudyError
from methods.values import Params, Scalar
from orchestrator.record.history import History
from orchestrator.record.trials import Record, Ticket
from orchestrator.study.file import Study
from orchestrator.study.identity import BASE, trial_name
from orchestrator.study.params import ALIAS, PREFIX, flat, parts
from orchestrator.study.space import Space


def planned(study: Study, spaces: Mapping[str, Space]) -> list[Ticket]:
    """The bases of a study: methods with the same backbone and recipe share one.

    Raises:
        StudyError: a method has no plain backbone.
    """
    tickets: dict[str, Ticket] = {}
    by_method = {space.method: space for space in spaces.values()}
    for method in study.methods:
        if study.start_of(method) != BASE:
            continue
        params = base_params(study, by_method[method])
        name = trial_name(BASE, len(tickets))
        ticket = Ticket(name, BASE, "base", name, 0, params, serves=(method,))
        same = tickets.setdefault(ticket.config_hash, ticket)
        if same is not ticket:
            tickets[ticket.config_hash] = replace(same, serves=(*same.serves, method))
    return list(tickets.values())


def base_params(study: Study, space: Space) -> dict[str, Scalar]:
    """The parameters of the base of a method's default configuration.

    Raises:
        StudyError: the method has no plain backbone.
    """
    whole = space.params(space.defaults())
    plain = plain_of(space, whole)
    recipe = {name: value for name, value in whole.items() if name.startswith(PREFIX)}
    changes = {PREFIX + name: value for name, value in study.base.items()}
    return flat(BASE, {**recipe, **plain, **changes})


def plain_of(space: Space, params: Params) -> Params:
    """The plain backbone of one configuration.

    Raises:
        StudyError: it has none.
    """
    plain = parts(space.method, params)[0].plain()
    if plain is None:
        raise StudyError(
            f"a start `{BASE}` must be of a method that has a plain backbone in the catalogue, but "
            f"{space.method} has none as it is configured; give a file, or delete this start",
            at=("start", space.method),
        )
    return {ALIAS: space.fixed.get(ALIAS, space.method), **plain}


def of_search(history: History, search: str) -> Iterator[Record]:
    """The base that a search uses, once it was started."""
    if not history.study.start:
        return
    method = history.space(search).method
    names = (trial_name(BASE, number) for number in itertools.count())
    for record in itertools.takewhile(bool, map(history.records.get, names)):
        if record is not None and method in record.start.serves:
            yield record


def effort(history: History, search: str) -> float:
    """What a search was given so far: its own trials, and the base that they start from."""
    clocked = history.study.search.seconds is not None
    return history.effort(search) + sum(
        _seconds(history, record) if clocked else record.effort if record.end else record.length
        for record in of_search(history, search)
    )


def failed(history: History, search: str) -> bool:
    """Whether the base of a search ended without weights."""
    records = of_search(history, search)
    return any(record.end is not None and record.end.state != "COMPLETE" for record in records)


def _seconds(history: History, record: Record) -> float:
    return record.end.seconds if record.end else history.trained(record.start.trial)
