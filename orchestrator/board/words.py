"""Numbers as the board writes them: percent, points, MACs, p-values, durations."""

from collections.abc import Iterable, Sequence

from orchestrator.board.model import Board, Cell, Comparison, Worth
from orchestrator.board.stats.intervals import MOST_SEEDS, Summary

ALL, MOSTLY = 0.9999, 0.9
"""Fractions of the images with the same decisions above which that is called all of them, and
above which that is why a network is static."""


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction in [0, 1] as a percentage, without the sign."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f}"


def points(difference: float | None) -> str:
    """A difference of fractions in signed percentage points."""
    return "-" if difference is None else f"{100 * difference:+.2f}".replace("-", "\N{MINUS SIGN}")


def mmacs(budget: float) -> str:
    """A budget in MMACs, as short as it is exact."""
    return f"{budget:,.12g}"


def budgets_text(budgets: Iterable[float]) -> str:
    """Budgets in MMACs, joined by commas."""
    return ", ".join(mmacs(budget) for budget in budgets)


def macs_text(macs: float | None) -> str:
    """MACs as MMACs with three to four significant digits."""
    if macs is None:
        return "-"
    value = macs / 1e6
    digits = 3 if value < 1 else 2 if value < 100 else 1 if value < 1000 else 0
    return f"{value:,.{digits}f}" if value >= 0.01 else f"{value:.2g}"


def p_text(p: float | None) -> str:
    """A p-value with its relation; never 'p = 0'."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def chance_text(share: float | None) -> str:
    """A probability in whole percent, never 0 or 100: a bootstrap cannot know that."""
    if share is None:
        return "-"
    if 0.01 <= share <= 0.99:
        return f"{100 * share:.0f} %"
    return "< 1 %" if share < 0.5 else "> 99 %"


def seeds_text(comparison: Comparison) -> str:
    """Further seeds of each that would separate the two."""
    if comparison.p_holm is None:
        return "-" if comparison.result.state == "tested" else comparison.result.state
    if comparison.more == 0:
        return "separated"
    if comparison.more is None:
        return "not from this spread"
    if comparison.more > MOST_SEEDS:
        return f"more than {MOST_SEEDS}"
    return f"{comparison.more} more"


def half(cell: Cell) -> str:
    """Half width of the interval in points; '' where the seeds allow none."""
    if cell.accuracy.hi is None or cell.accuracy.mean is None:
        return ""
    return f"{100 * (cell.accuracy.hi - cell.accuracy.mean):.2f}"


def interval(gain: Summary) -> str:
    """A difference of accuracies in points, with its interval where there is one."""
    text = points(gain.mean)
    return text if gain.lo is None else f"{text} ({points(gain.lo)} to {points(gain.hi)})"


FIXED = "is one network for all images"
"""What is said of an operating point that decides nothing, where others of its runs decide."""


def cell_static_text(cell: Cell) -> str:
    """Why a cell counts as static."""
    if cell.worth is not None:
        return static_text(cell.worth)
    return f"its operating point {cell.choice.point if cell.choice else ''} {FIXED}"


def static_text(worth: Worth) -> str:
    """Why a network that decides per image counts as static, with the figures."""
    gain = interval(worth.gain)
    return f"{static_reason(worth)}; own decisions are worth {gain} points over another image's"


def static_reason(worth: Worth) -> str:
    """Why a network that decides per image counts as static."""
    share = "every image" if worth.alike > ALL else f"{percent(worth.alike, 1)} % of the images"
    verb = "gets" if worth.alike > ALL else "get"
    if worth.alike > MOSTLY and worth.runs_all:
        return f"all runs on {share}"
    if worth.alike > MOSTLY:
        return f"{share} {verb} the same decisions"
    return "decisions differ between images, but another image's serve as well"


def plural(count: int, noun: str) -> str:
    """'1 seed', '2 seeds'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def drawn_text(board: Board) -> str:
    """What P(best) resamples beside the seeds, a clause per kind and the budgets that have it."""
    images = f"the {board.rules.images:,} test images" if board.rules.images else "the test images"
    sources = {
        "predictions": f"{images}, the same for all methods, by their predictions",
        "counts": f"{images} for each seed, binomially: not every run's predictions were kept",
        "seeds": "nothing else: the number of test images is not known",
    }
    clauses = []
    for kind, text in sources.items():
        at = [mmacs(budget) for budget, drawn in board.drawn.items() if drawn == kind]
        if at:
            clauses.append(text if len(at) == len(board.drawn) else f"at {listed(at)} {text}")
    return "; ".join(clauses)


def duration(seconds: float | None) -> str:
    """Device time in the unit that reads best."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"
