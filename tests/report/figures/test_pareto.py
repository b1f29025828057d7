"""Panels of accuracy over cost, wherever the budgets lie."""

import pytest
from boards import study_rows
from matplotlib.figure import Figure

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
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
