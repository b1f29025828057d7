"""Measures each part in a separate process, prints a table and writes JSON."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import tests.bench.scale
from tests.bench.scale.parts import PARTS


def apart(part: str, trials: int, sampler: str) -> dict[str, Any]:
    """One part in a fresh process and a fresh folder."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tests.bench.scale", "--trials", str(trials)]
        command += ["--sampler", sampler, "--one", part, "--json", str(result)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[3])
        content: dict[str, Any] = json.loads(result.read_text())
    return content


def lines(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Goal, figure and verdict of what was measured."""
    table = []

    def line(what: str, goal: str, figure: str, holds: bool | None = None) -> None:
        table.append((what, goal, figure, "" if holds is None else "holds" if holds else "FAILS"))

    def flat(what: str, run: Mapping[str, Any]) -> None:
        if "exponent" not in run:
            return
        slope, error = run["exponent"], run["error"]
        cost = f"{run['cpu_ms'][0]:.3g} to {run['cpu_ms'][-1]:.3g} ms of CPU"
        line(what, "exponent 0", f"{slope:+.2f} +- {error:.2f} ({cost})", slope - 2 * error <= 0.1)

    for part, what in (("unlogged", "MLflow left out"), ("whole", "MLflow included")):
        for name, unit in (("wall", "elapsed"), ("cpu", "CPU of the driver")):
            if "plain" in found and part in found:
                base, own = (found[k][name] / found[k]["trials"] for k in ("plain", part))
                line(
                    f"a trial, {unit}, {what}",
                    "under 1.5 times plain",
                    f"{own / base:.2f} ({1e3 * own:.3g} ms, plain {1e3 * base:.3g} ms)",
                    own / base < 1.5,
                )
    names = {
        "plain": "plain Ray Tune",
        "unlogged": "the sweep without MLflow",
        "whole": "the whole sweep",
        "snapshots": "plain Ray Tune with snapshots",
        "ledger": "search, journal and log",
        "projector": "projection to MLflow",
    }
    for part, what in names.items():
        if part in found:
            flat(what, found[part])
    for part, what in names.items():
        if "kb_per_trial" in found.get(part, {}):
            figure = f"{found[part]['kb_per_trial']:.3g} kB a trial, {found[part]['rss_mb']:.0f} MB"
            line(f"memory: {what}", "", figure)
    if "projector" in found:
        again, kept = (
            found["projector"][f"{what}_per_trial"] for what in ("again_ms", "stored_kb")
        )
        line("MLflow at a resume", "", f"{again:.3g} ms of CPU a trial; {kept:.3g} kB on disk")
    if "ledger" in found:
        line("a resume", "", f"{found['ledger']['resume_ms_per_trial']:.3g} ms of CPU a trial")
        line("the plan to confirm", "", f"{found['ledger']['confirm_plan_ms']:.3g} ms of CPU, once")
    for name, run in found.get("samplers", {}).items():
        costs = ", ".join(f"{c:.3g}" for c in run["cpu_ms"])
        line(f"proposal: {name}", "", f"{costs} ms of CPU; exponent {run['exponent']:+.2f}")
    return table


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=tests.bench.scale.__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--sampler", default="random", help="of the whole sweep and the ledger")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--json", type=Path, default=Path("scale.json"))
    parser.add_argument("--one", choices=list(PARTS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        found = PARTS[asked.one](asked.trials, asked.json.parent, asked.sampler)
        asked.json.write_text(json.dumps(found))
        return
    found = {part: apart(part, asked.trials, asked.sampler) for part in asked.parts}
    machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    asked.json.write_text(
        json.dumps({"asked": asked.trials, "sampler": asked.sampler, **machine, **found}, indent=1)
    )
    table = Table("", "goal", "figure", "verdict", title=f"{asked.trials} no-op trials")
    for row in lines(found):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
