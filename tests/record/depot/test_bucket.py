"""Files of trials in a bucket of a real S3 server, and in a folder: one contract."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import KEYS, NAME, S3, served

from methods.errors import BucketAway, StorageError
from orchestrator.record.depot import Bucket, Depot, Folder, bucket, depot_of, lend, lent
from orchestrator.study.places import place_of_bucket

URI = f"s3://{NAME}/team"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with served(monkeypatch) as server:
        yield server


@pytest.fixture(params=["folder", "bucket"])
def depot(request: pytest.FixtureRequest, tmp_path: Path, server: S3) -> Depot:
    return depot_of(tmp_path / "mine", URI if request.param == "bucket" else None)


def test_a_file_is_written_read_listed_replaced_and_deleted(depot: Depot, tmp_path: Path) -> None:
    trial = depot.below("trials").below("dense-00000")
    assert (trial.names(), trial.read("last.pt")) == ([], None)
    trial.write("last.pt", b"one", spare="previous.pt")
    trial.write("last.pt", b"two", spare="previous.pt")
    trial.write("phase-a.pt", b"")
    assert (trial.read("last.pt"), trial.read("phase-a.pt")) == (b"two", b"")
    trial.tidy("previous.pt")
    assert sorted(trial.names()) == ["last.pt", "phase-a.pt"]
    assert sorted(depot.names()) == [f"trials/dense-00000/{n}" for n in sorted(trial.names())]
    other = depot.below("trials").below("dense-00001")
    other.write("last.pt", b"three")
    assert depot.below("trials").folders() == ["dense-00000", "dense-00001"]
    trial.drop()
    trial.drop()
    assert depot.names() == ["trials/dense-00001/last.pt"]
    assert "dense-00001/last.pt" in other.where("last.pt")


def test_files_reach_workers_and_the_drivers_folder(depot: Depot, tmp_path: Path) -> None:
    home = tmp_path / "mine"
    (home / "source" / "mine").mkdir(parents=True)
    (home / "source" / "mine" / "net.py").write_text("x = 1\n")
    lend(home, depot, "source", "starts")
    copy = depot.below("source").local()
    assert (copy / "mine" / "net.py").read_text() == "x = 1\n"
    if isinstance(depot, Bucket):
        trial = depot.below("trials").below("a")
        trial.write("last.pt", b"net")
        assert trial.fetch(home / "trials" / "a") == ["last.pt"]
        assert (home / "trials" / "a" / "last.pt").read_bytes() == b"net"


def test_a_large_object_is_whole_or_absent_when_its_writer_is_killed(server: S3) -> None:
    before = b"before" * 1000
    depot = Bucket(f"{URI}/mine")
    depot.write("last.pt", before)
    program = (
        "import os, threading, time\n"
        "from orchestrator.record.depot import Bucket\n"
        f"depot = Bucket({URI!r} + '/mine')\n"
        "depot.read('last.pt')\n"
        "print('begins', flush=True)\n"
        "while True: depot.write('last.pt', os.urandom(1) * 24_000_000)\n"
    )
    sizes = set()
    for delay in (0.05, 0.3):
        writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        with writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begins\n"
            time.sleep(delay)
            writer.kill()
        content = depot.read("last.pt")
        assert content is not None
        assert content == before or content == content[:1] * 24_000_000
        sizes.add(len(content))
    assert sizes <= {len(before), 24_000_000}


def test_a_bucket_that_is_away_for_a_while_is_waited_for(
    server: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bucket, "PAUSES", (0.1, 0.2))
    depot = Bucket(f"{URI}/mine")
    depot.write("last.pt", b"one")
    server.leave()

    def return_when_missed() -> None:
        while "waiting 600 s for it" not in caplog.text:
            time.sleep(0.02)
        server.come_back()

    for action in ("read", "write"):
        caplog.clear()
        timer = threading.Thread(target=return_when_missed)
        timer.start()
        if action == "read":
            assert depot.read("last.pt") == b"one"
            server.leave()
        else:
            depot.write("last.pt", b"two")
        timer.join()
        assert "answers again" in caplog.text
    assert depot.read("last.pt") == b"two"


def test_a_bucket_that_stays_away_is_one_line_and_no_missing_file(
    server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", 1.0)
    depot = Bucket(f"{URI}/mine")
    server.leave()
    for action in (lambda: depot.read("last.pt"), lambda: depot.write("x", b""), depot.names):
        with pytest.raises(BucketAway, match="must answer, but s3://runs/team/mine") as caught:
            action()
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)
        assert "Could not connect" in str(caught.value)
    server.come_back()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://", "s3://BUCKET/PREFIX, but got 's3://'"),
        ("s3:/runs", "but got 's3:/runs'"),
        ("https://runs/a", "but got 'https://runs/a'"),
        ("runs", "but got 'runs'"),
        ("s3://Runs/a b", "but got"),
        ("s3://runs/../a", "but got"),
        ("s3://AKIA:hidden-word@runs/a", "without keys, but has some"),
        ("s3://runs/a?secret=hidden-word", "but got secret"),
        ("gs://runs/a", "but got 'gs://runs/a'"),
        ("s3://runs/a?endpoint_override=http://user:hidden-word@minio", "without keys"),
    ],
)
def test_what_is_no_bucket_is_refused_without_its_secrets(uri: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"must be s3://") as caught:
        place_of_bucket(uri)
    assert words in str(caught.value)
    assert "hidden-word" not in str(caught.value)


def test_a_bucket_is_recorded_in_one_form() -> None:
    assert place_of_bucket("s3://runs/team//") == "s3://runs/team"
    with_options = "s3://runs/a?endpoint_override=minio:9000&scheme=http"
    assert place_of_bucket(with_options) == with_options
    assert Bucket(with_options).below("b").uri == with_options.replace("/a?", "/a/b?")


def test_a_bucket_is_probed_before_a_study_begins(server: S3, tmp_path: Path) -> None:
    lent.check(tmp_path / "mine", URI)
    assert server.names() == []

    def refusal(uri: str) -> str:
        with pytest.raises(StorageError) as caught:
            lent.check(tmp_path / "mine", uri)
        assert (caught.value.exit_code, type(caught.value)) == (2, StorageError)
        text = str(caught.value)
        assert "\n" not in text
        assert not any(secret in text for secret in KEYS.values())
        return text

    assert "s3://absent/x/mine could not be written: " in refusal("s3://absent/x")
    assert "bucket does not exist" in refusal("s3://absent/x")
    server.know_no_key()
    assert "could not be written: " in refusal(URI)
    server.know_any_key()
    lent.check(tmp_path / "mine", URI)
    server.leave()
    assert "Could not connect to server" in refusal(URI)
    server.come_back()
    assert list(tmp_path.iterdir()) == []


def test_the_files_of_another_sweep_are_left_alone(server: S3, tmp_path: Path) -> None:
    server.put("team/mine/sweep", b"another")
    with pytest.raises(StorageError, match="has those of another sweep; delete them, or let"):
        lent.check(tmp_path / "mine", URI)
    assert server.names() == ["team/mine/sweep"]


def test_a_folder_keeps_what_a_torn_write_needs(tmp_path: Path) -> None:
    depot = Folder(tmp_path)
    for content in (b"one", b"two"):
        depot.write("last.pt", content, spare="previous.pt")
    (tmp_path / ".last.pt.host-1-2.part").write_bytes(b"t")
    assert sorted(depot.names()) == ["last.pt", "previous.pt"]
    depot.tidy("previous.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
