"""A study of really trained networks to export, one of each method."""

import functools
from pathlib import Path
from typing import Any

from stores import study as study_of
from torch import nn

from methods import METHODS
from methods.data.load import Data, load
from orchestrator import store
from orchestrator.record.depot import Folder
from orchestrator.record.events import decode
from orchestrator.record.log import Log
from orchestrator.record.provenance import encode_provenance, provenance
from orchestrator.record.result import encode_result
from orchestrator.record.rows import config_hash
from orchestrator.results.export import ConfirmedPoint, find
from orchestrator.study.params import parts
from orchestrator.trial.checkpoints import deployed
from orchestrator.trial.job import decode_job
from orchestrator.trial.run import results

RECIPE = {"recipe.epochs": 2, "recipe.batch_size": 64, "recipe.lr": 0.1}
SMALL: dict[str, dict[str, Any]] = {
    "dense": {"depth": 8, "width": 0.25},
    "skipnet": {"depth": 8, "width": 0.25, "gate": "rnn"},
    "condensenet": {"stages": "1-1-1", "growth": 8},
    "dsnet": {
        "depth": 8,
        "width": 0.25,
        "choices": 2,
        "routing_size": 2,
        "gate_lr": 0.5,
        "mac_weight": 2.0,
    },
    "resrep": {"depth": 8, "width": 0.25, "target": 0.6, "prune_lr": 0.1},
    "condconv": {"depth": 8, "width": 0.25, "experts": 2, "placement": "3", "head": True},
}
"""Gates of these treat images unlike, with this seed."""
SEED = 4
POINTS = {"skipnet": "policy", "dsnet": "gate", "resrep": "prune"}
"""The operating point that the board would take, for methods that have several."""
FORMATS = ("torch", "pt2", "onnx")
BUDGET = 50.0


def exportable(place: Path) -> Path:
    """Writes a study of a short search and confirm run of each method into a folder's store."""
    what = study_of(
        "demo", budgets=[BUDGET], primary=BUDGET, methods={name: {} for name in METHODS}
    )
    facts = encode_provenance(provenance(what, digits().task, len(digits().test)))
    events = [{"event": "study", "study": "demo", "hash": what.hash, "provenance": facts}]
    events[0] |= {"lag": 1, "device": "cpu"}
    for method in METHODS:
        events += _trial(place / "demo", method, SMALL[method])
    clock = {"ms": 2.0, "spread_ms": 0.1, "reference_ms": 3.0, "device": "an abacus"}
    for trial, point in (("dense-00000-seed4", ""), ("skipnet-00000-seed4", "policy")):
        timed = {"reference": "dense-00000-seed4", "reference_point": "", "batch": 1, **clock}
        events.append({"event": "latency", "trial": trial, "point": point, **timed})
    log = Log(place / "demo" / "wal.jsonl")
    for second, event in enumerate(events):
        log.append(decode({**event, "time": 1_700_000_000_000 + 1000 * second}))
    log.close()
    store.project(place / "demo" / "wal.jsonl", f"sqlite:///{place / 'mlflow.db'}", "demo")
    return place


def _trial(folder: Path, method: str, own: dict[str, Any]) -> list[Any]:
    """The events of a confirm run that was really trained, and of the search that chose it."""
    params = METHODS[method](**own).model_dump(mode="json") | RECIPE  # as the log has them: whole
    start: dict[str, Any] = {
        "role": "confirm",
        "trial": f"{method}-00000-seed4",
        "method": method,
        "params": params,
        "seed": SEED,
        "attempt": 1,
        "config": f"{method}-00000",
        "config_hash": config_hash(method, params),
        "budgets": [BUDGET],
        "point": "",
    }
    where = {"data": "digits", "data_seed": 0, "folder": str(folder), "device": "cpu", "threads": 1}
    told = [encode_result(result) for result in results(decode_job({**where, **start}))]
    end = {"epochs": told[-1]["step"], **told[-1]["end"]}
    searched = {"role": "search", "trial": f"{method}-00000", "seed": 0}
    return [
        {**start, **searched, "event": "start"},
        {**end, "trial": f"{method}-00000", "event": "end"},
        {**start, "event": "start"},
        {**end, "trial": start["trial"], "event": "end"},
    ]


@functools.cache
def digits() -> Data:
    return load("digits")


@functools.cache
def confirmed(out: Path, method: str) -> ConfirmedPoint:
    return find(f"demo/{method}-00000-seed4", out, point=POINTS.get(method))


def measured(out: Path, method: str) -> nn.Module:
    """The network that the board measured."""
    row = confirmed(out, method).row
    folder = Folder(out / "demo" / "trials" / row.trial)
    return deployed(folder, parts(method, row.params)[0], digits().task, row.point)
