"""Damaged files of every kind end in a value or in one line, and in little memory."""

import io
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import encoded, square
from PIL import Image

from methods.data import sources
from methods.data.reading import picture
from methods.data.reading.fit import Depth, Rendering
from methods.data.reading.picture import Cell
from methods.errors import IsoflopError

SCALES = {mode: Depth(0.0, 65535.0, 1 / 256) for mode in picture.DEEP_MODES}
RENDERINGS = [
    Rendering(height=8, width=8, channels=3, resize="crop", depths=SCALES),
    Rendering(height=8, width=8, channels=1, resize="pad", depths=SCALES),
]
BLOWS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\x40\0")
"""What sizes, counts and offsets are overwritten with."""
LIMIT_MB = 2048
LIMIT_SECONDS = 10
"""Seconds of processor time for one file; the first file's imports included."""


def images() -> dict[str, bytes]:
    """One image in each kind of file that the four formats write most often."""
    wide = Image.fromarray(np.asarray(square(0, 0).convert("L")).astype(np.uint16) * 257)
    real = Image.fromarray(np.asarray(square(0, 0).convert("L")).astype(np.float32))
    exif = Image.Exif()
    exif[0x0112] = 6
    files: dict[str, bytes] = {}

    def add(image: Image.Image, kind: str, **options: object) -> None:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        files[f"{len(files)}.{kind.lower()}"] = stream.getvalue()

    for mode in ("RGB", "RGBA", "L", "P", "1"):
        add(square(0, 0).convert(mode), "PNG", exif=exif)
    add(wide, "PNG")
    for mode in ("RGB", "L", "CMYK"):
        add(square(0, 0).convert(mode), "JPEG", progressive=mode == "L", exif=exif)
    frames = [square(0, number).quantize(16) for number in range(3)]
    add(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=1)
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(square(0, 0), "TIFF", compression=compression, exif=exif)
    for deep in (wide, real, real.convert("I")):
        add(deep, "TIFF")
    add(square(0, 0), "WEBP")
    add(square(0, 0), "BMP")
    return files


def tables() -> list[bytes]:
    """Parquet files as several writers make them."""
    content = [encoded(square(0, number)) for number in range(12)]
    marked = pa.array([{"bytes": c, "path": None} for c in content])
    words = pa.array(["a", "b", "c"] * 4)
    files = []
    for column, labels, options in (
        (pa.array(content), words, {}),
        (marked, words.dictionary_encode(), {"compression": "zstd"}),
        (pa.array(content), pa.array(range(12)), {"write_page_checksum": True}),
        (marked, pa.array([0.0, 1.0] * 6), {"data_page_version": "2.0", "compression": "none"}),
    ):
        stream = io.BytesIO()
        pq.write_table(pa.table({"image": column, "label": labels}), stream, **options)
        files.append(stream.getvalue())
    return files


@st.composite
def damaged(draw: st.DrawFn, files: st.SearchStrategy[bytes]) -> bytes:
    """A file with some bytes overwritten, inserted, removed or cut off."""
    content = bytearray(draw(files))
    for _ in range(draw(st.integers(1, 4))):
        last = max(len(content) - 1, 0)
        place = draw(st.integers(0, last) | st.integers(0, min(last, 64)))
        match draw(st.sampled_from(["byte", "blow", "insert", "remove", "cut"])):
            case "byte":
                content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "blow":
                content[place : place + 4] = draw(st.sampled_from(BLOWS))
            case "insert":
                content[place:place] = draw(st.binary(min_size=1, max_size=8))
            case "remove":
                del content[place : place + draw(st.integers(1, 16))]
            case "cut":
                del content[place:]
    return bytes(content)


IMAGES = images()
named = st.sampled_from(sorted(IMAGES)).flatmap(
    lambda name: st.tuples(st.just(name), damaged(st.just(IMAGES[name])))
)


def fuzz(run: Callable[..., None], examples: int, **strategies: st.SearchStrategy) -> None:
    """Runs many examples."""
    settings(max_examples=examples, suppress_health_check=list(HealthCheck))(
        given(**strategies)(run)
    )()


def reads(file: tuple[str, bytes]) -> None:
    """An image is read, in every way, or refused in one line."""
    cell = Cell(*file)
    for work in (picture.header, picture.check, picture.visible):
        ends_well(lambda work=work: work(cell))
    for rendering in RENDERINGS:
        ends_well(lambda rendering=rendering: picture.pixels(cell, rendering))


def ends_well(work: Callable[[], object]) -> None:
    """Ends in a value or in a refusal of one line, within seconds of processor time."""
    refusal, start = "", time.process_time()
    try:
        work()
    except IsoflopError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert time.process_time() - start < LIMIT_SECONDS


def fuzz_images(examples: int) -> None:
    fuzz(reads, examples, file=named)


def fuzz_tables(examples: int, folder: Path) -> None:
    def run(content: bytes) -> None:
        (folder / "a.parquet").write_bytes(content)
        ends_well(lambda: sources.find(str(folder), size=8))

    fuzz(run, examples, content=damaged(st.sampled_from(tables())))


def in_little_memory(work: Callable[[], None]) -> None:
    """Runs in a separate process, whose memory is then known."""
    work()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < LIMIT_MB << 10


@pytest.mark.filterwarnings("ignore")
def test_damaged_images_are_read_or_refused() -> None:
    fuzz_images(100)


@pytest.mark.filterwarnings("ignore")
def test_damaged_parquet_is_read_or_refused(tmp_path: Path) -> None:
    fuzz_tables(60, tmp_path)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_damaged_files_are_read_or_refused_in_little_memory(tmp_path: Path) -> None:
    work = [lambda: fuzz_images(2000), lambda: fuzz_tables(1000, tmp_path)]
    for part in work:
        process = multiprocessing.get_context("fork").Process(target=in_little_memory, args=[part])
        process.start()
        process.join()
        assert process.exitcode == 0


@pytest.mark.full
def test_the_largest_images_take_less_than_two_gigabytes(tmp_path: Path) -> None:
    side = int(picture.LIMIT_PIXELS**0.5)
    Image.new("RGBA", (side, side), (1, 2, 3, 4)).save(tmp_path / "a.png", compress_level=1)
    cell = Cell("a.png", None, tmp_path / "a.png")
    for work in (picture.visible, lambda cell: picture.pixels(cell, RENDERINGS[0])):
        process = multiprocessing.get_context("fork").Process(
            target=in_little_memory, args=[lambda work=work: work(cell)]
        )
        process.start()
        process.join()
        assert process.exitcode == 0
