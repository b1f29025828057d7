"""The board in words: one plain sentence, and what a reader must know before believing it."""

from collections.abc import Iterable, Sequence

from orchestrator.board.model import RANKED_FROM, Board, Cell, Comparison
from orchestrator.board.words import (
    cell_static_text,
    listed,
    macs_text,
    mmacs,
    p_text,
    percent,
    plural,
    points,
    seeds_text,
)


def verdict(board: Board) -> str:
    """Who is ahead at the primary budget, and how far that may be believed."""
    at = f"At {mmacs(board.primary)} MMACs"
    if not board.confirmed:
        done = sum(effort.complete for effort in board.effort)
        return (
            f"Not confirmed yet: {plural(done, 'search trial')} complete; test figures come only "
            "from confirm runs on fresh seeds."
        )
    cells = [board.cell(name, board.primary) for name in board.contenders]
    measured = [cell for cell in cells if cell.n]
    if not measured:
        return f"{at}, the primary budget, no method has a confirmed point yet."
    leader = (
        next((c for c in measured if c.group == "A"), measured[0])
        if any(c.group for c in measured)
        else measured[0]
    )
    base = board.cell(board.baseline, board.primary)
    if not base.n:
        sentence = (
            f"{at} {leader.method} has the highest mean test accuracy, {_figure(leader)}, but "
            f"{board.baseline} has no confirmed point there: no gain over it can be stated"
        )
    elif len(measured) == 1:
        sentence = (
            f"{at} only {board.baseline} has a confirmed point, {_figure(base)}: there is nothing "
            "to compare it with"
        )
    elif leader.method == board.baseline:
        sentence = f"{at} {_baseline_leads(board, base, measured)}"
    else:
        sentence = f"{at} {_challenger_leads(board, leader, base, measured)}"
    return f"{sentence}{_reservations(leader, base)}."


def notes(board: Board) -> list[str]:
    """What weakens the board, a sentence each: overruns, lost seeds, uneven effort."""
    return list(_notes(board))


def _notes(board: Board) -> Iterable[str]:
    if not board.rules.primary_declared:
        yield (
            f"{mmacs(board.primary)} MMACs is not the primary budget that the study declared: "
            "what is tested here is exploratory."
        )
    yield from _shared(board)
    if not board.confirmed:
        return
    for cell in board.cells:
        where = f"{cell.method} at {mmacs(cell.budget)} MMACs"
        if cell.overrun:
            yield (
                f"{where} overruns its budget on test: {macs_text(cell.macs_mean)} MMACs measured."
            )
        if cell.collapsed:
            yield f"{where}: {len(cell.collapsed)} of {plural(cell.n, 'seed')} collapsed, counted."
        if cell.failed:
            yield (
                f"{where}: {plural(len(cell.failed), 'confirm seed')} gave no figure; the mean is "
                "over the others and may flatter."
            )
        if cell.state == "not confirmed yet":
            yield f"{where} is not confirmed yet."
        if cell.static:
            yield f"{where} is static: {cell_static_text(cell)}."
    for choice in board.passed_over:
        yield (
            f"{choice.method} at {mmacs(choice.budget)} MMACs: {choice.config} is best there on "
            f"validation, {percent(choice.val_acc)} %, but was never confirmed."
        )
    yield from _missing(board)
    yield from _raced(board)
    yield from _control(board)
    yield from _uneven(board)


def _shared(board: Board) -> Iterable[str]:
    """Says that test images were trained on."""
    shared, images = board.rules.shared_images, board.rules.images
    if shared:
        of = f" of {images:,}" if images is not None else ""
        yield (
            f"{shared:,}{of} test images stand in training or validation too, pixel for pixel: "
            "test accuracies flatter every method."
        )


def _figure(cell: Cell) -> str:
    return f"{percent(cell.accuracy.mean)} % ({plural(cell.n, 'seed')})"


def _baseline_leads(board: Board, base: Cell, measured: Sequence[Cell]) -> str:
    close = _close(board, base, measured)
    if not base.group:
        return f"the static baseline {base.method} has the highest mean, {_figure(base)}"
    if close:
        return (
            f"the static baseline {base.method} has the highest mean, {_figure(base)}, and "
            f"{listed(close)} {'is' if len(close) == 1 else 'are'} not separable from it"
        )
    return f"no method reaches the static baseline {base.method}, {_figure(base)}"


def _challenger_leads(board: Board, leader: Cell, base: Cell, measured: Sequence[Cell]) -> str:
    gain = board.gain(leader.method, board.primary)
    assert gain is not None
    head = f"{_figure(leader)} against {_figure(base)}"
    if _separated(gain, board) and leader.group and base.group and not gain.noise:
        close = _close(board, leader, measured)
        tail = f"; {listed(close)} cannot be told from it" if close else ""
        gained = _gain(gain).removeprefix("+")
        return f"{leader.method} beats {base.method} by {gained}: {head}{tail}"
    known = f", a gain of {_gain(gain)}" if gain.result.difference is not None else ""
    lead = f"{leader.method} has the highest mean test accuracy, {head}{known}"
    if gain.noise:
        return f"{lead}, but that is no more than one method differs from itself"
    if leader.group and base.group:
        return f"{lead}, but cannot be told from {base.method}"
    return lead


def _close(board: Board, leader: Cell, measured: Sequence[Cell]) -> list[str]:
    """Who is of the leader's group, or differs from it by no more than noise."""
    noise = {
        name
        for pair in board.pairs
        if pair.budget == board.primary and pair.noise
        for name in (pair.method, pair.other)
        if leader.method in (pair.method, pair.other)
    }
    return [
        c.method
        for c in measured
        if c is not leader and (c.group == leader.group or (c.group and c.method in noise))
    ]


def _separated(gain: Comparison, board: Board) -> bool:
    return gain.p_holm is not None and gain.p_holm < 1 - board.rules.confidence


def _gain(gain: Comparison) -> str:
    result = gain.result
    text = f"{points(result.difference)} points"
    if result.lo is None:
        return f"{text} ({result.state})"
    return f"{text} (interval {points(result.lo)} to {points(result.hi)}, p {p_text(gain.p_holm)})"


def _reservations(leader: Cell, base: Cell) -> str:
    """What of the leading cells must be said in the same breath."""
    text = ""
    few = min(cell.n for cell in (leader, base) if cell.n)
    if few < RANKED_FROM:
        text += f"; with fewer than {RANKED_FROM} seeds nothing is ranked"
    if leader.static:
        what = "one network for all images" if leader.fixed else "its decisions are worth nothing"
        text += f"; the network of {leader.method} is static, {what}"
    if leader.overrun:
        text += f"; {leader.method} overruns the budget on test"
    return text


def _missing(board: Board) -> Iterable[str]:
    """Methods without any point, and cells with fewer seeds than others, nothing having failed."""
    for name in board.methods:
        if not any(board.cell(name, budget).choice for budget in board.budgets):
            yield f"{name} has no point at any budget."
    most = board.race.seeds if board.race else max(cell.n for cell in board.cells)
    for cell in board.cells:
        if 0 < cell.n < most and not cell.failed:
            where = f"{cell.method} at {mmacs(cell.budget)} MMACs"
            yield f"{where} has {plural(cell.n, 'seed')}, other cells have up to {most}."


def _raced(board: Board) -> Iterable[str]:
    """What a race spent, what it costs every claim, and what it leaves undecided."""
    if board.race is None:
        return
    race, at = board.race, f"at {mmacs(board.primary)} MMACs"
    yield (
        f"Race: {race.spent} of {plural(race.budget, 'further confirm run')} spent on the order "
        f"{at}. Seeds were added by what the first ones gave, so every interval and adjusted "
        f"p-value is corrected for {board.rules.looks} looks (Bonferroni)."
    )
    undecided = [
        f"{c.method} and {c.other} ({'noise' if c.noise else seeds_text(c)})"
        for c in race.undecided
    ]
    if undecided:
        yield f"Undecided {at}, with the seeds that would tell: {listed(undecided)}."
    else:
        yield f"The order {at} is decided."


def _control(board: Board) -> Iterable[str]:
    """What the repetition of a method says of all other differences."""
    controls = sorted(board.rules.controls.items())
    pairs = " and ".join(f"{control} repeats {original}" for control, original in controls)
    if pairs and board.noise_floor is None:
        yield f"A/A control: {pairs}, but they share no confirmed budget yet."
    elif pairs:
        yield (
            f"A/A control: {pairs}, search and all, and differs by up to "
            f"{points(board.noise_floor).removeprefix('+')} points. Differences up to that are "
            "noise and greyed; a larger one is not thereby real."
        )


def _uneven(board: Board) -> Iterable[str]:
    """Search effort that differs by more than a fifth between methods."""
    trials = [effort.trained for effort in board.effort]
    if max(trials) > 1.2 * min(trials):
        yield (
            f"Effort is uneven: {min(trials)} to {max(trials)} search trials per method; "
            "the larger search has the better odds."
        )
