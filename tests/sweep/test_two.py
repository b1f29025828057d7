"""Two drivers on one folder: of one study one is told of the other; two studies do not mix."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import ROOT, STUDY, Sweep, clean, nothing_lost

from methods.errors import StorageError
from orchestrator.record.ledger import Ledger

SMALL = """
name: {name}
data: digits
seed: {seed}
budgets: [0.5]
recipe: {{epochs: 2, batch_size: 64}}
methods: {{dense: {{depth: 8, width: {{choices: [0.25, 0.5]}}}}}}
search: {{trials: 3}}
confirm: {{seeds: 1}}
"""
HOLDS = """
import json, subprocess, sys
from pathlib import Path
if sys.argv[2]:
    subprocess.run(["hostname", sys.argv[2]], check=True)
from orchestrator.record.ledger import Ledger
from orchestrator.study.file import Study
ledger = Ledger(Path(sys.argv[1]), Study.model_validate_json(sys.stdin.readline()))
print("holds", flush=True)
sys.stdin.read()
"""


def other_machine() -> list[str]:
    """The command that gives a process a host name of its own, where that may be."""
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "--uts", "true"], check=False).returncode == 0:
        return [unshare, "--uts"]
    return []


def test_a_study_that_another_machine_runs_is_refused_by_name(tmp_path: Path) -> None:
    apart = other_machine()
    command = [*apart, sys.executable, "-c", HOLDS, str(tmp_path), "node-7" if apart else ""]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(STUDY.model_dump_json(by_alias=True) + "\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "holds\n"
        host = "node-7" if apart else os.uname().nodename
        with pytest.raises(StorageError, match=rf"\(process \d+ on {host}\); wait for it"):
            Ledger(tmp_path, STUDY)
        holder.kill()
    Ledger(tmp_path, STUDY).close()  # a lock dies with its process


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an NFS mount with `nolock`, or Lustre without `flock`; neither can be mounted here."""

    def no_locks(*arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(StorageError, match="on a file system with locks"):
        Ledger(tmp_path, STUDY)


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_studies_at_once_share_a_folder_and_a_store(tmp_path: Path) -> None:
    sweeps = [
        Sweep(tmp_path / name, SMALL.format(name=name, seed=seed))
        for seed, name in enumerate(("one", "two"))
    ]
    for sweep in sweeps:
        sweep.out = tmp_path / "runs"
        sweep.folder = sweep.out / sweep.study.name
        sweep.start()
    assert [sweep.wait(600) for sweep in sweeps] == [0, 0], [s.printed() for s in sweeps]
    for sweep in sweeps:
        clean(sweep.printed())
        nothing_lost(sweep, f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
