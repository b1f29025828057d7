"""How many trials a machine is given: never more than it has room for."""

import logging
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.data.load import load
from methods.errors import ClusterError, StudyError
from methods.machine import cores
from orchestrator.study.check import prepare, prepared, slots, slots_here
from orchestrator.study.file import Study
from orchestrator.study.sections import Resources
from orchestrator.study.space import spaces

NODES = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=4)


@given(NODES, st.integers(1, 64))
def test_threads_of_all_trials_are_no_more_than_cores(
    nodes: list[tuple[float, float]], cpu: int
) -> None:
    try:
        held = slots(Resources(cpu=cpu), nodes)
    except ClusterError:
        assert all(cpus < cpu for cpus, _ in nodes)
        return
    assert held == sum(cpus // cpu for cpus, _ in nodes)
    assert held * cpu <= sum(cpus for cpus, _ in nodes)


def test_by_default_every_core_has_one_trial_of_one_thread() -> None:
    assert slots_here(Resources()) * max(1, int(Resources().cpu)) == cores()


@given(NODES, st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 2.0]))
def test_a_fraction_of_a_gpu_lies_on_one_of_them(
    nodes: list[tuple[float, float]], share: float
) -> None:
    held, each = 0, min(share, 1)
    for cpus, gpus in nodes:
        free = [1.0] * int(gpus)
        placed = 0
        while placed < cpus and any(f > each - 1e-9 for f in free):
            index = next(i for i, f in enumerate(free) if f > each - 1e-9)
            free[index] -= each
            placed += 1
        held += placed
    room = held // max(1, int(share))  # a trial's workers may lie on several nodes
    if room:
        assert slots(Resources(gpu=share), nodes) == room
    else:
        with pytest.raises(ClusterError, match="lower `resources`"):
            slots(Resources(gpu=share), nodes)


@pytest.mark.parametrize(
    ("resources", "nodes", "room"),
    [
        ({"gpu": 4}, [(16, 8)], 2),
        ({"gpu": 4, "cpu": 4}, [(16, 8)], 1),
        ({"gpu": 4}, [(16, 2), (16, 2)], 1),
        ({"workers": 2}, [(5, 0)], 2),
        ({"workers": 3, "cpu": 2}, [(4, 0), (3, 0)], 1),
    ],
)
def test_every_worker_of_a_trial_takes_cpus_and_at_most_one_gpu(
    resources: dict[str, float], nodes: list[tuple[float, float]], room: int
) -> None:
    assert slots(Resources.model_validate(resources), nodes) == room


def test_more_gpus_than_there_can_be_are_one_sentence() -> None:
    with pytest.raises(
        ClusterError, match="the 4 workers of a trial must fit, on 1 CPUs and a GPU each"
    ):
        slots(Resources(gpu=4), [(16, 1), (16, 2)])


@pytest.mark.parametrize(
    "resources", [{"workers": 2, "gpu": 4}, {"workers": 2, "gpu": 0.5}, {"workers": 1, "gpu": 2}]
)
def test_a_worker_of_several_has_one_whole_gpu_or_none(resources: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="each of a trial's workers must have one whole GPU"):
        Resources.model_validate(resources)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"recipe": {"epochs": 4, "batch_size": 6}}, "must have two images of a batch"),
        ({"budgets": {"latency_ms": [5.0], "batch": 1}}, "are measured by one worker"),
    ],
)
def test_what_several_workers_cannot_do_is_refused(changes: dict[str, object], match: str) -> None:
    study = Study.model_validate(
        {
            "name": "spread",
            "data": "digits",
            "budgets": [1.0],
            "methods": {"dense": {"depth": 8, "width": 0.25}},
            "recipe": {"epochs": 4},
            "resources": {"workers": 4},
            **changes,
        }
    )
    with pytest.raises(StudyError, match=match):
        prepare(study)


def test_the_study_may_ask_for_fewer() -> None:
    assert slots(Resources(concurrency=3), [(8, 0)]) == 3
    assert slots(Resources(concurrency=30), [(8, 0)]) == 8


@pytest.mark.parametrize(("precision", "warned"), [("bf16", True), ("fp32", False)])
def test_bf16_that_would_be_emulated_is_told_of_before_a_worker_is_taken(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: str,
    warned: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    recipe: dict[str, Any] = {"epochs": 1, "precision": precision}
    study = Study.model_validate(
        {
            "name": "s",
            "data": "digits",
            "budgets": [1],
            "recipe": recipe,
            "methods": {"dense": {"depth": 8, "width": 0.25}},
        }
    )
    with caplog.at_level(logging.WARNING):
        prepared(study, load("digits"), spaces(study))
    assert ("no native bf16" in caplog.text) is warned
