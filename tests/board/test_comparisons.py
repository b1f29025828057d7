"""Controls, the noise floor, further seeds and P(best), as they stand on the board."""

import dataclasses

import numpy as np
import pytest
from boards import BUDGETS, confirm, row, study_rows

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.board.stats.bootstrap import best_probability
from orchestrator.board.stats.intervals import crossed, more_seeds
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
        Rules(budgets=(1,), primary=1, controls={"dense-again": "dense"}, images=1000),
    )


def test_a_control_gives_the_floor_and_enters_no_family():
    board = with_control(dense=0.8, dense_again=0.81, skipnet=0.805, resrep=0.9)
    assert board.noise_floor == pytest.approx(0.01)
    assert board.methods == ("resrep", "skipnet", "dense", "dense-again")
    assert board.contenders == board.methods[:-1]
    noise = {g.method: g.noise for g in board.gains}
    assert noise == {"resrep": False, "skipnet": True, "dense-again": True}
    assert board.gain("dense-again", 1).p_holm is None
    tested = [g for g in board.gains if g.p_holm is not None]
    assert min(g.p_holm for g in tested) == pytest.approx(2 * min(g.result.p for g in tested))
    assert len(board.pairs) == 4
    twins = next(c for c in board.pairs if c.other == "dense-again")
    assert (twins.method, twins.noise, twins.p_holm) == ("dense", True, None)
    control = board.cell("dense-again", 1)
    assert (control.group, control.p_best, control.n) == ("", None, 5)
    assert any(note.startswith("A/A control: dense-again repeats dense") for note in notes(board))


def test_a_control_never_leads():
    board = with_control(dense=0.8, dense_again=0.9, skipnet=0.7)
    assert verdict(board).startswith("At 1 MMACs the static baseline dense has the highest mean")
    assert "dense-again" not in verdict(board)
    assert "skipnet is not separable from it" in verdict(board)


def test_a_gain_under_the_floor_is_not_claimed_though_tested():
    real = with_control(dense=0.8, dense_again=0.801, skipnet=0.82)
    assert "skipnet beats dense" in verdict(real)
    noise = with_control(dense=0.8, dense_again=0.83, skipnet=0.82)
    assert noise.gain("skipnet", 1).p_holm < 0.05
    assert "beats" not in verdict(noise)
    assert "no more than one method differs from itself" in verdict(noise)


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
    samples = [[m + s for s in NOISE] for m in (0.803, 0.8)]
    assert board.gain("skipnet", 1).more == more_seeds(*samples, tests=2) > 1
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


def test_p_best_draws_the_images_that_were_kept_and_says_so():
    rows = contest(dense=0.8, skipnet=0.803, resrep=0.79)
    kept = predicted(rows)
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, images=500), kept)
    runs = {
        name: np.array([kept[f"{name}-00000-seed{s}", ""].correct for s in range(1, 6)])
        for name in board.methods
    }
    share = best_probability(runs, generator=np.random.default_rng(0))
    assert {name: board.cell(name, 1).p_best for name in board.methods} == share
    assert board.drawn == {1: "predictions"}
    for pair in (*board.pairs, *board.gains):
        assert pair.images == crossed(runs[pair.method], runs[pair.other])

    del kept["skipnet-00000-seed3", ""]
    some = leaderboard(rows, Rules(budgets=(1,), primary=1, images=500), kept)
    assert some == dataclasses.replace(
        leaderboard(rows, Rules(budgets=(1,), primary=1, images=500)),
        gains=some.gains,
        pairs=some.pairs,
    )
    assert some.drawn == {1: "counts"}
    assert {p.images is None for p in some.pairs if "skipnet" in (p.method, p.other)} == {True}
    assert all(p.images for p in some.pairs if "skipnet" not in (p.method, p.other))
    assert leaderboard(rows, Rules(budgets=(1,), primary=1)).drawn == {1: "seeds"}


def test_runs_on_other_images_are_not_paired():
    rows = contest(dense=0.8, skipnet=0.803)
    kept = predicted(rows)
    kept["skipnet-00000-seed3", ""] = gave(np.ones(499, bool))
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, images=500), kept)
    assert board.drawn == {1: "counts"}
    assert board.pairs[0].images is None
