"""One image file: opened, described and decoded here and nowhere else, whatever Pillow raises."""

import contextlib
import functools
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageFile

from methods.data.reading import libtiff
from methods.data.reading.fit import FITTINGS, Rendering, fitted
from methods.errors import DataError

REFUSED_FORMATS = frozenset(
    "BUFR EPS GRIB HDF5 IM IMT IPTC MCIDAS MPEG SPIDER WMF XVTHUMB".split()  # noqa: SIM905
)
"""Formats of Pillow that it cannot decode by itself, that run a program, or that fit any bytes."""

LIMIT_PIXELS = 89_478_485
"""Pixels of one image at most: Pillow's own bound, which keeps decoding below 2 GB and seconds."""

SLOW_PIXELS = 1 << 22
"""The same for formats whose decoder is written in Python, or is as slow as that."""

SLOW_FORMATS = frozenset(("ICNS", "JPEG2000", "FITS"))

SAMPLED_PIXELS = 1 << 20
"""Pixels to which a larger image is averaged before its brightness is taken."""

LIMIT_BYTES = 1 << 29
"""Bytes of one image file at most."""

GREY_MODES = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"))
DEEP_MODES = frozenset(("I", "I;16", "I;16L", "I;16B", "I;16N", "F"))
"""Modes whose values are wider than a byte."""

ORIENTATION = 0x0112
TURNS: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
"""EXIF orientation -> what makes the image upright; from 5 on, height and width change places."""

JPEGS = frozenset(("JPEG", "MPO"))
"""Formats that can be decoded at a reduced scale; the second holds several JPEGs."""

PNG_METADATA = frozenset(("exif", "Raw profile type exif", "XML:com.adobe.xmp"))
"""Where Pillow keeps the orientation of a PNG that states it before its pixels."""


Stream = io.BytesIO | io.BufferedReader


class BrokenImage(DataError):
    """An image that cannot be read."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"every image must be readable, but {name} is not: {why}; `isoflop data --broken PATH` "
            "lists all such images"
        )
        self.name, self.why = name, why

    def __reduce__(self) -> tuple[type["BrokenImage"], tuple[str, str]]:
        return type(self), (self.name, self.why)


@dataclass(frozen=True)
class Cell:
    """One encoded image: its bytes, or the file that holds them."""

    name: str
    """As messages call it."""
    content: bytes | None
    path: Path | None = None

    def open(self) -> Stream:
        if self.content is not None:
            return io.BytesIO(self.content)
        if self.path is None:
            raise BrokenImage(self.name, "it is null")
        if not self.path.is_file():
            raise BrokenImage(
                self.name, "it is a link to nothing" if self.path.is_symlink() else "it is no file"
            )
        if self.path.stat().st_size > LIMIT_BYTES:
            raise BrokenImage(self.name, f"it is larger than {LIMIT_BYTES >> 20} MiB")
        return self.path.open("rb")


@dataclass(frozen=True)
class Header:
    """What an image says about itself before it is decoded; EXIF orientation is applied."""

    height: int
    width: int
    mode: str
    """Pillow's."""
    transparent: bool
    """Whether it can have transparent pixels."""
    turned: bool
    """Whether its EXIF orientation turns or mirrors it."""
    animated: bool
    shortened: bool = False
    """Whether Pillow reads the upper 8 of 16 bits of each channel."""


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the formats that are read."""
    return frozenset(s for s, kind in Image.registered_extensions().items() if kind in _formats())


def is_image(content: bytes) -> bool:
    """Whether bytes are in an image format that is read."""
    try:
        with _opened(Cell("", content)):
            return True
    except DataError:
        return False


def header(cell: Cell) -> Header:
    """Size, mode and the rest of an image, which is not decoded.

    Raises:
        DataError: no image, a damaged one, or one too large.
    """
    with _opened(cell) as image:
        orientation = _orientation(image) if _oriented(image) else 1
        height, width = image.height, image.width
        if orientation >= 5 and image.format != "TIFF":  # whose size Pillow has turned
            height, width = width, height
        animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
        return Header(
            height=height,
            width=width,
            mode=image.mode,
            transparent=image.has_transparency_data and image.mode not in DEEP_MODES,
            turned=orientation > 1,
            animated=animated,
            shortened=image.mode not in DEEP_MODES and any(";16" in str(t) for t in image.tile),
        )


def pixels(cell: Cell, rendering: Rendering) -> UInt8[np.ndarray, "height width channels"]:
    """The decoded image.

    Raises:
        DataError: no image, a damaged one, one too large, or one that the rendering does not fit.
    """
    with _opened(cell) as image:
        scale, stored = _reduced(image, rendering)
        upright = _upright(image)
        if rendering.channels == 1 and upright.mode not in GREY_MODES:
            raise BrokenImage(cell.name, "it is in colour, and those that were sampled are grey")
        plain = _plain(cell.name, upright, rendering)
        size = rendering.width, rendering.height
        full = plain.size if scale == 1 else stored
        if full != size:
            if rendering.resize is None:
                raise BrokenImage(
                    cell.name,
                    f"it has {plain.height}x{plain.width} pixels, and those that were sampled "
                    f"{size[1]}x{size[0]}; write a `size`",
                )
            fitting = FITTINGS[rendering.resize](full, rendering.height, rendering.width)
            plain = fitted(plain, fitting, scale, size)
        return np.asarray(plain, dtype=np.uint8).reshape(rendering.shape)


def check(cell: Cell) -> None:
    """Decodes an image.

    Raises:
        BrokenImage: it cannot be.
    """
    with _opened(cell) as image:
        image.load()


def values(cell: Cell) -> Shaped[np.ndarray, "height width"]:
    """The values of an image whose mode is wider than a byte.

    Raises:
        DataError: no image, a damaged one, one too large, or values that are not finite.
    """
    with _opened(cell) as image:
        return _finite(cell.name, image)


def visible(cell: Cell) -> float | None:
    """Mean brightness, 0 to 255, of the pixels of an image that can be seen.

    None where it has no transparent pixel, or nothing else.

    Raises:
        DataError: no image, a damaged one, or one too large.
    """
    with _opened(cell) as image:
        image.load()
        clear = _in_mode(image, "RGBA")
        clear = clear.reduce(max(1, math.isqrt(clear.width * clear.height // SAMPLED_PIXELS)))
        grey = clear.convert("LA")
        light, alpha = (np.asarray(band, dtype=np.float32) for band in grey.split())
    if alpha.min() == 255 or alpha.max() == 0:
        return None
    return float((light * alpha).sum() / alpha.sum())


@contextlib.contextmanager
def _opened(cell: Cell) -> Iterator[ImageFile.ImageFile]:
    """The image, not decoded; all that Pillow raises inside becomes a DataError."""
    try:
        with cell.open() as stream:
            image = _identified(stream, Path(cell.name).suffix.lower())
            with image:
                _check_size(cell.name, image)
                yield image
    except DataError:
        raise
    except _Unidentified as error:
        raise BrokenImage(cell.name, str(error)) from None
    except MemoryError:
        raise BrokenImage(cell.name, "it needs more memory than there is") from None
    except Exception as error:  # decoders raise what they like: SyntaxError, struct.error, ...
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise BrokenImage(cell.name, f"it is damaged or cannot be opened ({text})") from None


class _Unidentified(Exception):
    """Bytes that no decoder claims."""


def _identified(stream: Stream, suffix: str) -> ImageFile.ImageFile:
    """As Pillow's `open`, without its warning and error for large images, and fewer formats."""
    prefix = stream.read(16)
    if not prefix:
        raise _Unidentified("it is empty")
    damage: Exception | None = None
    for name in _formats():
        factory, accept = Image.OPEN[name]
        if accept is None and Image.registered_extensions().get(suffix) != name:
            continue
        try:
            if accept is None or accept(prefix) is True:
                stream.seek(0)
                return factory(stream, "")
        except Exception as error:
            damage = error
    if prefix.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        raise _Unidentified("it holds text such as HTML, not an image")
    if damage is not None:
        raise damage
    raise _Unidentified("its bytes are in no image format that is read")


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    libtiff.silence()
    return tuple(name for name in Image.ID if name not in REFUSED_FORMATS)


def _check_size(name: str, image: ImageFile.ImageFile) -> None:
    decoders = {tile[0] for tile in image.tile}
    slow = image.format in SLOW_FORMATS or decoders & set(Image.DECODERS)
    limit = SLOW_PIXELS if slow else LIMIT_PIXELS
    if image.width * image.height > limit:
        raise BrokenImage(
            name,
            f"it has {image.height}x{image.width} pixels, and {image.format} is read up to "
            f"{limit / 1e6:.0f} million; shrink it first",
        )


def _reduced(image: ImageFile.ImageFile, rendering: Rendering) -> tuple[int, tuple[int, int]]:
    """The scale at which an image is decoded, and its whole (width, height), upright.

    A JPEG that comes to a much smaller size is decoded at a half, a quarter or an eighth of its
    own, as nothing but its size and the rendering decide.
    """
    width, height = image.size
    if rendering.resize is None or image.format not in JPEGS:
        return 1, image.size
    orientation = _orientation(image)
    full = (height, width) if orientation >= 5 else (width, height)
    scale = FITTINGS[rendering.resize](full, rendering.height, rendering.width).scale
    while orientation > 1 and (width % scale or height % scale):
        scale //= 2  # a last column in part would become the first
    if scale == 1 or image.draft(None, (width // scale, height // scale)) is None:
        return 1, full
    return scale, full


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # metadata may be damaged where the pixels are whole
        return 1
    return orientation if orientation in range(1, 9) else 1


def _oriented(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not decoded may have an orientation: a PNG is decoded to tell."""
    if image.format != "PNG" or PNG_METADATA & set(image.info):
        return True
    assert image.fp is not None
    place = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(place)
    return b"eXIf" in content or b"tiff:Orientation" in content


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    if image.format == "TIFF":  # Pillow has turned it
        return image
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _plain(name: str, image: Image.Image, rendering: Rendering) -> Image.Image:
    """In 8 bits, without transparency, in as many channels as are wanted."""
    mode = "L" if rendering.channels == 1 else "RGB"
    if image.mode in DEEP_MODES:
        numbers, depth = _finite(name, image), rendering.depths.get(image.mode)
        if depth is None:
            raise BrokenImage(name, f"it is of mode {image.mode}, and none of those sampled is")
        if numbers.min() < depth.low or numbers.max() > depth.high:
            raise BrokenImage(
                name,
                f"its values, {numbers.min():g} to {numbers.max():g}, leave the range of those "
                f"that were sampled, {depth.low:g} to {depth.high:g}",
            )
        return Image.fromarray(depth.to_bytes(numbers)).convert(mode)
    if image.has_transparency_data:
        clear = _in_mode(image, "RGBA")
        canvas = Image.new("RGB", image.size, (rendering.background,) * 3)
        canvas.paste(clear, mask=clear.getchannel("A"))
        return _in_mode(canvas, mode)
    return _in_mode(image, mode)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Without the copy that Pillow makes of an image that has the mode already."""
    return image if image.mode == mode else image.convert(mode)


def _finite(name: str, image: Image.Image) -> Shaped[np.ndarray, "height width"]:
    numbers = np.asarray(_upright(image))
    if not np.isfinite(numbers).all():
        raise BrokenImage(name, "it has values that are not finite")
    return numbers
