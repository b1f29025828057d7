"""What the parser refuses reads like all other refusals: one line, exit code 2."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from faults import ROOT

from orchestrator.cli import app, main


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("rnu quickstart", "isoflop has no command 'rnu'; did you mean 'run'?"),
        ("frobnicate", "isoflop has no command 'frobnicate'; `isoflop --help` lists all"),
        ("--verison", "isoflop has no option --verison; did you mean --version?"),
        ("run quickstart --oot x", "isoflop run has no option --oot; did you mean --out?"),
        ("board quickstart -x", "isoflop board has no option -x"),
        ("run", "STUDY must be given: name the study file (YAML), or a study"),
        ("export", "RUN must be given: export STUDY/METHOD, STUDY/TRIAL"),
        ("plan quickstart more", "isoflop plan must have no further arguments, but got more"),
        ("plan quickstart --steps -1", "--steps must be at least 0, but got '-1'"),
        ("plan quickstart --steps 1.5", "--steps must be a whole number, but got '1.5'"),
        ("plan quickstart --steps", "--steps must have a value, but got none"),
        ("plan quickstart --json=yes", "--json must have no value, but got one"),
        ("board quickstart --primary most", "--primary must be a number, but got 'most'"),
        ("export a/b --format zip", "--format must be one of 'torch', 'pt2', 'onnx', but got"),
        ("run quickstart --patience soon", "--patience must be a number, but got 'soon'"),
        ("plan /", "a study file must be a file, but / is a folder"),
        (f"plan {'n' * 5000}.yaml", "File name too long"),
        (f"plan {'n' * 300}", "a study must be a YAML file"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith("isoflop: ")
    assert len(printed.err.splitlines()) == 1
    assert sentence in printed.err
    assert len(printed.err) < 1200


def test_a_call_without_words_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    printed = "".join(capsys.readouterr())
    assert "run" in printed
    assert not printed.startswith("isoflop:")


@pytest.mark.parametrize("word", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], *([each.name] for each in app.registered_commands)])
def test_help_has_a_short_name_everywhere(
    command: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, word])
    assert ended.value.code == 0
    assert "Usage: isoflop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("isoflop ver", "verify"),
        ("isoflop board --ref", "--refresh"),
        ("isoflop run quick", "quickstart"),
        ("isoflop train cond", "condensenet\ncondconv"),
        ("isoflop board --out {} mi", "mine"),
        ("isoflop run ./some", ""),
    ],
)
def test_the_shell_completes_what_is_typed(typed: str, offered: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "wal.jsonl").touch()
    words = typed.format(tmp_path)
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from orchestrator.cli import main; main()"],
        env={**os.environ, **asked, "_ISOFLOP_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.stdout.strip(), done.stderr) == (offered, "")


def test_every_help_text_is_a_sentence_or_names_a_thing() -> None:
    for command in app.registered_commands:
        parameters = inspect.signature(command.callback).parameters.values()
        for parameter in parameters:
            *_, option = get_args(parameter.annotation)
            assert re.match("[A-Z]", option.help), (command.callback.__name__, parameter.name)
            assert option.help.endswith(".") or "..." in option.help
            assert len(option.help.split()) > 3, option.help
