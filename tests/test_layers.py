"""Imports point one way: studies, orchestrator, methods; ray and mlflow have few doors."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOORS = {
    "kubernetes": {"kube"},
    "mlflow": {"store"},
    "ray": {"cluster", "sweep", "search", "shared", "trainable"},
}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "methods").rglob("*.py")), ids=lambda p: p.stem)
def test_methods_know_nobody_who_runs_them(path: Path) -> None:
    assert not imported(path) & {"ray", "optuna", "mlflow", "orchestrator"}


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "orchestrator").rglob("*.py")),
    ids=lambda p: str(p.relative_to(ROOT / "orchestrator")),
)
def test_few_files_know_ray_and_mlflow(path: Path) -> None:
    room = path.relative_to(ROOT / "orchestrator").parts[0].removesuffix(".py")
    for package, doors in DOORS.items():
        if room not in doors:
            assert package not in imported(path)
