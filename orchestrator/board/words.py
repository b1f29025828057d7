"""Numbers as the board writes them: percent, points, MACs, p-values, durations."""

from collections.abc import Iterable, Sequence

from orchestrator.board.model import TESTED_FROM, Board, Cell, Comparison, Worth
from orchestrator.board.stats.intervals import Summary
from orchestrator.board.stats.power import MOST_SEEDS
from orchestrator.study.budgets import MACS, number

ALL, MOSTLY = 0.9999, 0.9
"""Fractions of images with the same decisions: from the first, they count as all images; from the
second, they are the reason why a network is static."""


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction in [0, 1] as a percentage, without the sign."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f}"


def points(difference: float | None) -> str:
    """A difference of fractions in signed percentage points."""
    return "-" if difference is None else f"{100 * difference:+.2f}".replace("-", "\N{MINUS SIGN}")


def budget_text(budget: float) -> str:
    """A budget without its unit, as short as it is exact."""
    return number(budget)


def budgets_text(budgets: Iterable[float]) -> str:
    """Budgets without their unit, joined by commas."""
    return ", ".join(map(number, budgets))


def macs_text(macs: float | None) -> str:
    """MACs as MMACs with three to four significant digits."""
    return MACS.text(macs)


def spent_text(cell: Cell) -> str:
    """The mean cost of a cell's runs, with its spread where a clock measured it."""
    text = cell.cost.text(cell.spent)
    return text if cell.spread is None else f"{text} ± {cell.spread:.2g}"


def p_text(p: float | None) -> str:
    """A p-value with its relation; never 'p = 0'."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def chance_text(share: float | None) -> str:
    """A probability in whole percent, never 0 or 100: so few runs cannot know that."""
    if share is None:
        return "-"
    if 0.01 <= share <= 0.99:
        return f"{100 * share:.0f} %"
    return "< 1 %" if share < 0.5 else "> 99 %"


def seeds_text(comparison: Comparison) -> str:
    """Number of further units of each that would separate the two."""
    if comparison.more is None:
        state = comparison.result.state
        return state if state != "tested" else "-" if comparison.p_holm is None else NOT_SO
    if comparison.more == 0:
        return "separated" if comparison.separated else "noise"
    if comparison.more > MOST_SEEDS:
        return f"more than {MOST_SEEDS}"
    return f"{comparison.more} more"


NOT_SO = "not from this spread"


def span(cell: Cell) -> str:
    """The interval of a cell's accuracy in percent; '' where the units allow none."""
    accuracy = cell.accuracy
    if accuracy.lo is None:
        return ""
    return f"{percent(accuracy.lo)} to {percent(accuracy.hi)}"


def units_text(board: Board, cell: Cell) -> str:
    """How many units a cell has: '5 seeds', '5 searches'."""
    return plural(cell.n, board.rules.unit)


def found(board: Board, names: Sequence[str]) -> str:
    """The subject of claims: methods where searches are repeated, else the configurations found."""
    if board.rules.repeats > 1:
        return listed(names)
    kind = "configuration" if len(names) == 1 else "configurations"
    return f"the {kind} found for {listed(names)}"


def claims_text(board: Board) -> str:
    """The subject of a board's claims, and what they are tested over."""
    rules = board.rules
    images = {
        "predictions": "and test images, paired by image",
        "counts": "and test images, by their number alone, not paired",
        "seeds": "alone: the results on the test images are not known",
    }[board.known.get(rules.primary, "seeds")]
    if rules.repeats == 1:
        return (
            "One search per method: claims are about the configurations that it found, not about "
            f"methods. Tested over seeds {images}; {TESTED_FROM} seeds at least."
        )
    counts = [board.searches(effort.method) for effort in board.effort]
    trials = max((e.search // n for e, n in zip(board.effort, counts, strict=True)), default=0)
    most = max(counts, default=rules.repeats)
    searches = f"{rules.repeats}" if most == rules.repeats else f"{rules.repeats} to {most}"
    return (
        f"{searches} searches per method, of {plural(trials, 'trial')} each: claims are about "
        f"methods with that much search. Tested over searches {images}; {TESTED_FROM} at least."
    )


def interval(gain: Summary) -> str:
    """A difference of accuracies in points, with its interval where there is one."""
    text = points(gain.mean)
    return text if gain.lo is None else f"{text} ({points(gain.lo)} to {points(gain.hi)})"


FIXED = "is one network for all images"
"""Reason for an operating point that decides nothing, where others of its runs decide."""


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
        return f"everything runs on {share}"
    if worth.alike > MOSTLY:
        return f"{share} {verb} the same decisions"
    return "decisions differ between images, but are not shown to be better than another image's"


def plural(count: int, noun: str) -> str:
    """'1 seed', '2 seeds'."""
    ending = "" if count == 1 else "es" if noun.endswith("rch") else "s"
    return f"{count:,} {noun}{ending}"


def listed(names: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def duration(seconds: float | None) -> str:
    """Device time in the unit that reads best."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"
