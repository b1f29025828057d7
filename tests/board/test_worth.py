"""What deciding per image is worth, and when a dynamic network is called static."""

import dataclasses

import pytest
from boards import confirm, routed, row

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import ALL_RUN
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import notes, verdict
from orchestrator.board.words import FIXED, p_text, static_text

RULES = Rules(budgets=(1.0,), primary=1.0, images=400)


def test_decisions_that_are_worth_something_make_a_network_dynamic():
    rows, images = routed(0.1)
    board = leaderboard(rows, RULES, images)
    cell = board.cell("skipnet", 1.0)
    assert cell.worth.images
    assert cell.worth.gain.mean == pytest.approx(0.1, abs=0.02)
    assert cell.worth.dynamic
    assert not cell.static
    assert board.cell("dense", 1.0).worth is None
    assert not any("static" in note for note in notes(board))


@pytest.mark.parametrize(
    ("alike", "majority_macs", "reason"),
    [
        (0.99, 9e5, "everything runs on 99.0 % of the images"),
        (0.97, 8e5, "97.0 % of the images get the same decisions"),
        (0.30, 8e5, "not shown to be better than another image's"),
    ],
)
def test_decisions_that_are_worth_nothing_make_it_static_with_a_reason(
    alike, majority_macs, reason
):
    rows, images = routed(0.0, alike=alike, majority_macs=majority_macs)
    board = leaderboard(rows, RULES, images)
    cell = board.cell("skipnet", 1.0)
    assert cell.static
    assert reason in static_text(cell.worth)
    assert any("skipnet at 1 MMACs is static" in n and reason in n for n in notes(board))
    assert "static" in verdict(board), "it leads, and is not what its name promises"


def test_without_the_images_the_seeds_alone_give_the_interval():
    rows, images = routed(0.1)
    cell = leaderboard(rows, RULES, {}).cell("skipnet", 1.0)
    assert not cell.worth.images
    assert cell.worth.dynamic
    with_images = leaderboard(rows, RULES, images).cell("skipnet", 1.0).worth.gain
    seeds_alone = cell.worth.gain
    assert with_images.hi - with_images.lo > seeds_alone.hi - seeds_alone.lo - 1e-12


def test_a_worth_that_one_seed_lacks_is_none():
    rows, images = routed(0.1)
    place = next(i for i, run in enumerate(rows) if run.method == "skipnet" and run.seed == 1)
    rows[place] = confirm(method="skipnet", config="skipnet-00000", seed=1, test_acc=0.85)
    assert leaderboard(rows, RULES, images).cell("skipnet", 1.0).worth is None


def test_a_point_that_is_one_network_for_all_images_is_static_where_another_decides():
    """As a uniform width of DS-Net's supernet, better on validation than the gate."""
    rows, images = routed(0.1)
    skipnet = [run for run in rows if run.method == "skipnet"]
    none = dict.fromkeys(
        ("test_another_acc", "test_majority_acc", "test_majority_macs", "test_alike"), None
    )
    width = [
        dataclasses.replace(run, point="width", val_acc=(run.val_acc or 0) + 0.01, **none)
        for run in skipnet
    ]
    board = leaderboard([*rows, *width], RULES, images)
    cell = board.cell("skipnet", 1.0)
    assert cell.choice.point == "width"
    assert cell.worth is None
    assert cell.static
    assert any(
        note == f"skipnet at 1 MMACs is static: its operating point width {FIXED}."
        for note in notes(board)
    )
    assert "skipnet is static" in verdict(board)
    alone = [run for run in [*rows, *width] if run.method == "dense" or run.point == "width"]
    assert not leaderboard(alone, RULES, images).cell("skipnet", 1.0).static, "nothing decides"


@pytest.mark.parametrize(("lost", "shown"), [(0, True), (40, False)])
def test_a_network_is_held_against_itself_with_all_run(lost, shown):
    """As many of 400 images as `lost` are right only with everything run."""
    rows, images = routed(0.1)
    for key, one in images.items():
        all_run = one.correct.copy()
        all_run[-lost or 400 :] = True
        images[key] = dataclasses.replace(one, all_run=all_run)
    board = leaderboard(rows, dataclasses.replace(RULES, margin=0.02), images)
    test = next(test for test in board.not_worse if test.other == ALL_RUN)
    assert (test.method, test.shown) == ("skipnet", shown)
    assert test.difference == pytest.approx(-lost / 400)
    said = "not worse than itself with all run by more than 2 points"
    assert (f"skipnet (p {p_text(test.p_holm)}) is {said}" in verdict(board)) == shown


def test_candidates_are_the_points_under_the_primary_budget():
    rows = [
        row(method="dsnet", trial="dsnet-00000", point=point, val_macs_mean=macs)
        for point, macs in (("narrow", 5e5), ("wide", 9e5), ("widest", 2e6))
    ]
    rows += [row(), row(trial="dense-00001", state="FAIL", reason="diverged")]
    board = leaderboard(rows, RULES)
    assert {e.method: e.candidates for e in board.effort} == {"dense": 1, "dsnet": 2}
