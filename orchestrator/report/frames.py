"""The board as data frames: a row per cell, per seed, per pair."""

import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.board import words
from orchestrator.board.choose import Choice, clean
from orchestrator.board.latency import Timed
from orchestrator.board.model import Board, Cell
from orchestrator.board.versus import Versus
from orchestrator.record.events import SIZES
from orchestrator.record.rows import Row
from orchestrator.report import axes
from orchestrator.report.content import Report
from orchestrator.report.groups import Group, groups
from orchestrator.study.budgets import MACS, Cost

if TYPE_CHECKING:
    from orchestrator.report.interactive.fields import Field


def tables(report: Report) -> dict[str, bytes]:
    """Every table of a report as text, by the name of its file."""
    board = report.board
    return {
        "leaderboard.csv": csv(board_table(board, report.times)),
        "seeds.csv": csv(seeds_table(board)),
        "pairs.csv": csv(pairs_table(board)),
        "latency.csv": csv(latency_table(report.times, board.cost)),
        "groups.csv": csv(groups_table(groups(board, report.images))),
        "search.csv": csv(search_table(report.rows, report.fields)),
    }


def board_table(board: Board, times: Sequence[Timed] = ()) -> pd.DataFrame:
    """One row per method and budget; accuracies as fractions, costs in the unit that the column's
    name ends in."""
    unit, records = board.cost.name, []
    for cell in board.cells:
        gain = board.gain(cell.method, cell.budget)
        records.append(
            {
                "method": cell.method,
                f"budget_{unit}": cell.budget,
                "primary": cell.budget == board.primary,
                "state": cell.state,
                "letters": cell.letters,
                "n": cell.n,
                "mean": cell.accuracy.mean,
                "lo": cell.accuracy.lo,
                "hi": cell.accuracy.hi,
                "sd": cell.accuracy.sd,
                "seed_sd": cell.seed_sd,
                "top5": cell.top5,
                "macs_mean_m": _millions(cell.macs_mean),
                "macs_p95_m": _millions(cell.macs_p95),
                "macs_max_m": _millions(cell.macs_max),
                **_clocked(board, cell),
                "used": cell.used,
                f"same_as_{unit}": board.repeated(cell),
                "best": board.leads(cell),
                "static": cell.static,
                **axes.costs(cell, times),
                "overrun": cell.overrun,
                "collapsed": len(cell.collapsed),
                "failed": len(cell.failed),
                "gain": gain.result.difference if gain else None,
                "gain_lo": gain.result.lo if gain else None,
                "gain_hi": gain.result.hi if gain else None,
                "gain_p": gain.result.p if gain else None,
                "gain_p_holm": gain.p_holm if gain else None,
                **_matched(board, cell),
                **(_unreduced(board, cell) if board.rules.unreduced else {}),
                "p_best": cell.p_best,
                **_worth(cell),
                **_chosen(cell.choices),
            }
        )
    frame = pd.DataFrame.from_records(records)
    numbers = frame.columns[list(frame.columns).index("mean") : list(frame.columns).index("config")]
    whole = ("best", "static", "overrun", "blurred", "collapsed", "failed")
    floats = [name for name in numbers if name not in whole]
    return frame.astype(dict.fromkeys(floats, "float64"))


def _clocked(board: Board, cell: Cell) -> dict[str, object]:
    """The further columns of a board of milliseconds."""
    if not board.cost.clocked:
        return {}
    choices = [choice.ms or 0.0 for choice in cell.choices]
    return {
        "ms": cell.spent,
        "ms_spread": cell.spread,
        "ms_searched": sum(choices) / len(choices) if choices else None,
        "blurred": len(board.blurred(cell)),
    }


def _matched(board: Board, cell: Cell) -> dict[str, float | None]:
    """The gain over the baseline at the cell's own cost."""
    pairs = (m for m in board.matched if m.method == cell.method and cell.budget == board.primary)
    found = next(pairs, None)
    return {
        "matched_gain": found.result.difference if found else None,
        "matched_lo": found.result.lo if found else None,
        "matched_hi": found.result.hi if found else None,
        "matched_macs_m": _millions(found.base.macs_mean) if found else None,
    }


def _unreduced(board: Board, cell: Cell) -> dict[str, float | None]:
    """The gain over the cell's unreduced networks, where the study trains them."""
    pairs = (u for u in board.unreduced if u.method == cell.method and cell.budget == board.primary)
    found = next(pairs, None)
    return {
        "unreduced": found.base.accuracy.mean if found else None,
        "unreduced_gain": found.result.difference if found else None,
        "unreduced_lo": found.result.lo if found else None,
        "unreduced_hi": found.result.hi if found else None,
        "unreduced_macs_m": _millions(found.base.macs_mean) if found else None,
    }


def _chosen(choices: Sequence[Choice]) -> dict[str, object]:
    """The chosen configurations, one for each search: their means, and their names."""
    n = len(choices)
    params = [dict(choice.params) for choice in choices]
    return {
        "val_acc": sum(choice.val_acc for choice in choices) / n if n else None,
        "val_macs_mean_m": sum(c.val_macs_mean for c in choices) / n / 1e6 if n else None,
        "config": " ".join(choice.config for choice in choices),
        "config_hash": " ".join(choice.config_hash for choice in choices),
        "point": " ".join(choice.point for choice in choices),
        "params": json.dumps(params[0] if n == 1 else params, sort_keys=True) if n else "",
    }


def _worth(cell: Cell) -> dict[str, float | None]:
    """The worth of routing; empty for networks that decide nothing per image."""
    worth = cell.worth
    return {
        "worth": worth.gain.mean if worth else None,
        "worth_lo": worth.gain.lo if worth else None,
        "worth_hi": worth.gain.hi if worth else None,
        "another": worth.another if worth else None,
        "majority": worth.majority if worth else None,
        "majority_macs_m": _millions(worth.majority_macs) if worth else None,
        "all_run": worth.everything if worth else None,
        "all_run_macs_m": _millions(worth.everything_macs) if worth else None,
        "alike": worth.alike if worth else None,
    }


def seeds_table(board: Board) -> pd.DataFrame:
    """One row per cell and seed: the raw figures under every mean."""
    times = ["ms", "spread_ms"] if board.cost.clocked else []
    columns = ["method", f"budget_{board.cost.name}", "trial", "config", "point", "repeat", "seed"]
    columns += ["test_acc", "top5", "macs_mean_m", "macs_p95_m", "macs_max_m", *SIZES]
    columns += [*times, "collapsed", "evidence", "another", "majority", "all_run"]
    records = [
        (
            cell.method,
            cell.budget,
            row.trial,
            row.config,
            row.point,
            row.repeat,
            row.seed,
            row.test_acc,
            row.test_top5,
            _millions(row.test_macs_mean),
            _millions(row.test_macs_p95),
            _millions(row.test_macs_max),
            *(getattr(row, name) for name in (*SIZES, *times)),
            row.trial in cell.collapsed,
            row.evidence,
            *(row.test_another_acc, row.test_majority_acc, row.test_all_acc),
        )
        for cell in board.cells
        for row in cell.seeds
    ]
    return pd.DataFrame(records, columns=columns)


def pairs_table(board: Board) -> pd.DataFrame:
    """Every pair of methods at every budget; those of the primary are one family of tests."""
    columns = [
        f"budget_{board.cost.name}",
        "method",
        "other",
        "state",
        "difference",
        "lo",
        "hi",
        "p",
        "p_holm",
    ]
    columns += ["separated", "more_seeds", "noise"]
    records = [
        (
            *(c.budget, c.method, c.other, r.state),
            *(r.difference, r.lo, r.hi, r.p, c.p_holm),
            c.separated,
            words.seeds_text(c),
            c.noise,
        )
        for c in board.pairs
        for r in [c.result]
    ]
    return pd.DataFrame(records, columns=columns)


def differences_table(both: Versus) -> pd.DataFrame:
    """Each shared method at each budget: the second study less the first."""
    records = [
        (d.budget, d.method, r.state, r.difference, r.lo, r.hi, r.p, d.p_holm)
        for d in both.differences
        for r in [d.result]
    ]
    budget = f"budget_{both.first.study.cost.name}"
    columns = [budget, "method", "state", "difference", "lo", "hi", "p", "p_holm"]
    return pd.DataFrame(records, columns=columns)


def latency_table(times: Iterable[Timed], cost: Cost = MACS) -> pd.DataFrame:
    """One row per cell and batch size: the deployed network beside the baseline's."""
    columns = {
        "method": "method",
        "budget": f"budget_{cost.name}",
        "trial": "trial",
        "batch": "batch",
        "ms": "ms",
        "spread_ms": "spread_ms",
        "seeds": "seeds",
        "seeds_sd_ms": "seeds_sd_ms",
        "p95_ms": "p95_ms",
        "calls": "calls",
        "joules": "joules_an_image",
        "energy": "energy",
        "baseline_ms": "baseline_ms",
        "speed_up": "speed_up",
        "macs_speed_up": "macs_speed_up",
        "honesty": "honesty",
        "device": "device",
        "forms": "forms",
        "reason": "reason",
    }
    records = [[getattr(one, field) for field in columns] for one in times]
    return pd.DataFrame(records, columns=list(columns.values()))


def search_table(rows: Iterable[Row], fields: "Sequence[Field]") -> pd.DataFrame:
    """One row per operating point of the search that has figures, with the searched
    hyperparameters."""
    columns = ["method", "trial", "point", "repeat", "val_acc", "val_macs_mean_m", "params"]
    names: dict[str, list[str]] = {}
    for field in fields:
        names.setdefault(field.method, []).append(field.name)
    records = [
        (
            *(row.method, row.trial, row.point, row.repeat, row.val_acc),
            _millions(row.val_macs_mean),
            json.dumps({k: row.params[k] for k in names.get(row.method, ()) if k in row.params}),
        )
        for row in sorted(clean(rows)[0], key=lambda row: (row.method, row.trial, row.point))
        if row.role == "search"
    ]
    return pd.DataFrame(records, columns=columns)


def groups_table(parts: Sequence[Group]) -> pd.DataFrame:
    """Test images by difficulty and class, a row per method and group, at the primary budget."""
    columns = ["method", "by", "group", "images", "accuracy", "macs_mean_m"]
    columns += ["lo", "hi", "macs_lo_m", "macs_hi_m"]
    records = [
        (
            *(g.method, g.kind, g.name, g.images, g.accuracy.mean, _millions(g.macs.mean)),
            *(g.accuracy.lo, g.accuracy.hi, _millions(g.macs.lo), _millions(g.macs.hi)),
        )
        for g in parts
    ]
    return pd.DataFrame(records, columns=columns)


def csv(frame: pd.DataFrame) -> bytes:
    """The table as text, ten digits a number."""
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.10g").encode()


def parquet(frame: pd.DataFrame) -> bytes:
    """The table with every digit."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _millions(macs: float | None) -> float | None:
    return None if macs is None else macs / 1e6
