"""The rules that a study declares, and those of a comparison at other budgets."""

import pytest

from methods.api import Task
from methods.errors import StudyError
from orchestrator.board.rules import LOOKS, Rules
from orchestrator.record.provenance import provenance
from orchestrator.study.file import Study

STUDY = Study.model_validate(
    {
        "name": "demo",
        "data": "digits",
        "budgets": [1, 2, 4],
        "primary": 2,
        "targets": [0.9],
        "methods": {"skipnet": {}, "resrep": {}, "again": {"method": "resrep"}},
        "confirm": {"seeds": 4, "race": True, "budget": 6},
    }
)
PROVENANCE = provenance(STUDY, Task("shapes", 1, 8, 8, 4), 360)


def test_a_study_declares_its_rules() -> None:
    rules = Rules.of(STUDY, PROVENANCE)
    assert (rules.study, rules.budgets, rules.primary) == ("demo", (1, 2, 4), 2)
    assert (rules.chance, rules.images, rules.targets) == (0.25, 360, (0.9,))
    assert (rules.seeds, rules.extra, rules.controls) == (4, 6, {"again": "resrep"})
    assert rules.primary_declared
    assert rules.undeclared == ()
    assert not Rules.of(STUDY, PROVENANCE, primary=4).primary_declared


def test_every_look_of_a_race_has_its_share_of_the_level() -> None:
    assert Rules.of(STUDY).level == pytest.approx(1 - 0.05 / LOOKS)
    assert Rules(budgets=(1,), primary=1).level == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("budgets", "primary", "undeclared"),
    [((1, 2), 2, ()), ((1, 3), 3, (3,)), ((5, 0.5, 2), 2, (0.5, 5))],
)
def test_other_budgets_choose_among_what_was_confirmed(
    budgets: tuple[float, ...], primary: float, undeclared: tuple[float, ...]
) -> None:
    rules = Rules.between(STUDY, PROVENANCE, budgets)
    assert (rules.budgets, rules.primary) == (tuple(sorted(budgets)), primary)
    assert rules.undeclared == undeclared
    assert rules.declared == tuple(b for b in rules.budgets if b not in undeclared)
    assert rules.methods == ("skipnet", "resrep", "again")
    assert rules.primary_declared == (2 in budgets)


@pytest.mark.parametrize(("budgets", "primary"), [((), 1), ((0, 1), 1), ((1, 2), 3)])
def test_rules_without_a_ladder_are_refused(budgets: tuple[float, ...], primary: float) -> None:
    with pytest.raises(StudyError, match=r"budgets? must be"):
        Rules(budgets=budgets, primary=primary)
