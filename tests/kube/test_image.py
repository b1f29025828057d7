"""`make image-check`: the image is built and run, not as root and with a root that is read only."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import TAG, Engine, Image

MOST = 2e9
"""Bytes of the image without CUDA."""
STUDY = """\
name: one
data: digits
budgets: [0.2]
recipe: {epochs: 1}
search: {trials: 1}
confirm: {seeds: 1}
methods: {dense: {depth: 8, width: 0.25}}
resources: {concurrency: 1}
"""
HEALTHY = "import urllib.request as r; print(r.urlopen('http://localhost:5000/health').read())"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if "ISOFLOP_IMAGE_CHECK" not in os.environ:
        pytest.skip("`make image-check` builds the image")
    engine = Engine.found()
    if engine is None:
        pytest.skip("neither Docker nor Podman works here (Debian: podman, runc, mmdebstrap)")
    built = engine.build(tmp_path_factory.mktemp("image"))
    sys.stdout.write(f"\n{TAG}, {built.told}: {built.size / 1e9:.2f} GB\n")
    yield built
    engine.run("image", "rm", "--force", TAG)


def test_it_is_below_two_gigabytes(image: Image) -> None:
    assert image.size < MOST


def test_it_holds_what_was_locked_and_is_not_root(image: Image) -> None:
    assert image.call("isoflop", "--version").stdout.startswith("isoflop ")
    assert image.call("id", "-u").stdout.strip() == "1000"
    assert "No broken requirements" in image.call("pip", "check").stdout
    cannot = image.call("sh", "-c", "touch /opt/isoflop/x 2>&1 || true").stdout
    assert "Read-only file system" in cannot


def test_it_runs_a_study_of_one_trial(image: Image, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(STUDY)
    tmp_path.chmod(0o755)
    (tmp_path / "one.yaml").chmod(0o644)
    mounts = (f"{tmp_path / 'one.yaml'}:/study/one.yaml:ro",)
    done = image.call("sh", "-c", "isoflop run /study/one.yaml && ls runs/one", mounts=mounts)
    assert "report" in done.stdout


def test_it_serves_mlflow(image: Image) -> None:
    with image.serving("mlflow", "server", "--port", "5000") as name:
        deadline = time.monotonic() + 300
        ask = ("exec", name, "python", "-c", HEALTHY)
        while not (asked := image.engine.run(*ask, check=False)).stdout:
            assert time.monotonic() < deadline, asked.stderr
            time.sleep(1)
        assert "OK" in asked.stdout
