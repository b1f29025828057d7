"""Controls, the noise floor, further seeds and P(best), as they stand on the board."""

import dataclasses

import numpy as np
import pytest
from boards import BUDGETS, confirm, row, study_rows

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.board.stats.best import best_probability
from orchestrator.board.stats.contrasts import contrast
from orchestrator.board.stats.power import more_seeds
from orchestrator.board.stats.units import Units
from orchestrator.board.verdict import notes, verdict
from orchestrator.record.evidence import PerImage

NOISE = (0.0, 0.004, -0.004, 0.002, -0.002)


def contest(**methods):
    """One budget; each method's mean test accuracy, with the same spread over five seeds."""
    rows = []
    for name, mean in methods.items():
        method = name.replace("_", "-")
        rows.append(row(method=method, trial=f"{method}-00000"))
        rows += [
            confirm(method=method, config=f"{method}-00000", seed=s, test_acc=mean + shift)
            for s, shift in enumerate(NOISE, start=1)
        ]
    return rows


def with_control(**methods):
    return leaderboard(
        contest(**methods),
        Rules(budgets=(1,), primary=1, controls={"dense-again": "dense"}, images=100_000),
    )


def test_a_control_gives_the_floor_and_enters_no_family():
    board = with_control(dense=0.8, dense_again=0.81, skipnet=0.805, resrep=0.9)
    assert board.noise_floor == pytest.approx(0.01)
    assert board.methods == ("resrep", "skipnet", "dense", "dense-again")
    assert board.contenders == board.methods[:-1]
    noise = {g.method: g.noise for g in board.gains}
    assert noise == {"resrep": False, "skipnet": True, "dense-again": True}
    assert board.gain("dense-again", 1).p_holm is None
    tested = [pair for pair in board.pairs if pair.p_holm is not None]
    assert len(tested) == 3
    assert min(c.p_holm for c in tested) == pytest.approx(3 * min(c.result.p for c in tested))
    assert len(board.pairs) == 4
    twins = next(c for c in board.pairs if c.other == "dense-again")
    assert (twins.method, twins.noise, twins.p_holm) == ("dense", True, None)
    control = board.cell("dense-again", 1)
    assert (control.letters, control.p_best, control.n) == ("", None, 5)
    assert any(note.startswith("A/A control: dense-again repeats dense") for note in notes(board))


def test_a_control_never_leads():
    board = with_control(dense=0.8, dense_again=0.9, skipnet=0.7)
    assert "found for dense, the static baseline, has the highest mean" in verdict(board)
    assert "dense-again" not in verdict(board)
    assert "skipnet is not separated from it" in verdict(board)


def test_a_gain_under_the_floor_is_not_claimed_though_tested():
    real = with_control(dense=0.8, dense_again=0.801, skipnet=0.82)
    assert "found for skipnet beats the one found for dense" in verdict(real)
    noise = with_control(dense=0.8, dense_again=0.83, skipnet=0.82)
    assert noise.gain("skipnet", 1).p_holm < 0.05
    assert "beats" not in verdict(noise)
    assert "within the noise of the A/A control" in verdict(noise)


def test_the_floor_is_the_largest_gap_over_the_budgets():
    twin = [
        dataclasses.replace(
            r,
            method="dense-again",
            trial=f"x{r.trial}",
            config=f"x{r.config}",
            test_acc=None if r.test_acc is None else r.test_acc + 0.002 * r.test_macs_mean / 1e6,
        )
        for r in study_rows()
        if r.method == "dense"
    ]
    board = leaderboard(
        study_rows() + twin, Rules(budgets=BUDGETS, primary=2, controls={"dense-again": "dense"})
    )
    gaps = [
        abs(board.cell("dense", b).accuracy.mean - board.cell("dense-again", b).accuracy.mean)
        for b in BUDGETS
    ]
    assert board.noise_floor == max(gaps) > min(gaps)


def test_without_a_control_nothing_is_noise():
    board = leaderboard(contest(dense=0.8, skipnet=0.8), Rules(budgets=(1,), primary=1))
    assert board.noise_floor is None
    assert not any(c.noise for c in (*board.gains, *board.pairs))
    unconfirmed = leaderboard(
        [row()], Rules(budgets=(1,), primary=1, controls={"dense-again": "dense"})
    )
    assert unconfirmed.noise_floor is None
    assert "dense-again" in unconfirmed.methods


def test_further_seeds_follow_the_spread():
    board = leaderboard(
        contest(dense=0.8, skipnet=0.803, resrep=0.9), Rules(budgets=(1,), primary=1)
    )
    samples = [Units([m + s for s in NOISE]) for m in (0.803, 0.8)]
    assert board.gain("skipnet", 1).more == more_seeds(*samples, level=0.05 / 3) > 1
    assert board.gain("resrep", 1).more == 0
    equal = leaderboard(contest(dense=0.8, skipnet=0.8), Rules(budgets=(1,), primary=1))
    assert equal.gain("skipnet", 1).more is None


def test_p_best_is_of_those_with_an_interval():
    rows = [
        r
        for r in contest(dense=0.8, skipnet=0.803, resrep=0.9)
        if r.seed < 3 or r.method != "resrep"
    ]
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, images=500))
    share = {name: board.cell(name, 1).p_best for name in board.methods}
    assert share["resrep"] is None
    assert share["dense"] + share["skipnet"] == pytest.approx(1)
    assert share["dense"] < share["skipnet"] < 1
    alone = leaderboard(contest(dense=0.8), Rules(budgets=(1,), primary=1))
    assert alone.cell("dense", 1).p_best is None


def test_p_best_without_images_is_surer():
    rows = contest(dense=0.8, skipnet=0.803)
    share = [
        leaderboard(rows, Rules(budgets=(1,), primary=1, images=n)).cell("skipnet", 1).p_best
        for n in (200, None)
    ]
    assert 0.5 < share[0] < share[1]


def gave(correct):
    return PerImage(correct, np.ones(len(correct)), np.zeros(len(correct), int))


def predicted(rows, images=500):
    """What each confirm run gave: right at random, but at its own accuracy."""
    draw = np.random.default_rng(2)
    return {
        (r.trial, r.point): gave(draw.permutation(images) < round(images * r.test_acc))
        for r in rows
        if r.role == "confirm"
    }


def test_the_images_that_were_kept_decide_with_the_seeds_and_that_is_said():
    rows = contest(dense=0.8, skipnet=0.803, resrep=0.79)
    kept = predicted(rows)
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, images=500), kept)
    correct = {
        name: np.array([kept[f"{name}-00000-seed{s}", ""].correct for s in range(1, 6)], float)
        for name in board.methods
    }
    units = {
        name: Units(board.cell(name, 1).units.accuracies, runs, 500)
        for name, runs in correct.items()
    }
    shares = {name: board.cell(name, 1).p_best for name in board.methods}
    assert shares == pytest.approx(best_probability(units))
    assert board.known == {1: "predictions"}
    for pair in board.pairs:
        gap = contrast(units[pair.method], units[pair.other])
        assert (pair.result.difference, pair.result.p) == pytest.approx((gap.difference, gap.p))
    assert "paired by image" in " ".join(notes(board))

    del kept["skipnet-00000-seed3", ""]
    some = leaderboard(rows, Rules(budgets=(1,), primary=1, images=500), kept)
    assert some.known == {1: "counts"}
    assert "not paired" in " ".join(notes(some))
    assert leaderboard(rows, Rules(budgets=(1,), primary=1)).known == {1: "seeds"}


def test_runs_on_other_images_are_not_paired():
    rows = contest(dense=0.8, skipnet=0.803)
    kept = predicted(rows)
    kept["skipnet-00000-seed3", ""] = gave(np.ones(499, bool))
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, images=500), kept)
    assert board.known == {1: "counts"}
    assert board.cell("skipnet", 1).units.correct is None


def test_a_margin_is_tested_with_its_own_share_of_the_level():
    rows = contest(dense=0.8, skipnet=0.799, resrep=0.7)
    rules = Rules(budgets=(1,), primary=1, margin=0.01)
    board = leaderboard(rows, rules)
    assert {test.method: test.shown for test in board.not_worse} == {
        "skipnet": True,
        "resrep": False,
    }
    assert "skipnet (p " in verdict(board)
    assert "is not worse than dense by more than 1 point" in verdict(board)
    plain = leaderboard(rows, dataclasses.replace(rules, margin=None))
    assert plain.not_worse == ()
    for one, other in zip(board.pairs, plain.pairs, strict=True):
        assert one.p_holm == pytest.approx(min(1, other.p_holm / 0.6))
    strict = leaderboard(rows, dataclasses.replace(rules, margin=0.0005))
    assert "no method is shown to be not worse" in verdict(strict)


def test_what_has_too_few_seeds_is_shown_and_not_tested():
    """Far ahead on four seeds: it leads, it is said, and nothing is claimed of it."""
    rows = [
        r
        for r in contest(dense=0.9, skipnet=0.95, resrep=0.85, dsnet=0.93)
        if (r.method, r.seed) != ("skipnet", 5)
    ]
    board = leaderboard(rows, Rules(budgets=(1,), primary=1))
    said = verdict(board)
    assert "found for skipnet has the highest mean test accuracy, 95.05 % (4 seeds)" in said
    assert "skipnet has fewer than 5 seeds and cannot be tested" in said
    assert "of those that can, the configuration found for dsnet beats the one found" in said
    assert board.cell("skipnet", 1).letters == ""
    assert board.gain("skipnet", 1).p_holm is None
    assert board.gain("skipnet", 1).more == 1


def test_some_methods_keep_what_the_whole_board_tested():
    board = leaderboard(
        contest(dense=0.8, skipnet=0.803, resrep=0.9), Rules(budgets=(1,), primary=1)
    )
    some = board.only(["skipnet"])
    assert some.methods == ("skipnet", "dense")
    assert some.gain("skipnet", 1) == board.gain("skipnet", 1)
    assert {cell.method for cell in some.cells} == {"skipnet", "dense"}
