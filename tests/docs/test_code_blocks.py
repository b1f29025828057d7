"""The code on the pages: Python runs, studies load, shell lines name commands and options."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import isoflop
from orchestrator.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?ms)^```(\w+)?[^\n]*\n(.*?)^```$")
INDENTED = re.compile(r"(?m)^    (\S.*)$")
COMPILED_ONLY = re.compile(r"(?m)^<!-- compiled only -->\n```python\n(.*)$")
"""The first line of a block that needs a finished sweep, or takes minutes."""
INLINE = re.compile(r"`(isoflop [a-z]+[^`]*|make [a-z-]+[^`]*)`")


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def with_blocks(*languages: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, *languages)]


@pytest.mark.parametrize("page", with_blocks("python"), ids=lambda page: page.name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page share one namespace, as a reader's session does."""
    if page.name == "method.md":
        pytest.skip("tests/docs/test_example_method.py runs it")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    skipped = COMPILED_ONLY.findall(page.read_text())
    for text in blocks(page, "python"):
        code = compile(text, str(page), "exec")
        if text.partition("\n")[0] not in skipped:
            exec(code, names)
    for name in re.findall(r"isoflop\.(\w+)", page.read_text()):
        assert hasattr(isoflop, name) or name in ("yaml", "db"), f"{page.name}: isoflop.{name}"
    for name in re.findall(r"\bresults\.(\w+)\(", page.read_text()):
        assert hasattr(isoflop.Results, name), f"{page.name}: Results.{name}"


@pytest.mark.parametrize("page", with_blocks("yaml"), ids=lambda page: page.name)
def test_studies_load(page: Path, tmp_path: Path) -> None:
    """A part of a study is completed with what it leaves out."""
    if page.name == "cluster.md":
        pytest.skip("tests/kube/template/test_pod_template.py renders its cluster files")
    if page.name == "clouds.md":
        pytest.skip("tests/kube renders its values and its cluster files")
    if page.name == "watching.md":
        pytest.skip("tests/kube/test_cleanup.py renders its cluster file")
    rest = {"name": "mine", "data": "digits", "budgets": [1], "methods": {"dense": {}}}
    for number, text in enumerate(blocks(page, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump({**rest, **yaml.safe_load(text)}))
        assert isoflop.Study.load(file).methods


def test_fragments_of_studies_load() -> None:
    """What the table of common choices says to write."""
    rest = {"name": "mine", "data": "digits", "budgets": [1]}
    rows = re.findall(
        r"(?m)^\|[^|]+\| `(\w[\w-]*: .*?)`(.*)\|$", (ROOT / "docs/study.md").read_text()
    )
    assert len(rows) > 6
    for text, remark in rows:
        fields = yaml.safe_load(text)
        if "under `methods`" in remark:
            fields = {"methods": {"dense": {}, **fields}}
        assert isoflop.Study(**{**rest, "methods": {"dense": {}}, **fields})


def commands(page: Path) -> list[str]:
    text = page.read_text()
    lines = [
        line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += INDENTED.findall(BLOCK.sub("", text))
    return lines + INLINE.findall(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_lines_name_commands_and_options(page: Path) -> None:
    group: Any = typer.main.get_command(app)
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    for line in commands(page):
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "make":
            assert words[0] in targets, line
        if Path(program).name != "isoflop" or not words or words[0].startswith("-"):
            continue
        assert words[0] in group.commands, line
        options = {name for param in group.commands[words[0]].params for name in param.opts}
        used = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
        assert used <= options, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:methods|orchestrator|tests|studies|k8s|docs)/[a-z0-9_/.-]*\w)`", page.read_text()
    )
    new = {
        "methods/earlyexit/method.py",
        "methods/earlyexit/__init__.py",
    }  # the tutorial makes them
    assert [name for name in named if name not in new and not (ROOT / name).exists()] == []
