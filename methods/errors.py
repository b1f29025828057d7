"""What a user can do wrong, as one tree; the command line prints any of it in one line.

IsoflopError
├── MethodError     a hyperparameter, a shape or a method that cannot be
├── DataError       a data set that is missing, unlabelled or too small
├── StudyError      a study file that cannot be run as written
├── StorageError    a folder, a ledger or an MLflow store that cannot be used
│   ├── DiskFull    a write that found no room; the same command goes on once there is some
│   └── DatabaseAway a database that does not answer; the same command goes on once it does
├── ExportError     a run or a format that cannot be exported, or an export that was altered
├── EvidenceError   a board that does not follow from the evidence that was kept
├── ClusterError    resources that no machine at hand has
│   └── ClusterLost a Ray that died again and again; the same command goes on
└── KubernetesError a cluster file, a namespace or an API server that will not do
    ├── ServerAway  an API server that does not answer; the same command may, later
    └── SweepFailed a sweep on Kubernetes that ended, and not well
Diverged            a trial whose numbers are not finite: ends the trial, never the sweep
"""

from collections.abc import Sequence

from methods.names import similar


class IsoflopError(Exception):
    """A mistake of the user: says what must hold, what was found, what would do.

    `at` is where in a study or a cluster file the mistake stands: keys, outermost first.
    """

    exit_code = 2
    """Of the command line; 1 where nothing is wrong with what was asked for."""

    def __init__(self, message: str = "", *, at: Sequence[int | str] = ()) -> None:
        super().__init__(message)
        self.at = tuple(at)


class MethodError(IsoflopError, ValueError):
    """A hyperparameter, a shape or a method that cannot be; a validator may raise it as it is."""


class DataError(IsoflopError):
    """A data set that is missing, unlabelled or too small."""


class StudyError(IsoflopError):
    """A study file that cannot be run as written."""


class StorageError(IsoflopError):
    """A folder, a ledger or an MLflow store that cannot be used."""


class ClusterError(IsoflopError):
    """Resources that no machine at hand has."""


class ExportError(IsoflopError):
    """A run or a format that cannot be exported, or an export that is not as it was written."""


class EvidenceError(IsoflopError):
    """Numbers that do not follow from the evidence that was kept, or evidence that is missing."""

    exit_code = 1


class DiskFull(StorageError):
    """A write that found no room; nothing is lost."""

    exit_code = 1


class DatabaseAway(StorageError):
    """A database that does not answer; nothing is lost."""

    exit_code = 1


class ClusterLost(ClusterError):
    """A Ray that died again and again; nothing is lost."""

    exit_code = 1


class KubernetesError(IsoflopError):
    """A cluster file, a namespace or an API server that will not do."""


class ServerAway(KubernetesError):
    """An API server that does not answer, or cannot at the moment."""

    exit_code = 1


class SweepFailed(KubernetesError):
    """A sweep on Kubernetes that failed, was stopped or was deleted: with reason and message."""

    exit_code = 3


class Diverged(Exception):
    """A loss, a weight or a figure that is not finite; the trial has failed and says where."""


def nearest(name: str, valid: Sequence[str]) -> str:
    """The hint that follows a misspelt name: the closest valid ones, and all of them."""
    close = similar(name, valid)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"
