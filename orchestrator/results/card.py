"""The card of an export: everything that a user needs to run the network and to trust its
numbers."""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2

from methods import METHODS
from methods.api import Method
from methods.data.load import Data
from methods.files import digest
from methods.shipping.card import CARD, MODEL, VERSION, Format
from orchestrator import store
from orchestrator.board.latency import timed
from orchestrator.board.rules import BASELINE
from orchestrator.record.provenance import Provenance, provenance
from orchestrator.record.rows import FIGURES, Row
from orchestrator.results.boards import StoredStudy
from orchestrator.study.params import ALIAS, PREFIX

README = "card.md"
NEEDS: Mapping[Format, tuple[str, ...]] = MappingProxyType(
    {"torch": ("isoflop", "torch", "safetensors"), "pt2": ("torch",), "onnx": ("onnxruntime",)}
)
"""What loads the file, by format; versions are those that it was tried with."""
SEEN = 64
"""Test images whose pixels tell in what range they come."""


def facts(source: StoredStudy, row: Row, method: Method, data: Data, how: Format) -> dict[str, Any]:
    """What the card says, but for what is measured of the file itself; the content of card.json."""
    task, study = data.task, source.study
    original = str(row.params.get(ALIAS, row.method))
    mean, std = (values.double() for values in (data.test.mean, data.test.std))
    pixels = data.test.head(SEEN)[0].double() * std[:, None, None] + mean[:, None, None]
    origin = provenance(study, task, len(data.test))
    timed_pairs = store.read_latencies(source.uri, study.name) if source.uri else []
    events = [
        event for event in timed_pairs if (event.trial, event.point) == (row.trial, row.point)
    ]
    times = timed(source.rows, study.budgets, BASELINE, events, study.cost)
    return {
        "card": VERSION,
        "format": how,
        "file": MODEL[how],
        "needs": {name: importlib.metadata.version(name).split("+")[0] for name in NEEDS[how]},
        "network": {
            "method": METHODS.place(original) or original,
            "params": method.model_dump(mode="json"),
            "point": row.point,
            "isoflop": origin.versions["isoflop"],
        },
        "task": {
            "name": task.name,
            "channels": task.channels,
            "height": task.height,
            "width": task.width,
            "classes": task.classes,
        },
        "input": {
            "name": "images",
            "dtype": "float32",
            "shape": ["batch", task.channels, task.height, task.width],
            "colour": "grey" if task.channels == 1 else "RGB",
            "pixels": [round(float(pixels.min())), round(float(pixels.max()))],
            "mean": mean.tolist(),
            "std": std.tolist(),
            "fit": study.fit,
            **({"resize": study.resize} if study.resize else {}),
        },
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", task.classes]},
        "figures": {
            **{name: getattr(row, name) for name in FIGURES},
            **({"ms": row.ms} if study.cost.clocked else {}),
        },
        "latency": [
            {
                "budget_ms" if study.cost.clocked else "budget_mmacs": one.budget,
                "batch": one.batch,
                "ms": one.ms,
                "spread_ms": one.spread_ms,
                "baseline_ms": one.baseline_ms,
                "speed_up": one.speed_up,
                "macs_speed_up": one.macs_speed_up,
                "honesty": one.honesty,
                "device": one.device,
            }
            for one in times
            if one.ms is not None
        ],
        "run": {
            "study": study.name,
            "study_hash": study.hash,
            "method": row.method,
            "trial": row.trial,
            "mlflow_run": row.run_id,
            "seed": row.seed,
            "epochs": row.epochs,
            "recipe": {
                name.removeprefix(PREFIX): value
                for name, value in row.params.items()
                if name.startswith(PREFIX)
            },
            "evidence_sha256": row.evidence,
            **_made_with(source.provenance),
        },
        "exported": _made_with(origin),
        "convention": origin.convention,
    }


def write(facts: Mapping[str, Any], folder: Path) -> None:
    """Both cards, of the files that the folder holds by now: one to read, one for programs."""
    model = digest((folder / facts["file"]).read_bytes())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("card.md.j2").render(**facts, sha256=model)
    (folder / README).write_text(text)
    files = {facts["file"]: model, README: digest(text.encode())}
    content = json.dumps({**facts, "files": files}, indent=2, allow_nan=False)
    (folder / CARD).write_text(content + "\n")


def _made_with(origin: Provenance) -> dict[str, object]:
    return {
        "commit": origin.commit,
        "python": origin.python,
        "versions": dict(origin.versions) or None,
    }
