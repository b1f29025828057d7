"""What a wheel holds, and what runs from it in another folder than the checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio
import threading

import isoflop

print(isoflop.__file__)


async def sweep():
    methods = {"dense": {"depth": 8, "width": 0.25}}
    plan = {"search": {"trials": 1}, "confirm": {"seeds": 1}, "recipe": {"epochs": 2}}
    study = isoflop.Study(name="threaded", data="digits", budgets=[1], methods=methods, **plan)
    return study.run("runs")


results = []
thread = threading.Thread(target=lambda: results.append(asyncio.run(sweep())))
thread.start()
thread.join()
print(len(results[0].board()), results[0], results[0].verify().flaws)
"""
"""A script as people write it: no guard, and a sweep in a thread, in which a loop runs."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's packages, built from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("methods", "orchestrator", "studies", "k8s/clusters"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(place), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place


def call(site: Path, folder: Path, *command: str) -> str:
    """What a command prints that finds the wheel before the checkout."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        str(file.parent.relative_to(ROOT)).replace("/", ".")
        for package in ("methods", "orchestrator")
        for file in (ROOT / package).rglob("__init__.py")
    }
    data = {"isoflop.studies", "isoflop.clusters"}
    assert set(settings["packages"]) == folders - {"orchestrator.isoflop"} | {"isoflop"} | data


def test_the_wheel_holds_the_studies_and_clusters(site: Path, tmp_path: Path) -> None:
    script = str(site / "bin" / "isoflop")
    objects = call(
        site, tmp_path, script, "submit", "quickstart", "--cluster", "local", "--dry-run"
    )
    assert "kind: RayJob" in objects
    assert "name: quickstart" in objects
    assert call(site, tmp_path, script, "--version").startswith("isoflop 0.")


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_script_runs_a_sweep_in_a_thread_and_under_a_loop(site: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    lines = call(site, tmp_path, sys.executable, "script.py").splitlines()
    assert lines[0] == str(site / "isoflop" / "__init__.py")
    assert lines[-1] == "1 Results('threaded') []"
