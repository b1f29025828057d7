"""What a person sees of a sweep, in a terminal and in a file."""

import io

import pytest
from rich.console import Console

from orchestrator.cli.progress import Progress
from orchestrator.record.events import (
    End,
    EndState,
    Figures,
    News,
    Planned,
    Point,
    Resumed,
    Role,
    Start,
)
from orchestrator.study.file import SearchPlan, Study

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


def shown(*events: News, terminal: bool, study: Study = STUDY, width: int = 100) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    progress = Progress(study, console)
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


def test_trials_that_equal_time_will_hold_are_not_foretold() -> None:
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
