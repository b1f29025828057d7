"""`isoflop train --start`: what it prints and keeps, and the sentences that refuse a start."""

import json
from pathlib import Path

import pytest
import torch
from command import called
from huggingface_hub import constants
from safetensors.torch import save_file

import isoflop
from methods import METHODS
from methods.api import Task

SMALL = ("--set", "depth=8", "--set", "width=0.25", "--epochs", "1")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights in the working folder."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = METHODS["dense"].of({"depth": 8, "width": 0.25}).build(Task("d", 1, 8, 8, 10))
    save_file(net.backbone.state_dict(), tmp_path / "resnet.safetensors")
    return tmp_path / "resnet.safetensors"


def test_a_training_starts_from_a_file_and_the_next_from_that_training(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = called(capsys, "train", "dense", *SMALL, "--start", weights.name, "--keep", "first")
    assert first.code == 0, first.err
    assert "start: resnet.safetensors: 56 tensors are filled" in first.out
    content = json.loads(Path("first/trained.json").read_text())
    assert content["provenance"]["starts"]["dense"]["name"] == "resnet.safetensors"
    second = called(capsys, "train", "resrep", *SMALL, "--start", "first", "--keep", "second")
    assert second.code == 0, second.err
    assert "base_share=0.0" in second.out
    assert "epoch 1/1 prune" in second.out
    trained = torch.load(Path("first/trials").resolve().glob("*/last.pt").__next__())
    epochs = isoflop.train("dense", "digits", {"epochs": 1, "batch_size": 64, "lr": 1e-9})
    assert next(iter(epochs)).index == 1
    method = METHODS["dense"].of({"depth": 8, "width": 0.25})
    recipe = {"epochs": 1, "batch_size": 64, "lr": 1e-9}
    epoch = next(iter(isoflop.train(method, "digits", recipe, start="first")))
    stem = epoch.net.state_dict()["backbone.stem.0.weight"]
    assert torch.allclose(stem, trained["train"]["net"]["backbone.stem.0.weight"], atol=1e-6)


def test_two_starts_are_two_trainings(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for start in ([], ["--start", weights.name]):
        assert called(capsys, "train", "dense", *SMALL, *start).code == 0
    assert len(list(Path("runs/trained").iterdir())) == 2


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("none.safetensors", "there is none at none.safetensors"),
        ("torn.safetensors", "must be a whole .safetensors file"),
        ("base", "is what a study trains"),
        ("trial:x", "must be `trial:STUDY/TRIAL`"),
        ("trial:x/dense-00000-seed1", "there are none at runs/x/trials/dense-00000-seed1/last.pt"),
        ("timm:a/b", "the name of a model"),
        ("folder", "must be what `isoflop train` wrote"),
        ("resnet.safetensors", "must have the architecture"),
    ],
)
def test_a_start_that_cannot_be_is_one_sentence(
    weights: Path, capsys: pytest.CaptureFixture[str], start: str, words: str
) -> None:
    Path("torn.safetensors").write_bytes(weights.read_bytes()[:2000])
    Path("folder").mkdir()
    wider = ("--set", "depth=8", "--set", "width=0.5", "--epochs", "1")
    refused = called(capsys, "train", "skipnet", *wider, "--start", start, "--discard")
    assert refused.code == 2
    assert words in " ".join(refused.err.split())
    assert "Traceback" not in refused.err


def test_a_model_of_timms_is_taken_from_the_hubs_cache(
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cache, commit = tmp_path / "hub" / "models--timm--small.mine", "0" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    (cache / "snapshots" / commit).mkdir(parents=True)
    weights.rename(cache / "snapshots" / commit / "model.safetensors")
    done = called(capsys, "train", "dense", *SMALL, "--start", "timm:small.mine", "--discard")
    assert done.code == 0, done.err
    assert "start: timm:small.mine: 56 tensors are filled" in done.out


def test_a_model_that_no_hub_gives_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused = called(capsys, "train", "dense", *SMALL, "--start", "timm:small.mine", "--discard")
    assert refused.code == 2
    assert "must be a model of timm's that can be downloaded" in " ".join(refused.err.split())
    assert "Retrying" not in refused.err + refused.out
