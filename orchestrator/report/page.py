"""The board as files: page, tables, figures, provenance.

The same board and rows give the same bytes: nothing here reads a clock, a path or a machine.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from methods import files
from orchestrator.board import words
from orchestrator.board.latency import Timed
from orchestrator.board.model import Board
from orchestrator.board.stats import bootstrap
from orchestrator.record.log import Curves
from orchestrator.record.rows import Row
from orchestrator.report import tables
from orchestrator.report.figures import draw as figures
from orchestrator.report.figures import gains, learning, pareto, style
from orchestrator.report.figures.costs import Costs, costs_panel, varying

EXCLUDED_SHOWN = 100
"""Excluded rows listed one by one on the page; provenance.json has them all."""
SECTIONS = {
    "board": "Leaderboard at equal FLOPs",
    "gain": "Gain over {baseline}",
    "best": "Probability of the highest mean",
    "pareto": "Accuracy over MACs",
    "seeds": "Every seed",
    "latency": "Latency, and what the MACs promise",
    "costs": "What each image costs",
    "reach": "MACs to reach an accuracy",
    "curves": "Learning curves",
    "effort": "Effort",
    "details": "In detail",
    "provenance": "Provenance",
}
"""In the page's order: a file in `templates/sections`, and its title; an empty one is left out."""
GLYPHS = {
    "o": "M6 1.2a4.8 4.8 0 1 0 .01 0z",
    "s": "M1.8 1.8h8.4v8.4h-8.4z",
    "^": "M6 1l5 9.6H1z",
    "D": "M6 .6L11.4 6 6 11.4.6 6z",
    "v": "M6 11L1 1.4h10z",
    "P": "M4 1h4v3h3v4H8v3H4V8H1V4h3z",
    "X": "M3 1l3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3-3-3z",
}


def write_report(
    board: Board,
    rows: Iterable[Row],
    provenance: Mapping[str, Any],
    folder: Path,
    links: Mapping[str, str] | None = None,
    *,
    curves: Curves | None = None,
    costs: Costs | None = None,
    times: Sequence[Timed] = (),
) -> Path:
    """Writes the report's files into `folder`, each whole or not at all; the page's path.

    Of `links` (name -> address) the page shows web addresses alone: a path of this machine means
    nothing to its reader.
    """
    everything = list(rows)
    table = tables.board_table(board)
    evidence = {**provenance, "board": facts(board)}
    contents = {
        "leaderboard.csv": tables.csv(table),
        "leaderboard.parquet": tables.parquet(table),
        "seeds.csv": tables.csv(tables.seeds_table(board)),
        "pairs.csv": tables.csv(tables.pairs_table(board)),
        **figures.pareto_files(board, everything),
        "forest.png": figures.forest_file(board),
        "provenance.json": _json(evidence),
        "latency.csv": tables.csv(tables.latency_table(times)),
        "report.html": page(
            board,
            everything,
            provenance,
            links or {},
            curves=curves or {},
            costs=costs or {},
            times=times,
        ).encode(),
    }
    for name, content in contents.items():
        files.write(folder / name, content)
    return folder / "report.html"


def page(
    board: Board,
    rows: Iterable[Row],
    provenance: Mapping[str, Any],
    links: Mapping[str, str],
    *,
    curves: Curves,
    costs: Costs,
    times: Sequence[Timed],
) -> str:
    """The report as one HTML page that fetches nothing and runs nothing."""
    everything = list(rows)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for helper in (words.percent, words.points, words.mmacs, words.macs_text):
        environment.filters[helper.__name__] = helper
    environment.filters.update(
        p=lambda p: words.p_text(p).removeprefix("= "),
        half=words.half,
        duration=words.duration,
        seeds=words.seeds_text,
        chance=_chance,
        drawn=words.drawn_text,
    )
    reasons = Counter(excluded.reason.split(":")[0] for excluded in board.excluded)
    context: dict[str, Any] = {
        "board": board,
        "legend": _legend(board),
        "pareto": _pareto(board, everything),
        "attained": _attained(board),
        "draws": bootstrap.DRAWS,
        "contested": any(cell.p_best is not None for cell in board.cells),
        "forest": _per_budget(board, "forest"),
        "seeds": _per_budget(board, "seeds"),
        "targets": sorted({r.accuracy for r in board.reach if r.macs is not None}),
        "reach": {(r.method, r.accuracy): r.macs for r in board.reach},
        "reasons": sorted(reasons.items(), key=lambda item: (-item[1], item[0])),
        "shown": board.excluded[:EXCLUDED_SHOWN],
        "provenance": _flat({k: v for k, v in provenance.items() if k != "study"}),
        "links": {n: a for n, a in links.items() if a.startswith(("https://", "http://"))},
        "curves": _curves(board, everything, curves),
        "thinned": learning.SEARCHED,
        "costs": _costs(board, costs),
        "times": times,
        "devices": sorted({one.device for one in times if one.device}),
    }
    sections = []
    for name, title in SECTIONS.items():
        heading = title.format(baseline=board.baseline)
        template = environment.get_template(f"sections/{name}.html.j2")
        if body := template.render(context, title=heading).strip():
            sections.append((name, heading, body))
    return environment.get_template("report.html.j2").render(board=board, sections=sections)


def _pareto(board: Board, rows: list[Row]) -> list[str]:
    size = (3.9, 3.3)
    search, test = pareto.search_panel(board, rows), pareto.test_panel(board)
    return [
        figures.inline_svg(
            search, size=size, prefix="search", label="Validation accuracy over MACs"
        ),
        figures.inline_svg(test, size=size, prefix="test", label="Test accuracy over MACs"),
    ]


def _attained(board: Board) -> list[str]:
    """A small panel per method: what its seeds attain."""
    if not board.confirmed:
        return []
    return [
        figures.inline_svg(
            pareto.attainment_panel(board, name),
            size=(2.9, 2.3),
            prefix=f"attained{i}",
            label=f"Test accuracy that the seeds of {name} attain over MACs",
        )
        for i, name in enumerate(board.methods)
    ]


def _curves(board: Board, rows: list[Row], curves: Curves) -> list[str]:
    """A small panel per method: how its trials learned; none where no trial has a curve."""
    if not curves:
        return []
    return [
        figures.inline_svg(
            learning.curves_panel(board, name, rows, curves),
            size=(2.9, 2.3),
            prefix=f"curves{i}",
            label=f"Validation accuracy of {name} over epochs",
        )
        for i, name in enumerate(board.methods)
    ]


def _costs(board: Board, costs: Costs) -> list[str]:
    """A small panel per cell whose images are not treated alike."""
    return [
        figures.inline_svg(
            costs_panel(board, method, budget, costs),
            size=(2.9, 2.1),
            prefix=f"costs{i}",
            label=f"MACs of the test images, {method} at {words.mmacs(budget)} MMACs",
        )
        for i, (method, budget) in enumerate(varying(board, costs))
    ]


def _per_budget(board: Board, kind: str) -> list[str]:
    """A small panel per budget: gains ('forest') or raw seeds ('seeds')."""
    draw = gains.forest_panel if kind == "forest" else gains.seeds_panel
    lines = len(board.methods) - (kind == "forest")
    if not lines:
        return []
    return [
        figures.inline_svg(
            draw(board, budget),
            size=(3.9, 0.9 + 0.32 * lines),
            prefix=f"{kind}{i}",
            label=f"{kind} at {words.mmacs(budget)} MMACs",
        )
        for i, budget in enumerate(board.budgets)
    ]


def _legend(board: Board) -> list[tuple[str, str, str]]:
    """Name, colour and glyph of each method."""
    table = style.marks(board)
    return [
        (name, colour if colour != style.INK else "var(--ink)", GLYPHS[marker])
        for name, (colour, marker) in sorted(table.items())
    ]


def _chance(share: float | None) -> str:
    """A probability in whole percent, never 0 or 100: a bootstrap does not know that."""
    if share is None:
        return "-"
    if 0.01 <= share <= 0.99:
        return f"{100 * share:.0f} %"
    return "< 1 %" if share < 0.5 else "> 99 %"


def facts(board: Board) -> dict[str, Any]:
    """What the board was computed with, and every row that it left out."""
    low, high = board.budgets[0], board.budgets[-1]
    return {
        "verdict": board.verdict,
        "notes": list(board.notes),
        "budgets_mmac": list(board.budgets),
        "primary_mmac": board.primary,
        "baseline": board.baseline,
        "confidence": board.confidence,
        "controls": board.controls,
        "noise_floor": board.noise_floor,
        "targets": {
            "declared": board.declared,
            "values": sorted({reach.accuracy for reach in board.reach}),
        },
        "p_best": {
            "draws": bootstrap.DRAWS,
            "test_images": board.images,
            "drawn": {words.mmacs(budget): drawn for budget, drawn in board.drawn.items()},
        },
        "looks": board.looks,
        "effort": [vars(effort) for effort in board.effort],
        "area": {
            "range_mmac": [low, high],
            "floor": board.chance,
            "values": {name: vars(area) for name, area in board.area.items()},
        },
        "excluded": [
            {"trial": e.row.trial, "role": e.row.role, "point": e.row.point, "reason": e.reason}
            for e in board.excluded
        ],
    }


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, item in sorted(value.items()):
        if isinstance(item, Mapping):
            pairs += _flat(item, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, item)) if isinstance(item, list | tuple) else str(item)
            pairs.append((f"{prefix}{key}", text))
    return pairs


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode()
