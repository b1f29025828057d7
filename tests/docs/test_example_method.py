"""The tutorial's package, put together from the page, keeps the contract and can be swept."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tutorial import mynets

ROOT = Path(__file__).parents[2]
TRY = """
import torch, isoflop
from methods.api import Task
from methods.data.load import load

study = isoflop.Study(
    name="exits",
    data="digits",
    budgets=[0.1, 0.3],
    methods={
        "dense": {"depth": 8, "width": 0.25},
        "exits": {"method": "mynets.earlyexit:EarlyExit", "depth": 8, "width": 0.5},
    },
)
print(study.plan(steps=0).methods[1].method)
method = isoflop.METHODS["mynets.earlyexit:EarlyExit"](depth=8, width=0.25, confidence=0.4)
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
    return mynets(tmp_path_factory.mktemp("tutorial"))


def called(place: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_keeps_the_contract(place: Path) -> None:
    said = called(place, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mynets.py")
    assert re.search(r"\b32 passed", said), said


def test_it_keeps_the_house_rules(place: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    rules = ["check", "--config", ROOT / "pyproject.toml"]
    done = subprocess.run(
        [ruff, *rules, *(place / "mynets" / name for name in ("earlyexit.py", "se.py"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_it_is_planned_trained_and_exported(place: Path) -> None:
    (place / "attempt.py").write_text(TRY)
    said = called(place, "attempt.py")
    assert said.splitlines() == ["exits", "2 tensor(True)", "True"], said
