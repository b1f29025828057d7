"""The source distribution and the wheel: their contents, and runs of the wheel elsewhere."""

import email
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from shadows import shadow
from tutorial import mynets

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "requirements.lock")
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


OUTSIDE = """
name: mine
data: digits
budgets: [0.3]
recipe: {epochs: 2, batch_size: 64}
methods:
  dense: {depth: 8, width: 0.25}
  senet: {depth: 8, width: 0.25}
  exits: {method: "exits:EarlyExit", depth: 8, width: 0.25}
search: {trials: 1, published: false}
confirm: {seeds: 1}
"""
"""One method that a package registers, and one that lies beside the study."""
LOAD = """
import isoflop, torch
print(*(tuple(isoflop.load(f"out/{name}")(torch.randn(2, 1, 8, 8)).shape) for name in "ab"))
"""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution, and beside it in build.log what its build printed."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("methods", "orchestrator", "studies", "k8s", "tests/face"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for file in (*TOP, "pyproject.toml", "MANIFEST.in"):
        shutil.copy(ROOT / file, source)
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (archive,) = (source / "dist").glob("*.tar.gz")
    unpacked = tmp_path_factory.mktemp("sdist")
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    (unpacked / "build.log").write_text(done.stdout + done.stderr)
    (folder,) = unpacked.glob("isoflop-*")
    return folder


@pytest.fixture(scope="module")
def site(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's packages, built from the source distribution."""
    return installed(sdist, tmp_path_factory.mktemp("site"))


def installed(source: Path, place: Path) -> Path:
    """A folder with a package and its entry points, as pip installs them."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(place), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place


def call(site: Path | str, folder: Path, *command: str, code: int = 0) -> str:
    """What a command prints that finds the wheel before the checkout; its errors if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        str(file.parent.relative_to(ROOT)).replace("/", ".")
        for package in ("methods", "orchestrator")
        for file in (ROOT / package).rglob("__init__.py")
    }
    data = {"isoflop.studies", "isoflop.clusters", *settings["package-data"]}
    assert set(settings["packages"]) == folders - {"orchestrator.isoflop"} | {"isoflop"} | data


def test_the_source_distribution_is_whole_and_builds_without_a_warning(sdist: Path) -> None:
    assert [name for name in TOP if not (sdist / name).is_file()] == []
    assert not (sdist / "tests").exists()
    assert "would be ignored" not in (sdist.parent / "build.log").read_text()


def test_the_wheel_holds_every_file_of_its_packages(site: Path) -> None:
    folders = {"methods": "methods", "orchestrator": "orchestrator", "studies": "isoflop/studies"}
    folders |= {"k8s/chart": "isoflop/chart", "k8s/clusters": "isoflop/clusters"}
    folders |= {"orchestrator/isoflop": "isoflop"}
    missing = [
        file
        for folder, installed in folders.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file()
        and "__pycache__" not in file.parts
        and not {"claims", "tables"} & set(file.parts)
        and (folder != "orchestrator" or "isoflop" not in file.parts[-2:-1])
        and not (site / installed / file.relative_to(ROOT / folder)).is_file()
    ]
    assert missing == []


def test_the_metadata_names_licences_and_readme(site: Path) -> None:
    (folder,) = site.glob("isoflop-*.dist-info")
    about = email.message_from_string((folder / "METADATA").read_text())
    assert about["License-Expression"] == "Apache-2.0 AND ISC"
    licences = about.get_all("License-File") or []
    assert len(licences) == 3
    assert all((folder / "licenses" / licence).is_file() for licence in licences)
    assert about["Author"] == "The isoflop maintainers"
    assert "Programming Language :: Python :: 3.11" in (about.get_all("Classifier") or [])
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload().startswith("# isoflop")


def test_the_wheel_holds_the_studies_and_clusters(site: Path, tmp_path: Path) -> None:
    script = str(site / "bin" / "isoflop")
    objects = call(
        site, tmp_path, script, "submit", "quickstart", "--cluster", "local", "--dry-run"
    )
    assert "kind: RayJob" in objects
    assert "name: quickstart" in objects
    chart = Path(call(site, tmp_path, script, "chart").strip())
    assert chart == site / "isoflop" / "chart"
    assert "kind: Deployment" in (chart / "rendered" / "production.yaml").read_text()
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


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_methods_of_other_packages_are_swept_verified_and_exported(
    site: Path, tmp_path: Path
) -> None:
    work = shadow(tmp_path / "work")
    source = mynets(tmp_path / "mynets")
    shutil.copy(source / "mynets" / "earlyexit.py", work / "exits.py")
    (work / "study.yaml").write_text(OUTSIDE)
    sites = f"{site}{os.pathsep}{installed(source, tmp_path / 'site')}"
    script = str(site / "bin" / "isoflop")

    def isoflop(*words: str, code: int = 0) -> str:
        return call(sites, work, script, *words, code=code)

    assert "senet" in isoflop("methods")
    assert "confidence" in isoflop("methods", "exits:EarlyExit")
    isoflop("run", "study.yaml", "--quiet")
    isoflop("run", "study.yaml", "--quiet")  # as it was: nothing is left to do
    board = isoflop("board", "mine", "--csv").splitlines()
    assert sorted(line.partition(",")[0] for line in board[1:]) == ["dense", "exits", "senet"]
    assert "methods: source" in isoflop("verify", "mine")
    isoflop("export", "mine/senet", "--to", "out/a")
    isoflop("export", "mine/exits", "--to", "out/b")
    isoflop("export", "mine/exits", "--to", "out/c", "--format", "onnx")
    assert call(sites, work, sys.executable, "-P", "-c", LOAD) == "(2, 10) (2, 10)\n"

    with (work / "exits.py").open("a") as file:
        file.write("# changed\n")
    refused = isoflop("run", "study.yaml", code=2)
    assert "the source of exits:EarlyExit, a method of study 'mine', must be what" in refused
    assert "but differs in exits.py (SHA-256" in refused
    assert refused.count("\n") == 1
    assert "1 of" in isoflop("verify", "mine", code=1)
    isoflop("export", "mine/exits", "--to", "out/b")  # from the source that was trained
    (work / "exits.py").unlink()
    isoflop("verify", "mine")
    assert "but no module is called 'exits'" in isoflop("run", "study.yaml", code=2)
    isoflop("board", "mine")
    lost = call(site, work, sys.executable, "-P", "-c", LOAD, code=1)
    assert "is of a method of another package, and this format needs it" in lost

    isoflop("train", "mynets.se:SENet", "--epochs", "2", "--set", "depth=8", "--keep", "kept")
    isoflop("export", "kept", "--to", "out/d")
    assert (work / "kept" / "source" / "mynets" / "se.py").is_file()
