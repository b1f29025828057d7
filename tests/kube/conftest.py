"""An API server for each test that asks for one, and the command as a function."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server import JOBS, Server

from orchestrator.kube import api

STUDY = """
name: tiny
data: digits
budgets: [1]
recipe: {epochs: 3, batch_size: 64}
methods: {dense: {depth: 8, width: {choices: [0.25, 0.5]}}}
search: {trials: 2}
"""
CLUSTER = """
image: isoflop:0.1.0-ray2.60.0
storage: pvc://isoflop-runs
workers:
  - {name: cpu, replicas: 2, cpu: 2, memory: 4Gi}
mlflow: {secret: isoflop-mlflow}
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(api, "PAUSE", 0.01)
    monkeypatch.delenv("ISOFLOP_CLUSTER", raising=False)
    with Server(tmp_path) as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
        yield running


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A study file and a cluster file."""
    study, cluster = tmp_path / "study.yaml", tmp_path / "cluster.yaml"
    study.write_text(STUDY)
    cluster.write_text(CLUSTER)
    return str(study), str(cluster)


@pytest.fixture
def isoflop(files: tuple[str, str]) -> Callable[..., int]:
    """The command; its exit code."""
    from orchestrator.cli import main

    def call(command: str, *words: str) -> int:
        try:
            main([command, *words, "--cluster", files[1]])
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            sys.stdout.flush()
        return 0

    return call


@pytest.fixture
def sweep(files: tuple[str, str], server: Server, isoflop: Callable[..., int]) -> str:
    """The name of a sweep that was submitted."""
    assert isoflop("submit", files[0]) == 0
    server.requests.clear()
    (name,) = server.names(JOBS)
    return name
