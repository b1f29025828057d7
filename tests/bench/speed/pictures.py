"""Made-up images, and the usual way to load them: Pillow, one image at a time."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from methods.api import Task
from methods.data.load import Data
from methods.data.splits import Resident, Split

CLASSES = 10
MEAN, STD = 128.0, 64.0
"""In pixel values, the same for each channel."""


class Pictures(NamedTuple):
    """Square colour images and their classes."""

    pixels: UInt8[np.ndarray, "samples side side 3"]
    labels: Int[np.ndarray, " samples"]

    @classmethod
    def drawn(cls, samples: int, side: int) -> "Pictures":
        draw = np.random.default_rng(0)
        pixels = draw.integers(0, 256, (samples, side, side, 3), dtype=np.uint8)
        return cls(pixels, draw.integers(0, CLASSES, samples))

    @property
    def pad(self) -> int:
        """Pixels by which augmentation moves an image at most, as isoflop has it."""
        return self.pixels.shape[1] // 8

    def split(self, device: str = "cpu") -> Split:
        """As isoflop holds them."""
        pixels = torch.from_numpy(self.pixels).to(device)
        labels = torch.from_numpy(self.labels).to(device)
        return Split(Resident(pixels), labels, torch.full((3,), MEAN), torch.full((3,), STD))

    def data(self, device: str = "cpu") -> Data:
        """A task that trains on them."""
        side, split = self.pixels.shape[1], self.split(device)
        task = Task("images", 3, side, side, CLASSES)
        return Data(task=task, train=split, validation=split, test=split, flip=True, pad=self.pad)

    def loader(self, batch: int, workers: int) -> DataLoader[tuple[Tensor, int]]:
        """As most training scripts hold them."""
        return DataLoader(Opened(self), batch, shuffle=True, num_workers=workers)


class Opened(Dataset[tuple[Tensor, int]]):
    """Padded with black, cropped and mirrored by Pillow, then normalised."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        pad = self.pictures.pad
        left, top, mirror = torch.randint(0, 2 * pad + 1, (3,)).tolist()
        return self.seen(row, left, top, mirror % 2 == 0), int(self.pictures.labels[row])

    def seen(self, row: int, left: int, top: int, mirror: bool) -> Tensor:
        """One image, cropped there from its padded self."""
        picture = Image.fromarray(self.pictures.pixels[row])
        side = picture.width
        if mirror:
            picture = ImageOps.mirror(picture)
        padded = ImageOps.expand(picture, self.pictures.pad)
        cropped = padded.crop((left, top, left + side, top + side))
        values = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).float()
        return (values - MEAN) / STD
