"""A contact sheet: some images of each class, as a study reads them, in one picture."""

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from methods.data.parts import Part, Source

CLASSES, COLUMNS = 40, 10
"""Classes of each part at most, and images of each; both are spread evenly."""
SIDE = 64
"""Pixels of an image's longer side on the sheet: smaller ones are enlarged, larger ones reduced."""
GAP, MARGIN, HEAD = 4, 12, 22
LETTERS = 28
"""Letters of a class's name that are shown."""
PAPER, INK = (244, 244, 241), (38, 38, 38)


def sheet(source: Source) -> Image.Image:
    """A row per part and class: its name and count, then some of its images.

    The images are what a network sees before normalisation; where no pixel is bright, all are
    brightened alike.

    Raises:
        DataError: an image cannot be read.
    """
    font = ImageFont.load_default(13)
    bands = {role: _rows(source, part) for role, part in source.parts.items()}
    titles = [title for rows in bands.values() for title, _ in rows]
    column = 2 * MARGIN + int(max(font.getlength(title) for title in titles))
    brightest = max(int(images.max()) for rows in bands.values() for _, images in rows)
    height, width, _ = source.shape
    tile = [max(1, round(side * SIDE / max(height, width))) for side in (width, height)]
    tall = sum(HEAD + len(rows) * (tile[1] + GAP) + MARGIN for rows in bands.values())
    paper = Image.new("RGB", (column + COLUMNS * (tile[0] + GAP) + MARGIN, tall + MARGIN), PAPER)
    draw = ImageDraw.Draw(paper)
    top = MARGIN
    for role, rows in bands.items():
        draw.text((MARGIN, top), f"{role}: {len(source.parts[role].labels):,} images", INK, font)
        top += HEAD
        for title, images in rows:
            draw.text((MARGIN, top + tile[1] / 2), title, INK, font, anchor="lm")
            for place, image in enumerate(images):
                corner = (column + place * (tile[0] + GAP), top)
                paper.paste(_tile(image, brightest, (tile[0], tile[1])), corner)
            top += tile[1] + GAP
        top += MARGIN
    return paper


def _rows(
    source: Source, part: Part
) -> list[tuple[str, UInt8[np.ndarray, "images height width channels"]]]:
    """Title and images of a part's classes."""
    rows = []
    for label in _spread(np.unique(part.labels), CLASSES):
        members = np.flatnonzero(part.labels == label)
        name = source.class_names[int(label)]
        name = "".join(
            c if c < "\u0250" else f"\\u{ord(c):04x}" for c in name
        )  # the font's letters
        short = name if len(name) <= LETTERS else f"{name[: LETTERS - 3]}..."
        images = part.pixels(_spread(members, COLUMNS))
        rows.append((f"{short}   {len(members):,}", images))
    return rows


def _spread(items: Int[np.ndarray, " items"], most: int) -> Int[np.ndarray, " chosen"]:
    """All of some items, or `most` of them, spread evenly."""
    if len(items) <= most:
        return items
    places = np.linspace(0, len(items) - 1, most).round().astype(int)
    return np.asarray(items[places])


def _tile(
    image: UInt8[np.ndarray, "height width channels"], brightest: int, size: tuple[int, int]
) -> Image.Image:
    bright = (image * (255 / max(1, brightest))).round().astype(np.uint8)
    picture = Image.fromarray(bright[..., 0] if bright.shape[2] == 1 else bright)
    enlarged = size[0] >= picture.width
    kind = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize(size, kind)
