"""What mattered in a search: the hyperparameter that decides is told from those that do not."""

import numpy as np
import pytest
from boards import row

from orchestrator.report.importance import LEAST, importances
from orchestrator.study.file import Study

STUDY = Study.model_validate(
    {
        "name": "s",
        "data": "digits",
        "budgets": [1],
        "methods": {
            "dense": {"depth": {"choices": [8, 14]}, "width": {"low": 0.25, "high": 1.0}},
            "resrep": {"depth": 8, "width": 0.5, "target": {"low": 0.3, "high": 0.8}},
        },
        "recipe": {"lr": {"low": 0.01, "high": 0.2, "log": True}},
    }
)


def trials(count, *, macs=9e5):
    """The width decides; depth and learning rate do nothing."""
    draw, rows = np.random.default_rng(0), []
    for i in range(count):
        width, depth = float(draw.choice([0.25, 0.5, 0.75, 1.0])), int(draw.choice([8, 14]))
        lr = float(np.exp(draw.uniform(np.log(0.01), np.log(0.2))))
        rows.append(
            row(
                trial=f"dense-{i:05d}",
                params={"depth": depth, "width": width, "recipe.lr": lr},
                val_acc=0.5 + 0.4 * width + draw.normal(0, 0.005),
                val_macs_mean=macs,
            )
        )
    return rows


def test_what_decides_comes_first_and_its_best_range_is_told():
    found = importances(STUDY, trials(40), 1.0)
    assert [one.method for one in found] == ["dense"] * 3
    first, *others = found
    assert (first.field, first.trials) == ("width", 40)
    assert first.searched.startswith("0.25 to 1")
    assert first.share > 0.7
    assert first.share > max(one.hi for one in others)
    assert sum(one.share for one in found) == pytest.approx(1)
    assert all(one.lo <= one.share <= one.hi for one in found)
    assert first.best in ("1", "0.75 to 1")
    assert next(one for one in others if one.field == "depth").best in ("8 to 14", "14", "8")


def test_few_trials_or_dear_ones_say_nothing():
    assert importances(STUDY, trials(LEAST - 1), 1.0) == []
    assert importances(STUDY, trials(40, macs=2e6), 1.0) == []


def test_what_lies_outside_of_the_space_is_left_out():
    published = row(trial="dense-00099", params={"depth": 20, "width": 4.0, "recipe.lr": 0.1})
    rows = trials(20)
    assert importances(STUDY, [*rows, published], 1.0) == importances(STUDY, rows, 1.0)
