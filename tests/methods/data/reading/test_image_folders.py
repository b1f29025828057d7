"""Folders of images: splits by layout, classes that do not vanish, what is left out and said."""

import os
import unicodedata
from pathlib import Path

import pytest
from pictures import square, write_classes

from methods.data import sources
from methods.data.load import load
from methods.data.parts import Source
from methods.data.reading.folders import role_of
from methods.errors import DataError


def find(path: Path, **options: int) -> Source:
    return sources.find(str(path), **options)


def counts(source: Source) -> dict[str, int]:
    return {role: len(part.labels) for role, part in source.parts.items()}


def reasons(source: Source) -> dict[str, str]:
    return {item.path: item.why for item in source.left_out}


def loose(folder: Path, count: int = 3) -> Path:
    """Images without class folders."""
    folder.mkdir(parents=True)
    for number in range(count):
        square(9, number).save(folder / f"{number}.png")
    return folder


# Splits


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(("train", "train"), ("Training_images", "train"), ("TRAINSET", "train")),
        *(("val2017", "validation"), ("valid", "validation"), ("images-test", "test")),
        *(("test kits", None), ("test2", None), ("latest", None), ("train-test", None)),
        *(("contest", None), ("retrain", None), ("", None), ("2017", None)),
    ],
)
def test_a_folder_is_a_split_only_if_its_whole_name_says_so(name: str, role: str | None) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize("unlabelled", ["test", "Test_Images", "val/images", "eval"])
def test_a_split_without_class_folders_is_left_out_and_said(
    tmp_path: Path, unlabelled: str
) -> None:
    write_classes(tmp_path / "train_images")
    loose(tmp_path / unlabelled)
    source = find(tmp_path)
    assert source.class_names == ("ant", "bee")
    assert counts(source) == {"train": 20}
    assert reasons(source) == {
        Path(unlabelled).parts[0]: "3 images without class folders: no labels"
    }


@pytest.mark.parametrize("splits", [("train_images", "test_images"), ("train", "val", "test")])
def test_splits_that_are_all_unlabelled_are_refused(
    tmp_path: Path, splits: tuple[str, ...]
) -> None:
    for name in splits:
        loose(tmp_path / name)
    with pytest.raises(DataError, match=f"class folders .* {splits[0]}/ .*without labels"):
        find(tmp_path)


def test_a_flat_split_beside_classes_is_no_class(tmp_path: Path) -> None:
    write_classes(tmp_path)
    loose(tmp_path / "test")
    with pytest.raises(DataError, match=r"test/ of .* move or rename"):
        find(tmp_path)


def test_two_folders_of_one_role_are_refused(tmp_path: Path) -> None:
    for split in ("train", "dev", "validation"):
        write_classes(tmp_path / split)
    with pytest.raises(DataError, match=r"one folder of validation images.*dev/ and validation/"):
        find(tmp_path)


def test_without_training_images_the_splits_are_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "val")
    write_classes(tmp_path)
    with pytest.raises(DataError, match=r"train/, but its splits are val/ beside ant/ and bee/"):
        find(tmp_path)


def test_what_stands_beside_the_splits_is_said(tmp_path: Path) -> None:
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "extra")
    square(0, 0).save(tmp_path / "cover.jpg")
    (tmp_path / "test").mkdir()
    source = find(tmp_path)
    assert counts(source) == {"train": 20}
    assert set(reasons(source)) == {"extra", "cover.jpg", "test"}


def test_splits_inside_classes_are_refused(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        loose(tmp_path / name / "train")
        loose(tmp_path / name / "test")
    with pytest.raises(DataError, match="splits must stand above classes"):
        find(tmp_path)


def test_the_folder_of_an_archive_is_entered(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_classes(tmp_path / "insects" / "v2" / split)
    (tmp_path / "README.md").write_text("insects")
    source = find(tmp_path)
    assert counts(source) == {"train": 20, "test": 20}
    assert any("insects/v2/" in note for note in source.notes)
    assert source.train.names[0] == "insects/v2/train/ant/000.png"


# Classes


def test_a_class_in_any_suffix_that_is_read_is_a_class(tmp_path: Path) -> None:
    kinds = {"JFIF": "JPEG", "jpe": "JPEG", "Webp": "WEBP", "tga": "TGA", "pnm": "PPM", "": "PNG"}
    for name, (suffix, kind) in enumerate(kinds.items()):
        (tmp_path / str(name)).mkdir()
        for number in range(4):
            file = tmp_path / str(name) / (f"{number}.{suffix}" if suffix else str(number))
            square(name, number).save(file, kind)
    source = find(tmp_path)
    assert counts(source) == {"train": 24}
    assert source.class_names == tuple("012345")


@pytest.mark.parametrize("suffix", [".heic", ".SVG", ".dng"])
def test_a_class_whose_images_cannot_be_read_is_refused(tmp_path: Path, suffix: str) -> None:
    write_classes(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / f"a{suffix}").write_bytes(b"x")
    with pytest.raises(DataError, match=f"cat are {suffix}; convert"):
        find(tmp_path)


def test_an_empty_class_is_refused_and_a_folder_of_notes_is_said(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.xml").write_text("<a/>")
    assert reasons(find(tmp_path))["notes"] == "a folder without images"
    (tmp_path / "wasp" / ".ipynb_checkpoints").mkdir(parents=True)
    with pytest.raises(DataError, match="wasp is empty"):
        find(tmp_path)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    store = write_classes(tmp_path / "store", ["wasp"])
    root = write_classes(tmp_path / "set")
    (root / "wasp").symlink_to(store / "wasp")
    (root / "ant" / "again").symlink_to(root)
    source = find(root)
    assert counts(source) == {"train": 30}
    assert reasons(source) == {"ant/again": "a link to a folder above it"}
    (root / "hornet").symlink_to(store / "wasp")
    with pytest.raises(DataError, match=r"hornet and .*wasp are the same folder"):
        find(root)


def test_a_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "käfer") for form in ("NFC", "NFD"))
    write_classes(tmp_path / "train", [nfc, "bee"])
    write_classes(tmp_path / "test", [nfd], per=4)
    source = find(tmp_path)
    assert source.class_names == ("bee", nfc)
    assert source.test is not None
    assert source.test.labels.tolist() == [1] * 4


def test_classes_that_differ_by_spaces_alone_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, ["bee", "bee "])
    with pytest.raises(DataError, match="'bee' and 'bee '"):
        find(tmp_path)


def test_a_class_of_another_case_in_the_test_split_is_hinted_at(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ["Ant", "Bee"])
    write_classes(tmp_path / "test", ["ant"])
    with pytest.raises(DataError, match="'ant'; did you mean 'Ant'"):
        find(tmp_path)


# Files


def test_what_tools_and_systems_leave_is_no_image(tmp_path: Path) -> None:
    write_classes(tmp_path)
    for place in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "bee/.thumbs"):
        write_classes(tmp_path / place, ["ant"])
    for file in ("ant/._000.png", "ant/Thumbs.db", "bee/.DS_Store", "bee/desktop.ini"):
        (tmp_path / file).write_bytes(b"\0\5\26\7")
    source = find(tmp_path)
    assert counts(source) == {"train": 20}
    assert reasons(source)["ant/._000.png"] == "hidden"
    assert reasons(source)["@eaDir"] == "left there by a system or an archive"
    assert len(source.left_out) == 8


@pytest.mark.parametrize("name", ["[a-z] set", "*", "what?", "a{b,c}", "%20", "~none", "naïve 🐝"])
def test_every_name_is_literal(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path / "a", ["decoy", "other"])
    write_classes(tmp_path / name, ["[ab]", "b*"])
    assert find(tmp_path / name).class_names == ("[ab]", "b*")


@pytest.mark.parametrize("name", ["~", "~nobody-of-that-name/x", "a\0b", "x" * 5000, ""])
def test_a_name_that_can_be_no_data_set_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        sources.find(name)


def test_a_name_that_is_no_text_is_shown_with_escapes(tmp_path: Path) -> None:
    write_classes(tmp_path)
    image = tmp_path / "ant" / "000.png"
    image.rename(image.with_name(os.fsdecode(b"\xff.png")))
    assert "ant/\\xff.png" in list(find(tmp_path).train.names)


def test_many_files_left_out_for_one_reason_are_one_line(tmp_path: Path) -> None:
    write_classes(tmp_path)
    for number in range(20):
        (tmp_path / "ant" / f"{number}.xml").write_text("<a/>")
    assert reasons(find(tmp_path)) == {"ant/": "20 of its files: no image, by its suffix"}


def test_every_broken_image_is_listed_with_its_reason(tmp_path: Path) -> None:
    write_classes(tmp_path, suffix="jpg")
    whole = (tmp_path / "ant" / "001.jpg").read_bytes()
    (tmp_path / "ant" / "001.jpg").write_bytes(whole[:-30])
    (tmp_path / "ant" / "002.jpg").write_bytes(b"")
    (tmp_path / "bee" / "003.jpg").write_text("  <!DOCTYPE html><p>404")
    (tmp_path / "bee" / "004.jpg").unlink()
    (tmp_path / "bee" / "004.jpg").symlink_to("/nowhere/at/all.jpg")
    os.mkfifo(tmp_path / "bee" / "pipe.png")
    broken = {item.path: item.why for item in sources.broken(str(tmp_path))}
    assert list(broken) == [
        *("ant/001.jpg", "ant/002.jpg", "bee/003.jpg", "bee/004.jpg", "bee/pipe.png"),
    ]
    assert "truncated" in broken["ant/001.jpg"].casefold()
    assert broken["ant/002.jpg"] == "it is empty"
    assert "HTML" in broken["bee/003.jpg"]
    assert broken["bee/004.jpg"] == "it is a link to nothing"
    with pytest.raises(DataError, match=r"ant/002\.jpg is not: it is empty"):
        find(tmp_path)


def test_images_that_do_not_vary_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, make=lambda label, number: square(0, 0))
    with pytest.raises(DataError, match="all the same, one picture"):
        load(str(tmp_path))
