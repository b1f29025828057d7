"""What is exported answers as what was measured, and runs without us where it can."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import FORMATS, SEED, confirmed, digits, measured

from methods import METHODS
from methods.macs import executed_macs
from methods.shipping.load import load as load_export

QUICK = {
    ("dense", "torch"),
    ("skipnet", "torch"),
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


@pytest.mark.parametrize("method", ["condensenet", pytest.param("skipnet", marks=pytest.mark.full)])
def test_onnx_runs_where_there_is_no_torch_and_no_isoflop(shipped: Any, method: str) -> None:
    folder = shipped(method, "onnx")
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
    row = confirmed(out, "skipnet").row
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
