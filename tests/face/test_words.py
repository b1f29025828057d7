"""Help texts are sentences, and no help text, message or docstring speaks a dialect."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from spoken import SPOKEN

from orchestrator.cli import COMMANDS, app
from orchestrator.search.replay.searchers import SEARCHERS

ROOT = Path(__file__).parents[2]
FILES = sorted(
    file
    for room in ("methods", "orchestrator", "tests/bench")
    for file in (ROOT / room).rglob("*.py")
)
TEXTS = sorted(
    file
    for pattern in (
        "orchestrator/**/*.j2",
        "orchestrator/**/js/*.js",
        "studies/**/*.yaml",
        "k8s/**/*.yaml",
        "Makefile",
    )
    for file in ROOT.glob(pattern)
)
VERBS = re.findall(
    r"\w+",
    """Cancel Choose Compare Crop Derive Estimate Export Follow Give Keep List Listen Look Name Open
    Plan Print Read Recompute Repeat Replay Resize Run Search Seed Serve Set Show Start Stop Take
    Test Time Train Use Wait Write""",
)
"""What a help text may begin with; a new one is added here."""


def helps() -> Iterator[tuple[str, str]]:
    """Every help text of the command line, with the option or argument that it explains."""
    root = typer.main.get_command(app)
    for command in (root, *root.commands.values()):  # type: ignore[attr-defined]
        if command is not root:
            yield f"{command.name}", command.help or ""
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            if not text.startswith(("Install completion", "Show completion")):  # Typer's own
                yield f"{command.name} {parameter.name}", text


def spoken(file: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module: docstrings, lines under fields, and strings of several words."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, " ".join(node.value.split())


@pytest.mark.parametrize(("name", "text"), list(helps()))
def test_a_help_text_is_a_sentence(name: str, text: str) -> None:
    first, *rest = text.split()
    assert first.rstrip(",") in VERBS, text
    assert rest
    assert text.rstrip().endswith((".", ", ...")), text


def test_every_command_is_checked() -> None:
    names = {name for name, _ in helps()}
    commands = [command for group in COMMANDS.values() for command in group]
    assert {command.__name__.removesuffix("_study") for command in commands} <= names


def test_the_help_names_every_searcher() -> None:
    (text,) = [text for name, text in helps() if name == "simulate searcher"]
    listed = re.split(r", | or ", text.partition(": ")[2].partition(". ")[0])
    assert set(listed) == set(SEARCHERS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_text_of_a_module_is_dialect(file: Path) -> None:
    texts = list(spoken(file))
    assert [(line, text) for line, text in texts if text.startswith("Of ")] == []
    assert [(line, text) for line, text in texts if SPOKEN.search(text)] == []


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_template_or_comment_is_dialect(file: Path) -> None:
    assert SPOKEN.findall(file.read_text()) == []
