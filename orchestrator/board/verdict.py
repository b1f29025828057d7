"""The board in words: the verdict in one sentence, and the notes that a reader must know."""

from collections.abc import Iterable, Sequence

from orchestrator.board.model import ALL_RUN, TESTED_FROM, UNREDUCED, Board, Cell, Comparison
from orchestrator.board.words import (
    cell_static_text,
    claims_text,
    found,
    listed,
    p_text,
    percent,
    plural,
    points,
    seeds_text,
    spent_text,
    units_text,
)


def verdict(board: Board) -> str:
    """The leading method at the primary budget, and which differences the tests confirm."""
    at = f"At {board.cost.amount(board.primary)}"
    if not board.rules.primary_declared:
        at = f"Exploratory: at {board.cost.amount(board.primary)}"
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
    leader, base = measured[0], board.cell(board.baseline, board.primary)
    tested = [cell for cell in measured if cell.letters]
    if not base.n:
        sentence = (
            f"{_highest(board, leader)}, but {board.baseline} has no confirmed point there: no "
            "gain over it can be stated"
        )
    elif len(measured) == 1:
        sentence = (
            f"only {board.baseline} has a confirmed point, {_figure(board, base)}, so "
            "that nothing can be compared"
        )
    elif not leader.letters or not base.letters:
        sentence = _untested(board, leader, base, tested)
    elif leader.method == board.baseline:
        sentence = _baseline_leads(board, base, tested)
    else:
        sentence = _challenger_leads(board, leader, base, tested)
    return f"{at} {sentence}{_margin(board)}{_reservations(leader)}."


def notes(board: Board) -> list[str]:
    """The weaknesses of the board, a sentence each: overruns, lost seeds, uneven effort."""
    return list(_notes(board))


def _notes(board: Board) -> Iterable[str]:
    if not board.rules.primary_declared:
        yield (
            f"{board.cost.amount(board.primary)} is not the primary budget that the study "
            "declared: what is tested here is exploratory."
        )
    yield from _shared(board)
    if not board.confirmed:
        return
    yield claims_text(board)
    yield from _clocked(board)
    for cell in board.cells:
        where = f"{cell.method} at {board.cost.amount(cell.budget)}"
        if cell.overrun:
            spent = f"{board.cost.text(cell.spent)} {board.cost.unit}"
            yield f"{where} overruns its budget on test: {spent} measured."
        if blurred := board.blurred(cell):
            yield (
                f"{where}: its {spent_text(cell)} {board.cost.unit} are not separated from "
                f"{listed(blurred)}, since the spread is wider than the distance."
            )
        if cell.collapsed:
            runs = plural(len(cell.seeds), "run")
            yield f"{where}: {len(cell.collapsed)} of {runs} collapsed, counted."
        if cell.failed:
            yield (
                f"{where}: {plural(len(cell.failed), 'confirm run')} gave no result; the mean is "
                "over the others and may be optimistic."
            )
        if cell.state == "not confirmed yet":
            yield f"{where} is not confirmed yet."
        if cell.static:
            yield f"{where} is static: {cell_static_text(cell)}."
    for choice in board.passed_over:
        yield (
            f"{choice.method} at {board.cost.amount(choice.budget)}: {choice.config} is best there "
            f"on validation, {percent(choice.val_acc)} %, but was never confirmed."
        )
    yield from _missing(board)
    yield from _weak(board)
    yield from _raced(board)
    yield from _control(board)
    yield from _uneven(board)


def _clocked(board: Board) -> Iterable[str]:
    """How budgets in milliseconds are measured."""
    if board.cost.clocked:
        images = plural(board.cost.batch or 1, "image")
        yield (
            f"Budgets are milliseconds of a call on {images}: the deployed network in its fastest "
            "exact form, timed in turns with one reference network; confirm runs are timed anew."
        )


def _shared(board: Board) -> Iterable[str]:
    """The test images that are also in training or validation."""
    shared, images = board.rules.shared_images, board.rules.images
    if shared:
        of = f" of {images:,}" if images is not None else ""
        yield (
            f"{shared:,}{of} test images are in training or validation too, pixel for pixel: "
            "test accuracies are optimistic for every method."
        )


def _figure(board: Board, cell: Cell) -> str:
    return f"{percent(cell.accuracy.mean)} % ({units_text(board, cell)})"


def _highest(board: Board, cell: Cell) -> str:
    name = found(board, [cell.method])
    if cell.method == board.baseline:
        name = f"{name}, the static baseline,"
    return f"{name} has the highest mean test accuracy, {_figure(board, cell)}"


def _untested(board: Board, leader: Cell, base: Cell, tested: Sequence[Cell]) -> str:
    """The verdict if the leader or the baseline has too few units for a test."""
    few = [cell for cell in (leader, base) if not cell.letters]
    names = listed(list(dict.fromkeys(cell.method for cell in few)))
    sentence = _highest(board, leader)
    if leader is not base:
        sentence += f", against {_figure(board, base)} of {base.method}"
    verb = "has" if len({cell.method for cell in few}) == 1 else "have"
    unit = plural(TESTED_FROM, board.rules.unit)
    sentence += f", but {names} {verb} fewer than {unit} and cannot be tested"
    if base.letters and (better := _ahead(board, tested)):
        of_those = f"{_beats(board, better[0])}{_and_others(board, better)}"
        sentence += f"; of those that can, {of_those}"
    return sentence


def _baseline_leads(board: Board, base: Cell, tested: Sequence[Cell]) -> str:
    close = _close(board, base, tested)
    if close:
        return f"{_highest(board, base)}, and {_unseparated(close)} it"
    others = [cell.method for cell in tested if cell is not base]
    if not others:
        return f"{_highest(board, base)}, and no other can be tested"
    return f"{_highest(board, base)}, and is better than {found(board, others)}"


def _challenger_leads(board: Board, leader: Cell, base: Cell, tested: Sequence[Cell]) -> str:
    better = _ahead(board, tested)
    head = f"{_figure(board, leader)} against {_figure(board, base)}"
    if better and better[0] is leader:
        close = [name for name in _close(board, leader, tested) if name != base.method]
        text = f"{_beats(board, better[0])}: {head}{_and_others(board, better)}"
        return f"{text}; {_unseparated(close)} {leader.method}" if close else text
    gain = board.gain(leader.method, board.primary)
    assert gain is not None
    known = f" against {_figure(board, base)}, a gain of {_gain(gain)}"
    lead = f"{_highest(board, leader)}{known}, but "
    if gain.noise:
        lead += "that is within the noise of the A/A control"
    else:
        lead += f"is not separated from {found(board, [base.method])}"
    if not better:
        return lead
    return f"{lead}; {_beats(board, better[0])}{_and_others(board, better)}"


def _ahead(board: Board, tested: Sequence[Cell]) -> list[Cell]:
    """The methods that are claimed to be better than the baseline, in the order of their means."""
    gains = [(cell, board.gain(cell.method, board.primary)) for cell in tested]
    return [cell for cell, gain in gains if gain is not None and gain.ahead]


def _beats(board: Board, better: Cell) -> str:
    gain = board.gain(better.method, board.primary)
    assert gain is not None
    beaten = board.baseline if board.rules.repeats > 1 else f"the one found for {board.baseline}"
    return f"{found(board, [better.method])} beats {beaten} by {_gain(gain).removeprefix('+')}"


def _and_others(board: Board, better: Sequence[Cell]) -> str:
    """The further methods that beat the baseline."""
    if len(better) < 2:
        return ""
    others = listed([cell.method for cell in better[1:]])
    verb, of = ("does", "that of ") if len(better) == 2 else ("do", "those of ")
    return f"; so {verb} {others if board.rules.repeats > 1 else of + others}"


def _close(board: Board, leader: Cell, tested: Sequence[Cell]) -> list[str]:
    """The methods that are tested against the leader, and not separated from it."""
    pairs = [(c.method, board.pair(leader.method, c.method, board.primary)) for c in tested]
    return [name for name, pair in pairs if pair is not None and not pair.separated]


def _unseparated(names: Sequence[str]) -> str:
    """The methods that a test does not separate from what the sentence names next."""
    return f"{listed(names)} {'is' if len(names) == 1 else 'are'} not separated from"


def _gain(gain: Comparison) -> str:
    result = gain.result
    text = f"{points(result.difference)} points"
    if result.lo is None:
        return f"{text} ({result.state})"
    return f"{text} ({points(result.lo)} to {points(result.hi)}, p {p_text(gain.p_holm)})"


def _margin(board: Board) -> str:
    """The methods that are shown not to be worse by the declared margin, than dense or than
    themselves."""
    margin, text = board.rules.margin, ""
    if margin is None:
        return text
    by = f"by more than {100 * margin:g} point{'' if margin == 0.01 else 's'}"
    for other in (board.baseline, ALL_RUN, UNREDUCED):
        tests = [test for test in board.not_worse if test.other == other]
        shown = [f"{test.method} (p {p_text(test.p_holm)})" for test in tests if test.shown]
        if shown:
            verb = "is" if len(shown) == 1 else "are"
            text += f"; {listed(shown)} {verb} not worse than {other} {by}"
        elif tests:
            text += f"; no method is shown to be not worse than {other} {by}"
    return text


def _reservations(leader: Cell) -> str:
    """The weaknesses of the leading cell, which belong in the same sentence."""
    text = ""
    if leader.static:
        unshown = "its routing is not shown to be worth anything"
        what = "one network for all images" if leader.fixed else unshown
        text += f"; the network of {leader.method} is static, {what}"
    if leader.overrun:
        text += f"; {leader.method} overruns the budget on test"
    return text


def _missing(board: Board) -> Iterable[str]:
    """Methods without any point, and cells with fewer seeds than others although none failed."""
    for name in board.methods:
        if not any(board.cell(name, budget).choice for budget in board.budgets):
            yield f"{name} has no point at any budget."
    most = board.race.units if board.race else max(cell.n for cell in board.cells)
    for cell in board.cells:
        if 0 < cell.n < most and not cell.failed:
            where = f"{cell.method} at {board.cost.amount(cell.budget)}"
            yield f"{where} has {units_text(board, cell)}, other cells have up to {most}."


def _weak(board: Board) -> Iterable[str]:
    """Unreduced networks with fewer results than the method that is compared with them."""
    for pair in board.unreduced:
        where = f"{pair.method} unreduced"
        if pair.base.collapsed:
            runs = plural(len(pair.base.seeds), "run")
            yield f"{where}: {len(pair.base.collapsed)} of {runs} collapsed, counted."
        if pair.base.failed:
            yield f"{where}: {plural(len(pair.base.failed), 'run')} gave no result."
        if board.rules.repeats > 1 and pair.base.n < board.cell(pair.method, board.primary).n:
            yield f"{where} has {units_text(board, pair.base)}: the difference is over these."


def _raced(board: Board) -> Iterable[str]:
    """The additions of a race, its correction of every claim, and what it leaves undecided."""
    if board.race is None:
        return
    race, at = board.race, f"at {board.cost.amount(board.primary)}"
    unit = board.rules.unit
    what, units = ("confirm run", "seeds") if unit == "seed" else (unit, "searches")
    yield (
        f"Race: {race.spent} of {plural(race.budget, f'further {what}')} spent on the order "
        f"{at}. {units.capitalize()} were added depending on earlier results, so every interval "
        f"and adjusted p-value is corrected for {board.rules.looks} looks (Bonferroni)."
    )
    undecided = [
        f"{c.method} and {c.other} ({'noise' if c.noise else seeds_text(c)})"
        for c in race.undecided
    ]
    if undecided:
        yield f"Not separated {at}, with the {units} that would do it: {listed(undecided)}."
    else:
        yield f"The order {at} is decided."


def _control(board: Board) -> Iterable[str]:
    """The noise that the repetition of a method shows, and what follows for other differences."""
    controls = sorted(board.rules.controls.items())
    pairs = " and ".join(f"{control} repeats {original}" for control, original in controls)
    if pairs and board.noise_floor is None:
        yield f"A/A control: {pairs}, but they share no confirmed budget yet."
    elif pairs:
        yield (
            f"A/A control: {pairs}, search included, and differs by up to "
            f"{points(board.noise_floor).removeprefix('+')} points. Differences up to that are "
            "noise and shown in grey; a larger one may be noise too."
        )


def _uneven(board: Board) -> Iterable[str]:
    """Effort of a search that differs by more than a fifth between methods.

    A race gives some methods more searches: each has its trials, so none has better odds.
    """
    trials = [effort.trained for effort in board.effort]
    if board.race and board.race.searches:
        counts = [board.searches(effort.method) for effort in board.effort]
        if max(counts) > min(counts):
            least, most = min(counts), plural(max(counts), "search")
            yield (
                f"The race gave methods {least} to {most}: effort is equal per search; the effort "
                "table has the totals."
            )
        trials = [round(n / count) for n, count in zip(trials, counts, strict=True)]
        of = "search"
    else:
        of = "method"
    if max(trials) > 1.2 * min(trials):
        yield (
            f"Effort is uneven: {min(trials)} to {max(trials)} search trials per {of}; "
            "a larger search has an advantage."
        )
