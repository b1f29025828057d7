"""What is exported answers as what was measured, runs without us where it can, and is checked."""

import copy
import functools
import json
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stores import study as study_of
from torch import nn

from methods import METHODS
from methods.api import Task
from methods.data.load import Data, load
from methods.errors import ExportError, StorageError
from methods.files import digest
from methods.macs import executed_macs
from methods.shipping import write as formats
from methods.shipping.load import load as load_export
from orchestrator import store
from orchestrator.cli import main
from orchestrator.record.events import decode
from orchestrator.record.log import Log
from orchestrator.record.provenance import provenance
from orchestrator.record.result import encode_result
from orchestrator.record.rows import config_hash
from orchestrator.results.export import ConfirmedPoint, export, find
from orchestrator.study.params import parts
from orchestrator.trial.checkpoints import deployed
from orchestrator.trial.run import results

RECIPE = {"recipe.epochs": 2, "recipe.batch_size": 64, "recipe.lr": 0.1}
SMALL: dict[str, dict[str, Any]] = {
    "dense": {"depth": 8, "width": 0.25},
    "skipnet": {"depth": 8, "width": 0.25, "gate": "rnn"},
    "condensenet": {"stages": "1-1-1", "growth": 8},
    "dsnet": {
        "depth": 8,
        "width": 0.25,
        "choices": 2,
        "routing_size": 2,
        "gate_lr": 0.5,
        "mac_weight": 2.0,
    },
    "resrep": {"depth": 8, "width": 0.25, "target": 0.6, "prune_lr": 0.1},
    "condconv": {"depth": 8, "width": 0.25, "experts": 2, "placement": "3", "head": True},
}
"""Gates of these treat images unlike, with this seed."""
SEED = 4
POINTS = {"skipnet": "policy", "dsnet": "gate", "resrep": "prune"}
"""Of methods that have several, the one that the board would take."""
FORMATS = ("torch", "pt2", "onnx")
QUICK = {
    *(("dense", how) for how in FORMATS),
    *(("skipnet", "torch"), ("skipnet", "onnx")),
    *(("resrep", "torch"), ("resrep", "pt2")),
    ("condensenet", "onnx"),
    ("dsnet", "pt2"),
    ("condconv", "torch"),
}
"""What `make test` exports: a format of each method, and what other tests of this file need."""
EXPORTS = [
    pytest.param(method, how, marks=() if (method, how) in QUICK else pytest.mark.full)
    for method in METHODS
    for how in FORMATS
]
BUDGET = 50.0


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of a short search and confirm run of each method, and its store."""
    place = tmp_path_factory.mktemp("runs")
    what = study_of(
        "demo", budgets=[BUDGET], primary=BUDGET, methods={name: {} for name in METHODS}
    )
    facts = provenance(what, digits().task, len(digits().test))
    events = [{"event": "study", "study": "demo", "hash": what.hash, "provenance": facts}]
    events[0] |= {"lag": 1, "device": "cpu"}
    for method in METHODS:
        events += _trial(place / "demo", method, SMALL[method])
    clock = {"ms": 2.0, "spread_ms": 0.1, "reference_ms": 3.0, "device": "an abacus"}
    for trial, point in (("dense-00000-seed4", ""), ("skipnet-00000-seed4", "policy")):
        timed = {"reference": "dense-00000-seed4", "reference_point": "", "batch": 1, **clock}
        events.append({"event": "latency", "trial": trial, "point": point, **timed})
    log = Log(place / "demo" / "wal.jsonl")
    for second, event in enumerate(events):
        log.append(decode({**event, "time": 1_700_000_000_000 + 1000 * second}))
    log.close()
    store.project(place / "demo" / "wal.jsonl", f"sqlite:///{place / 'mlflow.db'}", "demo")
    return place


def _trial(folder: Path, method: str, own: dict[str, Any]) -> list[Any]:
    """The events of a confirm run that was really trained, and of the search that chose it."""
    params = own | RECIPE
    start: dict[str, Any] = {
        "role": "confirm",
        "trial": f"{method}-00000-seed4",
        "method": method,
        "params": params,
        "seed": SEED,
        "attempt": 1,
        "config": f"{method}-00000",
        "config_hash": config_hash(method, params),
        "budgets": [BUDGET],
        "point": "",
    }
    where = {"data": "digits", "data_seed": 0, "folder": str(folder), "device": "cpu", "threads": 1}
    told = [encode_result(result) for result in results({**where, **start})]
    end = {"epochs": told[-1]["step"], **told[-1]["end"]}
    searched = {"role": "search", "trial": f"{method}-00000", "seed": 0}
    return [
        {**start, **searched, "event": "start"},
        {**end, "trial": f"{method}-00000", "event": "end"},
        {**start, "event": "start"},
        {**end, "trial": start["trial"], "event": "end"},
    ]


@functools.cache
def digits() -> Data:
    return load("digits")


@functools.cache
def found(out: Path, method: str) -> ConfirmedPoint:
    return find(f"demo/{method}-00000-seed4", out, point=POINTS.get(method))


def measured(out: Path, method: str) -> nn.Module:
    """The network that the board measured."""
    row = found(out, method).row
    folder = out / "demo" / "trials" / row.trial
    return deployed(folder, parts(method, row.params)[0], digits().task, row.point)


@pytest.fixture(scope="session")
def shipped(out: Path) -> Any:
    """The export of a method in a format, made once."""
    made: dict[tuple[str, str], Path] = {}

    def one(method: str, how: Any) -> Path:
        if (method, how) not in made:
            made[method, how] = export(found(out, method), how)
        return made[method, how]

    return one


@pytest.mark.parametrize(("method", "how"), EXPORTS)
def test_an_export_answers_as_what_was_measured(
    out: Path, shipped: Any, method: str, how: str
) -> None:
    folder = shipped(method, how)
    again, network = load_export(folder), measured(out, method)
    images = digits().test.head(9)[0]
    costs = [executed_macs(network, image[None]) for image in images]
    assert (len(set(costs)) > 1) == (method in ("skipnet", "dsnet"))
    dearest = images[costs.index(max(costs))]
    with torch.no_grad():
        for part in (images, images[:1], dearest.expand(3, -1, -1, -1)):
            torch.testing.assert_close(again(part), network(part), rtol=0, atol=1e-4)
    if how == "torch":
        assert str(again) == str(network), "as wide, and as large"
    if how != "onnx":
        assert executed_macs(again, images) == sum(costs), "a graph skips what the network skips"
    card = json.loads((folder / "card.json").read_text())
    assert card["parity"]["max_abs_difference"] <= 1e-4
    assert card["parity"]["images"] == card["parity"]["same_class"] == 64
    assert card["evidence"] == {"images": 64, "same_class": 64}
    assert sorted(card["files"]) == sorted({"card.md", card["file"]})
    assert b"site-packages" not in (folder / card["file"]).read_bytes(), "where it was traced"


def snippet(folder: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "card.md").read_text(), re.DOTALL)
    return str(code)


@pytest.mark.parametrize("how", ["torch", "pt2"])
def test_the_snippet_of_the_card_runs(
    shipped: Any, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shipped("resrep", how)
    monkeypatch.chdir(folder)
    exec(snippet(folder), {})
    assert re.fullmatch(r"tensor\(\[\d, \d\]\)\n", capsys.readouterr().out)


def test_onnx_runs_where_there_is_no_torch_and_no_isoflop(shipped: Any) -> None:
    folder = shipped("skipnet", "onnx")
    alone = (
        "import sys\nfor name in ('methods', 'orchestrator', 'torch'): sys.modules[name] = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", alone + snippet(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"OMP_NUM_THREADS": "1"},
    )
    assert re.fullmatch(r"\[\d \d\]\n", done.stdout), done.stderr


def test_a_picture_is_prepared_from_the_card_alone(shipped: Any) -> None:
    from sklearn.datasets import load_digits

    card = json.loads((shipped("dense", "torch") / "card.json").read_text())
    said = card["input"]
    assert said["shape"] == ["batch", 1, 8, 8]
    assert said["pixels"] == [0, 16]
    assert said["colour"] == "grey"
    every = load_digits()
    pixels = torch.from_numpy(every.images).float()[:, None]
    mean, std = (torch.tensor(said[name])[:, None, None] for name in ("mean", "std"))
    guesses = load_export(shipped("dense", "torch"))((pixels - mean) / std).argmax(1)
    right = (guesses.numpy() == every.target).mean()
    assert right == pytest.approx(card["figures"]["test_acc"], abs=0.1)


def test_a_card_says_what_the_board_says(out: Path, shipped: Any) -> None:
    folder = shipped("skipnet", "torch")
    card, text = json.loads((folder / "card.json").read_text()), (folder / "card.md").read_text()
    row = found(out, "skipnet").row
    assert card["figures"]["test_acc"] == row.test_acc
    assert card["figures"]["test_macs_mean"] == row.test_macs_mean
    assert card["run"]["seed"] == SEED
    assert card["run"]["study_hash"] in text
    assert card["network"]["params"]["gate"] == "rnn"
    assert card["run"]["recipe"]["epochs"] == 2
    assert f"{100 * (row.test_acc or 0):.2f} %" in text
    (timed,) = card["latency"]
    assert (timed["ms"], timed["speed_up"], timed["device"]) == (2.0, 1.5, "an abacus")
    assert "an abacus" in text
    assert str(out) not in text + json.dumps(card), "a path of this machine means nothing elsewhere"
    assert "not measured" in (shipped("resrep", "torch") / "card.md").read_text()


@pytest.mark.parametrize("how", FORMATS)
def test_an_altered_file_is_not_loaded(shipped: Any, how: str, tmp_path: Path) -> None:
    folder = shutil.copytree(shipped("dense", how), tmp_path / "export")
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
    with pytest.raises(ExportError, match=r"than the one that exported it, isoflop 0\.1"):
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
    folder = shutil.copytree(shipped("dense", "pt2"), tmp_path / "export")
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
        export(found(out, "dense"), "torch", tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


def test_other_weights_than_the_runs_are_refused(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "demo", tmp_path / "demo")
    last = tmp_path / "demo" / "trials" / "dense-00000-seed4" / "last.pt"
    content = torch.load(last, weights_only=True)
    content["train"]["net"]["backbone.head.weight"].neg_()
    torch.save(content, last)
    with pytest.raises(StorageError, match="must be those of the run"):
        export(replace(found(out, "dense"), folder=tmp_path / "demo"), "torch")
    last.unlink()
    with pytest.raises(StorageError, match=r"last\.pt cannot be read"):
        export(replace(found(out, "dense"), folder=tmp_path / "demo"), "torch")


def test_a_missing_package_is_a_line(
    out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r"onnxscript.*pip install 'isoflop\[export\]'"):
        export(found(out, "dense"), "onnx", tmp_path / "there")
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
    row = found(out, "dense").row
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
