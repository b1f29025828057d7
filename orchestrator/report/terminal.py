"""The board, and comparisons, as tables for the terminal: 80 columns, and no need of colour."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.board import words
from orchestrator.board.latency import Timed
from orchestrator.board.model import Board, Cell, Comparison
from orchestrator.board.stats.contrasts import Difference
from orchestrator.board.verdict import notes
from orchestrator.board.versus import Versus
from orchestrator.record.result import OVER_BUDGET, REFUSED
from orchestrator.report.table import number, table, text


def terminal(board: Board, *, times: Sequence[Timed] = ()) -> RenderableType:
    """The tables of effort, latency and routing, then the board with its notes, nearest to the
    prompt.

    The verdict is not among them: a caller prints it last. 80 columns and no colour suffice.
    """
    parts: list[RenderableType] = [_effort(board), Text()]
    if any(time.ms is not None for time in times):
        parts += [_times(board, times), Text()]
    if any(cell.worth for cell in board.cells):
        parts += [_routing(board), Text()]
    if board.unreduced:
        parts += [_unreduced(board), Text()]
    parts.append(_cells(board, board.primary))
    parts += [Text(f"! {note}") for note in notes(board)]
    return Group(*parts)


def comparison(board: Board) -> RenderableType:
    """The methods of one study at the budgets asked for, all pairs, and the effort behind them."""
    parts: list[RenderableType] = [
        Text(f"{board.rules.study}: {len(board.methods)} methods at {_equal(board)}", style="bold"),
        Text(),
        _cells(board, primary=None),
        *(Text(f"! {note}") for note in notes(board)),
        Text(),
        _pairs(board),
        Text(),
        _effort(board),
    ]
    return Group(*parts)


def side_by_side(versus: Versus) -> RenderableType:
    """The table of two studies: the gain, the cost and the other differences of each shared
    method."""
    one, other = versus.first.study.name, versus.second.study.name
    kind = "Exploratory: more differs than the code. " if versus.exploratory else ""
    parts: list[RenderableType] = [
        Text(f"{kind}Test accuracy of {other} less that of {one}", style="bold"),
        Text(),
        _differences(versus),
        *(Text(f"! {note}") for note in versus.notes),
        Text(),
        _efforts(versus),
        Text(),
        _unlike(versus),
    ]
    return Group(*parts)


def _cells(board: Board, primary: float | None) -> Table:
    rules = board.rules
    unit, timed = board.cost.unit, board.cost.clocked
    measured = (
        "ms with their spread; ! marks one over the budget, ? one within the spread of it or of "
        "a neighbouring cell. "
        if timed
        else "MMACs (fvcore FLOPs) are measured on test, with their share of the budget; ! marks "
        "one over it. "
    )
    caption = (
        (f"* primary budget, in {unit}. " if primary else f"Budgets in {unit}. ")
        + f"Test accuracy with its {100 * rules.confidence:g} % interval, gains in points. "
        f"{measured}"
        "Methods that share a letter are not separated; at other budgets nothing is tested."
    )
    if rules.undeclared:
        caption += (
            " † not a budget of the study: the best on validation among its confirmed "
            "configurations; exploratory."
        )
    if any(board.leads(cell) for cell in board.cells):
        caption += " \N{BLACK STAR} highest mean at its budget, no claim by itself."
    if any(board.repeated(cell) is not None for cell in board.cells):
        caption += ' "as": the networks of that lower budget.'
    if any(cell.static for cell in board.cells):
        caption += " \N{DEGREE SIGN} static: routing is not shown to be worth anything there."
    if board.noise_floor is not None:
        caption += " Gains marked ~ are within the noise of the A/A control."
    many = any(cell.top5 is not None for cell in board.cells)
    grid = table(
        number("budget"),
        text("method", wrap=False),
        number("test acc %"),
        *([number("top-5 %")] if many else []),
        number(f"over {rules.baseline}"),
        *map(number, ("ms",) if timed else ("MMACs", "used")),
        text("letters"),
        caption=caption,
    )
    for budget in rules.budgets:
        for i, name in enumerate(board.methods):
            cell = board.cell(name, budget)
            mark = "†" if budget in rules.undeclared else "*" if budget == primary else " "
            grid.add_row(
                f"<={words.budget_text(budget)}{mark}" if i == 0 else "",
                _named(cell) + ("\N{BLACK STAR}" if board.leads(cell) else ""),
                _accuracy_text(cell),
                *([words.percent(cell.top5)] if many else []),
                _gain_text(board, cell),
                *_spent(board, cell),
                _standing(board, cell),
                end_section=i == len(board.methods) - 1,
            )
    return grid


def _equal(board: Board) -> str:
    return "equal latency" if board.cost.clocked else "equal FLOPs"


def _spent(board: Board, cell: Cell) -> tuple[str, ...]:
    """The cost that the budget limits, with its marks; of MACs also the share of the budget."""
    marks = ("!" if cell.overrun else "") + ("?" if board.blurred(cell) else "")
    if board.cost.clocked:
        return (words.spent_text(cell) + marks,)
    macs = words.macs_text(cell.macs_mean)
    return macs + marks, "-" if cell.used is None else f"{100 * cell.used:.0f} %"


def _named(cell: Cell) -> str:
    """The method of a cell, marked where its network is static."""
    return f"{cell.method}\N{DEGREE SIGN}" if cell.static else cell.method


def _routing(board: Board) -> Table:
    """The worth of routing at the primary budget."""
    caption = (
        f"Test accuracy in % at {board.cost.amount(board.primary)} with each image under its own "
        "decisions, under another image's (the same MACs), with all images under the majority's, "
        "and with all run. Worth: own minus another's, in points, with its "
        f"{100 * board.rules.confidence:g} % interval over seeds and images. A network whose "
        "decisions are not shown to be worth anything is static (\N{DEGREE SIGN}), however much "
        "its MACs vary."
    )
    heads = ("own", "another's", "majority's", "all run", "worth")
    grid = table(text("routing", wrap=False), *map(number, heads), caption=caption)
    for name in board.methods:
        cell = board.cell(name, board.primary)
        if (worth := cell.worth) is not None:
            grid.add_row(
                _named(cell),
                words.percent(cell.accuracy.mean),
                words.percent(worth.another),
                words.percent(worth.majority),
                words.percent(worth.everything),
                words.interval(worth.gain),
            )
    return grid


def _unreduced(board: Board) -> Table:
    """The methods compared with their unreduced networks at the primary budget."""
    caption = (
        f"Test accuracy in % and MMACs at {board.cost.amount(board.primary)}, and of the same "
        "networks unreduced, trained for as many epochs; the difference in points with its "
        f"{100 * board.rules.confidence:g} % interval, not adjusted."
    )
    heads = ("test acc %", "unreduced", "difference", "MMACs", "unreduced", "saved")
    grid = table(text("itself", wrap=False), *map(number, heads), caption=caption)
    for pair in board.unreduced:
        cell = board.cell(pair.method, board.primary)
        grid.add_row(
            pair.method,
            words.percent(cell.accuracy.mean),
            words.percent(pair.base.accuracy.mean),
            _points_text(pair.result),
            words.macs_text(cell.macs_mean),
            words.macs_text(pair.base.macs_mean),
            "-" if pair.saved is None else f"{words.percent(pair.saved, 0)} %",
        )
    return grid


def _effort(board: Board) -> Table:
    """The effort of each method, with a column for every outcome that a trial had."""
    outcomes = {
        "pruned": [e.pruned for e in board.effort],
        "failed": [e.failed for e in board.effort],
        REFUSED: [e.refused for e in board.effort],
        OVER_BUDGET.replace(" ", "\n"): [e.over_budget for e in board.effort],
    }
    raced = board.race is not None and board.race.searches
    based = [e.base for e in board.effort]
    counts = {
        **({"searches": [board.searches(e.method) for e in board.effort]} if raced else {}),
        "trials": [e.search for e in board.effort],
        "done": [e.complete for e in board.effort],
        **{name: column for name, column in outcomes.items() if any(column)},
        "points": [e.candidates for e in board.effort],
        "confirm": [e.confirm for e in board.effort],
        **({"unreduced": [e.unreduced for e in board.effort]} if board.rules.unreduced else {}),
        **({"base": based} if any(based) else {}),
        "epochs": [e.epochs for e in board.effort],
    }
    grid = table(text("effort", wrap=False), *map(number, counts), number("time", wrap=True))
    for e, *row in zip(board.effort, *counts.values(), strict=True):
        grid.add_row(e.method, *(f"{count:,}" for count in row), words.duration(e.seconds))
    return grid


def _times(board: Board, times: Sequence[Timed]) -> Table:
    """The measured latency of the deployed networks at the primary budget."""
    heads = ("images", "ms a call", "p95", "speed-up", "by MACs")
    seeds = words.plural(max(time.seeds for time in times), "confirm run")
    caption = (
        f"Deployed networks at {board.cost.amount(board.primary)}, {seeds} each, timed in turns "
        f"with {board.baseline}'s. ± standard deviation over seeds; p95: 95 % of the calls take "
        "no longer. Speed-up kept: the measured speed-up divided by the one that MACs predict."
    )
    kept = number("speed-up kept", wrap=True)
    grid = table(text("latency", wrap=False), *map(number, heads), kept, caption=caption)
    for time in sorted(times, key=lambda time: board.methods.index(time.method)):
        if time.budget == board.primary and time.ms is not None:
            ratios = (time.speed_up, time.macs_speed_up, time.honesty)
            grid.add_row(
                time.method,
                str(time.batch),
                time.ms_text,
                "-" if time.p95_ms is None else f"{time.p95_ms:.3g}",
                *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            )
    return grid


def _pairs(board: Board) -> Table:
    grid = table(
        number("budget"),
        text("pair"),
        number("difference"),
        number("p, Holm"),
        text("to separate"),
        caption="All pairs, in points of accuracy. Those at the primary budget are tested as one "
        "family (Holm), with adjusted intervals; at other budgets nothing is tested.",
    )
    for budget in board.budgets:
        family = [pair for pair in board.pairs if pair.budget == budget]
        for i, pair in enumerate(family):
            grid.add_row(
                f"<={words.budget_text(budget)}" if i == 0 else "",
                f"{pair.method} \N{MINUS SIGN} {pair.other}",
                _difference_text(pair),
                _p_text(pair),
                words.seeds_text(pair),
                end_section=i == len(family) - 1,
            )
    return grid


def _differences(versus: Versus) -> Table:
    sides = (versus.first, versus.second)
    undeclared = {budget for side in sides for budget in side.board.rules.undeclared}
    caption = (
        "Test accuracy in % (units), differences in points with adjusted "
        f"{100 * versus.first.board.rules.confidence:g} % intervals, runs not paired; Holm over "
        "this table. Each study has its own choice of configurations."
    )
    if undeclared:
        caption += (
            " † not a budget of one study: the best on validation among its confirmed "
            "configurations; exploratory."
        )
    grid = table(
        number("budget"),
        text("method"),
        *(number(side.study.name, wrap=True) for side in sides),
        number("difference"),
        number("p, Holm"),
        number(versus.first.board.cost.unit, wrap=True),
        caption=caption,
    )
    for i, difference in enumerate(versus.differences):
        budget = difference.budget
        cells = [side.board.cell(difference.method, budget) for side in sides]
        mark = "†" if budget in undeclared else " "
        grid.add_row(
            "" if i % len(versus.methods) else f"<={words.budget_text(budget)}{mark}",
            difference.method,
            *(_mean_text(cell) for cell in cells),
            _difference_text(difference),
            _p_text(difference),
            " / ".join(cell.cost.text(cell.spent) for cell in cells),
            end_section=(i + 1) % len(versus.methods) == 0,
        )
    return grid


def _efforts(versus: Versus) -> Table:
    sides = (versus.first, versus.second)
    heads = ("trials", "no result", "confirm", "epochs", "time")
    grid = table(
        text("effort", wrap=False),
        *(number(head, wrap=True) for head in heads),
        caption=f"{versus.first.study.name} / {versus.second.study.name}. "
        "No result: failed, refused or over budget.",
    )
    for name in versus.methods:
        efforts = [next(e for e in side.board.effort if e.method == name) for side in sides]
        grid.add_row(
            name,
            " / ".join(f"{e.search:,}" for e in efforts),
            " / ".join(f"{e.failed + e.refused + e.over_budget:,}" for e in efforts),
            " / ".join(f"{e.confirm:,}" for e in efforts),
            " / ".join(f"{e.epochs:,}" for e in efforts),
            " / ".join(words.duration(e.seconds) for e in efforts),
        )
    return grid


def _unlike(versus: Versus) -> RenderableType:
    if not versus.unlike:
        return Text("Recipe, methods, code, versions and machine are the same.")
    grid = table("what differs", versus.first.study.name, versus.second.study.name)
    for row in versus.unlike:
        grid.add_row(*map(Text, row))
    return grid


def _mean_text(cell: Cell) -> str:
    return f"{words.percent(cell.accuracy.mean)} ({cell.n})" if cell.n else cell.state


def _difference_text(comparison: Comparison) -> str:
    return _points_text(comparison.result)


def _points_text(result: Difference) -> str:
    """The difference with half its interval, in points; room for one where there is none."""
    points = words.points(result.difference)
    if result.hi is None or result.difference is None:
        return f"{points}       "
    return f"{points} ±{100 * (result.hi - result.difference):>5.2f}"


def _p_text(comparison: Comparison) -> str:
    if comparison.result.p is None:
        return comparison.result.state if comparison.result.difference is not None else "-"
    return words.p_text(comparison.p_holm).removeprefix("= ")


def _accuracy_text(cell: Cell) -> str:
    if not cell.n and cell.choice:
        return f"validation {words.percent(cell.choice.val_acc)}"
    mean, lo, hi = words.percent(cell.accuracy.mean), cell.accuracy.lo, cell.accuracy.hi
    if lo is None or hi is None:
        return mean
    return f"{mean} ({words.percent(lo, 1)}\N{EN DASH}{words.percent(hi, 1)})"


def _standing(board: Board, cell: Cell) -> str:
    if cell.state == "not confirmed yet":
        return "unconfirmed"
    if cell.n and cell.method in board.rules.controls:
        return "control"
    same = board.repeated(cell)
    parts = [
        cell.letters or ("few" if cell.budget == board.primary and cell.n else ""),
        f"as <={words.budget_text(same)}" if same is not None else "",
    ]
    return ", ".join(filter(None, parts)) or ("-" if cell.n else cell.state)


def _gain_text(board: Board, cell: Cell) -> str:
    gain = board.gain(cell.method, cell.budget)
    if gain is None or gain.result.difference is None:
        return "-"
    return ("~" if gain.noise else "") + _difference_text(gain)
