"""The errors that a user can cause, as one tree; the command line prints each in one line.

IsoflopError
├── MethodError     an invalid hyperparameter, image shape or method
├── DataError       a data set that is missing, unlabelled or too small
├── StudyError      a study file that cannot be run as written
├── SearcherError   a searcher of yours that is not there, raises, hangs or leaves its space
├── StorageError    a folder, a ledger or an MLflow store that cannot be used
│   ├── DiskFull    the disk is full; the same command resumes once there is space
│   ├── DatabaseAway a database does not answer; the same command resumes once it does
│   └── BucketAway  a bucket does not answer; the same command resumes once it does
├── ExportError     a run or a format that cannot be exported, or an export that was altered
├── EvidenceError   a board that does not follow from the stored evidence
├── ClusterError    resources that no available machine has
│   ├── ClusterDown Ray does not start or does not answer
│   └── ClusterLost Ray died repeatedly; the same command resumes
├── KubernetesError an unusable cluster file, namespace or API server
│   ├── ServerAway  an API server does not answer; try the same command again later
│   └── SweepFailed a sweep on Kubernetes that failed or was stopped
├── Diverged        a trial whose numbers are not finite; it ends the trial, never the sweep
├── PeerLost        a worker of a trial whose other workers are gone; the trial is served again
└── WrongPrice      a network that executes other MACs than its price; it ends the trial, too
"""

from collections.abc import Sequence

from methods.names import similar


class IsoflopError(Exception):
    """A user's mistake. The message states what must hold, what was found, and what would work.

    `at` is the place of the mistake in a study or a cluster file: keys, outermost first.
    """

    exit_code = 2
    """Exit code of the command line; 1 where the request itself is valid."""

    def __init__(self, message: str = "", *, at: Sequence[int | str] = ()) -> None:
        super().__init__(message)
        self.at = tuple(at)


class MethodError(IsoflopError, ValueError):
    """An invalid hyperparameter, image shape or method; a pydantic validator may raise it too."""


class DataError(IsoflopError):
    """A data set that is missing, unlabelled or too small."""


class StudyError(IsoflopError):
    """A study file that cannot be run as written."""


class SearcherError(IsoflopError):
    """A searcher of a user that is not there, raises, hangs or leaves its space."""


class StorageError(IsoflopError):
    """A folder, a ledger or an MLflow store that cannot be used."""


class ClusterError(IsoflopError):
    """Resources that no available machine has."""


class ExportError(IsoflopError):
    """A run or a format that cannot be exported, or an export that was altered."""


class EvidenceError(IsoflopError):
    """Numbers that do not follow from the stored evidence, or evidence that is missing."""

    exit_code = 1


class DiskFull(StorageError):
    """The disk is full; nothing is lost."""

    exit_code = 1


class DatabaseAway(StorageError):
    """A database that does not answer; nothing is lost."""

    exit_code = 1


class BucketAway(StorageError):
    """A bucket that does not answer, or lacks what was written; nothing is lost."""

    exit_code = 1


class ClusterDown(ClusterError):
    """A Ray that does not start or does not answer; the message gives the reason and a remedy."""

    exit_code = 1


class ClusterLost(ClusterError):
    """Ray died repeatedly; nothing is lost."""

    exit_code = 1


class KubernetesError(IsoflopError):
    """An unusable cluster file, namespace or API server."""


class ServerAway(KubernetesError):
    """An API server that does not answer or is temporarily unable to."""

    exit_code = 1


class SweepFailed(KubernetesError):
    """A sweep on Kubernetes that failed, was stopped or was deleted; gives reason and message."""

    exit_code = 3


class Diverged(IsoflopError):
    """A loss, a weight or a figure is not finite; the trial fails, and the message says where."""

    exit_code = 1


class PeerLost(IsoflopError):
    """Another worker of the same trial is gone; the trial resumes from its checkpoint."""

    exit_code = 1


class WrongPrice(IsoflopError):
    """A deployed network that executes other MACs than its price: a fault of its method."""

    exit_code = 1


def nearest(name: str, valid: Sequence[str]) -> str:
    """A hint for a misspelt name: the closest valid names, then all of them."""
    close = similar(name, valid)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"
