"""Real sweeps of all methods that pause and promote trials, beside ones that train each whole.

    python -m tests.bench.promoted

Each sweep runs as `isoflop run` does: Ray, MLflow, training, confirm runs. Both rules have the same
epochs per method, and take turns under each study seed; what differs is `search.stop` alone. What
is measured: trials begun and whole, epochs, the hypervolume of the search's complete trials, the
test accuracy of what was chosen and confirmed, and how long the search took. Finished sweeps are
kept: an interrupted comparison resumes.
"""

import argparse
import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = "1"

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image
from rich.console import Console

from methods.data import sums
from methods.data.parts import Array
from orchestrator.board.model import Board
from orchestrator.record import log
from orchestrator.search.replay import curves
from orchestrator.study.file import Study
from orchestrator.sweep import run as sweep
from orchestrator.sweep.ready import Place
from tests.bench.sides import (
    METHODS,
    RULES,
    SWEEPS,
    Searched,
    Sweep,
    gap,
    markdown,
    method_rows,
    shown,
    sweep_rows,
    times,
)

KEPT = Path("build/promoted")
STUDY = Path(__file__).with_suffix(".yaml")
IMAGES = {"train": 1_200, "validation": 1_000, "test": 2_000}


def images(folder: Path) -> Path:
    """Fewer images of `sums` than the set has, as files."""
    source = sums.source(*IMAGES.values())
    folder.mkdir(parents=True, exist_ok=True)
    for role, part in zip(IMAGES, (source.train, source.validation, source.test), strict=True):
        assert isinstance(part, Array), "sums are held in memory"
        pictures = []
        for pixels in part.images:
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            pictures.append(stream.getvalue())
        content = {"image": pa.array(pictures, pa.binary()), "label": pa.array(part.labels)}
        pq.write_table(pa.table(content), folder / f"{role}.parquet")
    return folder


def swept(rule: str, seed: int, keep: Path) -> Sweep:
    """A sweep's figures; one that has ended in the folder is not run again."""
    data = keep / "sums"
    if not data.exists():
        images(data)
    asked = yaml.safe_load(STUDY.read_text())
    asked["search"]["stop"] = rule
    own = {"name": f"promoted-{rule}-{seed}", "data": str(data), "seed": seed}
    study = Study.model_validate({**asked, **own})
    return of(rule, seed, keep / study.name, sweep.run(study, Place(out=keep)).board)


def of(rule: str, seed: int, folder: Path, board: Board) -> Sweep:
    """The figures of the sweep that ended in a folder."""
    rows = curves.export(folder).rows
    rows = rows[rows["role"] == "search"]
    methods = {}
    for name, own in rows.groupby("method"):
        last = own.groupby("trial").last()
        whole = last[last["state"] == "COMPLETE"]
        ends = zip(whole["final_macs"], 1 - whole["final_acc"], strict=True)
        methods[str(name)] = Searched(
            begun=len(last),
            whole=len(whole),
            epochs=len(own),
            ends=[(float(macs), float(error)) for macs, error in ends],
            test=board.cell(str(name), board.primary).accuracy.mean,
        )
    return Sweep(rule, seed, methods, *times(log.read(folder / "wal.jsonl")[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of study seeds, from 0 on")
    parser.add_argument("--keep", type=Path, default=KEPT, help="the sweeps and their results")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here too")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the page")
    asked = parser.parse_args()
    console = Console(width=110)
    sweeps = []
    for seed in range(asked.seeds):
        for rule in RULES if seed % 2 == 0 else RULES[::-1]:
            sweeps.append(swept(rule, seed, asked.keep))
            console.print(f"{rule}, seed {seed}: {sweeps[-1].seconds:.0f} s", highlight=False)
    tables = ((SWEEPS, sweep_rows(sweeps)), (METHODS, method_rows(sweeps)))
    for heads, rows in tables:
        console.print(shown(heads, rows))
    length = yaml.safe_load(STUDY.read_text())["recipe"]["epochs"]
    console.print(f"epochs of a method: {gap(sweeps)} apart at most; a trial has {length}")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(each) for each in sweeps], indent=1))
    if asked.markdown:
        for each in tables:
            sys.stdout.write(f"{markdown(*each)}\n\n")


if __name__ == "__main__":
    main()
