"""What training makes of its images: crops, mirror images, other colours, and mixed pairs.

All that is random is drawn at the start of a pass, for all of its samples; images then follow their
own draws, batch by batch, on the device. What one worker draws, several draw alike.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from methods.api import Images, Labels

Pixels = UInt8[Tensor, "batch height width channels"]
Cut = UInt8[Tensor, "batch cut_height cut_width channels"]
Real = Float[Tensor, "batch height width channels"]
Each = Float[Tensor, " batch"]
"""A number for each image."""
Crop = Literal["shift", "resized"]

RATIOS = (3 / 4, 4 / 3)
"""Least and largest ratio of width to height of a random resized crop."""
TRIES = 10
"""Boxes that are drawn for an image until one fits; then it is the largest in the centre."""
GREY = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue (ITU-R 601-2)."""


class Shift(NamedTuple):
    """Per sample: pixels down, pixels right, and whether it is mirrored left to right first."""

    pad: int
    """Pixels of black on each side that down and right do not exceed; 0 where none comes in."""
    down: Int[Tensor, " batch"]
    right: Int[Tensor, " batch"]
    mirror: Bool[Tensor, " batch"]


class Boxes(NamedTuple):
    """Per sample: the part of an image that becomes the whole, and whether it is mirrored then."""

    top: Int[Tensor, " batch"]
    left: Int[Tensor, " batch"]
    height: Int[Tensor, " batch"]
    width: Int[Tensor, " batch"]
    mirror: Bool[Tensor, " batch"]


class Colours(NamedTuple):
    """Per sample: factors of brightness, contrast and saturation; 1 changes nothing."""

    brightness: Each
    contrast: Each
    saturation: Each


class Draws(NamedTuple):
    """All that is random about the samples of a pass, in the order in which they come."""

    place: Shift | Boxes
    colours: Colours | None = None
    weight: Each | None = None
    """Share of an image in its mixture with another, at least a half."""

    def rows(self, rows: slice | Int[Tensor, " rows"]) -> "Draws":
        """The draws of these samples."""
        return self._replace(**{name: _each(part, rows) for name, part in self._given()})

    def to(self, device: torch.device) -> "Draws":
        return self._replace(**{name: _each(part, device) for name, part in self._given()})

    def _given(self) -> list[tuple[str, Any]]:
        return [
            (name, part) for name, part in zip(self._fields, self, strict=True) if part is not None
        ]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random crops, a fair mirror flip and, on request, other colours and mixtures.

    An epoch's draws are made at its start, so `generator` moves on by whole epochs.
    """

    pad: int
    """Pixels by which `shift` moves an image of its own size, black coming in at the edges."""
    flip: bool
    generator: torch.Generator
    crop: Crop = "shift"
    """shift: a window of the wanted size at a random place; resized: a window of random area and
    ratio, scaled to the wanted size (Szegedy et al., arXiv 1409.4842)."""
    area: float = 0.08
    """Least area of a resized crop, as a fraction of the image's."""
    colour: float = 0.0
    """How far the factors of brightness, contrast and saturation lie from 1 at most."""
    mixup: float = 0.0
    """Both parameters of the Beta distribution of mixtures; 0 mixes nothing."""

    def draw(self, samples: int, stored: tuple[int, int], wanted: tuple[int, int]) -> Draws:
        """What happens to so many images, stored in one height and width, wanted in another."""
        boxes = self.crop == "resized"
        place = self._boxes(samples, stored) if boxes else self._shift(samples, stored, wanted)
        colours = None
        if self.colour:
            factors = 1 + self.colour * (2 * self._uniform(samples, 3).float() - 1)
            colours = Colours(*factors.unbind(1))
        return Draws(place, colours, self._mixture(samples) if self.mixup else None)

    def _shift(self, samples: int, stored: tuple[int, int], wanted: tuple[int, int]) -> Shift:
        """Shifts in [-pad, pad]; of larger images, windows that lie inside."""
        spare = [have - want for have, want in zip(stored, wanted, strict=True)]
        if any(spare):
            down, right = (-self._whole(0, most, samples) for most in spare)
            return Shift(0, down, right, self._mirror(samples))
        down, right = (self._whole(-self.pad, self.pad, samples) for _ in range(2))
        return Shift(self.pad, down, right, self._mirror(samples))

    def _boxes(self, samples: int, stored: tuple[int, int]) -> Boxes:
        """Boxes of uniform area and log-uniform ratio; those that stick out are drawn again."""
        tall, wide = stored
        low, high = map(math.log, RATIOS)
        height, width = (torch.zeros(samples, dtype=torch.int64) for _ in range(2))
        for _ in range(TRIES):
            draw = self._uniform(samples, 2)
            area = (self.area + (1 - self.area) * draw[:, 0]) * tall * wide
            ratio = torch.exp(low + (high - low) * draw[:, 1])
            box = [side.sqrt().round().long() for side in (area / ratio, area * ratio)]
            fits = (height == 0) & (box[0] >= 1) & (box[0] <= tall)
            fits &= (box[1] >= 1) & (box[1] <= wide)
            height, width = torch.where(fits, box[0], height), torch.where(fits, box[1], width)
        lacking = height == 0
        height[lacking] = min(tall, round(wide / RATIOS[0]))
        width[lacking] = min(wide, round(tall * RATIOS[1]))
        draw = self._uniform(samples, 2)
        top = (draw[:, 0] * (tall - height + 1)).long().clamp(max=tall - height)
        left = (draw[:, 1] * (wide - width + 1)).long().clamp(max=wide - width)
        top[lacking] = (tall - height[lacking]) // 2
        left[lacking] = (wide - width[lacking]) // 2
        return Boxes(top, left, height, width, self._mirror(samples))

    def _mixture(self, samples: int) -> Each:
        """Shares of Beta(mixup, mixup), of which the larger one is the image's own."""
        seed = int(self._whole(0, 2**62, 1))  # torch has no Beta of a given generator
        share = np.random.default_rng(seed).beta(self.mixup, self.mixup, samples)
        return torch.from_numpy(np.maximum(share, 1 - share)).float()

    def _mirror(self, samples: int) -> Bool[Tensor, " batch"]:
        return self._whole(0, int(self.flip), samples).bool()

    def _whole(self, low: int, high: int, samples: int) -> Int[Tensor, " batch"]:
        place = self.generator.device
        return torch.randint(low, high + 1, (samples,), generator=self.generator, device=place)

    def _uniform(self, samples: int, count: int) -> Float[Tensor, "batch count"]:
        place = self.generator.device
        return torch.rand(
            samples, count, generator=self.generator, dtype=torch.float64, device=place
        )


class Mixed(torch.Tensor):
    """Labels of images that are mixtures: the class of the larger share, which knows the other.

    To `F.cross_entropy` and `F.nll_loss` they are both classes, weighed by their shares, which
    equals soft targets; to everything else, the class of the larger share.
    """

    others: Labels
    """The class of the other share."""
    weight: Each
    """The share of the larger one."""

    @staticmethod
    def of(labels: Labels, others: Labels, weight: Each) -> "Mixed":
        mixed = labels.as_subclass(Mixed)
        mixed.others, mixed.weight = others, weight
        return mixed

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in LOSSES:
                return _weighed(func, *args, **kwargs)
            if func in MOVES and isinstance(args[0], Mixed):
                own = args[0]
                parts = (own.as_subclass(Tensor), own.others, own.weight)
                return Mixed.of(*(func(part, *args[1:], **kwargs) for part in parts))
            return func(*args, **kwargs)


LOSSES = (F.cross_entropy, F.nll_loss)
MOVES = (Tensor.__getitem__, Tensor.to, Tensor.cpu, Tensor.cuda)
"""What gives labels of some of the images, or elsewhere."""


def _weighed(
    loss: Any, logits: Tensor, target: Tensor, *rest: Any, reduction: str = "mean", **more: Any
) -> Tensor:
    """A loss for both classes of a mixture, each weighed by its share."""
    if not isinstance(target, Mixed):
        plain: Tensor = loss(logits, target, *rest, reduction=reduction, **more)
        return plain
    both = (target.as_subclass(Tensor), target.others)
    own, other = (loss(logits, each, *rest, reduction="none", **more) for each in both)
    weight = target.weight.to(own.dtype)
    mixed: Tensor = weight * own + (1 - weight) * other
    return mixed if reduction == "none" else mixed.sum() if reduction == "sum" else mixed.mean()


def mixed(
    images: Float[Tensor, "all channels height width"],
    labels: Int[Tensor, " all"],
    weight: Float[Tensor, " all"],
    partner: Int[Tensor, " batch"],
) -> tuple[Images, Labels]:
    """The first images, each mixed with the partner that is its row, and the labels of both.

    Zhang et al., mixup (arXiv 1710.09412), where all images of a batch have one share; here each
    has its own.
    """
    share = weight.to(images.dtype)[:, None, None, None]
    other = images.permute(0, 2, 3, 1).index_select(0, partner).permute(0, 3, 1, 2)
    own = slice(0, len(partner))
    return other.lerp_(images[own], share[own]), Mixed.of(labels[own], labels[partner], weight[own])


def paired(
    rows: Int[Tensor, " batch"], batch_size: int, samples: int
) -> tuple[Int[Tensor, " all"], Int[Tensor, " batch"]]:
    """These samples of a pass and after them those that they are mixed with; where each partner is.

    Neighbours in a batch are partners, so that several workers read few images twice; the last one
    of an odd batch is its own partner. The order is random, and so is who are neighbours.
    """
    start = rows - rows % batch_size
    neighbour = start + ((rows - start) ^ 1)
    neighbour = torch.where(neighbour < (start + batch_size).clamp(max=samples), neighbour, rows)
    every = torch.cat([rows, neighbour[~torch.isin(neighbour, rows)]])
    order = every.argsort()
    return every, order[torch.searchsorted(every[order], neighbour)]


def placed(pixels: Pixels, place: Shift | Boxes, size: tuple[int, int]) -> Cut:
    """A batch in its crops, of this height and width."""
    if isinstance(place, Boxes):
        return resized(pixels, place, size)
    return shifted(pixels, place, size)


def shifted(pixels: Pixels, shift: Shift, size: tuple[int, int] | None = None) -> Cut:
    """A batch, mirrored and then moved; black comes in at the edges, where it is padded.

    One gather of whole lines: each output line is a window of a line of the framed image.
    """
    batch, _, _, channels = pixels.shape
    height, width = size or pixels.shape[1:3]
    pad = shift.pad
    framed = F.pad(_mirrored(pixels, shift.mirror), (0, 0, pad, pad, pad, pad))
    tall, wide = framed.shape[1:3]
    windows = framed.flatten().as_strided(
        (batch * tall * wide - width + 1, width * channels), (channels, 1)
    )
    image = torch.arange(batch, device=pixels.device)[:, None] * tall
    line = image + torch.arange(height, device=pixels.device) + (pad - shift.down)[:, None]
    start = line * wide + (pad - shift.right)[:, None]  # batch height
    return windows.index_select(0, start.flatten()).view(batch, height, width, channels)


def resized(pixels: Pixels, boxes: Boxes, size: tuple[int, int]) -> Cut:
    """Each image's box, scaled to this height and width: bilinear, with a wider filter where it
    shrinks, as Pillow and torch's `antialias` have it; rounded.

    On a CPU torch does it image by image, in whole numbers. On a GPU, where so many calls would be
    waited for, a batch is two matrix products; a byte may differ by one.
    """
    if not pixels.is_cuda:
        return _mirrored(_interpolated(pixels, boxes, size), boxes.mirror)
    return multiplied(pixels, boxes, size)


def multiplied(pixels: Pixels, boxes: Boxes, size: tuple[int, int]) -> Cut:
    """As `resized` on a GPU: rows, then columns, by a matrix of weights for each image."""
    batch, _, wide, channels = pixels.shape
    rows = _weights(boxes.top, boxes.height, pixels.shape[1], size[0])
    columns = _weights(boxes.left, boxes.width, wide, size[1])
    columns = torch.where(boxes.mirror[:, None, None], columns.flip(1), columns)
    with torch.autocast(pixels.device.type, enabled=False):
        lines = pixels.permute(0, 1, 3, 2).flatten(2).to(rows.dtype)  # batch tall channels*wide
        lines = (rows @ lines).view(batch, size[0] * channels, wide)
        values = (lines @ columns.mT).view(batch, size[0], channels, size[1])
    return _bytes(values).permute(0, 1, 3, 2).contiguous()


def coloured(pixels: Pixels, colours: Colours) -> Pixels:
    """Brightness, contrast and saturation, in this order, each as Pillow's ImageEnhance has it.

    Images of one channel have no saturation to change.
    """
    brightness, contrast, saturation = (factor[:, None, None, None] for factor in colours)
    values = pixels.float().mul_(brightness).clamp_(0, 255)
    mean = _grey(values).mean((1, 2, 3), keepdim=True).add_(0.5).floor_()
    values = torch.lerp(mean, values, contrast).clamp_(0, 255)
    if pixels.shape[3] == 3:
        values = torch.lerp(_grey(values), values, saturation)
    return _bytes(values)


def _interpolated(pixels: Pixels, boxes: Boxes, size: tuple[int, int]) -> Cut:
    batch, _, _, channels = pixels.shape
    cut = pixels.new_empty((batch, *size, channels))
    sides = zip(*(part.tolist() for part in boxes[:4]), strict=True)
    for image, out, (top, left, height, width) in zip(
        pixels.permute(0, 3, 1, 2), cut.permute(0, 3, 1, 2), sides, strict=True
    ):
        box = image[None, :, top : top + height, left : left + width]
        out.copy_(F.interpolate(box, size, mode="bilinear", antialias=True)[0])
    return cut


def _weights(
    start: Int[Tensor, " batch"], length: Int[Tensor, " batch"], stored: int, wanted: int
) -> Float[Tensor, "batch wanted stored"]:
    """What each pixel of a scaled line takes of each stored one, of those within the box."""
    device = start.device
    scale = (length.float() / wanted)[:, None, None]
    centre = (torch.arange(wanted, device=device, dtype=torch.float32) + 0.5)[:, None] * scale
    pixel = torch.arange(stored, device=device) - start[:, None]  # batch stored
    offset = pixel[:, None].float() + 0.5 - centre
    inside = (pixel >= 0) & (pixel < length[:, None])
    weight = (1 - offset.abs() / scale.clamp(min=1)).clamp(min=0) * inside[:, None]
    return weight / weight.sum(2, keepdim=True)


def _grey(values: Real) -> Float[Tensor, "batch height width 1"]:
    if values.shape[3] == 1:
        return values
    red, green, blue = torch.split(values, 1, dim=3)
    grey: Tensor = (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
    return grey


def _bytes(values: Tensor) -> UInt8[Tensor, "..."]:
    return values.add(0.5).clamp_(0, 255).to(torch.uint8)


def _mirrored(pixels: Pixels, mirror: Bool[Tensor, " batch"]) -> Pixels:
    if pixels.is_cuda:  # where a list of rows would have to be waited for
        return torch.where(mirror[:, None, None, None], pixels.flip(2), pixels)
    rows = mirror.nonzero().squeeze(1)
    turned = pixels.index_select(0, rows).flip(2)
    return pixels.flatten(1).index_copy(0, rows, turned.flatten(1)).view(pixels.shape)


def _each(part: Any, to: Any) -> Any:
    """Some rows of every tensor of a value, or all of them on a device."""
    if isinstance(part, Tensor):
        if isinstance(to, torch.device):
            return part.to(to)
        return part[to.to(part.device) if isinstance(to, Tensor) else to]
    if isinstance(part, int):
        return part
    return type(part)(*(_each(inner, to) for inner in part))
