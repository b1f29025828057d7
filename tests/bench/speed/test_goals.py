"""A verdict follows from figure and goal, and a run that got worse shows beside the one before."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.bench.speed import goals
from tests.bench.speed.clock import Clock, Ratio, same
from tests.bench.speed.goals import Finding, found, latest, shown, write


def more(figure: float, low: float, high: float) -> Finding:
    return found("1", "speed", Ratio(figure, low, high), least=2.0, stretch=3.0)


def less(figure: float, low: float, high: float) -> Finding:
    return found("2", "cost", Ratio(figure, low, high), most=2.0, stretch=1.0)


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (more(3.0, 2.9, 3.1), "stretch"),
        (more(2.0, 1.9, 2.1), "met"),
        (more(1.9, 1.8, 2.0), "near"),
        (more(1.9, 1.8, 1.95), "missed"),
        (less(1.0, 0.9, 1.1), "stretch"),
        (less(2.0, 1.9, 2.1), "met"),
        (less(2.1, 2.0, 2.2), "near"),
        (less(2.1, 2.05, 2.2), "missed"),
        (found("", "shown", Ratio(1.0, 1.0, 1.0)), ""),
    ],
)
def test_a_verdict_follows_from_figure_and_goal(finding: Finding, verdict: str) -> None:
    assert finding.verdict == verdict


def test_worse_is_beyond_both_spreads_and_a_tenth() -> None:
    before = more(3.0, 2.9, 3.1)
    assert more(2.6, 2.5, 2.7).worse_than(before)
    assert not more(2.8, 2.7, 2.85).worse_than(before), "less than a tenth"
    assert not more(2.6, 2.5, 2.95).worse_than(before), "the spreads touch"
    assert less(1.2, 1.15, 1.3).worse_than(less(1.0, 0.9, 1.1))
    assert not more(3.4, 3.3, 3.5).worse_than(before)


def test_a_run_is_shown_beside_the_newest_figures_of_its_device(tmp_path: Path) -> None:
    first = [more(9.0, 9.0, 9.0), less(1.0, 1.0, 1.0)]
    write(tmp_path / "2026-01-01.json", first, {"device": "abacus"})
    write(tmp_path / "2026-01-02.json", [more(3.0, 2.9, 3.1)], {"device": "abacus"})
    write(tmp_path / "2026-01-03.json", [more(1.0, 1.0, 1.0)], {"device": "slide rule"})
    former = latest(tmp_path, "abacus")
    assert former == {"speed": more(3.0, 2.9, 3.1), "cost": less(1.0, 1.0, 1.0)}
    assert latest(tmp_path, "quipu") == {}
    console = Console(width=120, record=True)
    console.print(shown([more(2.0, 1.9, 2.1)], former))
    assert "3 worse" in console.export_text()


def test_a_figure_falls_below_the_worst_machine_beyond_its_spread_and_a_tenth() -> None:
    machines = [2.5, 2.0]
    assert more(1.7, 1.6, 1.79).falls(machines)
    assert not more(1.7, 1.6, 1.85).falls(machines), "the spread reaches a tenth below"
    assert not more(1.9, 1.85, 1.95).falls(machines), "less than a tenth"
    assert less(3.0, 2.8, 3.2).falls(machines)
    assert not less(2.7, 2.6, 2.8).falls(machines)
    assert not more(0.1, 0.1, 0.1).falls([]), "measured for the first time"
    console = Console(width=150, record=True)
    console.print(shown([more(1.0, 1.0, 1.0)], {}, {"speed": machines}))
    assert "2 to 2.5 FALLS" in console.export_text()


def test_another_machine_widens_the_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "FLOORS", tmp_path / "floors.json")
    goals.FLOORS.write_text('{"speed": [2.5]}')
    goals.record([more(2.0104, 1.9, 2.1), less(1.0, 1.0, 1.0)])
    assert goals.floors() == {"speed": [2.5, 2.01], "cost": [1.0]}


def test_every_documented_figure_has_a_floor() -> None:
    table = Path("docs/performance.md").read_text().split("## Results")[1].split("## ")[0]
    assert [what for what in goals.floors() if f"| {what} |" not in table] == []


def test_unequal_sides_are_not_timed() -> None:
    one = torch.ones(3)
    same(one, one + 1e-4)
    with pytest.raises(AssertionError, match="both sides must give the same"):
        same(one, one + 0.1)
    with pytest.raises(AssertionError):
        same(one, one * torch.nan)


def test_every_side_is_read_in_every_round() -> None:
    calls = {"one": 0, "two": 0}

    def count(name: str) -> None:
        calls[name] += 1

    taken = Clock("cpu").seconds(lambda: count("one"), lambda: count("two"), rounds=3)
    assert [len(own) for own in taken] == [3, 3]
    assert min(calls.values()) > 3, "short work is repeated within a reading"
