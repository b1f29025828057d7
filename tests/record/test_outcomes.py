"""A trial's outcome is one word for users, whatever the log of any version calls it."""

import pytest

from orchestrator.record.result import Ending, Outcome

DEAR = "costs 2.282 MMACs at least, the largest budget is 1"


@pytest.mark.parametrize(
    ("state", "reason", "said", "took_a_worker"),
    [
        ("COMPLETE", None, "COMPLETE", True),
        ("PRUNED", "off the front", "PRUNED: off the front", True),
        ("FAIL", "diverged: loss is nan", "FAIL: diverged: loss is nan", True),
        ("FAIL", "refused by the host: no memory", "FAIL: refused by the host: no memory", True),
        ("FAIL", f"over budget: {DEAR}", f"over budget: {DEAR}", False),
        ("FAIL", "refused: width: must be 1", "refused: width: must be 1", False),
        ("FAIL", f"refused: {DEAR}", f"over budget: {DEAR}", False),  # of an earlier version
        ("FAIL", f"refused: a block {DEAR}", f"refused: a block {DEAR}", False),
    ],
)
def test_an_outcome_has_a_word_and_a_reason(
    state: str, reason: str | None, said: str, took_a_worker: bool
) -> None:
    outcome = Outcome.of(state, reason)
    assert str(outcome) == said
    assert outcome.took_a_worker == took_a_worker


@pytest.mark.parametrize("word", ["over budget", "refused"])
def test_an_outcome_comes_back_from_the_log(word: str) -> None:
    outcome = Outcome(word, "why: because")
    ending = Ending.without_a_worker(outcome)
    assert Outcome.of(ending.state, ending.reason) == outcome
