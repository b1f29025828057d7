"""A debug executor: runs what an agenda serves in this process, without Ray."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from methods.data.load import load
from methods.data.survey import survey
from orchestrator.record.ledger import Ledger
from orchestrator.record.provenance import provenance
from orchestrator.record.result import Result
from orchestrator.record.rows import Row
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.study.file import Study
from orchestrator.study.params import derive
from orchestrator.trial.job import Job, Settings
from orchestrator.trial.run import results

Worker = Callable[[Ticket], Iterator[Result]]


def execute(agenda: Agenda, worker: Worker, *, at_once: int = 1, seed: int = 0) -> None:
    """Runs an agenda to its end; of `at_once` trials that run, any one speaks next."""
    order, running = random.Random(seed), dict[str, Iterator[Result]]()
    while True:
        while len(running) < at_once and isinstance(ticket := agenda.next(), Ticket):
            running[ticket.trial] = worker(ticket)
        if not running:
            assert agenda.finished
            return
        trial = order.choice(list(running))
        if not agenda.heard(trial, next(running[trial])):
            del running[trial]


def rows_without_ray(study: Study, folder: Path, *, lag: int) -> list[Row]:
    """The rows of a sweep of `lag` trials at once, or of what it has left to run in `folder`."""
    data = load(study.data, seed=study.seed)
    digest = survey(data).digest
    ledger = Ledger(folder, study)
    facts = provenance(study, data.task, len(data.test), digest)
    lag = ledger.history.begin(facts, lag=lag, device="cpu")
    agenda = Agenda(ledger.history, data.task, lag=lag)
    sha256 = digest.sha256
    execute(agenda, lambda ticket: results(job(study, ticket, folder, sha256), lambda: data))
    rows = ledger.history.rows()
    ledger.close()
    return rows


def job(study: Study, ticket: Ticket, folder: Path, data_sha256: str = "") -> Job:
    """What a worker is sent of a trial."""
    settings = Settings(study.data, study.seed, folder, "cpu", 1, data_sha256=data_sha256)
    seed = derive(study, ticket.config, ticket.seed)
    trial = (ticket.trial, ticket.method, ticket.params, ticket.role, seed)
    return Job(*trial, settings, ticket.until)
