"""What was measured is found again, by anyone, and nothing else is taken for it."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from methods.shipping.choices import Choices

ASKED = {"layer": "a convolution", "threads": 1}
TAKEN = {"dense": 1.0, "plain": 2.0}


def test_a_choice_is_kept_for_its_question_and_its_options(tmp_path: Path) -> None:
    choices = Choices(tmp_path / "deep" / "down")
    assert choices.recall(ASKED, list(TAKEN)) is None
    choices.keep(ASKED, "dense", TAKEN)
    for again in (choices, Choices(choices.folder)):
        assert again.recall(ASKED, ["plain", "dense"]) == "dense"
        assert again.recall({**ASKED, "threads": 2}, list(TAKEN)) is None
        assert again.recall(ASKED, [*TAKEN, "a newer form"]) is None
    (path,) = choices.folder.iterdir()
    assert json.loads(path.read_text())["seconds"] == TAKEN


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda _: "[1, 2]",
        lambda _: "\x00\xff",
        lambda text: text.replace('"choice": "dense"', '"choice": "no such form"'),
        lambda text: text.replace("a convolution", "another layer"),
    ],
)
def test_a_torn_or_foreign_file_is_said_and_measured_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil
) -> None:
    Choices(tmp_path).keep(ASKED, "dense", TAKEN)
    (path,) = tmp_path.iterdir()
    path.write_text(spoil(path.read_text()))
    choices = Choices(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert choices.recall(ASKED, list(TAKEN)) is None
    assert f"measuring again, since {path} cannot be used" in caplog.text
    choices.keep(ASKED, "plain", TAKEN)
    assert Choices(tmp_path).recall(ASKED, list(TAKEN)) == "plain"


def test_writers_at_once_leave_whole_files_and_nothing_aside(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for question in range(20):
            Choices(tmp_path).keep({"question": question}, f"form {number % 2}", {})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(list(tmp_path.iterdir())) == 20, "one file a question, none aside"
    for path in tmp_path.iterdir():
        assert json.loads(path.read_text())["choice"] in ("form 0", "form 1")


def test_a_folder_that_takes_no_file_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    choices = Choices(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        choices.keep(ASKED, "dense", TAKEN)
    assert "the measurement could not be stored" in caplog.text
    assert choices.recall(ASKED, list(TAKEN)) == "dense", "as long as the process lives"


def test_the_folder_is_a_cache_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert Choices().folder == Path("/somewhere/isoflop/forms")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert Choices().folder == Path("/home/me/.cache/isoflop/forms")
