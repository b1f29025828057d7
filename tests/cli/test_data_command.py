"""`isoflop data`: what a study reads, as a person and as a program sees it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import write_classes
from PIL import Image

from orchestrator.cli import main


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Training and test images, four of which stand in both; one class is rare."""
    root = tmp_path / "flowers"
    write_classes(root / "train", ("aster", "lily"), per=22)
    write_classes(root / "train", ("rose",), per=2, make=lambda _, i: noise(900 + i))
    write_classes(root / "test", ("aster", "lily"), per=5, make=lambda k, i: noise(99 * k + i))
    for name in ("000", "001"):
        for label in ("aster", "lily"):
            content = (root / "train" / label / f"{name}.png").read_bytes()
            (root / "test" / label / f"copy{name}.png").write_bytes(content)
    (root / "train" / "lily" / "notes.txt").write_text("no image")
    return root


def noise(seed: int, side: int = 8) -> Image.Image:
    draw = np.random.default_rng(1000 + seed)
    return Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8))


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints where it succeeds."""
    with pytest.raises(SystemExit) as ended:
        main(["data", *words])
    assert ended.value.code == 0
    return capsys.readouterr().out


def shown(flowers: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(printed([str(flowers), "--json", *words], capsys))
    return content


def test_programs_get_one_object(flowers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = shown(flowers, capsys)
    assert content["splits"] == {
        "train": {"images": 46, "classes": {"aster": 22, "lily": 22, "rose": 2}},
        "test": {"images": 14, "classes": {"aster": 7, "lily": 7, "rose": 0}},
    }
    assert (content["size"], content["channels"], len(content["mean"])) == ([8, 8], 3, 3)
    assert all(0 < mean < 255 for mean in content["mean"])
    assert content["duplicates_across_splits"] == 4
    (left_out,) = content["left_out"]
    assert left_out["path"] == "train/lily/notes.txt"
    assert set(left_out) == {"path", "why"}
    assert content == shown(flowers, capsys)
    names = {"splits", "size", "channels", "mean", "left_out", "duplicates_across_splits"}
    assert set(content) == {*names, "digest"}


def test_a_person_gets_the_same_in_words(flowers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed([str(flowers)], capsys)
    for words in (
        "60 images of 8 x 8, in colour, 3 classes",
        "Duplicates: 4 of 14 test images",
        "22 training images and 'rose' 2",
        "train/lily/notes.txt",
        "mean",
    ):
        assert words in text


def test_a_size_and_a_sheet(flowers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(7, side=12).save(flowers / "train" / "lily" / "larger.png")
    with pytest.raises(SystemExit) as ended:
        main(["data", str(flowers)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "size" in line
    sheet = flowers.parent / "sheet.png"
    content = shown(flowers, capsys, "--size", "6", "--fit", "pad", "--sheet", str(sheet))
    assert content["size"] == [6, 6]
    with Image.open(sheet) as picture:
        assert picture.width > 10 * 64
        assert picture.height > 5 * 64, "a row for each class of each part"


def test_every_broken_image_can_be_listed(
    flowers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed([str(flowers), "--broken"], capsys) == "Every image can be read.\n"
    for name in ("003", "017"):
        file = flowers / "train" / "aster" / f"{name}.png"
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(SystemExit) as ended:
        main(["data", str(flowers), "--broken"])
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert [line.split(":")[0] for line in output.out.splitlines()] == [
        "train/aster/003.png",
        "train/aster/017.png",
    ]
    assert "2 of" in output.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["./nowhere"], "neither"),
        (["digits", "--sheet", "sheet.jpg"], "*.png"),
        (["digits", "--sheet", "nowhere/sheet.png"], "in a folder"),
        (["digits", "--size", "16"], "one size"),
    ],
)
def test_what_cannot_be_read_is_a_line(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", *words])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
