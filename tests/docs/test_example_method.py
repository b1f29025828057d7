"""The tutorial's method, put together from the page, keeps the contract and can be swept."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REGISTER = """
from methods import METHODS

METHODS["earlyexit"] = "earlyexit:EarlyExit"
"""
TRY = """
import torch, isoflop
import register
from methods.api import Task
from methods.data.load import load

study = isoflop.Study(
    name="exits",
    data="digits",
    budgets=[0.1, 0.3],
    methods={"dense": {"depth": 8, "width": 0.25}, "earlyexit": {"depth": 8, "width": 0.5}},
)
print(study.plan(steps=0).methods[1].method)
method = isoflop.METHODS["earlyexit"](depth=8, width=0.25, confidence=0.4)
*_, last = isoflop.train(method, "digits", {"epochs": 3, "batch_size": 32})
net = last.net.eval()
prices = net(load("digits").validation.head(200)[0]).macs
print(len(prices.unique()), prices.min() >= method.floor(Task("digits", 1, 8, 8, 10)))
graph = torch.export.export(
    method.deploy(net), (torch.randn(4, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n")},)
)
images = torch.randn(9, 1, 8, 8)
print(torch.allclose(graph.module()(images), method.deploy(net)(images), atol=1e-4))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tutorial's file, and a module that adds it to the catalogue."""
    page = (ROOT / "docs/method.md").read_text()
    parts = re.findall(r'(?ms)^```python title="methods/earlyexit/method.py"\n(.*?)^```$', page)
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "earlyexit.py").write_text("\n\n".join(parts))
    (folder / "register.py").write_text(REGISTER)
    return folder


def called(place: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_keeps_the_contract(place: Path) -> None:
    options = ["-n", "0", "-q", "-p", "register", "-p", "no:cacheprovider", "-k", "earlyexit"]
    said = called(place, "-m", "pytest", *options, "tests/methods/test_contract.py")
    assert re.search(r"\b15 passed", said), said


def test_it_keeps_the_house_rules(place: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [ruff, "check", "--config", ROOT / "pyproject.toml", place / "earlyexit.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_it_is_planned_trained_and_exported(place: Path) -> None:
    (place / "attempt.py").write_text(TRY)
    said = called(place, str(place / "attempt.py"))
    assert said.splitlines() == ["earlyexit", "2 tensor(True)", "True"], said
