"""A plan from the throughput of one GPU, for machines and data that are elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import called
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from rich.console import Console

from methods.data.load import Reading
from methods.errors import DataError, StudyError
from orchestrator.cli.plan_table import frame, terminal
from orchestrator.search.plan import Plan, plan
from orchestrator.search.samplers import uninformed
from orchestrator.search.window import Window, waves
from orchestrator.study.file import Study
from orchestrator.study.space import spaces

BASE: dict[str, Any] = {
    "name": "s",
    "data": "cifar10",
    "budgets": [20],
    "recipe": {"epochs": 4},
    "methods": {"dense": {"depth": 8}, "skipnet": {"depth": 8}},
    "search": {"trials": 5, "sampler": "tpe"},
    "confirm": {"seeds": 2},
    "resources": {"gpu": 1, "cpu": 8},
}


def study(**changes: Any) -> Study:
    return Study.model_validate(BASE | changes)


@pytest.fixture(scope="module")
def rated() -> Plan:
    return plan(study(), rate=1000)


def shown(found: Plan) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(terminal(found))
    return capture.get()


def test_nothing_is_timed_or_read(rated: Plan) -> None:
    assert rated.stand_in
    assert rated.images == (45_000, 5_000, 10_000)
    assert all(method.steps == 0 for method in rated.methods)
    assert rated.rate is not None
    assert rated.rate.network == "dense (depth 8, width 1.0)"


def test_one_gpu_does_what_all_methods_ask_for(rated: Plan) -> None:
    assert rated.seconds is not None
    one, eight, many = rated.hours
    assert one.hours == pytest.approx(rated.seconds / 3600)
    assert eight.hours is not None
    assert many.hours is not None
    assert rated.seconds / 3600 / 8 <= eight.hours
    longest = max(method.longest_seconds or 0 for method in rated.methods)
    assert many.hours * 3600 > longest


def test_a_study_in_which_nothing_is_searched_is_planned() -> None:
    fixed = {"epochs": 4, "lr": 0.1}
    methods = {"dense": {"depth": 8, "width": 1}, "plain": {"method": "dense"}}
    methods["plain"] |= {"profile": "published", "depth": 14, "width": 1}
    found = plan(study(recipe=fixed, methods=methods, search={"trials": 1}), rate=1000)
    assert [method.free for method in found.methods] == [{}, {}]
    assert found.splits is not None
    assert found.splits.least == 4


def test_twice_the_rate_is_half_the_time(rated: Plan) -> None:
    twice = plan(study(), rate=2000)
    assert twice.seconds == pytest.approx((rated.seconds or 0) / 2)


def test_a_base_takes_its_time() -> None:
    started = plan(study(start={"skipnet": "base"}, base={"epochs": 3}), rate=1000)
    dense, skipnet = started.methods
    assert dense.base_seconds == 0
    assert (skipnet.base, started.rate and started.rate.images_per_second) == (3, 1000)
    assert skipnet.base_seconds == pytest.approx(3 * 45, rel=0.2)
    assert skipnet.seconds is not None
    assert skipnet.seconds > skipnet.base_seconds


def test_a_base_of_two_methods_is_trained_once() -> None:
    methods = {name: {"depth": 8, "width": 0.25} for name in ("skipnet", "resrep")}
    start = dict.fromkeys(methods, "base")
    found = plan(study(methods=methods, start=start, base={"epochs": 3}), rate=1000)
    first, second = found.methods
    assert first.base_seconds == second.base_seconds > 0
    assert found.seconds == (first.seconds or 0) + (second.seconds or 0) - second.base_seconds


def test_images_are_cut_to_the_size_that_is_trained_on() -> None:
    found = Reading("imagenet", resize=256).stand_in()
    assert found is not None
    assert (found.task.height, found.task.width) == (224, 224)
    assert found.train.head(2)[0].shape == (2, 3, 224, 224)
    with pytest.raises(DataError, match="resize must be at least the size"):
        Reading("imagenet", resize=200).stand_in()


def test_a_rate_says_nothing_of_milliseconds() -> None:
    with pytest.raises(StudyError, match="budgets must be in MACs, but they are in milliseconds"):
        plan(study(budgets={"latency_ms": [1.0], "batch": 1}), rate=1000)


def test_a_study_of_large_images_is_planned_on_a_laptop() -> None:
    methods = {"dense": {"family": "imagenet", "depth": 18, "width": 0.25}}
    large = study(data="imagenet", budgets=[400], methods=methods, resources={"gpu": 4, "cpu": 16})
    found = plan(large, rate=2500)
    assert found.images == (1_153_167, 128_000, 50_000)
    assert [each.trials for each in found.hours] == [0, 2, 5]
    text = " ".join(shown(found).split())
    assert "hours - " in text
    assert "imagenet was not read: it is known to have 1,281,167 images" in text
    assert "2,500 images/s of dense (depth 18, width 0.25, family imagenet)" in text


def test_the_terminal_and_files_have_the_hours(rated: Plan) -> None:
    text = shown(rated)
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert "An estimate; nothing was timed" in " ".join(text.split())
    whole = TypeAdapter(Plan)
    assert whole.validate_json(whole.dump_json(rated)) == rated
    table = frame(rated)
    assert list(table["study_hours_8_gpus"]) == [rated.hours[1].hours] * 2


def test_a_search_that_sees_nothing_on_many_gpus_is_told() -> None:
    methods = {"dense": {"depth": {"choices": [8, 14, 20]}}}
    what = study(methods=methods, search={"trials": 12, "sampler": "tpe"})
    (said,) = (said for said in plan(what, rate=1000).warnings if "blind" in said)
    assert "blind with 8 trials at once" in said


@pytest.mark.parametrize("rate", ["0", "-3", "nan", "fast"])
def test_a_rate_that_is_none_is_one_line_and_exit_code_2(
    rate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps(BASE))
    done = called(capsys, "plan", str(path), "--rate", rate)
    assert done.code == 2
    assert "rate" in done.err
    assert len(done.err.splitlines()) == 1


@given(st.integers(1, 40), st.integers(1, 64), st.sampled_from(["ehvi", "sobol", "tpe"]))
def test_waves_are_those_of_trials_that_wait_for_the_ones_before(
    trials: int, slots: int, sampler: str
) -> None:
    """Trials of equal length: each begins when the one `lag` before it has ended."""
    what = study(search={"trials": 40, "sampler": sampler})
    space = spaces(what)["dense"]
    follow, beside = waves(what, space, trials, slots)
    lag = Window.of(slots, 2).lag
    free = uninformed(space, what.search) + bool(space.opening)
    wave: list[int] = []
    for number in range(trials):
        waits = number >= free and number >= lag
        wave.append(wave[number - lag] + 1 if waits else 1)
    assert follow == max(wave)
    assert beside <= min(trials, slots)
