"""How many confirm runs a study takes, at most: before its searches have chosen anything."""

from orchestrator.board.rules import BASELINE
from orchestrator.study.file import Study
from orchestrator.study.space import Space


def confirm_runs(study: Study, space: Space) -> int:
    """Confirm runs of a method, of all repeats: a choice of its own at every budget."""
    choices = len(study.budgets)
    if study.confirm.matched and space.method == BASELINE:
        choices += len(study.methods) - 1
    return study.search.repeats * study.confirm.seeds * choices


def unreduced_runs(study: Study, space: Space) -> int:
    """Runs of what a method's choices at the primary budget are reduced from, of all repeats."""
    if not study.confirm.unreduced or space.method in study.controls or not space.unreduced():
        return 0
    return study.search.repeats * study.confirm.seeds
