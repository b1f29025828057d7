"""The house: which room may import which, who opens the door to a library, how large files are."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS: dict[str, set[str]] = {
    "study": set(),
    "record": {"study"},
    "board": {"study", "record"},
    "report": {"study", "record", "board"},
    "trial": {"study", "record", "board"},
    "search": {
        "study",
        "record",
        "board",
        "trial",
        "report.figures.style",
        "report.palette",
        "report.table",
    },
    "store": {"study", "record", "board", "report.palette"},
    "live": {"study", "record", "board", "report", "search.confirming"},
    "sweep": {"study", "record", "board", "report", "trial", "search", "store"},
    "results": {"study", "record", "board", "report", "trial", "store"},
    "kube": {"study"},
    "cli": {
        *("study", "record", "board", "report", "trial", "search", "store", "sweep", "results"),
        *("live", "kube", "isoflop"),
    },
    "isoflop": {
        *("study", "record", "board", "report", "trial", "search", "store", "sweep", "results"),
    },
}
"""Room of orchestrator/ -> the rooms, or the single modules, that it may import."""
TOOLS = {
    *("api", "errors", "names", "values", "macs", "fold", "resnet", "schedules", "machine"),
    *("files", "dense", "outside"),
}
"""Modules at the top of methods/; they import nothing but each other."""
METHODS = {path.parent.name for path in (ROOT / "methods").glob("*/method.py")}
WINGS: dict[str, set[str]] = {
    **{
        method: {"api", "errors", "values", "macs", "fold", "resnet", "schedules", "parallel"}
        for method in METHODS
    },
    "data": TOOLS | {"parallel"},
    "parallel": TOOLS,
    "training": TOOLS | {"data", "parallel"},
    "shipping": TOOLS | {"data", "training"},
}
"""Folder of methods/ -> what it may import of methods/, beside the catalogue METHODS."""
DOORS: dict[str, set[str]] = {
    "kubernetes": {"kube"},
    "mlflow": {"store"},
    "ray": {"sweep"},
    "typer": {"cli"},
    "matplotlib": {"report", "search/replay"},
    "jinja2": {"report", "results", "live"},
    "optuna": {"study", "record", "report/importance.py", "search", "sweep"},
}
"""Library -> the rooms, folders or files of orchestrator/ that may import it."""
HEAVY = {"torch", "scipy", "pandas", "optuna", "ray", "mlflow", "matplotlib", "sklearn"}
"""Libraries that take a good part of a second each, and that light modules do without."""
STRANGERS = {"ray", "optuna", "mlflow", "orchestrator", "isoflop"}
"""Packages that methods/ knows nothing of."""
FILES, LINES = 13, 400
"""Files in a room, its `__init__` included, and lines in a file, at most."""

Import = tuple[str, int]
"""A dotted name, and the line that imports it."""


@functools.cache
def imports(path: Path) -> list[Import]:
    """What a file imports, wherever in it: modules, and names in modules as module.name."""
    imported: list[Import] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported += ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            imported += ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
    return imported


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("path", sources("orchestrator"), ids=named)
def test_rooms_import_the_rooms_behind_them(path: Path) -> None:
    room = path.relative_to(ROOT / "orchestrator").parts[0]
    for name, line in imports(path):
        if name.startswith(("orchestrator.", "isoflop")) and room in ROOMS:
            other = name.removeprefix("orchestrator.")
            assert within(other, ROOMS[room] | {room}), f"{named(path)}:{line} imports {name}"


@pytest.mark.parametrize("path", sources("methods"), ids=named)
def test_methods_know_their_tools_and_nobody_who_runs_them(path: Path) -> None:
    parts = path.relative_to(ROOT / "methods").parts
    allowed = WINGS[parts[0]] | {parts[0]} if len(parts) > 1 else TOOLS
    if len(parts) > 1 and parts[0] not in METHODS:
        allowed = allowed | {"METHODS"}
    for name, line in imports(path):
        where = f"{named(path)}:{line} imports {name}"
        assert name.split(".")[0] not in STRANGERS, where
        if name.startswith("methods."):
            assert within(name.removeprefix("methods."), allowed), where


@pytest.mark.parametrize("path", sources("orchestrator"), ids=named)
def test_a_library_has_one_door(path: Path) -> None:
    place = path.relative_to(ROOT / "orchestrator")
    for name, line in imports(path):
        doors = DOORS.get(name.split(".")[0])
        at_the_door = doors is None or any(place.is_relative_to(door) for door in doors)
        assert at_the_door, f"{named(path)}:{line} imports {name}"


def test_every_room_is_in_the_table() -> None:
    def folders(package: str) -> set[str]:
        return {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}

    assert folders("orchestrator") == set(ROOMS)
    assert folders("methods") == set(WINGS)


def test_rooms_and_files_are_small() -> None:
    modules = [*sources("orchestrator"), *sources("methods")]
    for room in {path.parent for path in modules}:
        assert len(list(room.glob("*.py"))) <= FILES, f"{named(room)} has too many files"
    for path in modules:
        lines = len(path.read_text().splitlines())
        assert lines <= LINES, f"{named(path)} has {lines} lines"


@pytest.mark.parametrize(
    "module",
    [
        *("orchestrator.study", "orchestrator.study.file", "orchestrator.kube.cluster"),
        *("methods.errors", "methods", "isoflop", "isoflop.study", "orchestrator.cli"),
    ],
)
def test_what_is_light_loads_no_heavy_library(module: str) -> None:
    assert loaded(module) & HEAVY == set()


def test_the_process_that_writes_to_mlflow_loads_nothing_that_trains_or_draws() -> None:
    libraries = {"torch", "ray", "optuna", "matplotlib", "typer"}
    assert loaded("orchestrator.store.projector") & libraries == set()


def loaded(module: str) -> set[str]:
    """The packages that a fresh process has after this import."""
    code = f"import sys, {module}; print(*(name for name in sys.modules if '.' not in name))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.split())
