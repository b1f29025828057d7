"""The comparison of searches in docs/search.md, from a table of recorded curves.

    python -m tests.bench.races curves.parquet --to docs/search.svg --replicates 10

`--syne-tune PYTHON` names an interpreter that has syne-tune, and adds its MO-ASHA.
"""

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial
from rich.console import Console

from methods.api import Task
from orchestrator.record.history import History
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.search.replay import curves, tournament
from orchestrator.search.replay.searchers import in_memory, named
from orchestrator.search.replay.simulate import Searcher
from orchestrator.study.file import Study
from orchestrator.study.identity import number_of, trial_name
from orchestrator.study.params import derive
from orchestrator.study.space import Space

SERVER = Path(__file__).with_name("syne_tune_server.py")
STOPPING = "ehvi,ehvi+asha,ehvi+moasha,ehvi+predictive"
SAMPLING = "random,nsga2,tpe"


class SyneTune:
    """Its MO-ASHA with its own settings: random configurations, grace 1, reduction 3."""

    name = "Syne Tune MO-ASHA"

    def __init__(self, python: str) -> None:
        self._server = subprocess.Popen(
            [python, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._sessions = 0

    def agenda(self, study: Study, spaces: Mapping[str, Space], task: Task, lag: int) -> Agenda:
        """A fresh search in memory, each method's in a session of its own."""
        history = in_memory(study, spaces, "random", stop=True)
        sessions = {method: self._opened(space, study) for method, space in spaces.items()}
        rule = _Rule(self, sessions, history)
        return Agenda(history, task, lag=lag, sample=rule.sample, stopping=rule)

    def said(self, message: Mapping[str, Any]) -> Any:
        """The answer to a message."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(message) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self._server.communicate()

    def _opened(self, space: Space, study: Study) -> int:
        self._sessions += 1
        content = {
            "session": self._sessions,
            "space": {name: _domain(values) for name, values in space.free.items()},
            "seed": derive(study, space.method, 0),
            "epochs": space.epochs,
        }
        self.said(content)
        return self._sessions


@dataclass
class _Rule:
    """Proposes and stops as the server says; the agenda's own first trials run to their end."""

    owner: SyneTune
    sessions: Mapping[str, int]
    history: History
    asked: set[str] = field(default_factory=set)

    def sample(
        self, space: Space, history: Sequence[FrozenTrial], study: Study, number: int
    ) -> Mapping[str, Any]:
        self.asked.add(trial_name(space.method, number))
        return dict(self.owner.said({"session": self.sessions[space.method], "ask": number}))

    def reason(self, ticket: Ticket, lag: int) -> str | None:
        if ticket.trial not in self.asked:
            return None
        latest = self.history.records[ticket.trial].curve[-1]
        metrics = latest.metrics
        result = {
            "error": 1 - metrics.val_acc,
            "macs": 1e6 * metrics.macs_mean_m,
            "epoch": latest.step,
        }
        message = {"session": self.sessions[ticket.method], "tell": number_of(ticket.trial)}
        return "stopped" if self.owner.said({**message, "result": result}) else None

    def shown(self, method: str, trial: FrozenTrial) -> FrozenTrial:
        return trial


def _domain(own: BaseDistribution) -> dict[str, Any]:
    if isinstance(own, CategoricalDistribution):
        return {"kind": "choice", "values": list(own.choices)}
    low, high, step = own.low, own.high, own.step  # type: ignore[attr-defined]
    if step is not None and not own.log:  # type: ignore[attr-defined]
        count = int((high - low) / step + 1e-9) + 1
        return {"kind": "choice", "values": [low + i * step for i in range(count)]}
    return {"kind": "number", "low": low, "high": high, "log": own.log}  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--to", type=Path, default=Path("search.svg"))
    parser.add_argument("--searchers", default=f"{STOPPING},{SAMPLING}")
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--syne-tune", default=None)
    asked = parser.parse_args()
    console = Console()
    track = tournament.Track.of(curves.read(asked.table))
    console.print(tournament.qualities(track))
    searchers: list[Searcher] = named(asked.searchers)
    servers: list[SyneTune] = []
    if asked.syne_tune:
        servers.append(SyneTune(asked.syne_tune))
        searchers += servers
    found = []
    for searcher in searchers:
        found.append(
            tournament.race(
                track,
                searcher,
                workers=asked.workers,
                trials=asked.trials,
                seeds=range(asked.replicates),
            )
        )
        console.print(tournament.line(found[-1]))
    console.print(tournament.standings(found))
    for own in found:
        reached = own.confirmed.mean(axis=0)
        console.print(own.searcher, np.round(reached, 4).tolist(), highlight=False)
    tournament.write_figure(found, asked.to)
    for server in servers:
        server.close()


if __name__ == "__main__":
    main()
