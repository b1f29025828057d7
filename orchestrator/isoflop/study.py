"""A study, with methods that plan and run it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pydantic

from isoflop.shipped import study_file
from methods.errors import StudyError
from orchestrator.study import file
from orchestrator.study.reading import explained, plain

if TYPE_CHECKING:
    from isoflop.results import Results
    from orchestrator.record.ledger import Listener
    from orchestrator.search.plan import Plan


class Study(file.Study):
    """A study, with the fields of a study file; it can be planned and run.

    >>> study = Study(name="mine", data="digits", budgets=[0.5, 1], methods={"dense": {}})
    >>> study.search.trials
    20

    Raises:
        StudyError: a field that cannot be as given.
    """

    def __init__(self, **fields: Any) -> None:
        try:
            values = plain(fields)
            super().__init__(**values)
        except pydantic.ValidationError as error:
            at, sentence = explained(file.Study, values, error)
            raise StudyError(sentence, at=at) from None
        except ValueError as error:
            raise StudyError(str(error)) from None

    @classmethod
    def load(cls, study: str | Path) -> Self:
        """The study in a YAML file, or the shipped study of this name.

        >>> Study.load("quickstart").budgets
        [0.1, 0.3]

        Raises:
            StudyError: there is no such study, or its file cannot be as written.
        """
        return cls.read(study_file(study))

    def plan(
        self,
        *,
        steps: int = 5,
        out: str | Path = "runs",
        mlflow: str | None = None,
        optuna: str | None = None,
        bucket: str | None = None,
        elsewhere: bool = False,
        rate: float | None = None,
    ) -> "Plan":
        """Estimate which budgets the study can meet, how long it takes and which differences its
        seeds can detect; runs no trial.

        It fails wherever `run` would fail with the same arguments.

        Args:
            steps: the length of each epoch that is timed; 0 times nothing.
            out: the folder that holds a folder per study.
            mlflow: MLflow's tracking URI; by default an SQLite store in `out`.
            optuna: Optuna's database (SQLAlchemy URL) instead of a journal file.
            bucket: the bucket in which the trials keep their files.
            elsewhere: plan for another machine; this one may be too small for a trial.
            rate: images per second that one GPU trains of dense's defaults in this study, or else
                of its first method's. Times are then derived from it, with hours on 1, 8 and 64
                GPUs; only the study is checked, and well-known data sets are not read.

        >>> study = Study(name="mine", data="digits", budgets=[1], methods={"dense": {}})
        >>> study.plan(steps=0).methods[0].trials
        20

        Raises:
            StudyError, MethodError, DataError, ClusterError: the study cannot run on this machine.
            StorageError: a folder or a store that cannot be used.
        """
        from orchestrator.search.plan import plan
        from orchestrator.sweep.ready import Place, ready

        if rate is not None:
            return plan(self, rate=rate)
        address = None if elsewhere else "local"
        place = Place(out=Path(out), mlflow=mlflow, optuna=optuna, address=address, bucket=bucket)
        ready(self, place)
        return plan(self, steps=steps)

    def run(
        self,
        out: str | Path = "runs",
        *,
        mlflow: str | None = None,
        address: str = "local",
        slots: int | None = None,
        optuna: str | None = None,
        bucket: str | None = None,
        patience: float = 0,
        listener: "Listener | None" = None,
    ) -> "Results":
        """Search, confirm and publish the board; the same call resumes an interrupted sweep.

        Args:
            out: the folder that holds a folder per study.
            mlflow: MLflow's tracking URI; by default an SQLite store in `out`.
            address: a Ray cluster; "local" starts Ray on this machine.
            slots: trials at once, on a cluster whose number of nodes changes.
            optuna: Optuna's database (SQLAlchemy URL) instead of a journal file.
            bucket: s3://BUCKET/PREFIX, where trials keep their files instead of in `out`, which
                then only this machine needs to see.
            patience: seconds to wait for another driver of the study to end.
            listener: is called with each event of the sweep.

        >>> study = Study.load("quickstart")
        >>> results = study.run(out="runs")  # doctest: +SKIP

        Raises:
            IsoflopError: the study, the data, the folder, the store or the resources are unusable.
            KeyboardInterrupt: the sweep was interrupted.
        """
        from isoflop.results import Results
        from orchestrator.sweep import run as sweep
        from orchestrator.sweep.ready import Place

        place = Place(out=Path(out), mlflow=mlflow, optuna=optuna, address=address, bucket=bucket)
        outcome = sweep.run(self, place, slots=slots, patience=patience, listener=listener)
        return Results(self.name, out, mlflow=mlflow, outcome=outcome)
