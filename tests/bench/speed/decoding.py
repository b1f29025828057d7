"""JPEGs of 300 to 500 px as batches of bytes, in images per CPU-second of all processes (goal 15).

The reference is torch's DataLoader with two workers and Pillow, written the usual way; both sides
scale the same part of an image. Passes are measured by kind: those that decode, the one that
decodes into the cache, those that read it, and a study of ten passes. The last figure is the share
of a training step spent on waiting for images although the processor could have decoded them
meanwhile: the step is an accelerator's, which takes a quarter longer than decoding and no
processor.
"""

import contextlib
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from methods.data import sources
from methods.data.decoding import cache
from methods.data.streams import Streamed
from methods.machine import threads
from tests.bench.speed.clock import Clock, Ratio
from tests.bench.speed.goals import Finding, found

IMAGES, BATCH, WORKERS, EPOCHS, ROUNDS = 3000, 128, 2, 10, 3
SIDES = (224, 64)
TOLERANCE = {224: (0.0, 0), 64: (1.0, 12)}
"""Side -> mean and largest difference of pixels, of 255: at 64 px JPEGs are decoded at a half."""
SLACK, STEP = 1.25, 0.02
"""Duration of a step: this multiple of what its batch takes, and not below this many seconds."""


def findings(clock: Clock) -> Iterator[Finding]:
    """By CPU time, over the loader; the share of waiting by the wall's."""
    folder = Path(tempfile.mkdtemp(prefix="decoding-"))
    try:
        files = written(folder / "set", IMAGES)
        for side in SIDES:
            yield from _at(side, folder, files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def written(folder: Path, count: int) -> list[Path]:
    """JPEGs of two classes, with detail of every size as photographs have."""
    draw = np.random.default_rng(0)
    bases = [_picture(draw) for _ in range(24)]
    files = []
    for number in range(count):
        file = folder / "ab"[number % 2] / f"{number:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        width, height = draw.integers(300, 501, 2)
        left, top = draw.integers(0, 600 - width), draw.integers(0, 600 - height)
        part = bases[number % 24].crop((left, top, left + width, top + height))
        part.save(file, quality=90)
        files.append(file)
    return sorted(files)


class Opened(Dataset[Tensor]):
    """Opened, scaled and cut to its centre by Pillow."""

    def __init__(self, files: list[Path], side: int) -> None:
        self.files, self.side = files, side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Tensor:
        with Image.open(self.files[row]) as image:
            picture = image.convert("RGB")
        cover = self.side / min(picture.size)
        inner = self.side / max(cover, min(cover * 8 / 7, 1.0))
        left, top = (picture.width - inner) / 2, (picture.height - inner) / 2
        box = (left, top, left + inner, top + inner)
        scaled = picture.resize((self.side, self.side), Image.Resampling.BILINEAR, box)
        return torch.from_numpy(np.array(scaled))


def _at(side: int, folder: Path, files: list[Path]) -> Iterator[Finding]:
    part = sources.find(str(folder / "set"), size=side).train
    store = Streamed(part, np.arange(len(files)), part.key)
    loader = DataLoader(Opened(files, side), BATCH, num_workers=WORKERS, shuffle=True)
    _agree(store, Opened(files, side), side)

    def ours() -> None:
        for _ in store.each(_batches()):
            pass

    def theirs() -> None:
        for _ in loader:
            pass

    passes: dict[str, list[float]] = {kind: [] for kind in ("theirs", "decoded", "first", "later")}
    with threads(WORKERS), _environment("XDG_CACHE_HOME", str(folder / f"cache-{side}")):
        for _ in range(ROUNDS):
            passes["theirs"].append(_cpu(theirs))
            with _environment(cache.LIMIT, "0"):
                passes["decoded"].append(_cpu(ours))
                cache._streamed.clear()
            passes["first"].append(_cpu(ours))
            passes["later"].append(_cpu(ours))
            shutil.rmtree(cache.folder())
        with _environment(cache.LIMIT, "0"):
            step = _step(store)
            waited = [_waited(store, step) for _ in range(ROUNDS)]
            cache._streamed.clear()
        waited_first = []
        for _ in range(ROUNDS):
            waited_first.append(_waited(store, step))
            shutil.rmtree(cache.folder())
        list(store.each(_batches()))
        step = _step(store)
        waited_later = [_waited(store, step) for _ in range(ROUNDS)]
    whole = [
        (1 - 1 / EPOCHS) * later + first / EPOCHS
        for first, later in zip(passes["first"], passes["later"], strict=True)
    ]

    def over(own: list[float]) -> Ratio:
        pairs = zip(passes["theirs"], own, strict=True)
        return Ratio.of(reference / mine for reference, mine in pairs)

    rates = [IMAGES / np.median(passes[kind]) for kind in ("decoded", "later")]
    Console().print(
        f"{side} px: {rates[0]:.0f} images per CPU-second decoded, {rates[1]:.0f} from the cache"
    )
    at, to = f"JPEGs at {side} px", "over a DataLoader"
    yield found("", f"{at}, decoded in each pass, {to}", over(passes["decoded"]))
    yield found("", f"{at}, first pass, into the cache, {to}", over(passes["first"]))
    yield found("", f"{at}, later passes, {to}", over(passes["later"]))
    yield found("15", f"{at}, a study of {EPOCHS} passes, {to}", over(whole), least=2.0)
    waits = {"decoding": waited, "the first pass": waited_first, "the cache": waited_later}
    for name, shares in waits.items():
        yield found("15", f"{at}, % of a step waited for {name}", Ratio.of(shares), most=5.0)


def _agree(store: Streamed, opened: Opened, side: int) -> None:
    """Both sides give the same pixels, to within the scale's rounding.

    Raises:
        AssertionError: they do not.
    """
    rows = np.arange(0, len(opened), max(1, len(opened) // 100))
    reference = np.stack([opened[int(row)].numpy() for row in rows]).astype(int)
    off = np.abs(store.part.pixels(rows) - reference)
    mean, most = TOLERANCE[side]
    if off.mean() > mean or off.max() > most:
        raise AssertionError(f"pixels must be the same, but differ by {off.mean()}, {off.max()}")


def _batches() -> list[Tensor]:
    return list(torch.randperm(IMAGES).split(BATCH))


def _step(store: Streamed) -> float:
    """Seconds of a step that leaves time to make its batch."""
    began = time.perf_counter()
    batches = _batches()
    for _ in store.each(batches):
        pass
    return max(STEP, SLACK * (time.perf_counter() - began) / len(batches))


def _waited(store: Streamed, step: float) -> float:
    """Percent of the time of steps that is waited for images, once the first batch is there."""
    waits, batches = 0.0, _batches()
    pixels = store.each(batches)
    next(pixels)
    began = time.perf_counter()
    for _ in range(len(batches) - 1):
        time.sleep(step)
        asked = time.perf_counter()
        next(pixels)
        waits += time.perf_counter() - asked
    return 100 * waits / (time.perf_counter() - began)


def _cpu(work: Callable[[], None]) -> float:
    """Seconds of CPU of this process and those that it started."""

    def now() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    began = now()
    work()
    return now() - began


def _picture(draw: np.random.Generator) -> Image.Image:
    frequency = np.hypot(np.fft.fftfreq(600)[:, None], np.fft.rfftfreq(600))
    phases = draw.random((3, *frequency.shape))
    phases[1:] = phases[0] + 0.1 * phases[1:]
    waves = np.fft.irfft2(np.exp(2j * np.pi * phases) / np.maximum(frequency, 1 / 600))
    values = 128 + 45 * waves / waves.std()
    return Image.fromarray(np.clip(values.transpose(1, 2, 0), 0, 255).astype(np.uint8))


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
