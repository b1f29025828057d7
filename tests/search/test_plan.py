"""What a study would do, told before it runs: reach, effort, and what its seeds can tell."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import called
from pydantic import TypeAdapter
from rich.console import Console
from scipy import stats

from methods import METHODS
from methods.data.load import load as load_data
from methods.errors import StudyError
from orchestrator.board.rules import LOOKS
from orchestrator.board.stats.power import detectable
from orchestrator.cli.plan_table import terminal
from orchestrator.live.tally import Tally
from orchestrator.record.events import decode_points
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import Ending
from orchestrator.search.confirming import confirm_plan
from orchestrator.search.plan import Plan, plan
from orchestrator.search.samplers import propose
from orchestrator.search.samples import SAMPLES, sampled
from orchestrator.search.split import SEED_SD, _search
from orchestrator.search.window import sight, warning
from orchestrator.study.file import Study, load
from orchestrator.study.params import parts
from orchestrator.study.space import spaces
from orchestrator.trial.timing import time_trial

ROOT = Path(__file__).parents[2]
BASE: dict[str, Any] = {
    "name": "s",
    "data": "digits",
    "budgets": [0.06, 0.5, 1],
    "recipe": {"epochs": 4, "batch_size": 64, "lr": {"low": 0.03, "high": 0.3, "log": True}},
    "methods": {
        "dense": {"depth": {"choices": [8, 14]}, "width": {"low": 0.25, "high": 1}},
        "skipnet": {"depth": 8, "width": {"low": 0.25, "high": 1}},
    },
    "search": {"trials": 5, "sampler": "sobol"},
    "confirm": {"seeds": 2},
}


def study(**changes: Any) -> Study:
    return Study.model_validate(BASE | changes)


def shown(found: Plan) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(terminal(found))
    return capture.get()


@pytest.fixture(scope="module")
def untimed() -> Plan:
    return plan(study(), steps=0)


def test_shares_lie_within_0_and_1_and_rise_with_the_budget(untimed: Plan) -> None:
    for method in untimed.methods:
        assert all(0 <= share <= 1 for share in (method.refused, *method.fits))
        assert all(low <= high for low, high in itertools.pairwise(method.fits))
        assert method.most is not None
        assert method.least <= method.most
        assert method.samples == SAMPLES


def test_dense_costs_what_it_costs_untrained(untimed: Plan) -> None:
    what = study()
    space = spaces(what)["dense"]
    task = load_data("digits").task
    floors = [space.method_at(place).floor(task) for place in sampled(what, space)]
    dense = untimed.methods[0]
    assert dense.most == max(floors)
    assert dense.least == space.floor(task)
    assert dense.fits[1] == np.mean([floor <= 5e5 for floor in floors])


def test_the_samples_are_the_points_that_the_search_goes_through() -> None:
    what = study()
    space = spaces(what)["dense"]
    proposed = [propose(space, [], what, number) for number in (1, 2, 3)]
    assert sampled(what, space)[:3] == proposed


def test_the_counts_are_those_of_the_run(untimed: Plan) -> None:
    counted = sum(method.trials + method.confirm for method in untimed.methods)
    assert counted == Tally(study()).planned
    assert all(m.most_epochs == (5 + 2 * 3) * 4 for m in untimed.methods)


def test_a_method_best_in_another_way_at_every_budget_takes_every_confirm_run(
    untimed: Plan, tmp_path: Path
) -> None:
    what = study()
    ledger = Ledger(tmp_path, what)
    space = spaces(what)["dense"]
    for width, macs, accuracy in ((0.25, 5e4, 0.7), (0.5, 4e5, 0.8), (0.75, 9e5, 0.9)):
        ticket = ledger.history.add(space, {**space.defaults(), "width": width})
        ledger.history.start(ticket)
        point = {"point": "", "val_acc": accuracy, "val_macs_mean": macs}
        ledger.history.end(ticket.trial, Ending("COMPLETE", points=decode_points([point])))
    assert len(confirm_plan(ledger.history)) == untimed.methods[0].confirm
    ledger.close()


def test_epochs_that_are_searched_are_counted_at_their_most() -> None:
    recipe = BASE["recipe"] | {"epochs": {"low": 2, "high": 9}}
    found = plan(study(recipe=recipe, methods={"dense": {"depth": 8}}), steps=0).methods[0]
    assert found.epochs == (2, 9)
    assert found.most_epochs == (5 + 6) * 9


def test_a_space_of_one_configuration_is_one_sample() -> None:
    only = study(recipe={"epochs": 2}, methods={"dense": {"depth": 8, "width": 0.5}})
    found = plan(only, steps=0).methods[0]
    assert (found.samples, found.free) == (1, {})
    assert "nothing" in shown(plan(only, steps=0))


def test_a_budget_under_every_method_warns_and_one_under_all_budgets_is_refused() -> None:
    low = plan(study(budgets=[0.001, 1]), steps=0)
    assert any("No sample of any method fits 0.001 MMACs" in said for said in low.warnings)
    with pytest.raises(StudyError, match="raise `budgets`"):
        plan(study(budgets=[0.001]), steps=0)


def test_a_budget_under_one_method_names_it(untimed: Plan) -> None:
    found = plan(study(budgets=[0.03, 1]), steps=0)
    assert any("No sample of dense fits 0.03 MMACs" in said for said in found.warnings)
    assert "! No sample of dense fits 0.03" in " ".join(shown(found).split())


def test_values_that_do_not_go_together_are_counted() -> None:
    stages = {"choices": ["1-1-1", "1-1-1-1-1"]}  # eight pixels take three blocks
    methods = {"condensenet": {"stages": stages}}
    found = plan(study(methods=methods, budgets=[20]), steps=0)
    task = load_data("digits").task
    space = spaces(study(methods=methods))["condensenet"]
    refused = 0
    for place in sampled(study(methods=methods), space):
        try:
            space.method_at(place).floor(task)
        except ValueError:
            refused += 1
    assert 0 < refused < SAMPLES
    assert found.methods[0].refused == pytest.approx(refused / SAMPLES)
    assert f"{100 * refused / SAMPLES:.0f} %" in shown(found)


@pytest.mark.parametrize(("seeds", "level"), [(2, 0.05), (3, 0.05), (3, 0.01), (5, 0.01)])
def test_the_detectable_difference_is_found_4_times_of_5(seeds: int, level: float) -> None:
    difference = detectable(seeds, level)
    assert difference is not None
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 20_000, seeds))
    p = stats.ttest_ind(a + difference, b, axis=1, equal_var=False).pvalue
    assert np.mean(p < level) == pytest.approx(0.8, abs=0.012)  # four standard errors


def test_more_seeds_tell_more_and_one_tells_nothing() -> None:
    found = [detectable(seeds) for seeds in (2, 3, 5, 10, 50)]
    assert found == sorted((d for d in found if d is not None), reverse=True)
    assert detectable(1) is None
    alone = plan(study(confirm={"seeds": 1}), steps=0)
    assert alone.detectable[0].deviations is None
    assert "no difference can be detected" in shown(alone)


def test_holms_first_step_is_over_the_pairs_tested(untimed: Plan) -> None:
    assert untimed.compared == 1
    assert untimed.detectable[0].deviations == detectable(2)
    race = plan(study(confirm={"seeds": 3, "race": True, "budget": 8}), steps=0)
    assert race.detectable[0].deviations == detectable(3, 0.05 / 3)
    assert any(said.startswith("Race: up to 8 further confirm runs") for said in race.warnings)
    without = plan(study(methods={"skipnet": {"depth": 8}}), steps=0)
    assert without.detectable == ()
    assert any("static baseline" in said for said in without.warnings)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_is_timed_in_all_its_phases(name: str) -> None:
    small: dict[str, Any] = {"depth": 8, "width": 0.25, "stages": "1-1-1", "choices": 4}
    small |= {"routing_start": 0, "routing_size": 2}
    fields: dict[str, Any] = {key: small[key] for key in small if key in METHODS[name].model_fields}
    space = spaces(study(methods={name: fields}, recipe={"epochs": 8, "batch_size": 16}))[name]
    method, recipe = parts(name, {**space.fixed, **space.defaults()})
    data = load_data("digits")
    found = time_trial(method, recipe, data, steps=1, seed=0, device="cpu")
    assert found.steps >= 3 * len(method.phases())
    assert found.seconds > found.test_seconds > 0


def test_what_this_machine_cannot_hold_is_planned_without_a_time() -> None:
    found = plan(study(resources={"cpu": 100_000}))
    assert found.slots is None
    assert found.seconds is None
    assert "too small for a trial" in shown(found)


def test_the_command_prints_a_plan_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps(BASE | {"methods": {"dense": BASE["methods"]["dense"]}}))
    text = printed(path, tmp_path / "work")
    assert all(words in text for words in ("dense", "<=1*", "refused", "5 search trials"))


@pytest.mark.full
def test_the_command_prints_the_quickstart(tmp_path: Path) -> None:
    path = ROOT / "studies" / "quickstart.yaml"
    text = printed(path, tmp_path / "work")
    assert all(name in text for name in load(path).methods)
    for words in ("<=0.3*", "refused", "30 search trials", "60 confirm runs", "450 epochs"):
        assert words in text
    assert "5 seeds, as planned" in text


def printed(path: Path, folder: Path) -> str:
    """What the command says of a study, in a separate process, with single spaces."""
    code = (
        "import sys; from orchestrator.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'ray'} & set(sys.modules)), file=sys.stderr)"
    )
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, "plan", str(path), "--steps", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "80",
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert list(folder.iterdir()) == []
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    text = " ".join(done.stdout.split())
    assert "device time" in text
    assert "An estimate from" in text
    return text


def test_json_is_the_plan(
    untimed: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = TypeAdapter(Plan)
    assert whole.validate_json(whole.dump_json(untimed)) == untimed
    path = tmp_path / "study.json"
    path.write_text(json.dumps(BASE))
    done = called(capsys, "plan", str(path), "--json", "--steps", "0")
    assert whole.validate_json(done.out) == untimed


def test_repeats_count_in_trials_confirm_runs_and_epochs() -> None:
    what = study(search={"trials": 5, "repeats": 6, "sampler": "sobol"})
    found = plan(what, steps=0)
    for method in found.methods:
        assert (method.trials, method.confirm) == (6 * 5, 6 * 2 * 3)
        assert method.most_epochs == 6 * (5 + 2 * 3) * 4
    counted = sum(method.trials + method.confirm for method in found.methods)
    assert counted == Tally(what).planned
    text = " ".join(shown(found).split())
    assert "In all 60 search trials, at most 72 confirm runs and 528 epochs." in text
    assert "found for dense" not in text, "claims are about methods now"
    assert not found.warnings


def test_a_race_of_searches_says_the_most_that_it_may_add() -> None:
    search = {"trials": 5, "repeats": 6, "sampler": "sobol"}
    confirm = {"seeds": 1, "race": True, "budget": 4, "matched": True}
    raced = plan(study(search=search, confirm=confirm), steps=0)
    most = 4 * (5 + 4)  # dense is confirmed at skipnet's cost, too
    said = f"Race: up to 4 further searches, {most} runs at most, trials included, are added where"
    assert any(warning.startswith(said) for warning in raced.warnings)
    plain = plan(study(search=search, confirm={"seeds": 1}), steps=0)
    assert [m.trials for m in raced.methods] == [m.trials for m in plain.methods]
    assert raced.splits is not None
    assert plain.splits is not None
    deviation = math.sqrt(_search(5, raced.images[1])[0] ** 2 + SEED_SD**2)
    for found, level in ((raced, 0.05 / LOOKS), (plain, 0.05)):
        assert found.splits is not None
        least = (detectable(6, level) or 0.0) * deviation
        assert found.splits.planned.found == pytest.approx(math.hypot(least, found.splits.floor))


def test_repeats_take_their_time() -> None:
    methods = {"dense": {"depth": 8, "width": 0.25}}
    search = {"trials": 4, "sampler": "sobol"}
    one = plan(study(methods=methods, search=search), rate=1000).methods[0]
    three = plan(study(methods=methods, search=search | {"repeats": 3}), rate=1000).methods[0]
    for method, repeats in ((one, 1), (three, 3)):
        assert method.trial_seconds is not None
        assert method.search_seconds == pytest.approx(4 * repeats * method.trial_seconds, rel=0.05)


def test_a_plan_shows_the_split_in_a_narrow_terminal() -> None:
    text = shown(plan(study(search={"trials": 40, "sampler": "sobol"}), steps=0))
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    words = " ".join(text.split())
    assert "planned 1 40 2 none +0.00" in words
    assert "Proposed: `search: {trials: 4, repeats: 6}`, `confirm: {seeds: 1}`." in words
    assert "a standard deviation of 1 point between configurations and 0.5 between seeds" in words
    assert "5 repeats are the minimum" in words


def test_a_plan_proposes_no_split_that_a_study_may_not_have() -> None:
    points = {"skipnet": [{"width": width} for width in (0.25, 0.5, 0.75, 1, 0.5)]}
    search = {"trials": 60, "sampler": "sobol", "points": points}
    found = plan(study(search=search), steps=0).splits
    assert found is not None
    named = spaces(study(search=search))["skipnet"].named
    assert next(split.trials for split in found.others) == named + 1 == found.least
    few = plan(study(), steps=0)
    assert "5 repeated searches of 4 or more trials, 35 runs" in " ".join(shown(few).split())
    assert plan(study(search={"trials": 5, "seconds": 60}), steps=0).splits is None
    assert plan(study(methods={"dense": BASE["methods"]["dense"]}), steps=0).splits is None
    warned = plan(study(search={"trials": 5, "repeats": 2}), steps=0).warnings
    assert warned == ("With fewer than 5 repeats no claim about methods is possible.",)


def test_it_tells_what_proposals_see_and_warns_of_a_blind_search() -> None:
    """Two slots, two methods: each looks back by twice its share, so by 2 trials."""
    seeing = {"trials": 20, "sampler": "tpe"}
    found = plan(study(search=seeing, resources={"concurrency": 2}), steps=0)
    if found.slots is None:
        pytest.skip("this machine holds no trial")
    lag = found.slots
    dense, skipnet = (method.sight for method in found.methods)
    assert dense is not None
    assert skipnet is not None
    assert (dense.last, skipnet.last) == (19 - lag, 18 - lag)  # less the paper's trial
    words = " ".join(shown(found).split())
    assert (
        f"of dense, the last trial of 20 sees {19 - lag} that ended and {lag} that run; trials 1 "
        f"to {dense.unseeing} see none."
    ) in words
    assert not any("blind" in said for said in found.warnings)
    content = json.loads(TypeAdapter(Plan).dump_json(found))
    assert content["methods"][0]["sight"]["last"] == 19 - lag


def test_a_plan_whose_trials_all_run_at_once_says_that_the_search_is_blind() -> None:
    short = study(search={"trials": 8, "sampler": "tpe"})
    space = spaces(short)["dense"]
    sights = {"dense": sight(short, space, 8, 32)}
    assert sights["dense"].last == 0
    said = warning(short, sights)
    assert said is not None
    assert said.startswith("The search is blind with 32 trials at once: 3 of the 3 trials of dense")
