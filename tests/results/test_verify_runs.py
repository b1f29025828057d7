"""Every run of a study is explained by its record; whatever else a store holds is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kept import STUDY, Place, label

from orchestrator import store
from orchestrator.record.events import decode_points
from orchestrator.results import boards
from orchestrator.results.verify import verified
from orchestrator.store import Stored, StoredRun
from orchestrator.store import tags as layout
from orchestrator.store.lines import LAYOUT, NOTE, VIEW_TAG, board_run
from orchestrator.study.params import derive

CONFIRM, SEARCH = "skipnet-00001-seed2", "dense-00001"
Forgery = Callable[[Stored], Stored]


@pytest.fixture(scope="module")
def honest(kept_study: Place) -> Stored:
    return store.read_stored(kept_study.uri, "kept")


def named(stored: Stored, name: str) -> StoredRun:
    return next(run for run in stored.runs if name in (run.name, label(run.tags, run.name)))


def with_run(stored: Stored, old: StoredRun, new: StoredRun) -> Stored:
    """The store with one run replaced, whichever it is."""

    def swapped(runs: tuple[StoredRun, ...]) -> tuple[StoredRun, ...]:
        return tuple(new if run is old else run for run in runs)

    return replace(
        stored,
        trials=swapped(stored.trials),
        boards=swapped(stored.boards),
        others=swapped(stored.others),
        report=new if stored.report is old else stored.report,
    )


def changed(run: str, /, **changes: Any) -> Forgery:
    """One run with other fields; a mapping or a tuple is added to the one that it has."""

    def forge(stored: Stored) -> Stored:
        old = named(stored, run)
        fields: dict[str, Any] = {
            field: value
            if isinstance(value, str)
            else (*getattr(old, field), *value)
            if isinstance(value, tuple)
            else {**getattr(old, field), **value}
            for field, value in changes.items()
        }
        return with_run(stored, old, replace(old, **fields))

    return forge


def without_tag(name: str, tag: str) -> Forgery:
    def forge(stored: Stored) -> Stored:
        old = named(stored, name)
        tags = {key: value for key, value in old.tags.items() if key != tag}
        return with_run(stored, old, replace(old, tags=tags))

    return forge


def metric(name: str, key: str, value: float) -> Forgery:
    """A metric that was logged now."""
    return changed(name, metrics={key: value}, history={key: ((0, value),)})


def another_board(stored: Stored) -> Stored:
    """An older run of the same name, with figures of its own."""
    old = named(stored, "board: dense")
    older = replace(old, run_id="0", metrics={**old.metrics, "acc_percent/at_1m": 99.0})
    return replace(stored, boards=(older, *stored.boards))


def another_report(stored: Stored) -> Stored:
    """A newer one, whose page nobody compares."""
    report = named(stored, "report")
    return replace(stored, others=(*stored.others, replace(report, run_id="f")))


def another_trial(stored: Stored) -> Stored:
    twin = replace(named(stored, SEARCH), run_id="0")
    return replace(stored, trials=(*stored.trials, twin))


def a_running_trial(**changes: Any) -> Forgery:
    """A trial without an end that says more than its start."""

    def forge(stored: Stored) -> Stored:
        ended = named(stored, SEARCH)
        name = "dense-00077"
        start = replace(layout.started(ended.tags), trial=name, config=name)
        start = replace(start, torch_seed=derive(STUDY, name, 0))
        tags = {name: ended.tags[name] for name in ("study", "mlflow.parentRunId")}
        tags |= {"key": start.trial, **layout.start_tags(start)}
        run = StoredRun("7", "KILLED", tags, ended.params, {}, start.trial)
        return replace(stored, others=(*stored.others, replace(run, **changes)))

    return forge


def a_stray(**changes: Any) -> Forgery:
    def forge(stored: Stored) -> Stored:
        run = replace(StoredRun("9", "FINISHED", {}, {}, {}, "notes"), **changes)
        return replace(stored, others=(*stored.others, run))

    return forge


def a_lost_sweep(stored: Stored) -> Stored:
    others = tuple(run for run in stored.others if run.name != "sweep of dense")
    return replace(stored, others=others)


def a_search_trial_on_test(stored: Stored) -> Stored:
    """Test figures in a search trial's own tags, with seals and metrics that agree."""
    old = named(stored, SEARCH)
    start, end = layout.events(old.tags)
    points = json.loads(old.tags["points"])
    points[0] |= {"test_acc": 0.99, "test_macs_mean": 3e5}
    end = replace(end, points=decode_points(points))
    metrics = layout.figures(end.points, start.point)
    history = {name: ((0, value),) for name, value in metrics.items()}
    new = replace(
        old,
        tags={**old.tags, **layout.end_tags(end)},
        metrics={**old.metrics, **metrics},
        history={**old.history, **history},
    )
    return with_run(stored, old, new)


def experiment(**tags: str) -> Forgery:
    return lambda stored: replace(stored, tags={**stored.tags, **tags})


def curve(*values: tuple[int, float]) -> Forgery:
    """The history of a trial's accuracy, whose last value stays."""
    return changed(SEARCH, history={"curve/val_acc": values})


FORGED: list[tuple[str, Forgery, str, str]] = [
    ("board twice", another_board, "run 'dense ", "runs of board/dense"),
    ("report twice", another_report, "report", "runs of report"),
    ("trial twice", another_trial, SEARCH, f"runs of {SEARCH}"),
    ("test metric of a search trial", metric(SEARCH, "test/acc", 0.9), SEARCH, "metric test/acc"),
    ("named a curve", metric(SEARCH, "curve/test_acc", 0.9), SEARCH, "curve/test_acc"),
    ("test figures, sealed", a_search_trial_on_test, SEARCH, "figures on test"),
    ("curve rewritten", curve((1, 0.9)), SEARCH, "SHA-256 of the curve"),
    ("curve written over", curve((1, 0.9), (1, 0.5)), SEARCH, "steps of curve/val_acc twice"),
    ("curve prolonged", curve((1, 0.5), (2, 0.5)), SEARCH, "outside 1 to 1"),
    ("curve added", changed(SEARCH, history={"curve/lr": ((1, 0.1),)}), SEARCH, "of the curve"),
    (
        "figure written over",
        changed(CONFIRM, history={"test/acc": ((0, 0.99), (0, 0.8))}),
        CONFIRM,
        "steps of test/acc",
    ),
    (
        "board's figure written over",
        changed("board: dense", history={"acc_percent/at_1m": ((0, 99.0), (1, 80.0))}),
        "run 'dense ",
        "steps of acc_percent/at_1m",
    ),
    ("trial renamed", changed(CONFIRM, name="the best"), "the best", "name"),
    ("sweep renamed", changed("sweep of dense", name="sweep of all"), "sweep of all", "name"),
    ("report renamed", changed("report", name="draft"), "draft", "name"),
    ("report's note", changed("report", tags={NOTE: "skipnet wins"}), "report", NOTE),
    ("board's note", changed("board: dense", tags={NOTE: "99 %"}), "run 'dense ", NOTE),
    ("trial described", changed(SEARCH, tags={NOTE: "99 %"}), SEARCH, "description"),
    ("experiment's note", experiment(**{NOTE: "skipnet wins"}), "experiment", "description"),
    ("saved view", experiment(**{VIEW_TAG: "{}"}), "experiment", "view of the board"),
    ("experiment renamed", lambda s: replace(s, name="better"), "experiment", "name"),
    ("file below the report", changed("report", artefacts=("a/b.html",)), "report", "a/b.html"),
    ("file of a trial", changed(SEARCH, artefacts=("model.pt",)), SEARCH, "file model.pt"),
    (
        "file of a sweep",
        changed("sweep of dense", artefacts=("table.csv",)),
        "sweep of dense",
        "file table.csv",
    ),
    ("metric of a sweep", metric("sweep of dense", "acc", 0.9), "sweep of dense", "metric acc"),
    ("metric of the report", metric("report", "acc", 0.9), "report", "metric acc"),
    (
        "parameter of a board",
        changed("board: dense", params={"a": "1"}),
        "run 'dense ",
        "parameter a",
    ),
    ("board renamed", changed("board: dense", name="dense 99 %"), "dense 99 %", "name"),
    ("board's parameter", changed("board: dense", params={"depth": "9"}), "run 'dense ", "depth"),
    ("board of other data", changed("board: dense", datasets=("mnist 1",)), "run 'dense ", "data"),
    ("board's layout", without_tag("board: dense", "board_layout"), "run 'dense ", "layout"),
    ("no role", without_tag(CONFIRM, "role"), CONFIRM, "tags"),
    ("no key", without_tag(SEARCH, "key"), SEARCH, "run"),
    ("another role", changed(SEARCH, tags={"role": "sweep"}), SEARCH, "tags"),
    ("another parent", changed(SEARCH, tags={"mlflow.parentRunId": "1"}), SEARCH, "parentRunId"),
    ("another study", changed(SEARCH, tags={"study": "other"}), SEARCH, "tag study"),
    ("another outcome", changed(SEARCH, tags={"outcome": "FAIL"}), SEARCH, "tag outcome"),
    ("sweep lost", a_lost_sweep, "sweep/dense", "run"),
    ("stray", a_stray(), "notes", "run"),
    ("stray with a role", a_stray(tags={"role": "trial-confirm"}), "notes", "run"),
    ("stray with a key", a_stray(tags={"key": "dense-00078"}), "notes", "run"),
    (
        "running trial on test",
        a_running_trial(metrics={"test/acc": 0.9}),
        "dense-00077",
        "metric test/acc",
    ),
    ("running trial with a file", a_running_trial(artefacts=("a",)), "dense-00077", "file a"),
]


@pytest.mark.parametrize(
    ("forge", "where", "what"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED]
)
def test_what_the_record_does_not_explain_is_named(
    honest: Stored, forge: Forgery, where: str, what: str
) -> None:
    flaws = verified("kept", forge(honest)).flaws
    assert any(where in flaw.where and what in flaw.what for flaw in flaws), flaws


def test_a_trial_that_runs_and_tags_of_others_are_notes(honest: Stored) -> None:
    findings = verified("kept", a_running_trial()(honest))
    assert findings.flaws == []
    assert any("1 trials have no end yet, dense-00077" in note for note in findings.notes)
    reviewed = verified(
        "kept", changed(SEARCH, tags={"reviewed": "yes", "mlflow.user": "a"})(honest)
    )
    assert reviewed.flaws == []
    assert any(note.endswith("no sweep wrote: reviewed.") for note in reviewed.notes)


def test_a_curve_of_an_earlier_version_is_checked_by_its_steps(honest: Stored) -> None:
    old = named(honest, SEARCH)
    tags = {name: value for name, value in old.tags.items() if name != "curve_sha256"}
    tags["end_sha256"] = layout.end_tags(layout.events(tags)[1])["end_sha256"]
    earlier = with_run(honest, old, replace(old, tags=tags))
    findings = verified("kept", earlier)
    assert findings.flaws == []
    assert any("1 trials ended under a version" in note for note in findings.notes)
    assert verified("kept", curve((1, 0.5), (3, 0.5))(earlier)).flaws


@pytest.fixture
def before(honest: Stored, kept_study: Place) -> Stored:
    """The study as a version published it that wrote fractions, and no figures into names."""
    board = boards.at_budgets("kept", [], kept_study.out)
    lines = []
    for run in honest.boards:
        line = board_run(board, run.tags["method"], earlier=True)
        tags = {name: value for name, value in run.tags.items() if name not in LAYOUT}
        content = json.dumps([run.tags["method"], line.metrics, line.words], sort_keys=True)
        tags |= {NOTE: "The runs behind each number:\n", "content": content}
        history = {name: ((0, value),) for name, value in line.metrics.items()}
        old = replace(run, name=line.name, tags=tags, params={}, datasets=())
        lines.append(replace(old, metrics=line.metrics, history=history))
    report = named(honest, "report")
    verdict = report.tags[NOTE].partition("). ")[2]
    return replace(
        honest,
        boards=tuple(lines),
        report=replace(report, tags={**report.tags, NOTE: verdict}),
        tags={**honest.tags, NOTE: f"{verdict}\n\n[The report](#)", VIEW_TAG: "{}"},
    )


def test_a_board_of_an_earlier_version_is_checked_by_its_figures(before: Stored) -> None:
    findings = verified("kept", before)
    assert findings.flaws == []
    assert any("in another form" in note for note in findings.notes)


@pytest.mark.parametrize(
    ("forge", "where", "what"),
    [
        (metric("board: dense", "acc/at_1m", 0.99), "board: dense", "acc/at_1m"),
        (metric("board: dense", "acc_percent/at_1m", 99.0), "board: dense", "acc_percent/at_1m"),
        (changed("board: dense", name="dense 99 %"), "dense 99 %", "name"),
        (changed("board: dense", params={"depth": "9"}), "board: dense", "parameter depth"),
        (changed("report", tags={NOTE: "skipnet wins"}), "report", NOTE),
    ],
)
def test_a_forged_line_of_such_a_board_is_named(
    before: Stored, forge: Forgery, where: str, what: str
) -> None:
    flaws = verified("kept", forge(before)).flaws
    assert any(where in flaw.where and what in flaw.what for flaw in flaws), flaws
