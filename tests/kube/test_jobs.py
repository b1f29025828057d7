"""`isoflop run` as a job that is submitted to a Ray cluster of several nodes, as on Kubernetes."""

import shutil
from pathlib import Path

import pytest
from faults import WORKER, Sweep, below, clean, nothing_lost
from processes import Attempt, end, mounted_study, resumed, running

from orchestrator.kube.cluster import load
from orchestrator.kube.render import render

FILE = """
name: job
data: digits
budgets: [1]
recipe: {epochs: 24, batch_size: 64}
methods: {skipnet: {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn, policy_share: 0.75}}
search: {trials: 2}
confirm: {seeds: 1}
"""


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_submitted_sweep_outlives_a_stop_and_the_death_of_a_node(
    tmp_path: Path, files: tuple[str, str], template: Path
) -> None:
    sweep = Sweep(tmp_path / "sweep", FILE)
    uri = f"sqlite:///{sweep.out / 'mlflow.db'}"
    sweep.out.mkdir()
    shutil.copy(template, sweep.out)
    Path(files[0]).write_text(FILE)
    cluster = Path(files[1])
    cluster.write_text(cluster.read_text().replace("cpu: 2,", "cpu: 1,"))
    objects = render(Path(files[0]), load(cluster))
    study = mounted_study(objects.config_map, tmp_path)
    with Attempt(objects.ray_job, study, sweep.out, {"isoflop-mlflow/uri": uri}) as attempt:
        attempt.submit()
        attempt.until(
            lambda: len(running(sweep)) == 2 and any(e["event"] == "epoch" for e in sweep.events())
        )
        assert attempt.stop() == "STOPPED"
        assert sweep.events()[-1]["event"] == "paused", "within Ray's 3 s before SIGKILL"
        assert "Stopped; nothing is lost" in attempt.printed()

        attempt.submit()
        attempt.until(lambda: len(running(sweep)) == 2 and all(running(sweep).values()))
        workers = attempt.pods[1:]
        assert all(below(pod.containers[0].pid, WORKER) for pod in workers), (
            "trials run in both pods"
        )
        workers[0].kill()
        assert attempt.ended() == "SUCCEEDED", attempt.printed()
        clean(attempt.printed())

        lost = [event["trial"] for event in sweep.events() if event["event"] == "lost"]
        assert len(lost) == 1
        assert resumed(sweep, lost[0]), "from its checkpoint, in the other pod"
        assert {row.state for row in sweep.rows()} == {"COMPLETE"}
        nothing_lost(sweep, uri)
        end(attempt.pods[:1])
        log = attempt.pods[0].output("driver-log").read_text()
        assert "Study job on digits" in log
        assert "skipnet-00001 COMPLETE" in log
