"""Streamed data that one process reads and others train on: listed once, sent as a small value."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import square, write_classes, write_table

from methods.data import sources
from methods.data.load import Arrays, Data, load
from methods.data.parts import CHUNK_BYTES, Array, Stamps, Texts, chunks
from methods.data.reading import parquet
from methods.data.streams import Streamed
from methods.errors import DataError


def sent(data: Data) -> tuple[Data, int]:
    """What another process gets, and the bytes that it is sent."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(Arrays.of(data), protocol=5, buffer_callback=buffers.append)
    raw = [memoryview(buffer).toreadonly() for buffer in buffers]
    size = len(content) + sum(len(each.raw()) for each in buffers)
    return pickle.loads(content, buffers=raw).on("cpu"), size


def batches(data: Data) -> list[torch.Tensor]:
    splits = (data.train, data.validation, data.test)
    return [images for split in splits for images, _ in split.batches(7)]


def same(first: Data, second: Data) -> bool:
    pairs = zip(batches(first), batches(second), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_an_image_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(str(write_classes(tmp_path, per=30)), limit_bytes=0)
    monkeypatch.setattr(sources, "find", lambda *_: pytest.fail("the folder is listed again"))
    monkeypatch.setattr(Path, "stat", lambda *_: pytest.fail("its files are looked at again"))
    there, size = sent(data)
    monkeypatch.undo()
    assert isinstance(there.train.store, Streamed)
    assert size < 60 * 60 + 10_000
    assert same(there, data)


def test_embedded_data_are_sent_with_their_pixels() -> None:
    data = load("digits", limit_bytes=0)
    assert same(sent(data)[0], data)


@pytest.mark.parametrize("most", [0, 1 << 30])
def test_a_large_parquet_file_is_opened_where_it_is(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MEMORY_BYTES", most)
    noise = [square(0, number, 60) for number in range(40)]
    content = [_encoded(image) for image in noise]
    images = pa.array(content, pa.binary())
    write_table(tmp_path / "a.parquet", [number % 2 for number in range(40)], image=images)
    data = load(str(tmp_path / "a.parquet"), limit_bytes=0)
    there, size = sent(data)
    assert (size < 10_000) == (most == 0)
    assert same(there, data)


def _encoded(image: "object") -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")  # type: ignore[attr-defined]
    return stream.getvalue()


def test_names_of_any_bytes_are_kept(tmp_path: Path) -> None:
    names = ["", "a/b.png", "ü", os.fsdecode(b"\xff\xfe"), "line\nbreak"]
    texts = Texts.of(names)
    assert list(texts) == names
    assert texts[-2:] == names[-2:]
    assert list(Texts.of([])) == []
    odd = os.fsdecode(b"cat/\xff.png")
    write_classes(tmp_path, per=12)
    (tmp_path / "cat").mkdir()
    for number in range(12):
        square(2, number).save(tmp_path / "cat" / f"{number:02}.png")
    (tmp_path / "cat" / "00.png").rename(tmp_path / odd)
    source = sources.find(str(tmp_path))
    assert source.train.names[-1] == r"cat/\xff.png"
    assert source.train.pixels(np.array([35])).shape == (1, 8, 8, 3)


def test_a_file_that_is_gone_has_no_stamp(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    os.utime(tmp_path / "a", ns=(5, 7))
    stamps = Stamps.of([tmp_path / "a", tmp_path / "b"])
    assert stamps.sizes.tolist() == [3, 0]
    assert stamps.times.tolist() == [7, 0]


def test_few_large_images_are_looked_at_at_once() -> None:
    rows = np.arange(3000)
    small, large, vast = (
        Array(rows, np.broadcast_to(np.uint8(0), (3000, side, side, 3)), [])
        for side in (8, 256, 9000)
    )
    assert [len(some) for some in chunks(rows, small)] == [1024, 1024, 952]
    assert {len(some) for some in chunks(rows[:340], large)} == {CHUNK_BYTES // (256 * 256 * 3)}
    assert {len(some) for some in chunks(rows, vast)} == {1}
    assert np.array_equal(np.concatenate(chunks(rows, large)), rows)


PEAK = """
import resource, sys
from methods.data import load, survey
from methods.data.reading import local
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
data = load.load(sys.argv[1], limit_bytes=0)
survey.survey(data)
next(data.train.batches(1))
print(peak() - before)
"""


def test_large_photos_need_little_memory(tmp_path: Path) -> None:
    """24 of 1500 x 2000 pixels, 216 MB, none of them held."""
    make = lambda label, number: square(label, number, 4).resize((2000, 1500))  # noqa: E731
    write_classes(tmp_path, per=12, make=make, suffix="jpg")
    run = [sys.executable, "-c", PEAK, str(tmp_path)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(run, capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout) < 250, "MiB beside the program"


def test_other_images_in_another_process_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(tmp_path / "set.parquet", [number % 2 for number in range(40)])
    monkeypatch.setattr(parquet, "MEMORY_BYTES", 0)
    content = pickle.dumps(Arrays.of(load(str(path), limit_bytes=0)))
    table = pq.read_table(path)
    pq.write_table(table.slice(0, len(table) - 1), path)
    with pytest.raises(DataError, match="must read the same images, but those of set"):
        pickle.loads(content)


@pytest.mark.parametrize("name", ["set", "set.parquet"])
def test_a_relative_path_is_the_same_images_in_another_folder(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(tmp_path / "set")
    write_table(tmp_path / "set.parquet", [number % 2 for number in range(40)])
    monkeypatch.setattr(parquet, "MEMORY_BYTES", 0)
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(Arrays.of(load(name, limit_bytes=0)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert same(pickle.loads(content).on("cpu"), load(str(tmp_path / name)))
