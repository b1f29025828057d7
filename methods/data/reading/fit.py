"""How an image comes to another size."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from PIL import Image

from methods.data.parts import Scaling


def _cropped(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scaled to cover the wanted size, with a margin of an eighth if larger, then its centre.

    The shorter side comes to 8/7 of the wanted (256 for 224) where the image has that much.
    """
    cover = max(height / image.height, width / image.width)
    scale = max(cover, min(cover * 8 / 7, 1.0))
    inner = (width / scale, height / scale)
    left, top = (image.width - inner[0]) / 2, (image.height - inner[1]) / 2
    box = (
        max(left, 0),
        max(top, 0),
        min(left + inner[0], image.width),
        min(top + inner[1], image.height),
    )
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _covered(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scaled to cover the wanted size, then its centre."""
    scale = max(height / image.height, width / image.width)
    inner = (min(width / scale, image.width), min(height / scale, image.height))
    left, top = (image.width - inner[0]) / 2, (image.height - inner[1]) / 2
    box = (left, top, left + inner[0], top + inner[1])
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _padded(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scaled into the wanted size, in the middle of a black frame."""
    scale = min(height / image.height, width / image.width)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    canvas = Image.new(image.mode, (width, height))
    place = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas.paste(image.resize(inner, Image.Resampling.BILINEAR), place)
    return canvas


def _stretched(image: Image.Image, height: int, width: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BILINEAR)


RESIZES: Mapping[Scaling, Callable[[Image.Image, int, int], Image.Image]] = MappingProxyType(
    {"crop": _cropped, "pad": _padded, "stretch": _stretched, "cover": _covered}
)
