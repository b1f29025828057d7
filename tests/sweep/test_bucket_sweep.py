"""A sweep whose trials keep their files in a bucket: its workers see nothing of the driver's."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from apart import URI, BucketSweep, nodes, resumed_at, until_resumable
from buckets import S3, served
from executor import rows_without_ray
from faults import REPEATS, ROOT, Sweep, clean, different, nothing_lost

from methods.errors import BucketAway, StorageError
from orchestrator.record import evidence
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import Ending
from orchestrator.record.trials import Ticket
from orchestrator.study.file import load
from orchestrator.sweep.ready import Place, ready

FILE = """
name: spot
data: digits
budgets: [1]
recipe: {epochs: 12, batch_size: 64}
methods: {skipnet: {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn, policy_share: 0.75}}
search: {trials: 2}
confirm: {seeds: 1}
"""
LOSES = """
from orchestrator.record import evidence
fetch = evidence.fetch
def lose(bucket, study, trial, sha256):
    if not (study / "lost").exists():
        (study / "lost").touch()
        bucket.below(evidence.FOLDER).drop()
    fetch(bucket, study, trial, sha256)
evidence.fetch = lose
"""
"""Run before the command: the bucket loses all evidence as the first confirm run ends."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with served(monkeypatch) as server:
        yield server


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_that_share_no_folder_lose_nothing_when_two_of_them_die(
    tmp_path: Path, server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "sweep" / "runs"
    with nodes(hidden, monkeypatch) as cluster:
        for _ in range(2):
            cluster.add()
        words = ("--address", cluster.address, "--slots", "2", "--bucket", URI)
        sweep = BucketSweep(tmp_path / "sweep", FILE, *words, before=REPEATS)
        try:
            sweep.start()
            until_resumable(sweep, server)
            for change in (cluster.add, cluster.lose):
                change()
                change()
            sweep.until("end", timeout=300)
            sweep.kill()  # the driver, too
            sweep.start()
            assert sweep.wait(400) == 0, sweep.printed()
            clean(sweep.printed())
            assert [event for event in sweep.events() if event["event"] == "lost"]
            assert max(resumed_at(sweep).values()) > 0
            rows = sweep.rows()
            nothing_lost(sweep, f"sqlite:///{sweep.out / 'mlflow.db'}")
        finally:
            sweep.close()
    confirmed = {row.trial for row in rows if row.role == "confirm"}
    kept = {name.split("/")[3] for name in server.names("team/spot/trials")}
    assert kept == confirmed, "what ended is tidied in the bucket as it is in a folder"
    for trial in confirmed:
        assert (sweep.folder / "trials" / trial / "last.pt").exists()
    unbroken = rows_without_ray(sweep.study, tmp_path / "unbroken", lag=2)
    assert different(rows, unbroken) == []


@pytest.mark.parametrize("now", [None, "s3://elsewhere/team"])
def test_a_study_resumes_where_it_began(tmp_path: Path, server: S3, now: str | None) -> None:
    study = load(_file(tmp_path))
    Ledger(tmp_path / "spot", study, bucket=URI).close()
    before = (tmp_path / "spot" / "study.json").read_text()
    with pytest.raises(StorageError, match=f"must keep their files where it began, in {URI}"):
        ready(study, Place(out=tmp_path, bucket=now))
    assert (tmp_path / "spot" / "study.json").read_text() == before
    ready(study, Place(out=tmp_path, bucket=f"{URI}/"))
    assert server.names() == ["team/spot/sweep"]


def test_a_study_of_a_folder_stays_there(tmp_path: Path, server: S3) -> None:
    study = load(_file(tmp_path))
    Ledger(tmp_path / "spot", study).close()
    assert "bucket" not in json.loads((tmp_path / "spot" / "study.json").read_text())
    with pytest.raises(StorageError, match="where it began, in the study's folder, but there is"):
        ready(study, Place(out=tmp_path, bucket=URI))
    assert server.names() == []
    ready(study, Place(out=tmp_path))


@pytest.mark.parametrize("lost", ["last.pt", "evidence", "altered"])
def test_an_end_whose_files_the_bucket_has_lost_is_none(
    tmp_path: Path, server: S3, lost: str
) -> None:
    study = load(_file(tmp_path))
    ledger, content = Ledger(tmp_path / "spot", study, bucket=URI), b"what was predicted"
    ticket = Ticket("skipnet-00000-seed1", "skipnet", "confirm", "skipnet-00000", 1, {"depth": 8})
    ledger.history.start(ticket)
    sha256 = evidence.keep(ticket.trial, content, ledger.depot)
    depot, network = ledger.depot, f"trials/{ticket.trial}/last.pt"
    table = f"{evidence.FOLDER}/{evidence.file_name(ticket.trial, sha256)}"
    if lost != "last.pt":
        depot.write(network, b"net")
    if lost == "evidence":
        depot.below(evidence.FOLDER).drop()
    if lost == "altered":
        depot.write(table, b"else")
    with pytest.raises(BucketAway, match=f"spot/{network if lost == 'last.pt' else table} is"):
        ledger.history.end(ticket.trial, Ending("COMPLETE", evidence=sha256))
    assert not ledger.history.ended(ticket.trial)
    depot.write(network, b"net")
    evidence.keep(ticket.trial, content, depot)
    ledger.history.end(ticket.trial, Ending("COMPLETE", evidence=sha256))
    ledger.close()
    assert evidence.read(tmp_path / "spot", ticket.trial, sha256) == content
    assert (tmp_path / "spot" / network).read_bytes() == b"net"


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_whose_evidence_the_bucket_has_lost_is_served_again(
    tmp_path: Path, server: S3
) -> None:
    several = FILE.replace("seeds: 1", "seeds: 2")
    sweep = BucketSweep(tmp_path / "sweep", several, "--bucket", URI, before=LOSES)
    try:
        sweep.start()
        assert sweep.wait() == 1, sweep.printed()
        said = " ".join(sweep.printed().split())
        assert f"a bucket must keep what the workers write, but {URI}/spot/evidence/" in said
        assert "Traceback" not in said
        sweep.start()
        assert sweep.wait() == 0, sweep.printed()
        assert not [event for event in sweep.events() if event["event"] == "lost"]
        rows = sweep.rows()
        nothing_lost(sweep, f"sqlite:///{sweep.out / 'mlflow.db'}")
    finally:
        sweep.close()
    for row in rows:
        if row.role == "confirm":
            assert evidence.read(sweep.folder, row.trial, row.evidence) is not None
    assert different(rows, rows_without_ray(sweep.study, tmp_path / "unbroken", lag=2)) == []


def test_the_command_refuses_a_bucket_in_a_line_and_writes_nothing(
    tmp_path: Path, server: S3
) -> None:
    study, out = _file(tmp_path), tmp_path / "runs"
    for uri, words in (
        ("ftp://runs/x", "--bucket must be s3://BUCKET/PREFIX, but got"),
        ("s3://absent/x", "s3://absent/x/spot could not be written: "),
    ):
        command = [*Sweep(tmp_path / "command").program, "run", str(study), "--out", str(out)]
        done = subprocess.run(
            [*command, "--bucket", uri], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert words in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
        assert not out.exists()


def _file(folder: Path) -> Path:
    path = folder / "spot.yaml"
    path.write_text(FILE)
    return path
