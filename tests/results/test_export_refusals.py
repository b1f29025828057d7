"""What is not exported or not loaded, and why; where a run to export is found."""

import copy
import json
import logging
import shutil
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import BUDGET, FORMATS, confirmed, digits
from torch import nn

from methods.api import Task
from methods.errors import ExportError, StorageError
from methods.files import digest
from methods.shipping import write as formats
from methods.shipping.load import load as load_export
from orchestrator.cli import main
from orchestrator.results.export import export, find

SHIPPED = {"torch": "dense", "pt2": "resrep", "onnx": "condensenet"}
"""Format -> the method whose export `test_export.py` makes, too."""


@pytest.mark.parametrize("how", FORMATS)
def test_an_altered_file_is_not_loaded(shipped: Any, how: str, tmp_path: Path) -> None:
    folder = shutil.copytree(shipped(SHIPPED[how], how), tmp_path / "export")
    name = json.loads((folder / "card.json").read_text())["file"]
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ExportError, match="it was altered, and is not loaded"):
        load_export(folder)
    (folder / name).unlink()
    with pytest.raises(ExportError, match="No such file"):
        load_export(folder)


def test_weights_of_another_version_are_refused(shipped: Any, tmp_path: Path) -> None:
    import safetensors.torch

    folder = shutil.copytree(shipped("dense", "torch"), tmp_path / "export")
    weights = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    weights["elsewhere"] = weights.pop("head.weight")
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(weights))
    agree(folder)
    with pytest.raises(ExportError, match=r"the version that exported it; install isoflop 0\."):
        load_export(folder)


def agree(folder: Path) -> None:
    """Makes the card say what the model's file is now."""
    card = json.loads((folder / "card.json").read_text())
    card["files"][card["file"]] = digest((folder / card["file"]).read_bytes())
    (folder / "card.json").write_text(json.dumps(card))


class _Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled_even_where_the_card_agrees(
    shipped: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = shutil.copytree(shipped(SHIPPED["pt2"], "pt2"), tmp_path / "export")
    with zipfile.ZipFile(folder / "model.pt2") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    (inputs,) = (name for name in files if name.endswith("sample_inputs/model.pt"))
    assert files[inputs] == b"", "nothing pickled is written"
    torch.save((_Trap(tmp_path / "sprung"),), tmp_path / "trap.pt")
    files[inputs] = (tmp_path / "trap.pt").read_bytes()
    with zipfile.ZipFile(folder / "model.pt2", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    torch.export.load(folder / "model.pt2")
    assert (tmp_path / "sprung").exists(), "PyTorch's own loader springs it"
    (tmp_path / "sprung").unlink()
    agree(folder)
    with pytest.raises(ExportError, match="pickled"):
        load_export(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_network_that_answers_otherwise_is_refused_and_leaves_nothing(
    out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def off(how: Any, network: nn.Module, task: Task, folder: Path) -> Path:
        other = copy.deepcopy(network)
        next(iter(other.parameters())).add_(0.01)
        return write(how, other, task, folder)

    write = formats.write
    monkeypatch.setattr(formats, "write", off)
    with pytest.raises(ExportError, match="apart: nothing was written"):
        export(confirmed(out, "dense"), "torch", tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


def test_other_weights_than_the_runs_are_refused(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "demo", tmp_path / "demo")
    last = tmp_path / "demo" / "trials" / "dense-00000-seed4" / "last.pt"
    content = torch.load(last, weights_only=True)
    content["train"]["net"]["backbone.head.weight"].neg_()
    torch.save(content, last)
    with pytest.raises(StorageError, match="must be those of the run"):
        export(replace(confirmed(out, "dense"), folder=tmp_path / "demo"), "torch")
    last.unlink()
    with pytest.raises(StorageError, match=r"last\.pt cannot be read"):
        export(replace(confirmed(out, "dense"), folder=tmp_path / "demo"), "torch")


def test_a_missing_package_is_a_line(
    out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r"onnxscript.*pip install 'isoflop\[export\]'"):
        export(confirmed(out, "dense"), "onnx", tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["pt2", "onnx"])
def test_a_network_that_cannot_be_traced_is_refused_in_a_line(
    out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: Any
) -> None:
    class Fickle(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10] * float(images.sum() > 0)

    with pytest.raises(ExportError, match=f"--format {how} cannot hold this network: .*torch can"):
        formats.write(how, Fickle(), digits().task, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_found_by_cell_trial_folder_and_mlflow_id(out: Path) -> None:
    row = confirmed(out, "dense").row
    assert row.trial == "dense-00000-seed4"
    uri = f"sqlite:///{out / 'mlflow.db'}"
    for run in ("demo/dense", f"{out}/demo/trials/{row.trial}/", f"{row.run_id}"):
        assert find(run, out).row == row
    assert find(f"{out}/demo/dense", Path("elsewhere"), uri=uri, at=BUDGET).row == row
    assert find("demo/skipnet", out).row.point in ("supervised", "policy")
    assert find("demo/skipnet-00000-seed4", out, point="policy").row.point == "policy"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["demo"], "RUN must be STUDY/TRIAL, STUDY/METHOD or an MLflow run id"),
        (["nowhere/dense"], "no study 'nowhere'; valid: demo"),
        (["demo/dens"], "did you mean 'dense'?"),
        (["demo/dense-00000"], "keeps no weights; its confirm runs are dense-00000-seed4"),
        (["demo/dense", "--at", "3"], "--at must be one of the study's budgets, 50, got 3"),
        (["demo/dense", "--point", "x"], "--point names an operating point of a trial"),
        (["demo/dense-00000-seed4", "--at", "50"], "--at names a cell"),
        (["demo/skipnet-00000-seed4"], "none is named: supervised ("),
        (["demo/skipnet-00000-seed4", "--point", "polcy"], "got 'polcy': supervised ("),
        (["0" * 32], "must have a trial's run"),
        (["demo/dense", "--to", "."], "--to must be a new folder or an earlier export"),
        (["demo/dense", "--to", "/proc/x/y"], "an export must be written to /proc/x/y, but: No"),
    ],
)
def test_a_mistake_is_one_line(
    out: Path, words: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["export", *words, "--out", str(out)])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in said
    assert said.startswith("isoflop: ")


def test_the_command_says_where_it_is_and_may_be_repeated(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "demo/dense", "--at", "50", "--out", str(out), "--to", str(tmp_path / "it")]
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        assert str(tmp_path / "it" / "card.md") in capsys.readouterr().out.replace("\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it"]
