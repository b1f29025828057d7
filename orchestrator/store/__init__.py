"""MLflow: a projection of the write-ahead log, and studies read back from it.

This room alone imports mlflow. Each name is imported at its first use: the process that writes to
MLflow needs neither torch nor scipy, and starts in half the time without them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.store.mirror import project
    from orchestrator.store.place import check, claim
    from orchestrator.store.projector import Projector
    from orchestrator.store.published import (
        link,
        read_latencies,
        read_studies,
        read_study,
        write_board,
    )
    from orchestrator.store.raw import Stored, StoredRun, fetch_evidence, read_stored
    from orchestrator.store.trials import read_curves, read_rows, read_trials, trial_of

_NAMES = {
    "mirror": ["project"],
    "place": ["check", "claim"],
    "projector": ["Projector"],
    "published": ["link", "read_latencies", "read_studies", "read_study", "write_board"],
    "raw": ["Stored", "StoredRun", "fetch_evidence", "read_stored"],
    "trials": ["read_curves", "read_rows", "read_trials", "trial_of"],
}
"""Module -> what it defines for other rooms."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Projector",
    "Stored",
    "StoredRun",
    "check",
    "claim",
    "fetch_evidence",
    "link",
    "project",
    "read_curves",
    "read_latencies",
    "read_rows",
    "read_stored",
    "read_studies",
    "read_study",
    "read_trials",
    "trial_of",
    "write_board",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
