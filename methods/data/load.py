"""Tasks and their splits: deterministic from a seed, normalised by training statistics."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from methods.api import Task
from methods.data import sources
from methods.data.augment import Augment
from methods.data.decoding import cache
from methods.data.parts import Fit, Part, Source, chunks
from methods.data.splits import Resident, Split
from methods.data.streams import Streamed
from methods.errors import DataError

__all__ = ["LIMIT_BYTES", "Arrays", "Augment", "Data", "Reading", "Split", "check", "load"]

LIMIT_BYTES = 2 << 30
"""Pixels of all splits above this are streamed instead of held on the device."""

ROLES = ("train", "validation", "test")
Rows = Int[np.ndarray, " rows"]

HELD_OUT = 0.15
"""Fraction for validation, and again for test, where a data set has no test split."""

VALIDATION = 0.1
"""Fraction of the training samples for validation, where a data set has its own test split."""

STATISTICS_SAMPLES = 20_000
"""Training images, evenly spaced, that mean and deviation are taken from at most."""

FEW = 16
"""Images of noise that mean and deviation are taken from."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a data set's splits were cut from."""

    name: str
    """The name or the path that was asked for."""
    source: Source
    cut: Mapping[str, tuple[str, Rows]]
    """By role: the role of the part that it takes, and the rows of it."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A task and its three splits."""

    task: Task
    train: Split
    validation: Split
    test: Split
    flip: bool
    """Whether augmentation may mirror an image."""
    pad: int
    """Pixels by which augmentation moves an image at most."""
    difficulty: Float[np.ndarray, " images"] | None = None
    """Difficulty of each test image, from 0 to 1, where the data set states it."""
    origin: Origin | None = None
    """None where another process read the data."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """A data set as it crosses to other processes: read once, its statistics known.

    Its arrays are in host memory, which processes can share without a copy.
    """

    task: Task
    mean: Float[np.ndarray, " channels"]
    std: Float[np.ndarray, " channels"]
    flip: bool
    pad: int
    difficulty: Float[np.ndarray, " images"] | None
    splits: Mapping[str, tuple[UInt8[np.ndarray, "..."] | Streamed, Int[np.ndarray, " samples"]]]
    """Pixels of each role, or how they are come by where they are streamed; and labels."""
    size: tuple[int, int] | None = None
    """Height and width of what is cut out of the pixels; None for all of them."""

    @classmethod
    def of(cls, data: Data) -> "Arrays":
        """What `load` gave."""
        splits: dict[str, tuple[np.ndarray | Streamed, np.ndarray]] = {}
        for role in ROLES:
            split: Split = getattr(data, role)
            store = split.store
            assert isinstance(store, Resident | Streamed), "a set is loaded as one of both"
            pixels = store.pixels.cpu().numpy() if isinstance(store, Resident) else store
            splits[role] = (pixels, split.labels.cpu().numpy())
        mean, std = data.train.mean.numpy(), data.train.std.numpy()
        return cls(
            task=data.task,
            mean=mean,
            std=std,
            flip=data.flip,
            pad=data.pad,
            difficulty=data.difficulty,
            splits=splits,
            size=data.train.size,
        )

    def on(self, device: str | torch.device) -> Data:
        """The data set on a device; on the host its pixels are these very arrays, only read."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            mean, std = torch.from_numpy(self.mean), torch.from_numpy(self.std)
            splits = {
                role: Split(
                    pixels.on(device)
                    if isinstance(pixels, Streamed)
                    else Resident(torch.from_numpy(pixels).to(device)),
                    torch.from_numpy(labels).to(device),
                    mean,
                    std,
                    size=self.size,
                )
                for role, (pixels, labels) in self.splits.items()
            }
        return Data(
            task=self.task,
            flip=self.flip,
            pad=self.pad,
            difficulty=self.difficulty,
            origin=None,
            **splits,
        )


@dataclass(frozen=True)
class Reading:
    """Which images are wanted, and how; a value that crosses to other processes."""

    name: str
    """A data set's name or a path."""
    size: int | None = None
    """Pixels of each side; by default the size that all images have."""
    fit: Fit = "crop"
    resize: int | None = None
    """Pixels of each side that images are brought to and held at, where `size` is cut out."""

    def load(self, *, seed: int = 0, device: str | torch.device = "cpu") -> Data:
        """See `load`.

        Raises:
            DataError: there are no such images.
        """
        return load(
            self.name, seed=seed, device=device, size=self.size, fit=self.fit, resize=self.resize
        )

    def stand_in(self, *, seed: int = 0) -> Data | None:
        """Noise that is split as these images would be; None where their number is not known."""
        held, size = _sides(self.name, self.size, self.resize)
        source = sources.known(self.name, size=held)
        if source is None:
            return None
        return divided(self.name, source, seed=seed, limit_bytes=0, size=size, most=FEW)


def load(
    name: str,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    limit_bytes: int = LIMIT_BYTES,
    size: int | None = None,
    fit: Fit = "crop",
    resize: int | None = None,
) -> Data:
    """The data set of this name (digits, cifar10, ...) or at this path, split and normalised.

    A data set's own test split is the test split, else a validation split that it has; then
    validation is its own or a stratified tenth of the training samples. With no held-out split at
    all it is cut 70/15/15, stratified. Images are brought to `size` x `size`, if given, as `fit`
    says (`sources.find`). With `resize` they are brought to that size and held so; training then
    cuts out `size` x `size` by chance, and evaluation the centre.

    Raises:
        DataError: unknown name, missing path, unreachable, no labels, images that cannot be read or
            have several sizes and no `size`, images that are all the same, a split without
            samples, or a `resize` without a `size` or below it.
    """
    held, size = _sides(name, size, resize)
    source = sources.find(name, size=held, fit="cover" if resize and fit == "crop" else fit)
    return divided(name, source, seed=seed, device=device, limit_bytes=limit_bytes, size=size)


def _sides(name: str, size: int | None, resize: int | None) -> tuple[int | None, int | None]:
    """Pixels of each side that images are held at, and that are cut out; None: as they are.

    Raises:
        DataError: a `resize` without a `size` or below it.
    """
    if resize is None:
        return size, None
    size = size or (sources.IMAGENET_SIDE if name == "imagenet" else None)
    if size is None or resize < size:
        raise DataError(
            f"resize must be at least the size that is cut out, but got (resize={resize}, "
            f"size={size or 'none'}); {'write a' if size is None else 'lower'} `size`"
        )
    return resize, size


def divided(
    name: str,
    source: Source,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    limit_bytes: int = LIMIT_BYTES,
    size: int | None = None,
    most: int = STATISTICS_SAMPLES,
) -> Data:
    """A data set that was found, split and normalised by at most so many images; see `load`.

    `size` is cut out of its images, where they are larger.

    Raises:
        DataError: a split without samples.
    """
    cut = _three_parts(source, seed)
    parts = {role: (source.parts[part], index) for role, (part, index) in cut.items()}
    for role, (_, index) in parts.items():
        if len(index) == 0:
            raise DataError(f"the {role} split of {name!r} must have samples, but has none")
    height, width, channels = source.shape
    total = sum(len(index) for _, index in parts.values()) * height * width * channels
    if total > limit_bytes:
        cache.limit_bytes()  # which is refused here, not in a trial
        _log.info("%s is streamed: %d bytes of pixels, at most %d held", name, total, limit_bytes)
    mean, std = _statistics(name, *parts["train"], most)
    cut_out = (size, size) if size is not None and (size, size) != (height, width) else None
    height, width = cut_out or (height, width)
    splits = {
        role: _split(
            part, index, mean, std, torch.device(device), held=total <= limit_bytes, size=cut_out
        )
        for role, (part, index) in parts.items()
    }
    tested, rows = cut["test"]
    return Data(
        task=Task(name, channels, height, width, source.classes),
        flip=source.flip,
        pad=max(1, min(height, width) // 8) if source.pad is None else source.pad,
        difficulty=source.difficulty[tested][rows] if tested in source.difficulty else None,
        origin=Origin(name=name, source=source, cut=cut),
        **splits,
    )


def check(data: Data, batch_size: int) -> None:
    """Refuses data that cannot be trained on.

    Raises:
        DataError: one class, or fewer training samples than a batch.
    """
    present = int(torch.bincount(data.train.labels).count_nonzero())
    if present < 2:
        raise DataError(
            f"data must have at least 2 classes, but the training split of {data.task.name!r} "
            f"has {present}"
        )
    if len(data.train) < batch_size:
        raise DataError(
            f"a batch must not exceed the training split, but batch_size={batch_size} and "
            f"{data.task.name!r} has {len(data.train)} training samples; lower batch_size"
        )


def _three_parts(source: Source, seed: int) -> dict[str, tuple[str, Rows]]:
    """Role -> the role of the part it is taken from and the rows that it gets."""
    generator = np.random.default_rng(seed)
    whole = {role: (role, np.arange(len(part.labels))) for role, part in source.parts.items()}
    if "test" not in whole and "validation" in whole:
        whole["test"] = whole.pop("validation")
    labels = source.train.labels
    if "test" not in whole:
        rows = _stratified(labels, (HELD_OUT, HELD_OUT), generator)
        return {role: ("train", cut) for role, cut in zip(ROLES, rows, strict=True)}
    if "validation" in whole:
        return {role: whole[role] for role in ROLES}
    rows = _stratified(labels, (VALIDATION,), generator)
    return {"train": ("train", rows[0]), "validation": ("train", rows[1]), "test": whole["test"]}


def _stratified(
    labels: Int[np.ndarray, " samples"], fractions: Sequence[float], generator: np.random.Generator
) -> list[Int[np.ndarray, " rows"]]:
    """What is left, then one list of rows per fraction; each class is cut by itself."""
    buckets: list[list[Rows]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        start = 0
        for bucket, fraction in zip(buckets[1:], fractions, strict=True):
            stop = start + int(fraction * len(rows) + 0.5)
            bucket.append(rows[start:stop])
            start = stop
        buckets[0].append(rows[start:])
    return [np.sort(np.concatenate(bucket)) for bucket in buckets]


def _statistics(
    name: str, part: Part, index: Int[np.ndarray, " rows"], most: int
) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Mean and standard deviation per channel, in pixel values.

    Raises:
        DataError: all images are the same.
    """
    stride = -(-len(index) // most)
    counts: Int[np.ndarray, "channels 256"] | int = 0
    first = part.pixels(index[:1])
    vary = len(index) == 1
    for rows in chunks(index[::stride], part):
        pixels = part.pixels(rows)
        vary = vary or bool((pixels != first).any())
        channels = np.moveaxis(pixels, -1, 0)
        counts = counts + np.stack([np.bincount(c.ravel(), minlength=256) for c in channels])
    if not vary:
        raise DataError(
            f"images must differ from each other, but the training images of {name!r} are all the "
            f"same, {'one colour' if np.ptp(first, axis=(1, 2)).max() == 0 else 'one picture'}"
        )
    weights = counts / np.sum(counts, axis=1, keepdims=True)
    mean = weights @ np.arange(256.0)
    variance = np.sum(weights * (np.arange(256.0) - mean[:, None]) ** 2, axis=1)
    std = np.where(variance > 0, np.sqrt(variance), 1.0)
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def _split(
    part: Part,
    index: Int[np.ndarray, " rows"],
    mean: Float[Tensor, " channels"],
    std: Float[Tensor, " channels"],
    device: torch.device,
    *,
    held: bool,
    size: tuple[int, int] | None,
) -> Split:
    labels = torch.from_numpy(part.labels[index]).to(device)
    if not held:
        return Split(Streamed(part, index, part.key).on(device), labels, mean, std, size=size)
    pixels = np.empty((len(index), *part.shape), np.uint8)
    done = 0
    for rows in chunks(index, part):
        pixels[done : done + len(rows)] = part.pixels(rows)
        done += len(rows)
    return Split(Resident(torch.from_numpy(pixels).to(device)), labels, mean, std, size=size)
