"""The board in MLflow's terms, as values: a run per method, the notes, and the saved view."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.files import digest
from orchestrator.board.model import Board, Cell
from orchestrator.board.words import percent, span
from orchestrator.record.provenance import Provenance
from orchestrator.record.rows import mean_sizes
from orchestrator.store import tags as layout

if TYPE_CHECKING:
    from mlflow.entities import Dataset

VIEW = "leaderboard"
"""The saved view's name and key."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""The experiment's tag that holds it."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run or an experiment."""
LAYOUT = {"board_layout": "2"}
"""The tag of a run of the board that has the figures in its name, percent among its metrics and
parameters; an earlier version wrote runs without it."""

INTERVAL = ("acc_lo", "acc_hi")
"""The kinds of metrics that hold the ends of an accuracy's interval, in percent."""
SCATTERS = "Accuracy over cost"
"""The section of the view's charts that is open; the others hold a bar chart per metric."""
WIDTHS = {"attributes.`Run Name`": 300, "runDateAndNestInfo": 48}
"""Pixels of the columns that MLflow shows on the left, whatever the view selects: of the date only
the mark of the run's status. With them, cost and standing are in sight where a window of 1,280
pixels has both of MLflow's side panels open."""
DATASET_NAME, DIGITS = 500, 12
"""Characters of a data set's name, which MLflow limits, and of its digest."""


@dataclass(frozen=True)
class BoardRun:
    """One method's line of the board."""

    name: str
    """The method, and its accuracy at the primary budget with its interval."""
    metrics: dict[str, float]
    """Rounded: accuracies in percent, differences of accuracies in points, MACs in millions."""
    words: dict[str, str]
    """By tag: a budget's cell in words."""
    params: dict[str, str]
    """Hyperparameters of the choice at the primary budget."""


def board_run(board: Board, method: str, *, earlier: bool = False) -> BoardRun:
    """One method's line of the board, or that of a version without `LAYOUT`."""
    metrics: dict[str, float] = {}
    words: dict[str, str] = {}
    for budget in board.budgets:
        cell, at = board.cell(method, budget), _at(board, budget)
        parts = [cell.state, f"letters {cell.letters}" if cell.letters else ""]
        if cell.worth or cell.static:
            parts.append("static" if cell.static else "dynamic")
        parts += [f"{choice.config} {choice.point}".strip() for choice in cell.choices]
        words[at] = ", ".join(part for part in parts if part)
        if cell.n and cell.accuracy.mean is not None and cell.macs_mean is not None:
            metrics |= {f"{name}/{at}": v for name, v in _figures(cell, earlier=earlier)}
    for pair in board.unreduced:
        if pair.method == method and pair.result.difference is not None:
            name, gain = _gain("over_unreduced", pair.result.difference, earlier=earlier)
            metrics[f"{name}/at_{board.primary:g}m"] = gain
    if earlier:
        return BoardRun(f"board: {method}", metrics, words, {})
    primary = board.cell(method, board.primary)
    return BoardRun(_name(board, primary), metrics, words, _params(primary))


def content_of(method: str, metrics: Mapping[str, float], words: Mapping[str, str]) -> str:
    """What a line holds, as its tag `content`; of one that MLflow would cut, the SHA-256."""
    text = json.dumps([method, dict(metrics), dict(words)], sort_keys=True)
    return text if len(text) <= layout.PIECE else digest(text)


def is_earlier(tags: Mapping[str, str]) -> bool:
    """Whether a version without `LAYOUT` wrote this run of the board."""
    return not LAYOUT.items() <= tags.items()


def study_note(verdict: str, experiment: str, report: str) -> str:
    """The experiment's description: the verdict behind the links, since MLflow cuts it short.

    It stands on every page of the experiment, also on that of traces, which a new browser opens;
    the list of experiments shows its first words alone, and no links.
    """
    links = f"{_board_links(experiment)}, {_report_link(experiment, report)}"
    return f"Equal-cost leaderboard: {links}. {verdict}"


def report_note(verdict: str, experiment: str) -> str:
    """The description of the run `report`."""
    return f"Files of the report behind {_board_links(experiment)}. {verdict}"


def board_note(
    board: Board, method: str, experiment: str, report: str, runs: Mapping[str, str]
) -> str:
    """One method's line in words, and the runs behind it as links; `runs` are run ids by trial."""

    def linked(cell: Cell, config: str) -> str:
        """The runs of a configuration."""
        seeds = [
            f"[seed {row.seed}](#/experiments/{experiment}/runs/{runs[row.trial]})"
            for row in cell.seeds
            if row.config == config and row.trial in runs
        ]
        return ", ".join(seeds) or "-"

    lines = []
    for budget in board.budgets:
        cell = board.cell(method, budget)
        state = ", ".join(part for part in (_accuracy(cell), cell.state) if part)
        if not cell.choices:
            lines.append(f"- {board.cost.amount(budget)}: {state}")
        for choice in cell.choices:
            chosen = choice.config
            if chosen in runs:
                chosen = f"[{chosen}](#/experiments/{experiment}/runs/{runs[chosen]})"
            runs_of_it = linked(cell, choice.config)
            lines.append(f"- {board.cost.amount(budget)}: {state}: {chosen}: {runs_of_it}")
    for base in (pair.base for pair in board.unreduced if pair.method == method):
        configs = dict.fromkeys(row.config for row in base.seeds)
        lines += [f"- {config}: {linked(base, config)}" for config in configs]
    links = f"{_board_links(experiment)}, {_report_link(experiment, report)}"
    note = f"A line of {links}. The runs behind each number:\n\n"
    for line in lines:
        if len(note) + len(line) > layout.PIECE:
            return f"{note}- and more: the tags `config` and `role` find them"
        note += f"{line}\n"
    return note


def view(board: Board) -> str:
    """The state of MLflow's run table in which the board is readable; an undocumented format.

    MLflow ignores the keys that it does not know, and shows the table where it reads no chart.
    """
    primary = board.primary
    others = [budget for budget in board.budgets if budget != primary]
    cost = "ms" if board.cost.clocked else "macs"
    costs = ("ms", "macs") if board.cost.clocked else ("macs",)
    standing = f"tags.`{_at(board, primary)}`"
    columns = [
        *(_metric(kind, board, primary) for kind in costs),
        standing,
        *(_metric(kind, board, primary) for kind in ("acc_percent", *INTERVAL)),
        *(_metric(kind, board, budget) for budget in others for kind in ("acc_percent", *costs)),
    ]
    narrow = dict.fromkeys(columns[: len(costs)], 105)
    widths = {**dict.fromkeys(columns, 140), **narrow, standing: 172, **WIDTHS}
    state = {
        "searchFilter": "tags.role = 'leaderboard'",
        "orderByKey": _metric("acc_percent", board, primary),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [*WIDTHS, *columns],
        "columnWidths": widths,
        "compareRunCharts": [_scatter(board, cost, budget) for budget in (primary, *others)],
        "compareRunSections": [
            {
                "uuid": name,
                "name": name,
                "display": name == SCATTERS,
                "isReordered": True,
                **({"columns": 1} if name == SCATTERS else {}),
            }
            for name in (SCATTERS, *sorted(_kinds(board)))
        ],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": True,
        "runListHidden": False,
    }
    return json.dumps({"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def view_link(experiment: str) -> str:
    """The saved view of an experiment in MLflow's pages, from `#` on."""
    view = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"#/experiments/{experiment}/runs?{view}"


def dataset(origin: Provenance) -> "Dataset | None":
    """What a study read, as MLflow has it; None where an earlier version recorded no digest."""
    from mlflow.entities import Dataset  # noqa: PLC0415, who reads a board needs no MLflow

    if origin.data is None:
        return None
    name = str(origin.study.get("data", ""))
    images = {role: part.images for role, part in origin.data.parts.items()}
    return Dataset(
        name=name[:DATASET_NAME],
        digest=origin.data.sha256[:DIGITS],
        source_type="isoflop",
        source=json.dumps({"data": name, "sha256": origin.data.sha256}),
        profile=json.dumps({"images": images}),
    )


def dataset_text(dataset: "Dataset") -> str:
    """A data set's name and digest."""
    return f"{dataset.name} {dataset.digest}"


def _at(board: Board, budget: float) -> str:
    return f"at_{budget:g}{board.cost.suffix}"


def _metric(kind: str, board: Board, budget: float) -> str:
    """A metric as the view names its column."""
    return f"metrics.`{kind}/{_at(board, budget)}`"


def _figures(cell: Cell, *, earlier: bool) -> Iterator[tuple[str, float]]:
    """The metrics of a cell that has figures, by their kind."""
    accuracy, macs = cell.accuracy, cell.macs_mean
    assert accuracy.mean is not None, "the cell has figures"
    assert macs is not None, "the cell has figures"
    if earlier:
        yield "acc", round(accuracy.mean, 4)
    else:
        for name, value in (
            ("acc_percent", accuracy.mean),
            *zip(INTERVAL, (accuracy.lo, accuracy.hi), strict=True),
        ):
            if value is not None:
                yield name, round(100 * value, 2)
    yield "macs", round(macs / 1e6, 4)
    if cell.cost.clocked and cell.spent is not None:
        yield "ms", float(f"{cell.spent:.4g}")
    yield "seeds", float(cell.n)
    for name, size in mean_sizes(cell.seeds).items():
        yield name, round(size, 1)
    if cell.worth and cell.worth.gain.mean is not None:
        yield _gain("worth", cell.worth.gain.mean, earlier=earlier)


def _gain(name: str, difference: float, *, earlier: bool) -> tuple[str, float]:
    """A difference of accuracies as a metric."""
    return (
        (name, round(difference, 4)) if earlier else (f"{name}_points", round(100 * difference, 2))
    )


def _accuracy(cell: Cell) -> str:
    """A cell's accuracy with its interval; '' where it has none."""
    if not cell.n or cell.accuracy.mean is None:
        return ""
    text = f"{percent(cell.accuracy.mean)} %"
    return f"{text} ({span(cell)})" if span(cell) else text


def _name(board: Board, cell: Cell) -> str:
    """What MLflow's lists and charts show of a line: short, since they cut it."""
    accuracy, budget = cell.accuracy, board.cost.amount(cell.budget)
    if not cell.n or accuracy.mean is None:
        return f"{cell.method}: {cell.state} at {budget}"
    text = f"{cell.method} {percent(accuracy.mean, 1)} %"
    if accuracy.lo is not None:
        text += f" ({percent(accuracy.lo, 1)}\N{EN DASH}{percent(accuracy.hi, 1)})"
    return f"{text} at {budget}"


def _params(cell: Cell) -> dict[str, str]:
    """The hyperparameters of a cell's choices, of which searches that differ have one each."""
    names = dict.fromkeys(name for choice in cell.choices for name in choice.params)
    values = {
        name: [str(choice.params.get(name, "-")) for choice in cell.choices] for name in names
    }
    return {
        name: ", ".join(each if len({*each}) > 1 else each[:1]) for name, each in values.items()
    }


def _scatter(board: Board, cost: str, budget: float) -> dict[str, object]:
    at = _at(board, budget)
    return {
        "type": "SCATTER",
        "uuid": at,
        "metricSectionId": SCATTERS,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        "xaxis": {"key": f"{cost}/{at}", "type": "METRIC"},
        "yaxis": {"key": f"acc_percent/{at}", "type": "METRIC"},
    }


def _kinds(board: Board) -> set[str]:
    """The kinds of metrics that the board's runs have: MLflow makes a section of charts of each."""
    metrics = [name for method in board.methods for name in board_run(board, method).metrics]
    return {name.partition("/")[0] for name in metrics}


def _board_links(experiment: str) -> str:
    board = view_link(experiment)
    return f"[the board]({board}), [its charts]({board}&compareRunsMode=CHART)"


def _report_link(experiment: str, report: str) -> str:
    return f"[the report](#/experiments/{experiment}/runs/{report}/artifacts/report.html)"
