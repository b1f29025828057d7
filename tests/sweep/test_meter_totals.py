"""A meter's totals after a resume are those of a sweep that was never cut, wherever it was cut."""

import shutil
from dataclasses import replace
from pathlib import Path

from orchestrator.record.events import (
    End,
    Epoch,
    Event,
    Figures,
    Lost,
    Metrics,
    Paused,
    Point,
    Rung,
    Start,
)
from orchestrator.record.ledger import Ledger, News
from orchestrator.record.result import Ending, Outcome
from orchestrator.record.trials import Ticket
from orchestrator.study.file import load
from orchestrator.study.space import searches
from orchestrator.sweep.meter import Meter

TEXT = """
name: metered
data: digits
budgets: [0.2, 0.5]
recipe: {epochs: 4, batch_size: 64}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5, 1.0]}}
  skipnet:
    {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn, alpha: 1, target: 0, policy_lr: 0.01}
search: {trials: 4, sampler: random}
confirm: {seeds: 1}
"""
FIGURES = Figures(accuracy=0.5, macs_mean=3e5, macs_p95=3e5, macs_max=3e5)
POINTS = (Point("", FIGURES),)
RUNNING = "isoflop_trials_running"
Totals = dict[tuple[str, str, str], float]


def totals(meter: Meter) -> Totals:
    return {**meter._totals, ("began", "", ""): meter._began}


def train(ledger: Ledger, ticket: Ticket, *steps: int) -> None:
    for step in steps:
        ledger.history.epoch(ticket.trial, step, 1000 * step, Metrics(seconds=0.25))


def sweep(ledger: Ledger) -> None:
    """Trials at once that train, are lost, wait at a rung, are stopped, fail and are refused."""
    history = ledger.history
    dense, skipnet = searches(ledger.study).values()
    first, second = (history.add(dense, {"width": width}) for width in (0.25, 0.5))
    third, fourth = (history.add(skipnet, {"width": width}) for width in (0.25, 0.5))
    history.start(first)
    history.start(third)
    train(ledger, first, 1, 2)
    history.start(second)
    train(ledger, third, 1)
    history.lose(third.trial, "its node died")
    train(ledger, second, 1)
    history.rest(first.trial)
    history.start(third)
    history.pause()
    history.start(second)
    history.start(third)
    train(ledger, third, 1, 2, 3)  # the first is known
    history.end(second.trial, Ending("FAIL", "diverged", 0.5))
    history.promote((first.trial, second.trial), (first.trial,))
    history.start(first)
    history.start(fourth)
    history.end(fourth.trial, Ending("PRUNED", "stopped", 0.75))
    train(ledger, first, 3, 4)
    history.end(third.trial, Ending("COMPLETE", None, 1.25, POINTS))
    over = history.add(dense, {"width": 1.0}, over=0.3)
    history.start(over)
    history.end(over.trial, Ending.without_a_worker(Outcome("over budget", "1 MMACs")))
    history.end(first.trial, Ending("COMPLETE", None, 2.5, POINTS))


def test_a_resume_anywhere_ends_in_the_totals_of_an_unbroken_sweep(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(TEXT)
    study, whole = load(tmp_path / "study.yaml"), Meter("metered")
    events: list[Event] = []
    after: list[Totals] = []

    def cut(news: News) -> None:
        """The folder as a driver leaves it that dies at this event."""
        assert isinstance(news, Event)
        events.append(news)
        after.append(totals(whole))
        shutil.copytree(ledger.folder, tmp_path / str(len(events)))

    ledger = Ledger(tmp_path / "whole", study)
    ledger.listeners += [whole, cut]
    sweep(ledger)
    ledger.close()
    assert {Start, Epoch, Lost, Rung, Paused, End} <= {type(event) for event in events}
    for number, until in enumerate(after, start=1):
        meter = resumed(Ledger(tmp_path / str(number), study))
        assert totals(meter) == until, f"after event {number}"
        for event in events[number:]:
            meter(event)
        assert totals(meter) == after[-1], f"cut after event {number}"


def resumed(ledger: Ledger) -> Meter:
    """The meter of a driver that has started again what ran."""
    meter = Meter("metered")
    ledger.replay(meter)
    running = [total for (name, *_), total in totals(meter).items() if name == RUNNING]
    assert running, "that nothing runs is told"
    assert not any(running)
    for record in ledger.history.records.values():
        if record.orphaned:
            meter(replace(record.start, attempt=record.attempts + 1))
    ledger.close()
    return meter
