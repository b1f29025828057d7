"""MLflow: a projection of the write-ahead log, and studies read back from it.

This room alone imports mlflow.
"""

from orchestrator.store.mirror import project
from orchestrator.store.place import check, claim
from orchestrator.store.projector import Projector
from orchestrator.store.published import link, read_latencies, read_study, write_board
from orchestrator.store.raw import Stored, StoredRun, fetch_evidence, read_stored
from orchestrator.store.trials import read_curves, read_rows, read_trials, trial_of

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
    "read_study",
    "read_trials",
    "trial_of",
    "write_board",
]
