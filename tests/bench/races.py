"""The comparison of searches in docs/search.md, from a table of recorded curves.

    python -m tests.bench.races curves.parquet --to docs/search.svg --replicates 10

`--syne-tune PYTHON` names an interpreter that has syne-tune, and adds its MO-ASHA.
"""

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from rich.console import Console

from orchestrator.search.replay import curves, tournament
from orchestrator.search.replay.searchers import named
from orchestrator.search.replay.simulate import Ended, Searcher, Session
from orchestrator.search.rungs import Curve
from orchestrator.study.file import Study
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

    def session(self, space: Space, study: Study) -> Session:
        self._sessions += 1
        length = {**space.defaults(), **space.fixed}["recipe.epochs"]
        own = _SyneTuneSession(self, self._sessions)
        domains = {name: _domain(found) for name, found in space.free.items()}
        own.said({"space": domains, "seed": derive(study, space.method, 0), "epochs": length})
        return own

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


@dataclass(frozen=True)
class _SyneTuneSession:
    owner: SyneTune
    number: int

    def propose(self, number: int, ended: Sequence[Ended]) -> Mapping[str, Any]:
        return dict(self.said({"ask": number}))

    def stops(self, number: int, own: Curve, ended: Sequence[Ended]) -> bool:
        result = {"error": own.errors[-1], "macs": own.macs[-1], "epoch": own.step}
        return bool(self.said({"tell": number, "result": result}))

    def close(self) -> None:
        pass

    def said(self, message: Mapping[str, Any]) -> Any:
        return self.owner.said({**message, "session": self.number})


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
    if asked.syne_tune:
        searchers.append(SyneTune(asked.syne_tune))
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


if __name__ == "__main__":
    main()
