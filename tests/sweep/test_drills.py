"""Real kills at random instants: a sweep through them ends as one that nobody touched."""

from pathlib import Path

import pytest
from drill import LONG, drilled_with_a_server
from executor import rows_without_ray
from faults import Sweep, different

from orchestrator.study.file import load


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_of_each_kind_loses_nothing(drilled: Sweep, tmp_path: Path) -> None:
    """Against the same trials without Ray, one after the other in this process."""
    assert different(drilled.rows(), rows_without_ray(load(drilled.file), tmp_path, lag=2)) == []


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_many_kills_at_random_instants_lose_nothing(tmp_path: Path, template: Path) -> None:
    """Against a real sweep that nobody touched."""
    sweep = drilled_with_a_server(tmp_path / "drill", template)
    whole = Sweep(tmp_path / "whole", LONG)
    whole.start()
    try:
        assert whole.wait(900) == 0, whole.printed()
    finally:
        whole.close()
    assert different(sweep.rows(), whole.rows()) == []
