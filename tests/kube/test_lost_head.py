"""The head of a submitted sweep is lost with its driver, and the same submission resumes it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from executor import rows_without_ray
from faults import Sweep, clean, different, nothing_lost
from processes import TOKEN, Attempt, mounted_study, resumed, running
from server import JOBS, MAPS, Server
from stores import Server as Tracking

from orchestrator import store
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Rules
from orchestrator.record.rows import Row

FILE = """
name: lost
data: digits
budgets: [1]
recipe: {epochs: 12, batch_size: 64}
methods: {skipnet: {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn, policy_share: 0.75}}
search: {trials: 3}
confirm: {seeds: 2}
"""
LATEST = 9
"""The last epoch at which a kill is sure to come before the end of the trial."""
WORD = "a-password-of-mlflow"
Instant = Callable[[Sweep], bool]


def in_the_search(sweep: Sweep) -> bool:
    """A trial has ended, and another has a checkpoint, and some epochs to come."""
    ended = any(each["event"] == "end" for each in sweep.events())
    return ended and any(0 < epoch <= LATEST for epoch in running(sweep).values())


def in_the_confirm_runs(sweep: Sweep) -> bool:
    """A confirm run has a checkpoint, and some epochs to come."""
    trials = running(sweep).items()
    return any("-seed" in trial and 0 < epoch <= LATEST for trial, epoch in trials)


@pytest.fixture
def sweep(tmp_path: Path, files: tuple[str, str]) -> Sweep:
    """The study; in the cluster file the worker pods have one CPU."""
    cluster = Path(files[1])
    cluster.write_text(cluster.read_text().replace("cpu: 2,", "cpu: 1,"))
    return Sweep(tmp_path / "sweep", FILE)


@pytest.fixture
def tracking(tmp_path: Path, template: Path) -> Iterator[Tracking]:
    """An MLflow server, which outlives every cluster of Ray."""
    folder = tmp_path / "mlflow"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(template.read_bytes())
    server = Tracking(folder)
    server.start()
    yield server
    server.kill()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "instants",
    [
        pytest.param([in_the_search], id="in the search"),
        pytest.param([in_the_search, in_the_confirm_runs], id="twice", marks=pytest.mark.full),
    ],
)
def test_a_head_that_is_lost_loses_nothing(
    sweep: Sweep,
    server: Server,
    isoflop: Callable[..., int],
    tracking: Tracking,
    instants: list[Instant],
) -> None:
    folder = sweep.file.parent
    secrets = {
        "isoflop-mlflow/uri": tracking.uri,
        "isoflop-mlflow/username": "someone",
        "isoflop-mlflow/password": WORD,
    }
    for instant in (*instants, None):
        assert isoflop("submit", str(sweep.file)) == 0
        (name,) = server.names(JOBS)
        study = mounted_study(server.store.objects[f"{MAPS}/{name}"], folder)
        with Attempt(server.store.objects[f"{JOBS}/{name}"], study, sweep.out, secrets) as attempt:
            attempt.submit()
            server.status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
            if instant:
                attempt.until(partial(instant, sweep))
                attempt.lose()
                clean((attempt.pods[0].output("driver-log")).read_text())
                server.status(name, jobDeploymentStatus="Failed", jobStatus="FAILED")
            else:
                assert attempt.ended() == "SUCCEEDED", attempt.printed()
                clean(attempt.printed())
            check_kept(sweep.out / ".logs" / name / attempt.name, attempt)

    starts = Counter(each["trial"] for each in sweep.events() if each["event"] == "start")
    again = [trial for trial, count in starts.items() if count > 1]
    assert len(again) >= len(instants)
    assert any(resumed(sweep, trial) for trial in again), "from a checkpoint, not from scratch"
    nothing_lost(sweep, tracking.uri)
    rows = store.read_rows(tracking.uri, sweep.study.name)
    whole = rows_without_ray(sweep.study, folder / "whole", lag=2)
    assert different(rows, whole) == []
    assert board(rows, sweep) == board(whole, sweep)


def board(rows: list[Row], sweep: Sweep) -> Board:
    """What the rows say, but for the clock's and MLflow's fields."""
    rows = [replace(row, seconds=0.0, run_id=None) for row in rows]
    return leaderboard(rows, Rules.of(sweep.study))


def check_kept(folder: Path, attempt: Attempt) -> None:
    """What the claim has of an attempt's logs: Ray's and the workers', of every pod; no secret."""
    assert {pod.name for pod in attempt.pods} == {path.name for path in folder.iterdir()}
    head, *workers = (folder / pod.name for pod in attempt.pods)
    assert "Study lost on digits" in "".join(
        log.read_text() for log in head.glob("job-driver-*.log")
    )
    assert (head / "gcs_server.out").stat().st_size
    for worker in workers:
        assert (worker / "raylet.out").stat().st_size
    assert [log for worker in workers for log in worker.glob("worker-*.err")]
    logs = [log.read_bytes() for pod in (head, *workers) for log in pod.iterdir()]
    assert not any(word.encode() in log for log in logs for word in (WORD, TOKEN))
