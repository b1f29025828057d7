"""Times from the throughput of one GPU: MACs of a step, and the hours of a study."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods import METHODS
from methods.api import Task
from methods.data.load import Reading
from methods.errors import StudyError
from methods.training.recipe import Recipe
from orchestrator.study.sections import Resources
from orchestrator.trial.rate import Hours, Load, Rate, check_rate, counted, slots_on

TASK = Task("cifar10", 3, 32, 32, 10)
SMALL: dict[str, dict[str, Any]] = {
    "dense": {"depth": 8},
    "skipnet": {"depth": 8},
    "condensenet": {"stages": "2-2-2"},
    "condconv": {"depth": 8, "experts": 4},
    "dsnet": {"depth": 8},
    "resrep": {"depth": 8},
}


def test_a_step_of_a_plain_network_is_three_passes_but_for_the_gradient_of_its_images() -> None:
    dense = METHODS["dense"].of({"depth": 20})
    ((step, call),) = counted(dense, Recipe(), TASK)
    stem = 27 * 16 * 32 * 32
    assert call == dense.floor(TASK)
    assert step == 3 * call - stem


@pytest.mark.parametrize("fields", [{"family": "mobilenet-v1"}, {"depth": 20, "experts": 8}])
def test_groups_do_not_make_a_step_dearer(fields: dict[str, Any]) -> None:
    """PyTorch's own rule counts the gradient of a depthwise convolution's kernel a hundredfold."""
    ((step, call),) = counted(METHODS["condconv"].of(fields), Recipe(), TASK)
    assert 2.5 * call < step <= 3 * call


@pytest.mark.parametrize("name", list(METHODS.own))
def test_every_phase_of_every_method_is_counted(name: str) -> None:
    method = METHODS[name].of(SMALL[name])
    costs = counted(method, Recipe(), TASK)
    assert len(costs) == len(method.phases())
    assert all(step > 0 and call > 0 for step, call in costs)


def test_a_supernet_s_step_has_all_its_widths_and_the_teacher() -> None:
    (supernet, gate) = counted(METHODS["dsnet"].of({"depth": 14}), Recipe(), TASK)
    assert supernet[0] > 4 * supernet[1] > 0
    assert gate[0] < supernet[0] / 4


def test_counting_moves_no_random_numbers() -> None:
    first = counted(METHODS["skipnet"].of(SMALL["skipnet"]), Recipe(), TASK)
    assert counted(METHODS["skipnet"].of(SMALL["skipnet"]), Recipe(), TASK) == first


def test_a_trial_takes_its_images_at_the_rate_of_its_network() -> None:
    data = Reading("cifar10").stand_in()
    assert data is not None
    dense, recipe = METHODS["dense"].of({"depth": 8}), Recipe(epochs=10)
    rate = Rate.of(1000, "dense", dense, recipe, data.task)
    ((step, call),) = counted(dense, recipe, data.task)
    timing = rate.timing(dense, recipe, data)
    assert timing.seconds == pytest.approx(10 * (45_000 + 5_000 * call / step) / 1000)
    assert timing.steps == 0


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf, 1e10])
def test_what_is_no_throughput_is_refused(rate: float) -> None:
    with pytest.raises(StudyError, match="above 0 and at most 1e9"):
        check_rate(rate)


@pytest.mark.parametrize(
    ("resources", "slots"),
    [
        ({"gpu": 1}, (1, 8, 64)),
        ({"gpu": 0.25}, (4, 32, 256)),
        ({"gpu": 0.3}, (3, 24, 192)),
        ({"gpu": 4}, (0, 2, 16)),
        ({}, (1, 8, 64)),
        ({"workers": 2}, (0, 4, 32)),
        ({"gpu": 1, "concurrency": 6}, (1, 6, 6)),
    ],
)
def test_trials_at_once(resources: dict[str, Any], slots: tuple[int, ...]) -> None:
    found = tuple(slots_on(Resources(**resources), gpus) for gpus in (1, 8, 64))
    assert found == slots


def load(**changes: Any) -> Load:
    plain: dict[str, Any] = {"base": 0, "search": 80, "confirm": 50, "trial": 10, "longest": 10}
    return Load(**{**plain, "shared": False, "waves": 4, "beside": 2, "runs": 5, **changes})


def test_a_gpu_alone_does_all_the_work_and_many_are_bound_by_what_follows() -> None:
    loads, one = [load()], Resources(gpu=1)
    assert Hours.of(loads, one, 1).hours == 130 / 3600
    many = Hours.of(loads, one, 64)
    assert many.hours == (4 * 10 + 10) / 3600
    assert (many.trials, many.busy, many.cores) == (5, 5, 5)
    four = Hours.of(loads, Resources(gpu=4, cpu=2), 8)
    assert four.hours == pytest.approx((80 / 8 + 50 / 8) / 3600)
    assert (four.trials, four.busy, four.cores) == (2, 8, 16)
    quarter = Hours.of(loads, Resources(gpu=0.25), 64)
    assert quarter.hours == pytest.approx(4 * (4 * 10 + 10) / 3600), "four share one GPU's rate"
    assert Hours.of(loads, Resources(gpu=4), 1).hours is None


def test_a_base_that_several_methods_share_is_trained_once() -> None:
    loads = [load(base=20), load(base=20, shared=True)]
    assert Hours.of(loads, Resources(gpu=1), 1).hours == (20 + 2 * 130) / 3600
    assert Hours.of(loads, Resources(gpu=1), 64).hours == (20 + 4 * 10 + 10) / 3600


@given(
    st.lists(
        st.builds(
            load,
            base=st.floats(0, 100),
            search=st.floats(1, 1000),
            confirm=st.floats(0, 1000),
            trial=st.floats(1, 100),
            longest=st.floats(0, 100),
            waves=st.integers(1, 50),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_more_gpus_take_no_longer_and_all_take_as_long_as_each(loads: list[Load]) -> None:
    resources = Resources(gpu=0.5)
    previous = math.inf
    for gpus in (1, 8, 64):
        found = Hours.of(loads, resources, gpus)
        alone = [Hours.of([each], resources, gpus).hours or 0.0 for each in loads]
        assert found.hours is not None
        assert max(alone) - 1e-9 <= found.hours <= min(sum(alone), previous) + 1e-9
        assert found.busy <= gpus
        previous = found.hours
