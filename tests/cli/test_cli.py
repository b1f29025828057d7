"""The commands as a person calls them: what they print, and how they refuse."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import yaml
from command import Called, called
from pictures import write_classes
from toy import Toy

import isoflop as public
from methods import METHODS
from methods.data.load import load
from orchestrator.cli import app
from orchestrator.record.evidence import unpacked

ROOT = Path(__file__).parents[2]
HEAVY = {
    "kubernetes",
    "torch",
    "scipy",
    "pandas",
    "optuna",
    "ray",
    "mlflow",
    "matplotlib",
    "sklearn",
}
"""Libraries that take a good part of a second each."""


@pytest.fixture
def isoflop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Called]:
    """The command, called in the checkout."""
    monkeypatch.chdir(ROOT)
    return partial(called, capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "skipnet", "--set", "alpha=-1"], "SkipNet.alpha"),
        (["train", "skipnt"], "did you mean 'skipnet'?"),
        (["train", "dense", "--set", "width"], "field=value"),
        (["train", "dense", "--set", "widht=1"], "did you mean 'width'?"),
        (["train", "dense", "--data", "./nowhere"], "nowhere"),
        (["train", "dense", "--data", ""], "--data"),
        (["train", "dense", "--set", "width=[1"], "--set width"),
        (["train", "dense", "--device", "tpu"], "--device must be one of cpu"),
        (["board", "quickstart", "--mlflow", "sqlite:///nowhere.db"], "nowhere.db"),
        (["run", "nowhere.yaml"], "there is none at nowhere.yaml"),
        (["run", "quikstart"], "did you mean 'quickstart'? valid: cifar10, cifar100, "),
        (["submit", "quickstart", "--cluster", "gpus"], "did you mean 'gpu'? valid: gpu, local"),
        (["plan", "nowhere.yaml"], "there is none at nowhere.yaml"),
        (["methods", "dens"], "did you mean 'dense'?"),
        (["board", "quickstart", "--out", "nowhere"], "isoflop run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    isoflop: Callable[..., Called], words: list[str], sentence: str
) -> None:
    done = isoflop(*words)
    assert done.code == 2
    assert sentence in done.err
    assert done.err.startswith("isoflop: ")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "blow_up=true"], "loss is inf at epoch 1"),
        ([], "the deployed network executes"),
    ],
)
def test_a_training_that_fails_is_one_line_and_exit_code_1(
    isoflop: Callable[..., Called],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    sentence: str,
) -> None:
    monkeypatch.setitem(METHODS, "toy", Toy)
    done = isoflop("train", "toy", "--epochs", "2", "--discard", *words)
    assert done.code == 1
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1


def test_a_cluster_that_does_not_answer_is_one_line_and_exit_code_1(
    isoflop: Callable[..., Called],
) -> None:
    done = isoflop("run", "studies/quickstart.yaml", "--address", "127.0.0.1:9")
    assert done.code == 1
    assert done.err.startswith("isoflop: a Ray cluster must answer at '127.0.0.1:9'")
    assert len(done.err.splitlines()) == 1


def test_an_output_folder_that_is_a_file_is_refused(
    isoflop: Callable[..., Called], tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("")
    done = isoflop("run", "studies/quickstart.yaml", "--out", str(tmp_path / "out"))
    assert done.code == 2
    assert "--out" in done.err


def test_a_method_trains_by_hand(isoflop: Callable[..., Called]) -> None:
    done = isoflop(
        *("train", "dense", "--set", "depth=8", "--set", "recipe.lr=0.05", "--epochs", "2"),
        "--discard",
    )
    assert done.code == 0, done.err
    assert "epoch 2/2" in done.out
    assert "price equals the executed MACs" in done.out
    assert "Saved" not in done.out


@pytest.mark.parametrize("method", ["dense", "skipnet"])
def test_what_was_trained_by_hand_is_kept_and_shipped(
    isoflop: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    words = ["train", method, "--set", "depth=8", "--set", "width=0.25", "--epochs", "2"]
    done = isoflop(*words)
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "runs" / "trained").iterdir()
    assert f"isoflop export runs/trained/{folder.name}" in done.out
    (proof,) = (folder / "evidence").iterdir()
    shipped = isoflop("export", f"runs/trained/{folder.name}", "--to", "shipped")
    assert shipped.code == 0, shipped.err
    card = json.loads(Path("shipped/card.json").read_text())
    assert card["evidence"] == {"images": 64, "same_class": 64}
    point = card["network"]["point"]
    figures = unpacked(proof.read_bytes()).figures(point)
    assert card["figures"]["test_acc"] == figures["test_acc"]
    assert "which `isoflop train` trained" in Path("shipped/card.md").read_text()
    network, data = public.load("shipped"), load("digits")
    images, labels = data.test.head(len(data.test))
    right = float((network(images).argmax(1) == labels).float().mean())
    assert right == pytest.approx(figures["test_acc"], abs=0.01)
    assert isoflop(*words).code == 0, "the same training writes the same folder"
    assert [proof] == list((folder / "evidence").iterdir())
    for extra, sentence in (["--at", "1"], "--at selects"), (["--point", "x"], "--point must"):
        refused = isoflop("export", str(folder), *extra)
        assert (refused.code, len(refused.err.splitlines())) == (2, 1)
        assert sentence in refused.err


def test_of_twenty_classes_the_five_most_likely_are_told(
    isoflop: Callable[..., Called], tmp_path: Path
) -> None:
    names = [f"class{number:02}" for number in range(20)]
    data = write_classes(tmp_path, names)
    said = isoflop(
        "train", "dense", "--data", str(data), "--set", "depth=8", "--epochs", "1", "--discard"
    )
    assert said.code == 0, said.err
    assert re.search(r"validation [\d.]+ % \(top-5 [\d.]+ %\)", said.out)


def test_methods_shows_every_field(isoflop: Callable[..., Called]) -> None:
    listed = isoflop("methods").out
    assert all(name in listed for name in METHODS)
    card = isoflop("methods", "skipnet").out
    assert "alpha" in card
    assert "log" in card


def test_the_schema_takes_the_shipped_studies(isoflop: Callable[..., Called]) -> None:
    schema = json.loads(isoflop("schema").out)
    for path in sorted((ROOT / "studies").rglob("*.yaml")):
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["schema"], ["status"]], ids=" ".join)
def test_what_is_asked_in_passing_loads_no_heavy_library(words: list[str]) -> None:
    code = "import atexit, sys; from orchestrator.cli import main\n"
    code += (
        f"atexit.register(lambda: print(*sorted({HEAVY} & set(sys.modules)), file=sys.stderr))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "main()", *words],
        env={**os.environ, "KUBECONFIG": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == (2 if words == ["status"] else 0), done.stderr
    assert done.stderr.splitlines()[-1] == ""


def test_run_says_a_word_before_it_loads_a_heavy_library(tmp_path: Path) -> None:
    code = (
        "import os, sys; from rich.console import Console\n"
        "def first(console, *words, **options):\n"
        f"    print(*words, sorted({HEAVY} & set(sys.modules)), flush=True)\n"
        "    os._exit(0)\n"
        "Console.print = first\n"
        "from orchestrator.cli import main\n"
        "main()"
    )
    words = ["run", "studies/quickstart.yaml", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.stdout.startswith("Study [bold]quickstart")
    assert done.stdout.endswith(" []\n")


def test_the_version_is_the_package_s(isoflop: Callable[..., Called]) -> None:
    assert isoflop("--version").out == f"isoflop {version('isoflop')}\n"


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__
        assert f"isoflop {command.name or command.callback.__name__}" in page
