"""Rows -> cells at equal FLOPs -> tests -> groups: the board, as one typed value.

A cell is the best configuration at or under a budget, chosen on validation, with the test figures
of its confirm runs on fresh seeds. Search rows give no figure here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from methods.errors import StudyError
from orchestrator.board.cells import cells, grouped, unused
from orchestrator.board.choose import Choice, Excluded, choose, choose_confirmed, clean
from orchestrator.board.comparisons import Terms, contest, gains, noise_floor, pairs
from orchestrator.board.model import (
    BASELINE,
    RANKED_FROM,
    Board,
    Cell,
    Comparison,
    Drawn,
    Effort,
    Race,
    Reach,
    State,
)
from orchestrator.board.racing import LOOKS, undecided
from orchestrator.board.reach import area, fronts, levels, means, reach
from orchestrator.board.stats.fronts import attainment
from orchestrator.board.verdict import notes, verdict
from orchestrator.record.evidence import Correctness
from orchestrator.record.rows import Role, Row
from orchestrator.study.file import cap

__all__ = [
    "RANKED_FROM",
    "Board",
    "Cell",
    "Choice",
    "Comparison",
    "Effort",
    "Excluded",
    "Reach",
    "Role",
    "Row",
    "State",
    "cap",
    "choose",
    "clean",
    "leaderboard",
]


def leaderboard(
    rows: Iterable[Row],
    budgets: Sequence[float],
    *,
    primary: float,
    baseline: str = BASELINE,
    confidence: float = 0.95,
    chance: float = 0.0,
    methods: Sequence[str] = (),
    controls: Mapping[str, str] | None = None,
    targets: Sequence[float] = (),
    images: int | None = None,
    declared_primary: float | None = None,
    confirmed_for: Sequence[float] | None = None,
    correct: Correctness | None = None,
    seeds: int = 0,
    extra: int = 0,
) -> Board:
    """The board of a study at its budgets (MMACs).

    `chance` is the accuracy of guessing, `methods` names those that stand in the study, so that
    one without a single row is shown too. `controls` maps the second name of a method that
    was entered twice to the first: it gives the noise floor, and enters no test, group or P(best).
    `targets` are the accuracies whose least MACs are tabled, by default round ones; `images` is the
    number of test images, `correct` which of them the confirm runs had right, where that was kept.
    `declared_primary` is the primary budget that was declared, if it is another; `confirmed_for`
    are the budgets that were confirmed, if others are asked for: see `choose_confirmed`. Where the
    study races, every cell had `seeds` seeds before `extra` further runs were given to cells whose
    order was open: intervals and tests then hold for all looks at the seeds together. The order of
    the rows changes nothing.

    Raises:
        StudyError: no budget, a budget that is not positive, or a primary that is none of them.
    """
    ladder = _ladder(budgets, primary)
    everything, twins = list(rows), dict(controls or {})
    kept, excluded = clean(everything)
    found = {row.method for row in everything} | {baseline, *methods, *twins, *twins.values()}
    names = sorted(found)
    real = [name for name in names if name not in twins]
    declared = ladder if confirmed_for is None else confirmed_for
    undeclared = tuple(budget for budget in ladder if budget not in declared)
    choices = choose_confirmed(kept, ladder, declared)
    looks = LOOKS if extra else 1
    level = Terms(controls=twins, confidence=confidence, looks=looks).level
    grid = cells(names, ladder, kept, excluded, choices, confidence=level, chance=chance)
    excluded += unused(kept, grid)
    drawn: dict[float, Drawn] = {}
    for budget in ladder:
        grid.update(grouped([grid[name, budget] for name in real], confidence, looks))
        shares, source = contest(real, budget, grid, images, correct or {})
        grid.update({key: replace(grid[key], p_best=share) for key, share in shares.items()})
        drawn |= {budget: source} if source else {}
    ordered = tuple(
        sorted(names, key=lambda name: _standing(grid[name, primary], baseline, name in twins))
    )
    rising = {name: [grid[name, budget] for budget in ladder] for name in ordered}
    runs = {name: fronts(rising[name]) for name in ordered}
    terms = Terms(
        controls=twins,
        confidence=confidence,
        looks=looks,
        floor=noise_floor(grid, twins),
        correct=correct or {},
    )
    goals = tuple(sorted(set(targets))) or levels([mean for _, mean in means(grid.values())])
    board = Board(
        study=", ".join(sorted({row.study for row in everything})),
        methods=ordered,
        budgets=ladder,
        primary=primary,
        primary_declared=declared_primary in (None, primary),
        undeclared=undeclared,
        passed_over=tuple(c for c in choose(kept, undeclared) if c not in choices),
        baseline=baseline,
        confidence=confidence,
        chance=chance,
        verdict="",
        notes=(),
        cells=tuple(grid[name, budget] for budget in ladder for name in ordered),
        gains=gains(ordered, grid, terms, baseline=baseline, primary=primary),
        pairs=pairs(ordered, grid, terms),
        reach=tuple(r for name in ordered for r in reach(name, rising[name], goals)),
        declared=bool(targets),
        area={name: area(runs[name], ladder, chance, level) for name in ordered},
        attainment={name: attainment(runs[name]) for name in ordered},
        controls=twins,
        noise_floor=terms.floor,
        images=images,
        looks=looks,
        race=None,
        drawn=drawn,
        effort=tuple(_effort(name, everything) for name in ordered),
        excluded=tuple(excluded),
    )
    if extra:
        further = {(r.config, r.seed) for r in everything if r.role == "confirm" and r.seed > seeds}
        left = undecided(
            grid,
            real,
            board.gains,
            board.pairs,
            baseline=baseline,
            primary=primary,
            confidence=confidence,
        )
        board = replace(board, race=Race(seeds, extra, len(further), left))
    return replace(board, verdict=verdict(board), notes=tuple(notes(board)))


def _ladder(budgets: Sequence[float], primary: float) -> tuple[float, ...]:
    ladder = tuple(sorted({float(budget) for budget in budgets}))
    if not ladder or not ladder[0] > 0:
        raise StudyError(f"budgets must be positive MMACs and at least one, got {list(budgets)}")
    if primary not in ladder:
        raise StudyError(f"the primary budget must be one of {list(ladder)}, got {primary}")
    return ladder


def _standing(cell: Cell, baseline: str, control: bool) -> tuple[bool, bool, float, bool, str]:
    """Order of the methods: by mean at the primary budget, then the unmeasured, then controls."""
    mean = cell.accuracy.mean
    return (control, mean is None, -(mean or 0.0), cell.method != baseline, cell.method)


def _effort(method: str, rows: Sequence[Row]) -> Effort:
    """Counts trials, not rows: a trial has a row per operating point."""
    trials = {(r.study, r.role, r.trial): r for r in rows if r.method == method}.values()
    search = [t for t in trials if t.role == "search"]
    confirm = [t for t in trials if t.role == "confirm"]
    refused = [t for t in search if t.state == "FAIL" and (t.reason or "").startswith("refused")]
    states = [t.state for t in search]
    return Effort(
        method=method,
        search=len(search),
        complete=states.count("COMPLETE"),
        pruned=states.count("PRUNED"),
        failed=states.count("FAIL") - len(refused),
        refused=len(refused),
        running=states.count("RUNNING"),
        confirm=len(confirm),
        confirm_failed=sum(t.state == "FAIL" for t in confirm),
        epochs=sum(t.epochs for t in trials),
        seconds=math.fsum(t.seconds for t in trials if math.isfinite(t.seconds)),
    )
