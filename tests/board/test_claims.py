"""Over random boards no two sentences disagree: all of them are read from one family of tests."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from boards import confirm, row

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import UNREDUCED
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import verdict
from orchestrator.record.evidence import PerImage
from orchestrator.study.identity import unreduced_name

METHODS = ("dense", "skipnet", "resrep", "dsnet", "condconv")
REDUCED = ("resrep", "dsnet")
"""Those whose unreduced networks are trained, too."""
IMAGES = 400


def drawn(seed, *, repeats=1):
    """Methods some points apart, with seeds of their own spread, some of them lost."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(0, 2, IMAGES)
    rows, images = [], {}
    gap = draw.choice([0.0, 0.5, 2.0])
    for name in METHODS[: draw.integers(2, 6)]:
        level = 1.5 + gap * draw.normal()
        spread = draw.choice([0.02, 0.2, 0.6])
        own = hard + draw.normal(0, 0.5, IMAGES)
        lost = draw.integers(0, 3) * (draw.random() < 0.3)
        for repeat in range(1, repeats + 1):
            trial = f"{name}-00000" if repeats == 1 else f"{name}-r{repeat}-00000"
            rows.append(row(method=name, trial=trial, repeat=repeat))
            for index in range(1, (7 - lost) if repeats == 1 else 3):
                if repeats > 1 and repeat <= lost:
                    continue
                at = level + spread * draw.normal()
                right = own + at + draw.normal(0, 0.5, IMAGES) > 0
                run = confirm(
                    method=name,
                    config=trial,
                    seed=index,
                    repeat=repeat,
                    test_acc=float(right.mean()),
                )
                rows.append(run)
                images[run.trial, ""] = PerImage(right, np.ones(IMAGES), np.zeros(IMAGES, int))
                if name in REDUCED and draw.random() < 0.95:
                    whole = own + at + gap / 5 + draw.normal(0, 0.5, IMAGES) > 0
                    name_of_it = unreduced_name(trial)
                    base = dataclasses.replace(
                        run,
                        trial=f"{name_of_it}-seed{index}",
                        config=name_of_it,
                        test_acc=float(whole.mean()),
                    )
                    rows.append(base)
                    images[base.trial, ""] = PerImage(whole, np.ones(IMAGES), np.zeros(IMAGES, int))
    rules = Rules(
        budgets=(1,),
        primary=1,
        images=IMAGES,
        repeats=repeats,
        margin=draw.choice([None, 0.02]),
        unreduced=True,
    )
    return leaderboard(rows, rules, images if draw.random() < 0.8 else None)


def named(text):
    """The methods that a part of a sentence names."""
    return re.findall("|".join(METHODS), text)


@pytest.mark.parametrize("repeats", [1, 7])
@pytest.mark.parametrize("part", range(6))
def test_letters_intervals_p_values_gains_and_verdict_agree(part, repeats):
    said = set()
    for seed in range(40 * part, 40 * part + 40):
        board = drawn(seed, repeats=repeats)
        letters = {name: set(board.cell(name, 1).letters) for name in board.methods}
        for a, b in itertools.combinations(board.methods, 2):
            pair, back = board.pair(a, b, 1), board.pair(b, a, 1)
            assert back.reversed == pair
            tested = bool(letters[a] and letters[b])
            assert (pair.p_holm is not None) == tested
            assert pair.separated == (tested and not letters[a] & letters[b])
            if tested:
                apart = pair.result.lo > 0 or pair.result.hi < 0
                assert pair.separated == apart == (pair.p_holm < 0.05) == (pair.more == 0)
        for gain in board.gains:
            assert gain == board.pair(gain.method, "dense", 1)
        assert board.only(["skipnet"]).gains == tuple(
            gain for gain in board.gains if gain.method == "skipnet"
        )
        said |= checked(board)
    assert said >= {"beats", "not separated"}
    assert said & {UNREDUCED, f"none: {UNREDUCED}"}


def checked(board):
    """Every clause of the verdict against the tests; the kinds of clauses that it has."""
    text, said = verdict(board), set()
    ahead = {gain.method for gain in board.gains if gain.ahead}
    beats = re.findall(r"[^:;,]* beats |; so do[^;]*", text)
    assert {name for clause in beats for name in named(clause)} == ahead, text
    if ahead:
        said.add("beats")
    leader = next(name for name in board.methods if board.cell(name, 1).n)
    for clause in re.split(r"[;]|, but |, and ", text):
        if "not separated from" in clause:
            one, other = clause.split("not separated from")
            for a, b in itertools.product(named(one) or [leader], named(other) or [leader]):
                assert not board.pair(a, b, 1).separated, text
            said.add("not separated")
        if "is better than" in clause:
            for name in named(clause.split("is better than")[1]):
                assert board.pair("dense", name, 1).ahead, text
        if "cannot be tested" in clause:
            for name in named(clause):
                assert not board.cell(name, 1).letters, text
            said.add("few")
    return said | not_worse(board, text)


def not_worse(board, text):
    """What the verdict says of margins against the tests, and these against the table."""
    said = set()
    for other in ("dense", UNREDUCED):
        clauses = [part for part in text.split(";") if f"worse than {other} by more" in part]
        tests = [test for test in board.not_worse if test.other == other]
        assert len(clauses) == bool(tests), text
        for clause in clauses:
            shown = {test.method for test in tests if test.shown}
            assert set(named(clause)) - {"dense"} == shown, text
            said.add(other if shown else f"none: {other}")
    for pair in board.unreduced:
        for test in board.not_worse:
            if (test.method, test.other) == (pair.method, UNREDUCED):
                assert test.difference == pair.result.difference
                assert not test.shown or pair.result.lo > -board.rules.margin
    return said
