"""A trial in a worker: the same numbers after any pause, and errors that end it as failed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import METHODS
from methods.api import Method, Network, Output, Phase, Task
from orchestrator import trainable
from orchestrator.measure import measure, prove
from orchestrator.space import parts
from orchestrator.trainable import results

PARAMS: dict[str, Any] = {
    "depth": 8,
    "width": 0.25,
    "recipe.epochs": 4,
    "recipe.batch_size": 64,
    "recipe.lr": 0.1,
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(trainable, "INTERVAL", -1.0)
    return {
        "trial": "skipnet-00000",
        "method": "skipnet",
        "params": PARAMS | {"gate": "rnn"},
        "role": "confirm",
        "seed": 3,
        "data": "digits",
        "data_seed": 0,
        "folder": str(tmp_path / "a"),
        "device": "cpu",
        "threads": 1,
    }


def told(result: dict[str, Any]) -> dict[str, Any]:
    """A result without its clocks."""
    result = {
        **result,
        "metrics": {k: v for k, v in result["metrics"].items() if "seconds" not in k},
    }
    result.pop("time")
    if result["end"]:
        result["end"] = {k: v for k, v in result["end"].items() if k != "seconds"}
    return result


@pytest.mark.parametrize("pause", [1, 2, 3])
def test_a_resumed_trial_says_its_last_word_again_and_ends_the_same(
    config: dict[str, Any], tmp_path: Path, pause: int
) -> None:
    whole = [told(result) for result in results(config)]
    paused = {**config, "folder": str(tmp_path / "b")}
    first = results(paused)
    before = [next(first) for _ in range(pause)]
    first.close()
    after = list(results(paused))
    assert after[0] == before[-1]
    assert [told(result) for result in after[1:]] == whole[pause:]
    assert list(results(paused)) == after[-1:]


def test_the_end_has_both_operating_points_with_test_figures(config: dict[str, Any]) -> None:
    end = list(results(config))[-1]["end"]
    assert end["state"] == "COMPLETE"
    assert [point["point"] for point in end["points"]] == ["supervised", "policy"]
    assert all(0.2 < point["test_acc"] <= 1 for point in end["points"])


def test_a_search_trial_never_reads_the_test_split(config: dict[str, Any]) -> None:
    end = list(results({**config, "role": "search"}))[-1]["end"]
    assert not any(key.startswith("test") for point in end["points"] for key in point)


def test_a_torn_checkpoint_falls_back_to_the_one_before(config: dict[str, Any]) -> None:
    whole = [told(result) for result in results(config)]
    folder = Path(config["folder"]) / "trials" / config["trial"]
    last = folder / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    again = [told(result) for result in results(config)]
    assert again == whole[-2:]
    for path in folder.glob("*.pt"):
        path.write_bytes(b"torn")
    assert [told(result) for result in results(config)] == whole


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"recipe.lr": 1e12}, "diverged: "), ({"depth": 9}, "MethodError: ")],
)
def test_an_error_ends_the_trial_as_failed_with_its_reason(
    config: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    last = list(results({**config, "params": config["params"] | change}))[-1]
    assert last["done"]
    assert last["end"]["state"] == "FAIL"
    assert last["end"]["reason"].startswith(reason)


class _Liar(Network):
    """Says it costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Output:
        return Output(self.head(images.flatten(1)), torch.zeros(len(images)))


class _Cheap(Method):
    def build(self, task: Task) -> _Liar:
        return _Liar()

    def phases(self, smoothing: float = 0.0) -> list[Phase[Any]]:
        return []

    def deploy(self, net: _Liar) -> nn.Module:
        return nn.Sequential(nn.Flatten(), net.head)


def test_a_price_that_is_not_what_runs_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the deployed network executes 1920"):
        prove(_Cheap(), _Liar(), torch.zeros(3, 1, 8, 8))


@pytest.mark.parametrize("name", list(METHODS))
def test_measuring_leaves_the_network_as_it_was(name: str) -> None:
    from methods.data import load

    data = load("digits")
    cheap = {"depth": 8, "width": 0.25, "stages": "1-1-1"}
    fields = METHODS[name].model_fields
    method, _ = parts(name, {key: cheap[key] for key in cheap.keys() & fields})
    net = method.build(data.task).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    measure(method, method.phases()[-1].points(net), "", data, "cpu", test=False)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
