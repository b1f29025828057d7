"""Rows with a known truth, for the tests of the board and its report; and boards undrawn."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.board.choose import choose, clean
from orchestrator.record.evidence import PerImage
from orchestrator.record.rows import Row

BUDGETS = (1.0, 2.0, 4.0)
LIFT = {"dense": 0.0, "skipnet": 0.03, "slimming": 0.003}


def row(**changes: Any) -> Row:
    """A complete search row, but for `changes`."""
    values: dict[str, Any] = {
        "study": "demo",
        "method": "dense",
        "trial": "dense-00000",
        "config": changes.get("trial", "dense-00000"),
        "config_hash": "ab12",
        "role": "search",
        "point": "",
        "seed": 0,
        "state": "COMPLETE",
        "reason": None,
        "params": {"depth": 20, "width": 0.5},
        "epochs": 10,
        "seconds": 6.0,
        "val_acc": 0.8,
        "val_macs_mean": 1e6,
    }
    return Row(**{**values, **changes})


def confirm(**changes: Any) -> Row:
    """A complete confirm row of `config`, but for `changes`."""
    config, seed = changes.get("config", "dense-00000"), changes.get("seed", 1)
    values: dict[str, Any] = {
        "role": "confirm",
        "trial": f"{config}-seed{seed}",
        "config": config,
        "seed": seed,
        "test_acc": 0.8,
        "test_macs_mean": 1e6,
        "test_macs_p95": 1.1e6,
        "test_macs_max": 1.2e6,
    }
    return row(**{**values, **changes})


def study_rows(
    *, seeds: int = 5, methods: Sequence[str] = tuple(LIFT), budgets: Sequence[float] = BUDGETS
) -> list[Row]:
    """A whole study: a search with failures, then `seeds` confirm runs of each choice."""
    draw = random.Random(7)
    rows = []
    for method in methods:
        for i in range(12):
            macs = 0.5e6 * 1.25**i
            accuracy = 0.95 - 0.2 * (0.5e6 / macs) ** 0.5 + LIFT[method] + draw.gauss(0, 0.002)
            trial = f"{method}-{i:05d}"
            rows.append(row(method=method, trial=trial, val_acc=accuracy, val_macs_mean=macs))
        failure = {"state": "FAIL", "val_acc": None, "val_macs_mean": None, "epochs": 2}
        reasons = (
            "loss is nan at epoch 3",
            "refused: costs 88 MMACs at least, the largest budget is 4",  # earlier versions
            "over budget: costs 99 MMACs at least, the largest budget is 4",
            "refused: 3 blocks must divide by 2",
        )
        for i, reason in enumerate(reasons, start=12):
            rows.append(row(method=method, trial=f"{method}-{i:05d}", reason=reason, **failure))
    found = {row.trial: row for row in rows}
    for config in sorted({choice.config for choice in choose(clean(rows)[0], budgets)}):
        base = found[config]
        rows.extend(
            confirm(
                method=base.method,
                config=config,
                seed=seed,
                val_acc=base.val_acc,
                val_macs_mean=base.val_macs_mean,
                test_acc=(base.val_acc or 0) - 0.005 + draw.gauss(0, 0.002),
                test_macs_mean=base.val_macs_mean,
                test_macs_p95=(base.val_macs_mean or 0) * 1.1,
                test_macs_max=(base.val_macs_mean or 0) * 1.2,
            )
            for seed in range(1, seeds + 1)
        )
    return rows


def undraw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures out of boards: they take most of a report's time."""
    from orchestrator.report import page
    from orchestrator.report.figures import draw

    monkeypatch.setattr(page, "inline_svg", lambda *_, **__: "<svg></svg>")
    monkeypatch.setattr(draw, "files", lambda *_: {})


def routed(
    worth: float, *, seeds: int = 5, alike: float = 0.3, majority_macs: float = 8e5
) -> tuple[list[Row], dict[tuple[str, str], PerImage]]:
    """A study of dense and of a network that decides, whose decisions are worth this much."""
    rows = [row(method=name, trial=f"{name}-00000") for name in ("dense", "skipnet")]
    images = {}
    draw = np.random.default_rng(4)
    for seed in range(1, seeds + 1):
        rows.append(confirm(config="dense-00000", seed=seed, test_acc=0.8 + seed / 1000))
        gains = draw.choice([-0.25, 0.0, 0.25], 400) + worth
        figures = {
            "test_acc": 0.85,
            "test_another_acc": 0.85 - float(gains.mean()),
            "test_majority_acc": 0.82,
            "test_majority_macs": majority_macs,
            "test_all_acc": 0.84,
            "test_all_macs": 9e5,
            "test_alike": alike,
        }
        run = confirm(method="skipnet", config="skipnet-00000", seed=seed, **figures)
        rows.append(run)
        right = np.arange(400) < 340
        macs = draw.uniform(5e5, 9e5, 400)
        images[run.trial, run.point] = PerImage(
            right, macs, np.arange(400) % 10, gains, difficulty=np.linspace(0, 1, 400)
        )
    return rows, images
