"""Where workers look for modules."""

import os
import sys
from pathlib import Path

import pytest
import ray

from methods.errors import ClusterError
from orchestrator.study.file import Resources
from orchestrator.sweep.cluster import driver_path, started


def test_the_driver_s_path_ends_at_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = next(entry for entry in sys.path if entry.endswith(".zip"))
    monkeypatch.setattr(sys, "path", ["", "/mine", library, "/site-packages"])
    assert driver_path() == [str(Path.cwd()), "/mine"]


@pytest.mark.ray
def test_workers_look_where_the_driver_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when Ray no longer asks its job, by private names, which folders workers search."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with started(Resources(), "local"):
        searched = ray.get(ray.remote(lambda: list(sys.path)).remote())
        with (
            pytest.raises(ClusterError, match="connected to one already"),
            started(Resources(), "local"),
        ):
            pass
    assert str(tmp_path) not in searched
    assert "" not in searched
    assert searched[: len(driver_path())] == driver_path()
    assert os.environ["TUNE_DISABLE_SIGINT_HANDLER"] == "1"
