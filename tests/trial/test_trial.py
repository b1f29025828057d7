"""A trial in a worker: the same numbers after any pause, and errors that end it as failed."""

import functools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import Ballast, mounted
from torch import Tensor, nn

from methods import METHODS
from methods.api import Method, Network, Output, Phase, StaticNet, Task
from methods.data.load import load
from methods.dense import Dense
from methods.errors import DiskFull, WrongPrice
from orchestrator.record import evidence, log
from orchestrator.record.result import encode_result
from orchestrator.study.params import parts
from orchestrator.trial import run as trainable
from orchestrator.trial.job import decode_job
from orchestrator.trial.measure import measure, prove

PARAMS: dict[str, Any] = {
    "depth": 8,
    "width": 0.25,
    "recipe.epochs": 3,
    "recipe.batch_size": 64,
    "recipe.lr": 0.1,
}


SETTINGS = {"seed": 3, "data": "digits", "data_seed": 0, "device": "cpu", "threads": 1}
Undisturbed = Callable[[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """What a trial says that is never paused, without its clocks; each is run once."""

    @functools.cache
    def whole(method: str, role: str) -> list[dict[str, Any]]:
        folder = str(tmp_path_factory.mktemp("whole"))
        params = PARAMS | ({"gate": "rnn"} if method == "skipnet" else {})
        names = {"trial": f"{method}-00000", "method": method, "role": role}
        return [told(r) for r in results({**SETTINGS, **names, "params": params, "folder": folder})]

    return lambda config: whole(config["method"], config["role"])


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(trainable, "INTERVAL", -1.0)
    return {
        **SETTINGS,
        "trial": "skipnet-00000",
        "method": "skipnet",
        "params": PARAMS | {"gate": "rnn"},
        "role": "confirm",
        "folder": str(tmp_path / "a"),
    }


def results(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a trial says, as its driver and its checkpoints have it."""
    for result in trainable.results(decode_job(config)):
        yield encode_result(result)


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


@pytest.mark.parametrize("pause", [1, 2])
def test_a_resumed_trial_says_its_words_again_and_ends_the_same(
    config: dict[str, Any], tmp_path: Path, undisturbed: Undisturbed, pause: int
) -> None:
    whole = undisturbed(config)
    paused = {**config, "folder": str(tmp_path / "b")}
    first = results(paused)
    before = [next(first) for _ in range(pause)]
    first.close()
    after = list(results(paused))
    assert after[:pause] == before
    assert [told(result) for result in after[pause:]] == whole[pause:]
    assert list(results(paused)) == after


PHASED = {
    "skipnet": {"depth": 8, "width": 0.25, "gate": "rnn"},
    "condensenet": {"stages": "1-1-1", "growth": 4, "condense_factor": 2, "groups": 2},
    "dsnet": {"depth": 8, "width": 0.25},
    "resrep": {"depth": 8, "width": 0.25, "target": 0.5},
    "condconv": {"depth": 8, "width": 0.25, "experts": 2, "placement": "12"},
    "dense": {"depth": 8, "width": 0.25},
}


@pytest.mark.parametrize("method", list(PHASED))
def test_a_trial_that_pauses_at_its_rung_and_resumes_is_one_that_never_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Its last result before the pause is told when its checkpoint stands; lost, it begins anew."""
    monkeypatch.setattr(trainable, "INTERVAL", 1e9)
    recipe = {name: value for name, value in PARAMS.items() if name.startswith("recipe.")}
    config = {
        **SETTINGS,
        "trial": f"{method}-00000",
        "method": method,
        "params": {**PHASED[method], **recipe, "recipe.epochs": 5},
        "role": "search",
    }
    whole = [told(result) for result in results({**config, "folder": str(tmp_path / "whole")})]
    assert whole[-1]["end"]["state"] == "COMPLETE"
    for rung in (1, 3):
        place = tmp_path / f"{rung}"
        paused = {**config, "folder": str(place)}
        worker = results({**paused, "until": rung})
        first = [next(worker) for _ in range(rung)]
        assert (place / "trials" / config["trial"] / "last.pt").exists()
        assert list(worker) == []
        assert [result["done"] for result in first] == [False] * (rung - 1) + [True]
        assert first[-1].pop("pauses") is True
        again = list(results({**paused, "until": rung}))
        assert [result["time"] for result in again] == [result["time"] for result in first]
        if rung == 3:
            shutil.rmtree(place / "trials")
        resumed = list(results(paused))
        assert [told(result) for result in resumed] == whole
        kept = [result["time"] for result in resumed[:rung]]
        assert (kept == [result["time"] for result in first]) == (rung == 1)


def test_the_end_has_both_operating_points_with_test_figures(
    config: dict[str, Any], undisturbed: Undisturbed
) -> None:
    end = undisturbed(config)[-1]["end"]
    assert end["state"] == "COMPLETE"
    assert [point["point"] for point in end["points"]] == ["supervised", "policy"]
    assert all(0.2 < point["test_acc"] <= 1 for point in end["points"])
    for point in end["points"]:
        assert point["weight_bytes"] == 4 * point["parameters"] > 0
        assert point["activation_bytes"] % 4 == 0 < point["activation_bytes"]


def test_a_search_trial_never_reads_the_test_split(
    config: dict[str, Any], undisturbed: Undisturbed
) -> None:
    end = undisturbed({**config, "role": "search"})[-1]["end"]
    assert not any(key.startswith("test") for point in end["points"] for key in point)


def test_a_torn_checkpoint_falls_back_to_the_one_before(config: dict[str, Any]) -> None:
    whole = list(results(config))
    folder = Path(config["folder"]) / "trials" / config["trial"]
    last = folder / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    again = list(results(config))
    assert again[:-1] == whole[:-1]
    assert again[-1]["time"] > whole[-1]["time"]
    assert told(again[-1]) == told(whole[-1])
    for path in folder.glob("*.pt"):
        path.write_bytes(b"torn")
    anew = list(results(config))
    assert anew[0]["time"] > again[-1]["time"]
    assert [told(result) for result in anew] == [told(result) for result in whole]


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"recipe.lr": 1e6}, "diverged: "), ({"depth": 9}, "MethodError: ")],
)
def test_an_error_ends_the_trial_as_failed_with_its_reason(
    config: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    last = list(results({**config, "params": config["params"] | change}))[-1]
    assert last["done"]
    assert last["end"]["state"] == "FAIL"
    assert last["end"]["reason"].startswith(reason)


class _Greedy(Dense):
    """Asks for memory that no machine has."""

    where: str = "host"

    def build(self, task: Task) -> StaticNet:
        if self.where == "python":
            bytearray(2**62)
        torch.empty(2**50, device={"host": "cpu", "gpu": "cuda"}[self.where])
        raise AssertionError("there is so much memory")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("python", "out of memory: "),
        ("host", "out of memory: "),
        pytest.param("gpu", "out of memory: CUDA out of memory", marks=pytest.mark.gpu),
    ],
)
def test_a_trial_without_memory_fails_and_is_not_tried_again(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, where: str, words: str
) -> None:
    if where == "gpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setitem(METHODS, "greedy", _Greedy)
    params = PARAMS | {"where": where}
    told = list(results({**config, "method": "greedy", "params": params}))
    assert [result["end"]["state"] for result in told] == ["FAIL"]
    assert told[0]["end"]["reason"].startswith(words)


class _Priceless(StaticNet):
    """Costs what no budget holds."""

    def forward(self, images: Tensor) -> Output:
        logits, macs = super().forward(images)
        return Output(logits, macs * torch.inf)


class _Endless(Dense):
    def build(self, task: Task) -> StaticNet:
        return _Priceless(super().build(task).backbone, 1)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_cost_that_is_not_finite_fails_with_its_name(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "endless", _Endless)
    last = list(results({**config, "method": "endless", "params": PARAMS, "role": "search"}))[-1]
    assert last["end"] == {"state": "FAIL", "reason": "diverged: val_macs_mean is inf"}


def test_a_checkpoint_without_room_is_a_warning_and_the_trial_continues(
    config: dict[str, Any], tmp_path: Path, undisturbed: Undisturbed
) -> None:
    config = {**config, "role": "search"}
    whole = undisturbed(config)
    with mounted(tmp_path / "small", "1m") as folder:
        cramped = {**config, "folder": str(folder)}
        first = results(cramped)
        kept = next(first)
        place = folder / "trials" / config["trial"]
        before = (place / "last.pt").read_bytes()
        ballast = Ballast(folder)
        time.sleep(0.1)
        rest = list(first)
        assert all("No space left" in result["warning"] for result in rest)
        assert [{k: v for k, v in told(r).items() if k != "warning"} for r in rest] == whole[1:]
        assert [path.name for path in place.iterdir()] == ["last.pt"]
        assert (place / "last.pt").read_bytes() == before
        ballast.drop()
        again = list(results(cramped))
        assert again[0] == kept
        assert [told(result) for result in again[1:]] == whole[1:]


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
    with pytest.raises(WrongPrice, match="the deployed network executes 1920"):
        prove(_Cheap(), _Liar(), torch.zeros(3, 1, 8, 8))


@pytest.mark.parametrize("name", list(METHODS))
def test_measuring_leaves_the_network_as_it_was(name: str) -> None:
    from methods.data.load import load

    data = load("digits")
    cheap = {"depth": 8, "width": 0.25, "stages": "1-1-1"}
    fields = METHODS[name].model_fields
    method, _ = parts(name, {key: cheap[key] for key in cheap.keys() & fields})
    net = method.build(data.task).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    measure(method, method.phases()[-1].points(net), "", data, "cpu", test=False)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_confirm_run_leaves_what_its_figures_were_made_of(config: dict[str, Any]) -> None:
    whole = [told(result) for result in results(config)]
    end = whole[-1]["end"]
    content = evidence.read(Path(config["folder"]), config["trial"], end["evidence"])
    assert content is not None
    kept = evidence.unpacked(content)
    assert evidence.packed(kept) == content
    assert list(kept.points) == ["supervised", "policy"]
    assert (kept.labels == load("digits").test.labels.numpy()).all()
    assert kept.subject.seed == config["seed"]
    for point in end["points"]:
        again = kept.figures(point["point"])
        assert again == {name: point[name] for name in again}
        assert kept.correct(point["point"]).mean() == point["test_acc"]

    paused = {**config, "folder": config["folder"] + "-paused"}
    first = results(paused)
    for _ in range(2):  # into the second phase, whose checkpoint holds what the first one gave
        next(first)
    first.close()
    assert told(list(results(paused))[-1])["end"]["evidence"] == end["evidence"]

    shutil.rmtree(Path(config["folder"]) / evidence.FOLDER)
    assert told(list(results(config))[-1])["end"] == end
    again = evidence.read(Path(config["folder"]), config["trial"], end["evidence"])
    assert again == content, "a trial that is served again after its end writes what was lost"


def test_evidence_waits_for_room_and_without_any_the_trial_is_lost(
    config: dict[str, Any],
    tmp_path: Path,
    undisturbed: Undisturbed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {**config, "trial": "dense-00000", "method": "dense", "params": PARAMS}
    whole = undisturbed(config)
    with mounted(tmp_path / "small", "1m") as folder:
        cramped = {**config, "folder": str(folder)}
        first = results(cramped)
        kept = next(first)
        ballast = Ballast(folder)
        monkeypatch.setattr(log, "PATIENCE", 0.5)
        with pytest.raises(DiskFull, match="free some space"):
            list(first)
        assert not list((folder / "evidence").glob("*"))
        ballast.drop()
        again = list(results(cramped))
        assert again[0] == kept
        assert told(again[-1]) == whole[-1]
