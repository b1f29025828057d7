"""What a person sees of a sweep, in a terminal and in a file."""

import dataclasses
import io
import re

import pytest
from rich.console import Console

from orchestrator.cli.progress import Progress
from orchestrator.record.events import (
    End,
    EndState,
    Epoch,
    Figures,
    Lost,
    Metrics,
    Point,
    Role,
    Rung,
    Start,
)
from orchestrator.record.ledger import Doing, News, Planned, Resumed
from orchestrator.study.file import Study
from orchestrator.study.sections import SearchPlan

STUDY = Study.model_validate(
    {
        "name": "s",
        "data": "digits",
        "budgets": [1],
        "methods": {"dense": {}, "skipnet": {}},
        "search": {"trials": 2},
        "confirm": {"seeds": 1},
    }
)


DEAR = "costs 2.3 MMACs at least, the largest budget is 1"
POINT = Point("", Figures(0.9, 5e5))


def started(trial: str) -> Start:
    method = trial.split("-", maxsplit=1)[0]
    role: Role = "confirm" if "-seed" in trial else "search"
    return Start(trial, role, method, {}, seed=0, attempt=1, config=trial, config_hash="")


def ended(trial: str, state: EndState = "COMPLETE", reason: str | None = None) -> End:
    return End(trial, state, reason, 2, 1.0, (POINT,) if state == "COMPLETE" else ())


def rendered(progress: Progress, console: Console) -> str:
    """What a terminal shows at this moment."""
    with console.capture() as capture:
        console.print(progress._view())
    return re.sub(r"\x1b\[[\d;]*m", "", capture.get())


def view(*events: News, height: int = 40) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=height)
    progress = Progress(STUDY, console)
    for event in events:
        progress(event)
    return rendered(progress, console)


def shown(
    *events: News, terminal: bool, study: Study = STUDY, width: int = 100, quiet: bool = False
) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    progress = Progress(study, console, quiet=quiet)
    with progress.shown():
        for event in events:
            progress(event)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_lines_tell_only_what_is_new() -> None:
    text = shown(
        started("dense-00000"),
        ended("dense-00000"),
        Resumed(),
        started("skipnet-00000"),
        ended("skipnet-00000", "FAIL", "diverged: [nan]"),
        started("skipnet-00001"),
        ended("skipnet-00001", "FAIL", "refused: 3 blocks must divide by 2"),
        started("skipnet-00002"),
        ended("skipnet-00002", "FAIL", f"over budget: {DEAR}"),
        started("skipnet-00003"),
        ended("skipnet-00003", "FAIL", f"refused: {DEAR}"),  # as earlier versions wrote it
        Planned(2),
        started("dense-00001"),
        ended("dense-00001"),
        terminal=False,
    )
    assert text.splitlines() == [
        "Resuming after 1 trial",
        "[2 of at most 6] skipnet-00000 FAIL: diverged: [nan]",
        "[2 of at most 6] skipnet-00001 refused: 3 blocks must divide by 2",
        f"[2 of at most 6] skipnet-00002 over budget: {DEAR}",
        f"[2 of at most 6] skipnet-00003 over budget: {DEAR}",
        "[3 of 6] dense-00001 COMPLETE: 90.0 % validation at 0.500 MMACs",
    ]


def test_a_terminal_shows_a_table_per_method() -> None:
    text = shown(Resumed(), started("dense-00000"), ended("dense-00000"), terminal=True)
    assert "skipnet" in text
    assert "90.0 % at 0.500 MMACs" in text
    assert "1 of at most 6 trials" in text


def test_a_terminal_that_is_narrow_or_cannot_redraw_shows_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = (Resumed(), started("dense-00000"), ended("dense-00000"))
    line = "[1 of at most 6] dense-00000 COMPLETE: 90.0 % validation at 0.500 MMACs\n"
    assert shown(*events, terminal=True, width=40) == line
    monkeypatch.setenv("TERM", "dumb")
    assert shown(*events, terminal=True) == line


def test_a_line_holds_the_best_point_and_no_more_than_100_characters() -> None:
    points = (
        Point("a", Figures(0.5, 2e5), alarm="static: " + "decisions " * 30),
        Point("b", Figures(0.75, 3e5), alarm="static"),
        Point("c", Figures(0.7, 1e5)),
    )
    one = End("skipnet-00000", "COMPLETE", None, 2, 1.0, points)
    lost = Lost("skipnet-00001", "its worker died: " + "because " * 40)
    text = shown(
        Resumed(), started("skipnet-00000"), one, started("skipnet-00001"), lost, terminal=False
    )
    first, second = text.splitlines()
    assert first == (
        "[1 of at most 6] skipnet-00000 COMPLETE: 75.0 % validation at 0.300 MMACs, 2 alarms"
    )
    assert len(second) == 100
    assert second.endswith("...")


def test_what_happens_now_is_a_line_and_the_head_of_the_table() -> None:
    events = (
        Doing("Starting Ray on this machine"),
        Resumed(),
        Doing(""),
        Doing("Measuring latency", 0, 3),
        Doing("Measuring latency", 1, 3),
        Doing("Drawing the report"),
    )
    assert shown(*events, terminal=False).splitlines() == [
        "Starting Ray on this machine",
        "Measuring latency, 3 pairs",
        "Drawing the report",
    ]
    assert "s: Measuring latency, pair 2 of 3" in view(*events[:5])
    assert "s: Searching" in view(*events[:3])
    assert "s: Confirming on fresh seeds" in view(*events[:3], Planned(2))


def test_a_running_trial_shows_its_epoch_and_accuracy() -> None:
    whole = dataclasses.replace(started("skipnet-00000"), params={"recipe.epochs": 8})
    text = view(Resumed(), Doing(""), whole, Epoch("skipnet-00000", 3, Metrics(val_acc=0.625)))
    assert re.search(r"skipnet-00000 +3 of 8 +62.5 %", text)
    trials = [started(f"dense-{number:05}") for number in range(40)]
    assert "and 26 more" in view(Resumed(), Doing(""), *trials, height=28)
    assert len(view(Resumed(), Doing(""), *trials, height=28).splitlines()) <= 28


def test_the_time_left_is_told_once_each_method_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("orchestrator.cli.progress.time.monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    progress = Progress(STUDY, console)

    def run(trial: str, seconds: float) -> str:
        progress(started(trial))
        clock[0] += seconds
        progress(dataclasses.replace(ended(trial), seconds=seconds))
        return rendered(progress, console)

    progress(Resumed())
    progress(Doing(""))
    assert "left" not in run("dense-00000", 10)
    assert "left" not in run("dense-00001", 10), "skipnet may take any time"
    # One more search trial of skipnet, and at most one confirm run of each.
    assert "up to about 2 min of training left" in run("skipnet-00000", 60)
    progress(Planned(1))
    assert "about 40 s of training left" in run("skipnet-00001", 60)
    text = run("dense-00000-seed1", 10)
    assert "left" not in text
    progress(Doing("Measuring latency", 0, 3))
    assert "left" not in rendered(progress, console)


def test_quiet_shows_nothing() -> None:
    events = (Doing("Starting Ray"), Resumed(), started("dense-00000"), ended("dense-00000"))
    assert shown(*events, terminal=False, quiet=True) == ""
    assert shown(*events, terminal=True, quiet=True) == ""


def test_trials_that_equal_time_will_hold_are_not_predicted() -> None:
    timed = STUDY.model_copy(update={"search": SearchPlan(trials=2, seconds=60)})
    text = shown(
        Resumed(),
        started("dense-00000"),
        ended("dense-00000"),
        started("skipnet-00000"),
        ended("skipnet-00000"),
        Planned(2),
        started("dense-00000-seed1"),
        ended("dense-00000-seed1"),
        terminal=False,
        study=timed,
    )
    assert [line.split("]")[0] for line in text.splitlines()] == ["[1", "[2", "[3 of 4"]


def test_repeated_searches_count_in_the_total_and_as_their_method() -> None:
    repeated = STUDY.model_copy(update={"search": SearchPlan(trials=4, repeats=3)})
    events = (Resumed(), started("dense-r2-00000"), ended("dense-r2-00000"))
    line = "[1 of at most 30] dense-r2-00000 COMPLETE: 90.0 % validation at 0.500 MMACs"
    assert shown(*events, terminal=False, study=repeated).splitlines() == [line]
    assert "dense-r2" not in shown(*events, terminal=True, study=repeated)


def test_a_race_of_searches_counts_the_most_that_it_may_add_and_then_what_it_adds() -> None:
    race = STUDY.confirm.model_copy(update={"race": True, "budget": 4})
    search = SearchPlan(trials=4, repeats=3)
    raced = STUDY.model_copy(update={"search": search, "confirm": race})
    events: tuple[News, ...] = (Resumed(),)
    for trial, planned in (
        ("dense-r2-00000", None),
        ("dense-r2-00000-seed1", Planned(6, 6)),
        ("dense-r4-00000", Planned(None, 8)),
        ("dense-r4-00000-seed1", Planned(7, 8)),
    ):
        events += (planned,) if planned else ()
        events += (started(trial), ended(trial))
    text = shown(*events, terminal=False, study=raced)
    assert [line.split("]")[0] for line in text.splitlines()] == [
        "[1 of at most 50",
        "[2 of 30",
        "[3 of at most 40",
        "[4 of 39",
    ]


def test_paused_trials_are_counted_apart_and_said_once() -> None:
    plan = STUDY.search.model_copy(update={"stop": "promote"})
    study = STUDY.model_copy(update={"search": plan})
    events = [Resumed(), started("dense-00000"), Rung("dense-00000", 2)]
    assert "dense-00000 paused at epoch 2" in shown(*events, terminal=False, study=study)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    progress = Progress(study, console)
    for event in events:
        progress(event)
    paused = rendered(progress, console)
    assert "paused" in paused
    assert re.search(r"dense +0 +0 +1 +0", paused)
    progress(started("dense-00000"))
    assert re.search(r"dense +0 +1 +0 +0", rendered(progress, console))
    assert "paused" not in view(started("dense-00000"))
