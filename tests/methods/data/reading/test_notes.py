"""What a reader does with images that it does not read as they are stored is said in a note."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import write_classes
from PIL import Image

from methods.data.reading import encoded
from methods.data.reading.picture import Cell, check
from methods.data.sources import find
from methods.errors import DataError


def deep_png(colours: int, values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write; `colours` is PNG's colour type."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colours, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(("colours", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_of_16_bits_a_channel_the_upper_8_are_read_and_that_is_said(
    tmp_path: Path, colours: int, channels: int
) -> None:
    files = write_classes(tmp_path)
    values = np.random.default_rng(0).integers(2**16, size=(8, 8, channels))
    values[..., -1] |= 0 if colours == 2 else 0xFF00  # opaque, where it is the transparency
    (files / "ant" / "000.png").write_bytes(deep_png(colours, values))
    assert any("1 of 20 images have 16 bits a channel" in note for note in find(str(files)).notes)


def test_a_part_that_is_only_sampled_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("evenly spaced" in note for note in find(str(write_classes(tmp_path))).notes)
    monkeypatch.setattr(encoded, "HEADERS", 10)
    monkeypatch.setattr(encoded, "PROBES", 5)
    said = "sizes, modes and depths are those of 5 of 20 images, evenly spaced"
    assert said in find(str(tmp_path)).notes


def test_what_libtiff_says_is_in_the_error_alone(capfd: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "TIFF", compression="tiff_lzw")
    damaged = bytearray(buffer.getvalue())
    damaged[300:1200:7] = bytes(byte ^ 0xFF for byte in damaged[300:1200:7])
    with pytest.raises(DataError, match=r"a\.tif is not"):
        check(Cell("a.tif", bytes(damaged)))
    assert capfd.readouterr() == ("", "")
