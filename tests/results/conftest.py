"""Stores and exports that are made once, and a copy of a store for each test."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boards import confirm, row, undraw
from exported import confirmed, exportable
from kept import Place as Kept
from kept import made
from places import BAD, METHODS, Place, few, small
from stores import held

from orchestrator.results.export import export


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """Two studies, written once; the second has what no board may show."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copy(template, folder)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    held(uri, folder, small(), few())
    bad = [row(trial=f"dense-{90 + i:05d}", **what) for i, what in enumerate(BAD.values())]
    few_seeds = [r for r in few() if not (r.method == "skipnet" and r.seed == 2)]
    over = [
        confirm(config="skipnet-00000", method="skipnet", seed=8, test_acc=1.797e308),
        confirm(config="skipnet-00000", method="skipnet", seed=9, test_macs_mean=math.nan),
    ]
    methods = {name: {} for name in (*METHODS, "condconv")}
    held(uri, folder, small("bad", methods=methods), [*few_seeds, *bad, *over])
    return folder


@pytest.fixture(scope="session")
def kept_study(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A study with evidence, published; a test changes a copy."""
    with pytest.MonkeyPatch.context() as changed:
        undraw(changed)
        return made(tmp_path_factory.mktemp("kept") / "runs")


@pytest.fixture(autouse=True)
def without_figures(undrawn: None) -> None:
    """No board of these tests is looked at."""


@pytest.fixture
def place(tmp_path: Path, original: Path) -> Iterator[Place]:
    shutil.copy(original / "mlflow.db", tmp_path / "mlflow.db")
    shutil.copytree(original / "mlartifacts", tmp_path / "mlartifacts")
    return Place(tmp_path)


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """A folder with a study of trained networks, and its store."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(template, folder)
    return exportable(folder)


@pytest.fixture(scope="session")
def shipped(out: Path) -> Any:
    """The export of a method in a format, made once."""
    made: dict[tuple[str, str], Path] = {}

    def one(method: str, how: Any) -> Path:
        if (method, how) not in made:
            made[method, how] = export(confirmed(out, method), how)
        return made[method, how]

    return one
