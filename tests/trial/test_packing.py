"""Trials at once on one device: what is measured, and what is proposed of it."""

from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter

from methods.data.load import Reading
from orchestrator.cli.plan_table import packed
from orchestrator.search.plan import Plan, plan
from orchestrator.study.file import Study
from orchestrator.trial import packing as packing_room
from orchestrator.trial.packing import Packing, Trial, choose, packing

TRIAL = Trial(
    "dense",
    {"depth": 8, "width": 0.25, "recipe.epochs": 1, "recipe.batch_size": 32},
    Reading("digits"),
    0,
)
STUDY = Study.model_validate(
    {
        "name": "s",
        "data": "digits",
        "budgets": [1],
        "recipe": {"epochs": 2},
        "methods": {"dense": {"depth": 8, "width": 0.25}},
    }
)
FOUND = Packing(
    device="H100", method="dsnet", throughput={1: 100, 2: 190, 4: 300}, memory=0.02, trials=4
)


@pytest.mark.parametrize(
    ("throughput", "trials"),
    [
        ({1: 100}, 1),
        ({1: 100, 2: 190, 4: 300, 8: 250}, 4),
        ({1: 100, 2: 103}, 1),  # not worth a second one
        ({1: 100, 2: 180, 4: 188}, 2),
        ({1: 100, 2: 60}, 1),
    ],
)
def test_the_fewest_trials_that_reach_nearly_the_best(
    throughput: dict[int, float], trials: int
) -> None:
    assert choose(throughput) == trials


@pytest.mark.full
def test_trials_are_trained_beside_each_other() -> None:
    found = packing(TRIAL, "cpu", at_once=(1, 2), seconds=0.1)
    assert found is not None
    assert list(found.throughput) == [1, 2]
    assert all(rate > 0 for rate in found.throughput.values())
    assert found.trials == choose(found.throughput)


def test_a_trial_that_does_not_train_proposes_nothing() -> None:
    broken = TRIAL._replace(params={**TRIAL.params, "depth": 9})
    assert packing(broken, "cpu", at_once=(1,), seconds=0.1) is None


def test_the_proposal_is_what_to_write_into_the_study() -> None:
    said = packed(FOUND)
    assert "1 x1.00, 2 x1.90, 4 x3.00" in said
    assert "2% of its memory" in said
    assert "`resources: {gpu: 0.25}`, 4 trials on each" in said
    assert "1 trial on each" in packed(replace(FOUND, trials=1))


@pytest.mark.parametrize(
    ("rates", "engine"),
    [
        ({}, "eager"),
        ({"compiled": 104.0, "graphs": 90.0}, "eager"),
        ({"compiled": 130.0, "graphs": 160.0}, "graphs"),
        ({"compiled": 130.0, "graphs": None}, "compiled"),
        ({"compiled": None, "graphs": None}, "eager"),
    ],
)
def test_the_proposed_engine_is_worth_its_compilation(
    rates: dict[str, float | None], engine: str
) -> None:
    found = replace(FOUND, engines=rates)
    assert found.engine == engine
    said = packed(found)
    assert (f"`recipe: {{engine: {engine}}}`" in said) == (engine != "eager")
    assert said.count("does not train") == sum(rate is None for rate in rates.values())


@pytest.mark.full
def test_engines_are_measured_beside_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing_room, "engines", lambda _device: ("eager", "compiled"))
    found = packing(TRIAL, "cpu", at_once=(1,), seconds=0.1)
    assert found is not None
    assert (found.engines["compiled"] or 0) > 0


def test_without_a_gpu_the_plan_has_no_proposal_and_json_keeps_one() -> None:
    found = plan(STUDY, steps=0)
    assert found.packing is None
    whole = TypeAdapter(Plan)
    one = replace(found, packing=FOUND)
    assert whole.validate_json(whole.dump_json(one)) == one


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_packed_as_its_memory_allows() -> None:
    study = STUDY.model_copy(update={"resources": STUDY.resources.model_copy(update={"gpu": 1})})
    found = plan(study, steps=1).packing
    assert found is not None
    assert 0 < found.memory * found.trials < 1
    assert found.trials in found.throughput
