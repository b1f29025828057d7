"""The results of a study, from its MLflow store."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.shipped import FILES, study_file
from orchestrator.study import file

if TYPE_CHECKING:
    import pandas as pd

    from methods.shipping.card import Format
    from orchestrator.report.publish import Outcome
    from orchestrator.results.findings import Findings

SUMMARY = ["n", "mean", "lo", "hi", "gain", "gain_lo", "gain_hi"]
"""Columns of the board in a notebook's view of the results."""


def open(study: str | Path, *, out: str | Path = "runs", mlflow: str | None = None) -> "Results":  # noqa: A001
    """The results of a study, given by its name, its folder or its file.

    `out` holds a folder per study; `mlflow` is MLflow's tracking URI, by default the SQLite store
    in `out`.

    >>> results = open("quickstart", out=RUNS)
    >>> results
    Results('quickstart')

    Raises:
        StudyError: there is no such study, or no store.
        StorageError: the store does not answer.
    """
    from orchestrator.results.boards import located

    folder = Path(study).absolute()
    if (folder / "wal.jsonl").is_file():
        study, out = folder.name, folder.parent
    elif Path(study).suffix in FILES:
        study = file.load(study_file(study)).name
    located(str(study), Path(out), mlflow)
    return Results(str(study), out, mlflow=mlflow)


def studies(*, out: str | Path = "runs", mlflow: str | None = None) -> "pd.DataFrame":
    """The studies of a folder and of its MLflow store, a row each.

    `trials` counts trials that ended; `state` is running, interrupted or finished, or, for a study
    in MLflow alone, published or unpublished; `verdict` is the time at which its last trial ended.

    >>> frame = studies(out=RUNS)
    >>> frame.loc[frame["study"] == "quickstart", "state"].tolist()
    ['finished']

    Raises:
        StudyError: there is neither a folder nor a store.
        StorageError: the store does not answer.
    """
    import pandas as pd

    from orchestrator.results import studies as listing

    rows = [vars(each) for each in listing.studies(Path(out), mlflow)]
    columns = ["study", "data", "trials", "state", "verdict"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["verdict"] = pd.to_datetime(frame["verdict"], unit="ms", utc=True)
    return frame


class Results:
    """The board, comparisons, trials and networks of a study, from its MLflow store.

    The store is read once; `refresh` reads it again, for a running study.
    """

    def __init__(
        self,
        study: str,
        out: str | Path,
        *,
        mlflow: str | None = None,
        outcome: "Outcome | None" = None,
    ) -> None:
        self.study = study
        """The study's name."""
        self._out = Path(out)
        self._mlflow = mlflow
        self._outcome = outcome

    def outcome(self, *, primary: float | None = None, refresh: bool = False) -> "Outcome":
        """The board as a value, with the path of its report.

        `primary` tests at another of the study's budgets; `refresh` reads all of MLflow
        again.

        >>> open("quickstart", out=RUNS).outcome().report.name
        'report.html'
        """
        from orchestrator.results.boards import show

        if primary is not None:
            return show(self.study, self._out, uri=self._mlflow, primary=primary, refresh=refresh)
        if self._outcome is None or refresh:
            self._outcome = show(self.study, self._out, uri=self._mlflow, refresh=refresh)
        return self._outcome

    def refresh(self) -> "Results":
        """Read the store again at the next call.

        >>> results = open("quickstart", out=RUNS).refresh()
        """
        self._outcome = None
        return self

    def board(self, *, primary: float | None = None) -> "pd.DataFrame":
        """One row per method and budget; accuracies as fractions, costs in MMACs or ms.

        >>> board = open("quickstart", out=RUNS).board()
        >>> list(board.columns[:3])
        ['method', 'budget_mmac', 'primary']
        """
        from orchestrator.report.frames import board_table

        outcome = self.outcome(primary=primary)
        return board_table(outcome.board, outcome.times)

    def compare(
        self,
        other: "str | Path | Results | None" = None,
        *,
        at: Sequence[float] = (),
        methods: Sequence[str] = (),
    ) -> "pd.DataFrame":
        """Compare pairs of methods at any budgets, or each method with itself in another study.

        `methods` restricts the comparison to these and dense.

        >>> pairs = open("quickstart", out=RUNS).compare(at=[0.1, 0.3])
        >>> sorted(set(pairs["budget_mmac"]))
        [0.1, 0.3]

        Raises:
            StudyError: an unknown study or method, or two studies with nothing in common.
        """
        from orchestrator.report.frames import differences_table, pairs_table
        from orchestrator.results import boards

        if other is None:
            board = boards.at_budgets(self.study, at, self._out, methods=methods, uri=self._mlflow)
            return pairs_table(board)
        second = other.study if isinstance(other, Results) else str(other)
        both = boards.two_studies(
            self.study, second, at, self._out, methods=methods, uri=self._mlflow
        )
        return differences_table(both)

    def trials(self) -> "pd.DataFrame":
        """One row per operating point of each ended trial, with a column per hyperparameter.

        Accuracies are fractions, costs MACs, times seconds. The board compares the rows with the
        role `confirm`.

        >>> trials = open("quickstart", out=RUNS).trials()
        >>> sorted(set(trials["role"]))
        ['confirm', 'search']
        """
        import pandas as pd

        from orchestrator.results.boards import stored

        rows = stored(self.study, self._out, uri=self._mlflow).rows
        frame = pd.DataFrame(
            [{**vars(row), "state": row.outcome.word, "reason": row.outcome.reason} for row in rows]
        )
        params = pd.DataFrame([dict(row.params) for row in rows]).add_prefix("params.")
        return pd.concat([frame.drop(columns="params"), params], axis="columns")

    def verify(self) -> "Findings":
        """Recompute every published number from its evidence; `flaws` lists those that differ.

        >>> open("quickstart", out=RUNS).verify().flaws
        []

        Raises:
            EvidenceError: the evidence of the board is missing.
        """
        from orchestrator.results.verify import verify

        return verify(self.study, self._out, uri=self._mlflow)

    def export(
        self,
        name: str,
        format: "Format" = "torch",  # noqa: A002
        *,
        at: float | None = None,
        point: str | None = None,
        to: str | Path | None = None,
    ) -> Path:
        """Export the network of a method's cell, or of a trial, and return its folder for
        `isoflop.load`.

        Args:
            name: a method, or a trial.
            format: "torch", "pt2" or "onnx".
            at: the method's cell, by its budget; by default the primary one.
            point: the operating point of a trial that has several.
            to: the folder; by default one below `exports/` in the study's folder.

        >>> folder = open("quickstart", out=RUNS).export("dense", to=TO)
        >>> sorted(file.name for file in folder.iterdir())
        ['card.json', 'card.md', 'model.safetensors']

        Raises:
            ExportError: the format cannot hold the network.
            StudyError: no such method, trial, cell or point.
        """
        from orchestrator.results import export as exports

        run = f"{self.study}/{name}"
        source = exports.find(run, self._out, uri=self._mlflow, at=at, point=point)
        return exports.export(source, format, Path(to) if to is not None else None)

    def __repr__(self) -> str:
        return f"Results({self.study!r})"

    def _repr_html_(self) -> str:
        """A notebook's view: the verdict, the board in short, and the report."""
        from orchestrator.board.verdict import verdict

        outcome = self.outcome()
        table = self.board()
        table = table[[*table.columns[:2], *SUMMARY]]
        return (
            f"<p><b>{html.escape(self.study)}</b>: {html.escape(verdict(outcome.board))}</p>"
            f"{table.to_html(index=False, na_rep='', float_format='{:.4g}'.format, border=0)}"
            f'<p><a href="{html.escape(outcome.report.as_uri())}">report</a></p>'
        )
