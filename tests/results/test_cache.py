"""The cache of a store's trials: it answers what the store would, and is never trusted blindly."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from places import Place, few, small
from stores import held

from orchestrator.store import trials


def test_the_cache_answers_what_the_store_would(place: Place) -> None:
    first = place.read()
    assert first == place.truth()
    assert len(first) == len(few())
    assert place.read() == first


def test_old_runs_come_from_the_cache_and_deletions_show_with_refresh(place: Place) -> None:
    before = place.read()
    old = place.run("dense-00000")
    place.client.delete_run(old.info.run_id)
    assert place.read() == before
    after = place.read(refresh=True)
    assert after == place.truth()
    assert {r.trial for r in before} - {r.trial for r in after} == {"dense-00000"}
    assert place.read() == after


def test_edits_show_with_refresh(place: Place) -> None:
    place.read()
    run = place.run("dense-00002")
    points = json.loads(run.data.tags["points"])
    points[0]["val_acc"] = 0.123
    place.client.set_tag(run.info.run_id, "points", json.dumps(points))
    assert 0.123 not in {r.val_acc for r in place.read()}
    assert 0.123 in {r.val_acc for r in place.read(refresh=True)}
    assert place.read() == place.truth()


def test_a_run_deleted_within_the_window_shows_at_once(place: Place) -> None:
    place.read()
    last = max(place.runs(), key=lambda run: run.info.end_time)
    place.client.delete_run(last.info.run_id)
    assert place.read() == place.truth()


def test_what_starts_runs_is_interrupted_and_ends_shows_at_once(place: Place) -> None:
    place.read()
    client, one = place.client, place.run("dense-00000")
    new = client.create_run(
        one.info.experiment_id, tags={**one.data.tags, "trial": "dense-00070", "key": "dense-00070"}
    )
    client.delete_tag(new.info.run_id, "state")
    steps = [
        lambda: None,
        lambda: client.set_terminated(new.info.run_id, "KILLED"),
        lambda: client.update_run(new.info.run_id, "RUNNING"),
        lambda: client.set_tag(new.info.run_id, "state", "COMPLETE"),
        lambda: client.set_terminated(new.info.run_id, "FINISHED"),
    ]
    states = []
    for step in steps:
        step()
        found = place.read()
        assert found == place.truth()
        states += [r.state for r in found if r.trial == "dense-00070"]
    assert states == ["RUNNING", "RUNNING", "RUNNING", "COMPLETE", "COMPLETE"]


def test_a_driver_whose_clock_is_behind_is_not_missed(place: Place) -> None:
    place.read()
    one = place.run("dense-00000")
    latest = max(run.info.end_time for run in place.runs())
    new = place.client.create_run(
        one.info.experiment_id, tags={**one.data.tags, "trial": "dense-00071", "key": "dense-00071"}
    )
    place.client.set_terminated(new.info.run_id, end_time=latest - trials.OVERLAP + 1)
    assert "dense-00071" in {r.trial for r in place.read()}


def test_ends_that_come_late_are_not_hidden_by_an_interruption(place: Place) -> None:
    client, one = place.client, place.run("dense-00000")
    latest = max(run.info.end_time for run in place.runs())

    def arrives(trial: str, status: str, end: int | None, *left_out: str) -> None:
        tags = {**one.data.tags, "trial": trial, "key": trial}
        own = {name: value for name, value in tags.items() if name not in left_out}
        run = client.create_run(one.info.experiment_id, tags=own)
        client.set_terminated(run.info.run_id, status, end)

    arrives("dense-00072", "KILLED", None, "state")  # now, years after the study
    place.read()
    arrives("dense-00073", "FINISHED", latest + 60_000)
    assert place.read() == place.truth()


@pytest.mark.parametrize(
    "harm", ["torn", "flipped", "foreign", "newer", "other", "code", "empty", "folder"]
)
def test_a_cache_that_cannot_be_trusted_is_made_anew(
    place: Place, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = place.read()
    file = place.cached()
    content = file.read_bytes()
    if harm == "torn":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "flipped":
        file.write_bytes(content[:300] + bytes(b ^ 255 for b in content[300:400]) + content[400:])
    elif harm == "foreign":
        pq.write_table(pq.read_table(file).replace_schema_metadata(None).slice(3), file)
    elif harm in ("newer", "other", "code"):
        experiment = place.client.get_experiment_by_name("demo")
        assert experiment is not None
        with monkeypatch.context() as changed:
            if harm == "newer":
                changed.setattr(trials, "VERSION", trials.VERSION + 1)
            elif harm == "other":
                experiment._creation_time += 1
            code = "of another version" if harm == "code" else trials._code()
            own = trials._cache(file.parent, "trials", place.uri, experiment, rows=code)
            kept = pq.read_table(file).slice(3)
            own.save({name: kept[name].to_pylist() for name in kept.column_names}, {"read": 2**60})
            assert len(own.load()[0]) == len(truth) - 3
    elif harm == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
        file.mkdir()
    assert place.read() == truth
    assert place.read() == truth


def test_another_store_at_the_same_place_is_another_store(
    place: Place, tmp_path: Path, template: Path
) -> None:
    place.read()
    anew = tmp_path / "anew.db"
    shutil.copy(template, anew)
    held(f"sqlite:///{anew}", tmp_path / "again", small(), few()[:3])
    shutil.copyfile(anew, place.file)
    assert len(place.read()) == 3
    assert place.read() == place.truth()


def test_no_password_is_written_down(tmp_path: Path) -> None:
    facts = {"uri": "postgresql://me:secret@host/db", "experiment": "1"}
    own = trials.Cache(tmp_path, "trials", facts)
    own.save({"run_id": ["a"]}, {"read": 1})
    (file,) = tmp_path.iterdir()
    assert b"secret" not in file.read_bytes()
    assert "secret" not in file.name
    assert own.load() == ([{"run_id": "a"}], {"read": 1})
