"""`python -m tests.bench.speed`: every goal beside its reference, in one run.

Prints goal, figure, spread and verdict, and writes them as JSON beside those of earlier runs, so
that a regression shows. On a CPU the exit status is 1 if a figure falls below the worst machine of
`floors.json` by more than its spread and a tenth. Read ratios, not times.
"""

import argparse
import datetime
import importlib
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from rich.console import Console

from methods.machine import device_name, tune_allocator
from orchestrator.record.provenance import commit
from tests.bench.speed.clock import Clock
from tests.bench.speed.goals import Finding, floors, latest, record, shown, write

PARTS = (
    "training",
    "loading",
    "decoding",
    "skipping",
    "slimming",
    "mixing",
    "condensing",
    "pruning",
    "workers",
    "pace",
    "counting",
)


def main() -> None:
    """Runs the parts that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--record", action="store_true", help="add this machine to floors.json")
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that PyTorch sees, but there is none here")
    torch.set_num_threads(1)
    tune_allocator()
    console = Console(width=None if sys.stdout.isatty() else 140)
    device = device_name(asked.device)
    before = latest(asked.out, device)
    findings: list[Finding] = []
    began = datetime.datetime.now(datetime.UTC)
    for part in asked.parts or PARTS:
        started = time.monotonic()
        own = list(
            importlib.import_module(f"tests.bench.speed.{part}").findings(Clock(asked.device))
        )
        findings += own
        console.print(f"{part}: {time.monotonic() - started:.0f} s", style="dim")
    machines = {} if asked.device.startswith("cuda") else floors()
    console.print(shown(findings, before, machines))
    facts = {
        "device": device,
        "began": began.isoformat(timespec="seconds"),
        "seconds": round((datetime.datetime.now(datetime.UTC) - began).total_seconds()),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "commit": commit(),
    }
    path = asked.out / f"{began:%Y-%m-%dT%H-%M-%S}-{asked.device}.json"
    write(path, findings, facts)
    console.print(f"{facts['seconds']} s on {device}, load {facts['load']:.1f}; written to {path}")
    fallen = [one.what for one in findings if one.falls(machines.get(one.what, ()))]
    if fallen:
        console.print(f"fell below every machine so far: {'; '.join(fallen)}", style="bold")
    elif asked.record and machines:
        record(findings)
    sys.exit(1 if fallen else 0)


main()
