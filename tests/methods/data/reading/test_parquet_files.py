"""Parquet files: literal names, splits by name, columns and labels that are checked."""

import datetime
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded, square, write_classes, write_table

from methods.data import sources
from methods.data.parts import Source
from methods.data.reading import parquet
from methods.errors import DataError

LABELS = [number % 3 for number in range(12)]


def find(path: Path) -> Source:
    return sources.find(str(path))


def splits(path: Path) -> dict[str, int]:
    return {role: len(part.labels) for role, part in find(path).parts.items()}


def refused(path: Path, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern) as caught:
        find(path)
    assert "\n" not in str(caught.value)


# Files and splits


def test_names_are_literal_and_rows_are_named(tmp_path: Path) -> None:
    write_table(tmp_path / "t1.parquet", ["decoy"] * 12)
    source = find(write_table(tmp_path / "t[0-9].parquet", LABELS))
    assert source.class_names == ("0", "1", "2")
    assert source.train.names[7] == "t[0-9].parquet:7"
    assert list(source.train.names[10:]) == ["t[0-9].parquet:10", "t[0-9].parquet:11"]


def test_rows_of_several_files_are_named_by_their_own(tmp_path: Path) -> None:
    for shard in ("train-0", "train-1"):
        write_table(tmp_path / "en" / f"{shard}.parquet", LABELS)
    names = find(tmp_path).train.names
    assert (names[11], names[12]) == ("en/train-0.parquet:11", "en/train-1.parquet:0")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["exam test kits/a.parquet", "dev boards/b.parquet"], {"train": 24}),
        (["train/0.parquet", "Val_data/0.PARQUET"], {"train": 12, "validation": 12}),
        (["latest.parquet", "attesting.pq"], {"train": 24}),
        (["bugs_train.parquet", "bugs_test.parquet"], {"train": 12, "test": 12}),
        (["a.parquet", ".b.parquet", ".cache/test.parquet", "._a.parquet"], {"train": 12}),
    ],
)
def test_splits_follow_whole_folder_names_and_words_of_file_names(
    tmp_path: Path, names: list[str], expected: dict[str, int]
) -> None:
    for name in names:
        write_table(tmp_path / "a test of" / "x" / name, LABELS)
    assert splits(tmp_path / "a test of" / "x") == expected


def test_names_of_two_splits_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a" / "test_train.parquet", LABELS)
    refused(tmp_path / "a", r"one split, but test_train\.parquet names test and train")
    for name in ("train", "valid-0", "validation-1"):
        write_table(tmp_path / "b" / f"{name}.parquet", LABELS)
    refused(tmp_path / "b", "one validation split, .*'valid' and 'validation'")


def test_files_without_rows_are_left_out(tmp_path: Path) -> None:
    write_table(tmp_path / "train-0.parquet", pa.array([], pa.int64()))
    write_table(tmp_path / "train-1.parquet", LABELS)
    write_table(tmp_path / "test.parquet", pa.array([], pa.int64()))
    source = find(tmp_path)
    assert len(source.train.labels) == 12
    assert [item.path for item in source.left_out] == ["test.parquet"]
    (tmp_path / "train-1.parquet").unlink()
    refused(tmp_path, "no rows")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", LABELS)
    os.mkfifo(tmp_path / "b.parquet")
    assert [item.path for item in find(tmp_path).left_out] == ["b.parquet"]
    (tmp_path / "c.parquet").symlink_to("nowhere")
    refused(tmp_path, r"c\.parquet must hold readable Parquet, but: .*No such file")


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.parquet", LABELS)
    before, times = find(file), file.stat()
    write_table(file, LABELS[::-1])
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find(file).train.labels.tolist() == before.train.labels.tolist()[::-1]


def test_a_large_file_is_read_through_a_cache_that_knows_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_table(tmp_path / "a.parquet", LABELS)
    rows = np.array([11, 0, 5])
    expected = find(file).train.pixels(rows)
    monkeypatch.setattr(parquet, "MEMORY_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        assert np.array_equal(find(file).train.pixels(rows), expected)
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 1
    times = file.stat()
    images = [encoded(square(1, number)) for number in range(12)]
    write_table(file, LABELS, image=pa.array(images, pa.binary()))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not np.array_equal(find(file).train.pixels(rows), expected)


def test_parquet_without_images_among_images_is_left_out(tmp_path: Path) -> None:
    write_classes(tmp_path)
    pq.write_table(pa.table({"file": ["a"], "label": [1]}), tmp_path / "ant" / "notes.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    source = find(tmp_path)
    assert source.class_names == ("ant", "bee")
    assert {item.path for item in source.left_out} == {"ant/notes.parquet", "broken.parquet"}
    write_table(tmp_path / "set.parquet", LABELS)
    refused(tmp_path, r"has both: set\.parquet and 000\.png")


def test_images_that_a_file_names_are_read_from_beside_it(tmp_path: Path) -> None:
    write_classes(tmp_path / "images")
    paths = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.png"))
    cells = [{"bytes": None, "path": path} for path in paths]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    write_table(
        tmp_path / "a.parquet", [p.split("/")[1] for p in paths], image=pa.array(cells, kind)
    )
    source = find(tmp_path)
    assert source.class_names == ("ant", "bee")
    assert np.array_equal(source.train.pixels(np.array([3]))[0], np.asarray(square(0, 3)))
    (tmp_path / paths[4]).unlink()
    refused(tmp_path, r"a\.parquet:4 \(images/ant/004\.png\) is not: it is no file")


# Columns


def test_the_column_of_images_is_chosen_by_name_and_content(tmp_path: Path) -> None:
    masks = pa.array([encoded(square(2, n).convert("1")) for n in range(12)], pa.large_binary())
    digests = pa.array([os.urandom(16) for _ in range(12)], pa.binary(16))
    columns = {"sha": digests, "mask": masks}
    source = find(write_table(tmp_path / "a.parquet", LABELS, **columns))
    assert np.array_equal(source.train.pixels(np.array([3]))[0], np.asarray(square(0, 3)))
    assert source.notes == (
        "images are column 'image', labels column 'label'",
        "columns ['mask'] of images are not read",
    )


def test_ambiguous_columns_are_named(tmp_path: Path) -> None:
    images = pa.array([encoded(square(0, n)) for n in range(12)], pa.binary())
    table = pa.table({"left": images, "right": images, "label": LABELS})
    pq.write_table(table, tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", r"one named 'image', but has \['left', 'right'\]")
    write_table(tmp_path / "b.parquet", LABELS, target=pa.array(range(12)))
    refused(tmp_path / "b.parquet", "'label' and 'target' differ")
    words = pa.array(["abc"[label] for label in LABELS])
    assert find(write_table(tmp_path / "c.parquet", LABELS, category=words)).classes == 3


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.uint8())),
        pa.struct({"data": pa.binary(), "format": pa.string()}),
        pa.string(),
    ],
)
def test_images_that_are_no_files_are_refused(tmp_path: Path, kind: pa.DataType) -> None:
    file = write_table(tmp_path / "a.parquet", LABELS, image=pa.nulls(12, kind))
    refused(file, r"column of images, but its columns are \['image', 'label'\]")


@pytest.mark.parametrize("kind", [pa.binary(), pa.struct({"bytes": pa.binary()})])
def test_a_row_without_an_image_is_named(tmp_path: Path, kind: pa.DataType) -> None:
    content = [encoded(square(0, number)) for number in range(12)]
    cells: list[Any] = [{"bytes": c} for c in content] if pa.types.is_struct(kind) else content
    cells[9] = None
    refused(write_table(tmp_path / "a.parquet", LABELS, image=pa.array(cells, kind)), ":9 is not")


def test_files_that_lack_a_column_are_named(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", LABELS)
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "test.parquet")
    refused(tmp_path, r"test\.parquet lacks label")


# Labels


@pytest.mark.parametrize(
    ("labels", "pattern"),
    [
        (pa.array([[0, 1]] * 12), r"one class per image, but one is \[0, 1\]"),
        (pa.array([{"a": 1}] * 12), "one class per image"),
        (pa.array([0.5, 1.0] * 6), "real number 0.5"),
        (pa.array([float("inf"), 1.0] * 6), "real number inf"),
        (
            pa.array([1.0, float("nan")] * 6, from_pandas=False),
            r"6 of 12 train samples .* have none",
        ),
        (pa.array([0, 1, -1] * 4), r"4 of 12 .*: a\.parquet:2, a\.parquet:5,"),
        (pa.array(["x", "y", " "] * 4), "4 of 12 .* have none"),
        (pa.array(["x", "x\t", "y"] * 4), "differ by more than spaces"),
        (pa.array([datetime.date(2020, 1, 1)] * 12), "time 2020-01-01"),
        (pa.array([b"\xff\xfe"] * 12), "one is bytes"),
        (pa.nulls(12), "12 of 12 train samples"),
    ],
)
def test_labels_that_are_no_classes_are_refused(
    tmp_path: Path, labels: pa.Array, pattern: str
) -> None:
    refused(write_table(tmp_path / "a.parquet", labels), pattern)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pa.array([-1, 1] * 6), ("-1", "1")),
        (pa.array([2**40, 7] * 6), ("7", "1099511627776")),
        (pa.array([True, False] * 6), ("False", "True")),
        (pa.array([b"bee", b"ant"] * 6), ("ant", "bee")),
        (pa.array(["b", "a"] * 6).dictionary_encode(), ("a", "b")),
        (pa.array([2.0, 1.0] * 6), ("1.0", "2.0")),
        (pa.array(["cafe\u0301", "caf\u00e9"] * 6), ("caf\u00e9",)),
    ],
)
def test_labels_of_every_kind_are_classes(
    tmp_path: Path, labels: pa.Array, names: tuple[str, ...]
) -> None:
    assert find(write_table(tmp_path / "a.parquet", labels)).class_names == names


def test_a_split_without_any_label_is_left_out(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", LABELS)
    write_table(tmp_path / "valid.parquet", pa.nulls(5, pa.int64()))
    write_table(tmp_path / "test.parquet", [-1] * 7)
    source = find(tmp_path)
    assert list(source.parts) == ["train"]
    assert {item.path: item.why for item in source.left_out} == {
        "valid.parquet": "5 validation samples without labels",
        "test.parquet": "7 test samples without labels",
    }


def test_declared_classes_hold_every_number(tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.parquet", LABELS)
    marks = b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}}}'
    table = pq.read_table(file).replace_schema_metadata({b"huggingface": marks})
    pq.write_table(table, file)
    refused(file, "must be numbers below 2, but one is 2")
    pq.write_table(table.replace_schema_metadata({b"huggingface": marks[:-9]}), file)
    assert find(file).class_names == ("0", "1", "2")
