"""Cores are counted once: those that a process is bound to, and no more than its quota."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from methods.machine import cores, cpu_quota

ROOT = Path(__file__).parents[2]


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def quota(tmp_path: Path, *lines: str) -> float:
    membership = tmp_path / "membership"
    membership.write_text("".join(f"{line}\n" for line in lines))
    return cpu_quota(tmp_path / "groups", membership)


def test_no_quota_is_no_limit(tmp_path: Path) -> None:
    group(tmp_path / "groups", cpu__max="max 100000")
    group(tmp_path / "groups" / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert quota(tmp_path, "0::/", "4:cpu,cpuacct:/") == math.inf
    assert cpu_quota(tmp_path, tmp_path / "no-linux") == math.inf


def test_a_group_has_no_more_than_the_groups_around_it(tmp_path: Path) -> None:
    group(tmp_path / "groups" / "batch.slice", cpu__max="150000 100000")
    group(tmp_path / "groups" / "batch.slice" / "job 7:a", cpu__max="400000 100000")
    assert quota(tmp_path, "0::/batch.slice/job 7:a") == 1.5
    assert quota(tmp_path, "0::/user.slice") == math.inf


def test_a_container_sees_its_group_at_the_top(tmp_path: Path) -> None:
    group(tmp_path / "groups" / "cpu", cpu__cfs_quota_us="250000", cpu__cfs_period_us="50000")
    assert quota(tmp_path, "5:memory:/", "4:cpuacct,cpu:/docker/0123abc", "0::/") == 5
    group(tmp_path / "groups", cpu__max="50000 100000")
    assert quota(tmp_path, "0::/../../elsewhere") == 0.5


@pytest.fixture
def limited() -> Iterator[Path]:
    """A real group with half a core of time."""
    folder = Path(f"/sys/fs/cgroup/cpu/isoflop-test-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"a control group cannot be made: {error.strerror}")
    (folder / "cpu.cfs_quota_us").write_text("50000")
    yield folder
    folder.rmdir()


def counted(before: object = None) -> int:
    code = "from methods.machine import cores; print(cores())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        preexec_fn=before,  # type: ignore[arg-type]
    )
    return int(done.stdout)


def test_a_real_quota_bounds_the_cores(limited: Path) -> None:
    join = (limited / "cgroup.procs").write_text
    assert counted(lambda: join(str(os.getpid()))) == 1


def test_a_bound_process_has_the_cores_that_it_is_bound_to() -> None:
    if cores() < 2:
        pytest.skip("needs two cores")
    some = min(os.sched_getaffinity(0))
    assert counted(lambda: os.sched_setaffinity(0, {some})) == 1
