"""A method beside what it is reduced from: what is said of it, and where it may not stand."""

import dataclasses

import numpy as np
import pytest
from boards import confirm, row

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import UNREDUCED
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import notes, verdict
from orchestrator.board.words import p_text
from orchestrator.record.evidence import PerImage
from orchestrator.study.identity import unreduced_name

RULES = Rules(budgets=(0.5, 1.0), primary=1.0, unreduced=True)
IMAGES = 400


def rows(*, own=0.80, whole=0.81, seeds=5, wholes=5, point=""):
    """Dense at 0.8, and resrep at half of the MACs of what it prunes, which fits no budget."""
    found = [
        row(val_macs_mean=4e5),
        row(method="resrep", trial="resrep-00000", val_acc=0.7, val_macs_mean=4e5, point=point),
        row(method="resrep", trial="resrep-00001", val_acc=0.8, val_macs_mean=8e5, point=point),
    ]
    for seed in range(1, seeds + 1):
        noise = (seed - 3) / 1000
        found.append(confirm(seed=seed, test_acc=0.8 + noise, test_macs_mean=4e5))
        for config, macs in (("resrep-00000", 4e5), ("resrep-00001", 8e5)):
            figures = {"test_acc": own + noise, "test_macs_mean": macs, "point": point}
            found.append(confirm(method="resrep", config=config, seed=seed, **figures))
    found += [base(seed=seed, test_acc=whole - (seed - 3) / 1000) for seed in range(1, wholes + 1)]
    return found


def base(of="resrep-00001", **changes):
    """A run of what a configuration is reduced from."""
    values = {"method": "resrep", "config": unreduced_name(of), "test_macs_mean": 1.6e6}
    return confirm(**{**values, "val_acc": 0.99, "epochs": 7, **changes})


def test_a_method_stands_beside_what_it_is_reduced_from():
    board = leaderboard(rows(), RULES)
    (pair,) = board.unreduced
    assert (pair.method, pair.base.n, pair.saved) == ("resrep", 5, pytest.approx(0.5))
    assert pair.base.accuracy.mean == pytest.approx(0.81)
    assert pair.result.difference == pytest.approx(-0.01)
    assert pair.result.lo < -0.01 < pair.result.hi
    assert {seed.config for seed in pair.base.seeds} == {"resrep-00001-unreduced"}
    assert board.not_worse == (), "nothing is tested without a margin"
    assert UNREDUCED not in verdict(board)
    assert board.only(["dense"]).unreduced == ()
    assert not board.excluded


def test_what_it_is_reduced_from_stands_nowhere_else():
    """Far better than all, it moves no other number of the board."""
    plain = leaderboard(rows(wholes=0), RULES)
    board = leaderboard(rows(whole=0.99), RULES)
    assert plain.unreduced == ()
    changed = {
        field.name
        for field in dataclasses.fields(board)
        if getattr(board, field.name) != getattr(plain, field.name)
    }
    assert changed == {"unreduced", "effort"}
    one, other = (next(e for e in b.effort if e.method == "resrep") for b in (board, plain))
    assert (one.confirm, one.unreduced, other.unreduced) == (other.confirm, 5, 0)
    assert one.epochs == other.epochs + 5 * 7, "what it took is not hidden"
    names = {seed.config for cell in board.cells for seed in cell.seeds}
    assert not any(name.endswith("unreduced") for name in names)


def test_at_other_budgets_and_in_other_studies_its_runs_are_named_and_count_nowhere():
    for rules in (dataclasses.replace(RULES, primary=0.5), Rules(budgets=(0.5, 1.0), primary=1.0)):
        board = leaderboard(rows(), rules)
        assert board.unreduced == ()
        reasons = {e.reason for e in board.excluded}
        assert reasons == {"not chosen on validation at the primary budget, unreduced"}
        assert len(board.excluded) == 5


@pytest.mark.parametrize(("whole", "shown"), [(0.80, True), (0.85, False)])
def test_not_being_worse_than_itself_unreduced_is_one_family_with_dense(whole, shown):
    rules = dataclasses.replace(RULES, margin=0.01)
    board = leaderboard(rows(whole=whole), rules)
    tests = {test.other: test for test in board.not_worse}
    assert tests.keys() == {"dense", UNREDUCED}
    own = tests[UNREDUCED]
    assert (own.method, own.shown) == ("resrep", shown)
    assert own.difference == pytest.approx(0.80 - whole)
    said = f"resrep (p {p_text(own.p_holm)}) is not worse than itself unreduced by more than 1"
    assert (said in verdict(board)) == shown
    none = "no method is shown to be not worse than itself unreduced by more than 1 point"
    assert (none in verdict(board)) != shown
    alone = leaderboard(rows(whole=whole, wholes=0), rules)
    (before,) = alone.not_worse
    assert tests["dense"].p_holm >= before.p_holm, "Holm counts both"
    if shown:
        assert board.unreduced[0].result.lo > -0.01, "the interval does not contradict it"


def test_four_runs_are_shown_and_not_tested():
    board = leaderboard(rows(wholes=4), dataclasses.replace(RULES, margin=0.05))
    assert {test.other for test in board.not_worse} == {"dense"}
    assert board.unreduced[0].base.n == 4
    assert UNREDUCED not in verdict(board)


def test_lost_and_collapsed_runs_are_said():
    """A poor base flatters the method."""
    some = rows(wholes=3)
    some += [base(seed=4, test_acc=0.3)]
    some += [base(seed=5, state="FAIL", reason="diverged", test_acc=None, test_macs_mean=None)]
    board = leaderboard(some, dataclasses.replace(RULES, chance=0.1))
    assert board.unreduced[0].base.collapsed == ("resrep-00001-unreduced-seed4",)
    assert "resrep unreduced: 1 of 4 runs collapsed, counted." in notes(board)
    assert "resrep unreduced: 1 run gave no result." in notes(board)
    only_lost = [r for r in some if not (r.config.endswith("unreduced") and r.test_acc)]
    lost = leaderboard(only_lost, RULES)
    assert lost.unreduced[0].result.difference is None
    assert "resrep unreduced: 1 run gave no result." in notes(lost)


def test_the_operating_point_of_a_choice_is_not_one_of_what_it_is_reduced_from():
    board = leaderboard(rows(point="prune"), RULES)
    assert board.cell("resrep", 1.0).choice.point == "prune"
    assert board.unreduced[0].base.n == 5


def searched(draw, *, gap, searches=6, seeds=1, of_search=0.05, against=False, images=True):
    """A method of several searches beside its base: what a search chose moves both alike, or, where
    `against`, one up and the other down. The method is `gap` better at 80 %."""
    found, kept = [row(trial="dense-r1-00000", repeat=1)], {}
    for repeat in range(1, searches + 1):
        config = f"resrep-r{repeat}-00000"
        found.append(row(method="resrep", trial=config, repeat=repeat))
        moved = draw.normal(0, of_search)
        for seed in range(1, seeds + 1):
            for name, level in (
                (config, 0.8 + gap + moved),
                (unreduced_name(config), 0.8 - moved if against else 0.8 + moved),
            ):
                right = draw.random(IMAGES) < level + draw.normal(0, 0.005)
                run = confirm(
                    method="resrep",
                    config=name,
                    seed=seed,
                    repeat=repeat,
                    test_acc=float(right.mean()),
                )
                found.append(run)
                kept[run.trial, ""] = PerImage(right, np.ones(IMAGES), np.zeros(IMAGES, int))
    rules = Rules(
        budgets=(1.0,),
        primary=1.0,
        unreduced=True,
        repeats=searches,
        images=IMAGES,
        margin=0.03,
    )
    return leaderboard(found, rules, kept if images else None)


def test_of_several_searches_each_is_beside_its_own():
    """Searches lie ten points apart, and each as far from its base as the next one."""
    found = [row(trial="dense-r1-00000", repeat=1)]
    for repeat in range(1, 7):
        config, level = f"resrep-r{repeat}-00000", 0.5 + 0.05 * repeat
        found.append(row(method="resrep", trial=config, repeat=repeat))
        own = {"method": "resrep", "repeat": repeat, "seed": 1}
        found.append(confirm(config=config, test_acc=level + repeat / 1000, **own))
        found.append(base(config, test_acc=level, **own))
    rules = dataclasses.replace(RULES, repeats=6, margin=0.05)
    (pair,) = leaderboard(found, rules).unreduced
    assert pair.result.difference == pytest.approx(0.0035)
    assert pair.base.n == 6
    lost = [r for r in found if r.config != "resrep-r6-00000-unreduced"]
    some = leaderboard(lost, rules)
    (fewer,) = some.unreduced
    assert "resrep unreduced has 5 searches: the difference is over these." in notes(some)
    assert fewer.result.difference == pytest.approx(0.003), "the sixth has none to stand beside"


def test_pairing_finds_what_searches_far_apart_would_hide():
    draw = np.random.default_rng(3)
    boards = [searched(draw, gap=0.0) for _ in range(20)]
    widths = [b.unreduced[0].result.hi - b.unreduced[0].result.lo for b in boards]
    apart = [searched(draw, gap=0.0, images=False) for _ in range(20)]
    unpaired = [b.unreduced[0].result.hi - b.unreduced[0].result.lo for b in apart]
    assert np.median(widths) < 0.6 * np.median(unpaired)


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("against", [True, False])
def test_a_method_that_is_worse_by_the_margin_is_rarely_said_not_to_be(against, images):
    """Tested at two fifths of 5 %: of 300 boards 6 may, and 14 would be one time in 400."""
    draw, said = np.random.default_rng(11), 0
    for _ in range(300):
        board = searched(draw, gap=-0.03, searches=5, against=against, images=images)
        (test,) = [test for test in board.not_worse if test.other == UNREDUCED]
        said += test.shown
        assert not (test.shown and test.difference <= -0.03)
        assert ("not worse than itself unreduced by" in verdict(board)) or not test.shown
    assert said <= 13


def test_a_method_that_is_as_good_is_said_to_be():
    draw = np.random.default_rng(5)
    shown = 0
    for _ in range(40):
        board = searched(draw, gap=0.02, searches=10)
        shown += any(test.shown for test in board.not_worse if test.other == UNREDUCED)
    assert shown > 20
