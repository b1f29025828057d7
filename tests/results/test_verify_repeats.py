"""What a store says of the searches of a repeated study, and that a forged repeat is named."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from boards import undraw
from kept import STUDY, Place, made

from methods.api import Task
from orchestrator import store
from orchestrator.record.ledger import Ledger
from orchestrator.results.verify import verified, verify
from orchestrator.search.agenda import Agenda
from orchestrator.store import StoredRun
from orchestrator.store import tags as layout
from orchestrator.study.file import Study


@pytest.fixture(scope="module")
def place(kept_study: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return kept_study.copied(tmp_path_factory.mktemp("store") / "runs")


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Place:
    content = STUDY.model_dump() | {"search": {"trials": 4, "repeats": 2}}
    with pytest.MonkeyPatch.context() as changed:
        undraw(changed)
        return made(tmp_path_factory.mktemp("repeated") / "runs", Study.model_validate(content))


def test_every_run_of_a_repeated_study_says_its_repeat(repeated: Place, place: Place) -> None:
    study = Study.model_validate(STUDY.model_dump() | {"search": {"trials": 4, "repeats": 2}})
    ledger = Ledger(repeated.out / "kept", study)
    recorded = ledger.history.rows()
    ledger.close()
    rows = store.read_rows(repeated.uri, "kept")
    assert [replace(row, run_id=None) for row in rows] == recorded
    assert {(row.method, row.repeat, row.role) for row in rows} == {
        (method, repeat, role)
        for method in ("dense", "skipnet")
        for repeat in (1, 2)
        for role in ("search", "confirm")
    }
    assert all(row.trial.startswith(f"{row.method}-r{row.repeat}-") for row in rows)
    client, experiment = repeated.client, repeated.client.get_experiment_by_name("kept")
    assert experiment is not None
    for number in (1, 2):
        tagged = client.search_runs([experiment.experiment_id], f"tags.repeat = '{number}'")
        names = {str(run.info.run_name) for run in tagged}
        assert names == {row.trial for row in rows if row.repeat == number}
    assert all("repeat" not in run.tags for run in store.read_stored(place.uri, "kept").trials)
    assert verify("kept", repeated.out).flaws == []


def test_a_race_of_searches_is_verified_and_its_searches_have_their_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undraw(monkeypatch)
    raced = Study.model_validate(
        STUDY.model_dump()
        | {
            "search": {"trials": 4, "repeats": 3},
            "confirm": {"seeds": 1, "race": True, "budget": 5},
        }
    )
    place = made(tmp_path / "runs", raced)
    rows = store.read_rows(place.uri, "kept")
    counts = Counter(method for method, _ in {(row.method, row.repeat) for row in rows})
    assert counts["dense"] != counts["skipnet"]
    assert counts.total() == 6 + 5
    stored = store.read_stored(place.uri, "kept")
    tags = {run.tags["trial"]: run.tags["repeat"] for run in stored.trials}
    assert tags == {row.trial: str(row.repeat) for row in rows}
    assert verify("kept", place.out).flaws == []
    board = json.loads(stored.files["provenance.json"])["board"]
    assert board["searches"] == counts
    assert any("Race: 5 of 5 further searches" in note for note in board["notes"])
    ledger = Ledger(place.out / "kept", raced)
    assert ledger.history.rows() == [replace(row, run_id=None) for row in rows]
    assert Agenda(ledger.history, Task("digits", 1, 8, 8, 10)).finished
    ledger.close()


SECOND = "skipnet-r2-00001-seed1"


def without_the_tag(run: StoredRun) -> StoredRun:
    return replace(run, tags={key: value for key, value in run.tags.items() if key != "repeat"})


def another_repeat(run: StoredRun) -> StoredRun:
    """The run as one of the first search, resealed by one who knows the seal."""
    tags = {key: "1" if key == "repeat" else value for key, value in run.tags.items()}
    start = layout.start_tags(layout.events(run.tags)[0])
    del start["start_sha256"]
    return replace(run, tags=tags | {"start_sha256": layout.seal({k: tags[k] for k in start})})


@pytest.mark.parametrize(
    ("forged", "named"),
    [
        (without_the_tag, "seal"),
        (lambda run: replace(run, tags={**run.tags, "repeat": "1"}), "seal"),
        (lambda run: replace(run, tags={**run.tags, "repeat": "second"}), "tags"),
        (another_repeat, "search"),
    ],
)
def test_a_run_under_another_repeat_is_found(
    repeated: Place, forged: Callable[[StoredRun], StoredRun], named: str
) -> None:
    stored = store.read_stored(repeated.uri, "kept")
    trials = tuple(forged(r) if r.tags["trial"] == SECOND else r for r in stored.trials)
    findings = verified("kept", replace(stored, trials=trials))
    assert any(SECOND in flaw.where and named in flaw.what for flaw in findings.flaws)


def test_a_repeat_where_searches_are_not_repeated_is_found(place: Place) -> None:
    honest = store.read_stored(place.uri, "kept")
    first, *others = honest.trials
    forged = replace(first, tags={**first.tags, "repeat": "2"})
    findings = verified("kept", replace(honest, trials=(forged, *others)))
    assert any("repeat" in flaw.what for flaw in findings.flaws)
