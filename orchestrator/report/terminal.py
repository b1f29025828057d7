"""The board, and comparisons, as tables for the terminal: 80 columns, and no need of colour."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.board import words
from orchestrator.board.latency import Timed
from orchestrator.board.model import Board, Cell, Comparison
from orchestrator.board.versus import Versus


def terminal(
    board: Board, links: Mapping[str, str] | None = None, *, times: Sequence[Timed] = ()
) -> RenderableType:
    """Verdict, board, notes and effort; readable in 80 columns and without colour."""
    parts: list[RenderableType] = [Text(board.verdict, style="bold"), Text()]
    parts.append(_cells(board, board.primary))
    parts += [Text(f"! {note}") for note in board.notes]
    parts += [Text(), _effort(board)]
    if any(one.ms is not None for one in times):
        parts += [Text(), _times(board, times)]
    parts += [Text(f"{name}: {where}", overflow="fold") for name, where in (links or {}).items()]
    return Group(*parts)


def _times(board: Board, times: Sequence[Timed]) -> Table:
    """The deployed networks at the primary budget by the clock."""
    table = _plain()
    for name in ("latency", "images", "ms a call", "speed-up", "by MACs", "honesty"):
        table.add_column(name, justify="left" if name == "latency" else "right", no_wrap=True)
    for one in times:
        if one.budget == board.primary and one.ms is not None:
            ratios = (one.speed_up, one.macs_speed_up, one.honesty)
            table.add_row(
                one.method,
                str(one.batch),
                f"{one.ms:.3g} ± {one.spread_ms or 0:.2g}",
                *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            )
    table.caption = (
        f"Deployed networks at {words.mmacs(board.primary)} MMACs, one confirm run each, timed "
        f"in turns with {board.baseline}'s. Honesty: measured speed-up over the one by MACs."
    )
    return table


def comparison(board: Board) -> RenderableType:
    """The methods of one study at the budgets asked for, all pairs, and the effort behind them."""
    parts: list[RenderableType] = [
        Text(f"{board.study}: {len(board.methods)} methods at equal FLOPs", style="bold"),
        Text(),
        _cells(board, primary=None),
        *(Text(f"! {note}") for note in board.notes),
        Text(),
        _pairs(board),
        Text(),
        _effort(board),
    ]
    return Group(*parts)


def side_by_side(found: Versus) -> RenderableType:
    """Two studies: what each shared method gained, what it took, and what else differs."""
    one, other = found.first.study.name, found.second.study.name
    kind = "Exploratory: more differs than the code. " if found.exploratory else ""
    parts: list[RenderableType] = [
        Text(f"{kind}Test accuracy of {other} less that of {one}", style="bold"),
        Text(),
        _differences(found),
        *(Text(f"! {note}") for note in found.notes),
        Text(),
        _efforts(found),
        Text(),
        _unlike(found),
    ]
    return Group(*parts)


def _cells(board: Board, primary: float | None) -> Table:
    table = _plain()
    table.add_column("budget", justify="right", no_wrap=True)
    table.add_column("method", overflow="fold")
    table.add_column("test acc %", justify="right", no_wrap=True)
    table.add_column(f"over {board.baseline}", justify="right", no_wrap=True)
    table.add_column("MMACs", justify="right", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("standing", overflow="fold")
    for budget in board.budgets:
        for i, name in enumerate(board.methods):
            cell = board.cell(name, budget)
            mark = "†" if budget in board.undeclared else "*" if budget == primary else " "
            table.add_row(
                f"<={words.mmacs(budget)}{mark}" if i == 0 else "",
                name,
                _accuracy_text(cell),
                _gain_text(board, cell),
                words.macs_text(cell.macs_mean) + ("!" if cell.overrun else ""),
                str(cell.n),
                _standing(board, cell),
                end_section=i == len(board.methods) - 1,
            )
    table.caption = (
        ("* primary budget, in MMACs. " if primary else "Budgets in MMACs. ")
        + f"± {100 * board.confidence:g} % interval over seeds; gains in points, Welch. MMACs "
        "(fvcore FLOPs) are measured on test, ! over budget. Methods of one group cannot be told "
        "apart."
    )
    if board.undeclared:
        table.caption += (
            " † no budget of the study: the best on validation of what was confirmed for its "
            "budgets; exploratory."
        )
    if board.noise_floor is not None:
        table.caption += " Gains marked ~ are noise by the A/A control."
    table.caption_justify = "left"
    return table


def _pairs(board: Board) -> Table:
    table = _plain()
    table.add_column("budget", justify="right", no_wrap=True)
    table.add_column("pair", overflow="fold")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("p, Holm", justify="right", no_wrap=True)
    table.add_column("seeds to separate", overflow="fold")
    for budget in board.budgets:
        family = [pair for pair in board.pairs if pair.budget == budget]
        for i, pair in enumerate(family):
            table.add_row(
                f"<={words.mmacs(budget)}" if i == 0 else "",
                f"{pair.method} \N{MINUS SIGN} {pair.other}",
                _difference_text(pair),
                _p_text(pair),
                words.seeds_text(pair),
                end_section=i == len(family) - 1,
            )
    table.caption = (
        "Exploratory: all pairs, Welch, points of accuracy, Holm over the pairs of one budget."
    )
    table.caption_justify = "left"
    return table


def _differences(found: Versus) -> Table:
    one, other = found.first, found.second
    table = _plain()
    table.add_column("budget", justify="right", no_wrap=True)
    table.add_column("method", overflow="fold")
    for side in (one, other):
        table.add_column(side.study.name, justify="right", overflow="fold")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("p, Holm", justify="right", no_wrap=True)
    table.add_column("MMACs", justify="right", overflow="fold")
    for i, own in enumerate(found.differences):
        cells = [side.board.cell(own.method, own.budget) for side in (one, other)]
        borrowed = any(own.budget in side.board.undeclared for side in (one, other))
        first = i % len(found.methods) == 0
        table.add_row(
            f"<={words.mmacs(own.budget)}{'†' if borrowed else ' '}" if first else "",
            own.method,
            *(_mean_text(cell) for cell in cells),
            _difference_text(own),
            _p_text(own),
            " / ".join(words.macs_text(cell.macs_mean) for cell in cells),
            end_section=(i + 1) % len(found.methods) == 0,
        )
    table.caption = (
        "Test accuracy in % (seeds), differences in points with Welch's "
        f"{100 * one.board.confidence:g} % interval, seeds not paired; Holm over this table. Each "
        "study has its own choice of configurations."
    )
    if one.board.undeclared or other.board.undeclared:
        table.caption += (
            " † no budget of one study: there the best on validation of what it confirmed for its "
            "budgets; exploratory."
        )
    table.caption_justify = "left"
    return table


def _efforts(found: Versus) -> Table:
    sides = (found.first, found.second)
    table = _plain()
    table.add_column("effort", no_wrap=True)
    for head in ("trials", "failed", "confirm", "epochs", "time"):
        table.add_column(head, justify="right", overflow="fold")
    for name in found.methods:
        own = [next(e for e in side.board.effort if e.method == name) for side in sides]
        lost = [e.failed + e.refused for e in own]
        table.add_row(
            name,
            " / ".join(f"{e.search:,}" for e in own),
            " / ".join(f"{count:,}" for count in lost),
            " / ".join(f"{e.confirm:,}" for e in own),
            " / ".join(f"{e.epochs:,}" for e in own),
            " / ".join(words.duration(e.seconds) for e in own),
        )
    table.caption = f"{found.first.study.name} / {found.second.study.name}; failed or refused."
    table.caption_justify = "left"
    return table


def _unlike(found: Versus) -> RenderableType:
    if not found.unlike:
        return Text("Recipe, methods, code, versions and machine are the same.")
    table = _plain()
    for head in ("what differs", found.first.study.name, found.second.study.name):
        table.add_column(head, overflow="fold")
    for row in found.unlike:
        table.add_row(*(Text(part) for part in row))
    return table


def _plain() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _mean_text(cell: Cell) -> str:
    return f"{words.percent(cell.accuracy.mean)} ({cell.n})" if cell.n else cell.state


def _difference_text(own: Comparison) -> str:
    result = own.result
    text = words.points(result.difference)
    if result.hi is None or result.difference is None:
        return f"{text}       "
    return f"{text} ±{100 * (result.hi - result.difference):>5.2f}"


def _p_text(own: Comparison) -> str:
    if own.result.p is None:
        return own.result.state if own.result.difference is not None else "-"
    return words.p_text(own.p_holm).removeprefix("= ")


def _effort(board: Board) -> Table:
    table = _plain()
    table.add_column("effort", no_wrap=True)
    for head in ("trials", "done", "pruned", "failed", "refused", "confirm", "epochs", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    for e in board.effort:
        counts = (e.search, e.complete, e.pruned, e.failed, e.refused, e.confirm, e.epochs)
        table.add_row(e.method, *(f"{count:,}" for count in counts), words.duration(e.seconds))
    return table


def _accuracy_text(cell: Cell) -> str:
    if not cell.n and cell.choice:
        return f"validation {words.percent(cell.choice.val_acc)}"
    mean, half = words.percent(cell.accuracy.mean), words.half(cell)
    return f"{mean} ±{half:>5}" if half else f"{mean}       " if cell.n else mean


def _standing(board: Board, cell: Cell) -> str:
    if cell.state == "not confirmed yet":
        return "unconfirmed"
    if cell.n and cell.method in board.controls:
        return "control"
    return f"group {cell.group}" if cell.group else cell.state


def _gain_text(board: Board, cell: Cell) -> str:
    gain = board.gain(cell.method, cell.budget)
    if gain is None or gain.result.difference is None:
        return "-"
    text, hi = words.points(gain.result.difference), gain.result.hi
    text = f"~{text}" if gain.noise else text
    if hi is None:
        return f"{text}       "
    return f"{text} ±{100 * (hi - gain.result.difference):>5.2f}"
