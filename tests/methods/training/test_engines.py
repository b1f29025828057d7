"""What an engine executes has the values, gradients, states and random numbers of the code."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest
import torch

from methods import METHODS
from methods.data.load import load
from methods.shipping.choices import Choices
from methods.shipping.forms import fastest
from methods.training import engines
from methods.training.engines import run_by
from methods.training.loop import Recipe, train
from tests.methods.shipping.test_forms import SMALL, images, shipped

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def by_engines(*what: str) -> Any:
    """From a process of its own, without the checks of shapes, which no compiler follows."""
    command = [sys.executable, "-m", "tests.helpers.engines", *what]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [("condensenet", "resrep"), pytest.param(tuple(sorted(SMALL)), marks=pytest.mark.full)],
)
def test_a_captured_step_is_the_step_itself(names: tuple[str, ...]) -> None:
    differences = by_engines("steps", *names)
    assert {step.split()[0] for step in differences} == set(names)
    assert set(differences.values()) == {0.0}


@pytest.mark.full
def test_a_compiled_trial_has_the_losses_of_an_eager_one() -> None:
    losses = by_engines("trials")
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=1e-4)


@pytest.mark.slow
def test_a_deployed_network_is_executed_by_its_fastest_engine_unless_that_is_wrong() -> None:
    found = by_engines("deployed")
    first, again, wrong = found["forms"]
    assert first == again
    assert found["error"] < 1e-4
    assert found["compiled"] < 1e-4
    assert found["measured"] == 1
    assert "compiled" not in wrong


def test_without_a_compiler_a_step_runs_eagerly_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "_missing", lambda _place: "no C++ compiler")
    with caplog.at_level(logging.WARNING):
        assert run_by("compiled", torch.sin, CPU) is torch.sin
    assert "all runs eagerly: no C++ compiler" in caplog.text


def test_an_eager_recipe_is_recorded_as_before() -> None:
    assert "engine" not in Recipe().model_dump()
    assert Recipe(engine="graphs").model_dump()["engine"] == "graphs"


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize("engine", ["compiled", "graphs"])
def test_on_a_gpu_every_method_trains_by_every_engine(name: str, engine: str) -> None:
    method = METHODS[name].of(SMALL[name])
    data = load("digits", device="cuda")
    losses = []
    for each in ("eager", engine):
        recipe = Recipe.of({"epochs": 3, "batch_size": 64, "lr": 0.05, "engine": each})
        losses.append([e.loss for e in train(method, data, recipe, seed=3, device="cuda")])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", sorted(SMALL))
def test_on_a_gpu_a_deployed_network_has_its_values_by_every_engine(
    name: str, tmp_path: Any
) -> None:
    net, some = shipped(name).float().cuda(), images(4).float().cuda()
    with torch.no_grad():
        found = fastest(net, some, Choices(tmp_path))(some)
        assert torch.allclose(found, net(some), rtol=1e-3, atol=1e-3)
