"""Reports of rows with a known truth, and what they show."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from boards import BUDGETS
from rich.console import Console, RenderableType

from orchestrator.board.latency import pairs, timed
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Rules
from orchestrator.record.events import Latency
from orchestrator.record.evidence import PerImage
from orchestrator.record.provenance import Provenance
from orchestrator.record.rows import Row
from orchestrator.report.content import Report, shown
from orchestrator.report.drawing import write_report

PROVENANCE = Provenance(
    study={"data": "digits"},
    study_hash="ab12",
    classes=10,
    image=(1, 8, 8),
    commit="0123",
    versions={"torch": "2.13.0"},
)


def per_image(row: Row) -> PerImage:
    """What a network of known accuracy and mean cost gave on 200 images."""
    draw = np.random.default_rng(row.seed)
    macs = np.round(draw.uniform(0.5, 1.5, 200) * (row.test_macs_mean or 0))
    return PerImage(draw.random(200) < row.test_acc, macs, draw.integers(10, size=200))


def content(rows: Sequence[Row], budgets: Sequence[float] = BUDGETS) -> Report:
    """A report of these rows, with all that a page may show."""
    board = leaderboard(rows, Rules(budgets=budgets, primary=2, chance=0.1))
    curves = {
        row.trial: [(epoch, (row.val_acc or 0.2) - 0.5 / epoch) for epoch in range(1, 9)]
        for row in shown(board, rows)
    }
    images = {
        (row.trial, row.point): per_image(row)
        for row in rows
        if row.method == "skipnet" and row.role == "confirm"
    }
    told = [
        Latency(
            *pair.key,
            batch=batch,
            ms=2.0,
            spread_ms=0.1,
            reference_ms=3.0,
            device="a CPU",
            forms="channels last" if batch == 64 else None,  # older runs tell none
        )
        for pair in pairs(rows, budgets, "dense")
        for batch in (1, 64)
    ]
    times = timed(rows, budgets, "dense", told)
    return Report(
        board=board, rows=rows, provenance=PROVENANCE, curves=curves, images=images, times=times
    )


def write(rows: Sequence[Row], folder: Path) -> tuple[Board, Path]:
    whole = content(rows)
    return whole.board, write_report(whole, folder)


def text_of(rendered: RenderableType, width: int = 80) -> str:
    shown = io.StringIO()
    Console(width=width, no_color=True, file=shown).print(rendered)
    return shown.getvalue()
