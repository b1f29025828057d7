"""The report as one HTML page, which fetches nothing and runs no script but its own."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import jinja2

from orchestrator.board import words
from orchestrator.board.latency import Timed
from orchestrator.board.model import ALL_RUN, TESTED_FROM, UNREDUCED, Board
from orchestrator.board.verdict import notes, verdict
from orchestrator.record.provenance import encode_provenance
from orchestrator.report import frames
from orchestrator.report.axes import known
from orchestrator.report.content import SEARCHED, Report
from orchestrator.report.figures import gains, learning, pareto, style
from orchestrator.report.figures.axes import axis_panel
from orchestrator.report.figures.costs import costs_panel, varying
from orchestrator.report.figures.draw import inline_svg
from orchestrator.report.figures.groups import AXES, groups_panel
from orchestrator.report.figures.latency import batches_of, latency_height, latency_panel
from orchestrator.report.figures.routing import (
    deciding,
    decisions_panel,
    routing_height,
    worth_panel,
)
from orchestrator.report.groups import groups, rows
from orchestrator.report.importance import LEAST
from orchestrator.report.interactive.data import block, places
from orchestrator.report.interactive.scripts import policy, scripts
from orchestrator.report.palette import INK

EXCLUDED_SHOWN = 100
"""Excluded rows listed one by one on the page; provenance.json has them all."""
SECTIONS = {
    "board": "Leaderboard at equal {cost}",
    "pareto": "Accuracy over cost",
    "gain": "Gain over {baseline}",
    "best": "Probability of the highest mean",
    "seeds": "Every seed",
    "routing": "Worth of routing",
    "groups": "Easy and difficult images, and classes",
    "latency": "Latency, and the speed-up kept",
    "costs": "Cost of each image",
    "reach": "{unit} to reach an accuracy",
    "curves": "Learning curves",
    "effort": "Effort",
    "importance": "Hyperparameters that mattered",
    "details": "In detail",
    "downloads": "Downloads",
    "provenance": "Provenance",
}
"""In the page's order: a file in `templates/sections`, and its title; an empty one is left out."""
INTERIM = {
    "board": "Best on validation so far",
    "pareto": "Accuracy over cost",
    "curves": "Learning curves",
    "effort": "Effort",
    "importance": "The search",
}
"""The sections of a study that runs."""
GLYPHS = {
    "o": "M6 1.2a4.8 4.8 0 1 0 .01 0z",
    "s": "M1.8 1.8h8.4v8.4h-8.4z",
    "^": "M6 1l5 9.6H1z",
    "D": "M6 .6L11.4 6 6 11.4.6 6z",
    "v": "M6 11L1 1.4h10z",
    "P": "M4 1h4v3h3v4H8v3H4V8H1V4h3z",
    "X": "M3 1l3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3-3-3z",
}


def page(report: Report, files: Mapping[str, bytes] | None = None, *, interim: bool = False) -> str:
    """The page of a report; `files` are those beside it that are text, by default its tables.

    An `interim` one says that it claims nothing, and has no verdict.
    """
    board = report.board
    environment = _environment(board)
    context = {**_context(report), "interim": interim}
    sections = []
    clocked = board.cost.clocked
    nouns = {"cost": "latency" if clocked else "FLOPs", "unit": "ms" if clocked else "MACs"}
    for name, title in (INTERIM if interim else SECTIONS).items():
        heading = title.format(baseline=board.baseline, **nouns)
        template = environment.get_template(f"sections/{name}.html.j2")
        if body := template.render(context, title=heading).strip():
            sections.append((name, heading, body))
    return environment.get_template("report.html.j2").render(
        board=board,
        interim=interim,
        complete=sum(effort.complete for effort in board.effort),
        verdict=verdict(board),
        notes=list(notes(board)),
        sections=sections,
        policy=policy(),
        data=block(report, frames.tables(report) if files is None else files),
        scripts=scripts(),
    )


def _environment(board: Board) -> jinja2.Environment:
    """The templates, and how they write numbers."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        percent=words.percent,
        points=words.points,
        budget=words.budget_text,
        macs_text=words.macs_text,
        cost=board.cost.text,
        spent=words.spent_text,
        p=lambda p: words.p_text(p).removeprefix("= "),
        span=words.span,
        units=lambda n: words.plural(n, board.rules.unit),
        duration=words.duration,
        seeds=words.seeds_text,
        chance=words.chance_text,
    )
    return environment


def _context(report: Report) -> dict[str, object]:
    """What the sections read."""
    board = report.board
    provenance = encode_provenance(report.provenance)
    del provenance["study"]
    reasons = Counter(excluded.reason.split(":")[0] for excluded in board.excluded)
    return {
        "board": board,
        "least": TESTED_FROM,
        "all_run": ALL_RUN,
        "itself_unreduced": UNREDUCED,
        "legend": _legend(board),
        "lines": places(board),
        "pareto": _pareto(report),
        "attained": _attained(board),
        "axes": _axes(report),
        "importances": sorted(report.importances, key=lambda i: board.methods.index(i.method)),
        "fields": report.fields,
        "fewest": LEAST,
        "contested": any(cell.p_best is not None for cell in board.cells),
        "marks_text": gains.marks_text(board),
        "forest": _per_budget(board, "forest"),
        "seeds": _per_budget(board, "seeds"),
        "targets": sorted({r.accuracy for r in board.reach if r.cost is not None}),
        "reach": {(r.method, r.accuracy): r.cost for r in board.reach},
        "reasons": sorted(reasons.items(), key=lambda item: (-item[1], item[0])),
        "shown": board.excluded[:EXCLUDED_SHOWN],
        "provenance": _flat(provenance),
        "curves": _curves(report),
        "thinned": SEARCHED,
        "costs": _costs(report),
        **_grouped(report),
        "decisions": _decisions(board),
        "deciding": deciding(board),
        "latency": _latency(report),
        "times": _in_order(report),
        "devices": sorted({time.device for time in report.times if time.device}),
    }


def _pareto(report: Report) -> list[str]:
    size, board = (3.9, 3.3), report.board
    search, test = pareto.search_panel(board, report.rows), pareto.test_panel(board)
    return [
        inline_svg(search, size=size, prefix="search", label="Validation accuracy over MACs"),
        inline_svg(test, size=size, prefix="test", label="Test accuracy over MACs"),
    ]


def _axes(report: Report) -> list[str]:
    """A small panel for each further cost that was measured."""
    board, times = report.board, report.times
    return [
        inline_svg(
            axis_panel(board, times, axis),
            size=(2.9, 2.3),
            prefix=f"axis{i}",
            label=f"Test accuracy over {axis.label}",
        )
        for i, axis in enumerate(known(board, times))
    ]


def _attained(board: Board) -> list[str]:
    """A small panel per method: what its seeds attain."""
    if not board.confirmed:
        return []
    return [
        inline_svg(
            pareto.attainment_panel(board, name),
            size=(2.9, 2.3),
            prefix=f"attained{i}",
            label=f"Test accuracy that the seeds of {name} attain over MACs",
        )
        for i, name in enumerate(board.methods)
    ]


def _curves(report: Report) -> list[str]:
    """A small panel per method: how its trials learned; none where no trial has a curve."""
    if not report.curves:
        return []
    return [
        inline_svg(
            learning.curves_panel(report.board, name, report.rows, report.curves),
            size=(2.9, 2.3),
            prefix=f"curves{i}",
            label=f"Validation accuracy of {name} over epochs",
        )
        for i, name in enumerate(report.board.methods)
    ]


def _costs(report: Report) -> list[str]:
    """A small panel per cell whose images are not treated alike."""
    return [
        inline_svg(
            costs_panel(report.board, method, budget, report.images),
            size=(2.9, 2.1),
            prefix=f"costs{i}",
            label=f"MACs of the test images, {method} at {report.board.cost.amount(budget)}",
        )
        for i, (method, budget) in enumerate(varying(report.board, report.images))
    ]


def _grouped(report: Report) -> dict[str, object]:
    """Each way to group the test images: two panels, accuracy and MACs, and the groups in rows."""
    board, parts = report.board, groups(report.board, report.images)
    figures: list[Literal["accuracy", "macs"]] = ["accuracy", "macs"]
    panels = {
        kind: [
            inline_svg(
                groups_panel(board, parts, kind, figure),
                size=(3.9, 2.6),
                prefix=f"{kind}-{figure}",
                label=f"{figure} by {kind}",
            )
            for figure in figures
        ]
        for kind in AXES
        if any(part.kind == kind for part in parts)
    }
    kinds = {kind: text.format(baseline=board.baseline) for kind, text in AXES.items()}
    return {
        "grouped": panels,
        "kinds": kinds,
        "parts": {kind: rows(parts, kind) for kind in panels},
    }


def _decisions(board: Board) -> list[str]:
    """Two panels: accuracy under each kind of decisions, and what own ones are worth."""
    panels = {"decisions": decisions_panel, "worth": worth_panel}
    labels = {
        "decisions": "Test accuracy under own and other decisions",
        "worth": "Worth of routing",
    }
    return [
        inline_svg(panel(board), size=(3.9, routing_height(board)), prefix=name, label=labels[name])
        for name, panel in panels.items()
        if deciding(board)
    ]


def _latency(report: Report) -> list[str]:
    """A panel for each size of a batch that was timed."""
    height = latency_height(report.board, report.times)
    return [
        inline_svg(
            latency_panel(report.board, report.times, batch),
            size=(4.4, height),
            prefix=f"latency{batch}",
            label=f"Milliseconds a call of {words.plural(batch, 'image')}",
        )
        for batch in batches_of(report.times)
    ]


def _in_order(report: Report) -> list[Timed]:
    """What was timed, in the board's order of methods."""
    order = {name: i for i, name in enumerate(report.board.methods)}
    return sorted(report.times, key=lambda time: (order[time.method], time.budget, time.batch))


def _per_budget(board: Board, kind: str) -> list[str]:
    """A small panel per budget: gains ('forest') or raw seeds ('seeds')."""
    draw = gains.forest_panel if kind == "forest" else gains.seeds_panel
    lines = len(board.methods) - (kind == "forest")
    if not lines:
        return []
    return [
        inline_svg(
            draw(board, budget),
            size=(3.9, 0.9 + 0.32 * lines),
            prefix=f"{kind}{i}",
            label=f"{kind} at {board.cost.amount(budget)}",
        )
        for i, budget in enumerate(board.budgets)
    ]


def _legend(board: Board) -> list[tuple[str, str, str]]:
    """Name, colour and glyph of each method."""
    table = style.marks(board)
    return [
        (name, colour if colour != INK else "var(--ink)", GLYPHS[marker])
        for name, (colour, marker) in ((name, table[name]) for name in board.methods)
    ]


def _flat(value: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, item in sorted(value.items()):
        if isinstance(item, Mapping):
            pairs += _flat(item, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, item)) if isinstance(item, list | tuple) else str(item)
            pairs.append((f"{prefix}{key}", text))
    return pairs
