"""What was found against what was to be reached, and against the run before."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from methods import files
from tests.bench.speed.clock import Ratio

REGRESSION = 0.1
"""Fraction by which a figure may be worse than those before, beyond the spreads."""
FLOORS = Path(__file__).with_name("floors.json")
"""By what was measured: its figure on each machine so far. The worst is the floor."""
Floors = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Finding:
    """One figure."""

    goal: str
    """Number of the goal; empty for what is only shown."""
    what: str
    figure: float
    low: float
    high: float
    """Quartiles over the rounds."""
    least: float | None = None
    """What is to be reached, where more is better."""
    most: float | None = None
    """What is to be reached, where less is better."""
    stretch: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the goal is met, and the farther one; `near` within the spread."""
        wanted = self.least if self.least is not None else self.most
        if wanted is None:
            return ""
        if self.stretch is not None and self._reaches(self.stretch, self.figure):
            return "stretch"
        if self._reaches(wanted, self.figure):
            return "met"
        best = self.high if self.least is not None else self.low
        return "near" if self._reaches(wanted, best) else "missed"

    def worse_than(self, former: "Finding") -> bool:
        """Whether it is worse than before, beyond both spreads and a tenth."""
        if self.most is not None:
            return self.low > former.high and self.figure > former.figure * (1 + REGRESSION)
        return self.high < former.low and self.figure < former.figure * (1 - REGRESSION)

    def falls(self, machines: Sequence[float]) -> bool:
        """Whether it is worse than on every machine before, beyond its spread and a tenth."""
        if not machines:
            return False
        if self.most is not None:
            return self.low > max(machines) * (1 + REGRESSION)
        return self.high < min(machines) * (1 - REGRESSION)

    def _reaches(self, wanted: float, figure: float) -> bool:
        return figure >= wanted if self.least is not None else figure <= wanted


def found(goal: str, what: str, ratio: Ratio, **limits: float) -> Finding:
    """A finding from a ratio."""
    return Finding(goal, what, *ratio, **limits)


def floors() -> dict[str, list[float]]:
    """The figures of the machines so far."""
    content: dict[str, list[float]] = json.loads(FLOORS.read_text())
    return content


def record(findings: Iterable[Finding]) -> None:
    """Adds the figures of another machine to the floors."""
    machines = floors()
    for one in findings:
        machines.setdefault(one.what, []).append(float(f"{one.figure:.3g}"))
    lines = (f" {json.dumps(what)}: {json.dumps(figures)}" for what, figures in machines.items())
    files.write(FLOORS, "{\n" + ",\n".join(lines) + "\n}\n")


def shown(
    findings: Sequence[Finding], former: Mapping[str, Finding], machines: Floors | None = None
) -> Table:
    """The table of a run, beside the run before and the range over machines."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("goal")
    table.add_column("what", overflow="fold")
    for column in ("found", "quartiles", "wanted", "stretch", "verdict", "before", "machines"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in findings:
        before = former.get(one.what)
        mark = " worse" if before and one.worse_than(before) else ""
        table.add_row(
            one.goal,
            one.what,
            f"{one.figure:.3g}",
            f"{one.low:.3g} to {one.high:.3g}",
            _wanted(one),
            "" if one.stretch is None else f"{one.stretch:g}",
            one.verdict,
            f"{before.figure:.3g}{mark}" if before else "",
            _range(one, (machines or {}).get(one.what, ())),
        )
    return table


def write(path: Path, findings: Iterable[Finding], facts: Mapping[str, Any]) -> None:
    """A run as JSON."""
    content = {**facts, "findings": [{**asdict(one), "verdict": one.verdict} for one in findings]}
    files.write(path, json.dumps(content, indent=1) + "\n")


def latest(folder: Path, device: str) -> dict[str, Finding]:
    """The newest figure of everything that was ever measured on this device."""
    newest: dict[str, Finding] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        if content["device"] == device:
            for row in content["findings"]:
                fields = {name: value for name, value in row.items() if name != "verdict"}
                newest[row["what"]] = Finding(**fields)
    return newest


def _range(one: Finding, machines: Sequence[float]) -> str:
    if not machines:
        return ""
    low, high = min(machines), max(machines)
    text = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return f"{text} FALLS" if one.falls(machines) else text


def _wanted(one: Finding) -> str:
    if one.least is not None:
        return f">= {one.least:g}"
    return "" if one.most is None else f"<= {one.most:g}"
