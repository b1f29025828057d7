"""The figures of docs/races.md, from standings that are made by hand."""

from dataclasses import replace

import numpy as np

from orchestrator.search.replay.tournament import FRACTIONS, Standing
from tests.bench.verdicts import Field, difference, epochs, page, seconds, until


def standing(name: str, slope: float, shift: float = 0.0) -> Standing:
    """Shares that rise evenly, over epochs and over time, 3 replicates that differ by a shift."""
    fractions, times = np.array(FRACTIONS), np.linspace(0, 400, 41)[1:]
    shifts = np.array([[-0.01], [0.0], [0.01]]) + shift
    shares, timed = slope * fractions + shifts, slope * times / 400 + shifts
    return Standing(name, shares, shares, times, timed, 96, 96, 1.0, 1.0, 1.0, 0.5)


def test_epochs_and_time_until_the_baselines_end() -> None:
    base, twice, never = standing("random", 0.5), standing("b", 1.0), standing("c", 0.4)
    assert until(base, base, epochs) == "1.00 (1.00 to 1.00)"
    assert until(twice, base, epochs) == "0.50 (0.50 to 0.50)"
    assert until(twice, base, seconds) == "0.50 (0.50 to 0.50)"
    assert until(never, base, epochs) == "never"
    assert difference(never, base) == "**-0.100 ± 0.000**"


def test_differences_within_noise_are_not_bold() -> None:
    base = standing("random", 0.5)
    base.confirmed[:, -1] = [0.4, 0.5, 0.6]
    assert difference(standing("b", 0.5), base).startswith("+0.000 ± 0.2")


def test_the_page_has_a_row_for_each_searcher_and_the_command() -> None:
    races = {"random": standing("random", 0.5), "b": standing("b", 1.0)}
    text = page([Field("one", races), Field("two", {"b": races["b"]})], 3, "python -m it")
    assert "python -m it" in text
    assert "3 replicates" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [row[0] for row in cells] == ["`random`", "`b`", "`b`"]
    assert cells[1][1:5] == ["0.200", "0.400", "0.600", "1.000"]
    assert cells[2][5:8] == ["", "", ""], "without the baseline there is nothing to compare with"


def test_fewer_replicates_are_compared_with_the_same_of_the_baseline() -> None:
    base, few = standing("random", 0.5), standing("b", 1.0)
    arrays = {name: getattr(base, name) for name in ("confirmed", "observed", "timed")}
    more = {name: np.vstack([array, array[:1] / 2]) for name, array in arrays.items()}
    text = page([Field("one", {"random": replace(base, **more), "b": few})], 4, "it")
    row = text.splitlines()[-1]
    assert row.startswith("| `b` (3) | 0.200 |")
    assert "**+0.500 ± 0.000** | 0.50 (0.50 to 0.50)" in row
