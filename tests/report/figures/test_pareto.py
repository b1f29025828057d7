"""The axes of panels: accuracy over cost, wherever the budgets lie, and gains."""

import pytest
from boards import BUDGETS, study_rows
from matplotlib.figure import Figure

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.report.figures.gains import forest_panel
from orchestrator.report.figures.pareto import attainment_panel


@pytest.mark.parametrize("budgets", [(0.1, 0.3), (0.1,), (10.0,), (1.0, 2.0)])
def test_budgets_at_the_end_of_a_decade_lie_within_the_axis(
    budgets: tuple[float, ...],
) -> None:
    rows = study_rows(seeds=1, methods=["dense", "skipnet"], budgets=budgets)
    board = leaderboard(rows, Rules(budgets=budgets, primary=budgets[-1]))
    axes = Figure().subplots()
    attainment_panel(board, "skipnet")(axes)
    low, high = axes.get_xlim()
    assert 0 < low < min(budgets)
    assert max(budgets) < high


def test_the_seeds_of_all_methods_are_drawn_over_the_same_costs() -> None:
    rows = study_rows(seeds=3)
    board = leaderboard(rows, Rules(budgets=BUDGETS, primary=2))
    spans = set()
    for name in board.methods:
        axes = Figure().subplots()
        attainment_panel(board, name)(axes)
        spans.add(axes.get_xlim())
    assert len(spans) == 1


def test_the_axis_of_gains_holds_every_interval_and_zero() -> None:
    board = leaderboard(study_rows(), Rules(budgets=BUDGETS, primary=2))
    for budget in BUDGETS:
        axes = Figure().subplots()
        forest_panel(board, budget)(axes)
        low, high = axes.get_xlim()
        for gain in board.gains:
            assert low < 100 * (gain.result.lo or 0) < 100 * (gain.result.hi or 0) < high
        assert low < 0 < high
        assert low > -1.5, "nothing is much worse: no half of the axis is empty"
