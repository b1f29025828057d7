"""Labelled images through Hugging Face `datasets`: the hub, image folders and Parquet files."""

import contextlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, UnidentifiedImageError

from methods.data.parts import Census, Fit, Numbered, Source
from methods.errors import DataError

ROLES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), "train"),
        **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
        **dict.fromkeys(("test", "testing", "eval"), "test"),
    }
)
"""Words in a split's, a folder's or a file's name -> the role of its samples."""

LABELS = ("label", "labels", "fine_label", "class", "target", "y")
"""Names of a label column, most telling first; any other column of class labels comes after."""

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"))

PROBES = 1000
"""Images, evenly spaced, whose headers decide the common size and colour."""

Look = tuple[int, int, int]
"""Height, width, channels."""


@dataclass(frozen=True)
class Encoded:
    """A part whose images stay encoded until they are asked for."""

    labels: Int[np.ndarray, " samples"]
    dataset: Any
    """A Hugging Face data set of one undecoded image column."""
    look: Look
    names: Sequence[str]
    fit: Fit = "crop"

    @property
    def census(self) -> Census:
        sizes: Counter[tuple[int, int]] = Counter()
        modes: Counter[str] = Counter()
        for cell in _probes(self.dataset):
            with _opened(cell) as image:
                sizes[image.height, image.width] += 1
                modes[image.mode] += 1
        return Census(sizes, modes)

    def pixels(
        self, rows: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        """Decoded on as many threads as torch may use.

        Raises:
            DataError: an image that cannot be read.
        """
        cells = self.dataset[rows.tolist()]["image"]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return np.stack(list(pool.map(lambda cell: _decoded(cell, self.look), cells)))


def hub(repository: str, *, size: int | None, fit: Fit) -> Source:
    """A data set of the hub, or of the local cache where the hub cannot be reached.

    Raises:
        DataError: neither has it, or access to it was not granted.
    """
    try:
        with _quiet(), _offline_if_unreachable():
            found = datasets.load_dataset(repository)
    except Exception as error:  # the hub, its client and the builder each raise their own
        raise DataError(
            f"data set {repository!r} must be on the Hugging Face hub or in the local cache, "
            f"but: {_line(error)}; check the network (and `hf auth login` if it is gated), "
            "or give a path"
        ) from None
    return _source(repository, dict(found), size=size, fit=fit)


def local(path: Path, *, size: int | None, fit: Fit) -> Source:
    """A Parquet file, a folder of them, or a folder with one sub-folder of images per class.

    Either folder may be divided into train, validation and test, by sub-folders or file names.

    Raises:
        DataError: neither, unreadable, or without labels.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if path.is_file() and path.suffix != ".parquet":
        raise DataError(f"a data file must be Parquet (*.parquet), but got {path}")
    if files:
        return _source(str(path), _parquet(path, files), size=size, fit=fit)
    return _source(str(path), _folders(path), size=size, fit=fit)


def _parquet(path: Path, files: list[Path]) -> dict[str, Any]:
    groups: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", str(file.relative_to(path)).lower()) if file != path else []
        role = next((ROLES[word] for word in words if word in ROLES), "train")
        groups.setdefault(role, []).append(str(file))
    try:
        with _quiet():
            return dict(datasets.load_dataset("parquet", data_files=groups))
    except Exception as error:  # pyarrow and the builder each raise their own
        cause = error.__cause__ or error
        raise DataError(f"{path} must hold readable Parquet, but: {_line(cause)}") from None


def _folders(path: Path) -> dict[str, Any]:
    inside = _subfolders(path)
    roles = {folder: ROLES.get(folder.name.lower()) for folder in inside}
    divided = any(roles.values()) and all(_subfolders(folder) for folder in inside if roles[folder])
    if not divided:
        return {"train": _folder(path, inside)}
    return {role: _folder(folder, _subfolders(folder)) for folder, role in roles.items() if role}


def _folder(path: Path, classes: list[Path]) -> Any:
    files = {folder: _images(folder) for folder in classes}
    files = {folder: found for folder, found in files.items() if found}
    if not files:
        loose = "images without labels" if path.is_dir() and _images(path) else "no images"
        raise DataError(
            f"an image folder must have one sub-folder of images per class, but {path} has {loose}"
        )
    names = [folder.name for folder in files]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    rows = [(str(file), label) for label, found in enumerate(files.values()) for file in found]
    content = {"image": [file for file, _ in rows], "label": [label for _, label in rows]}
    return datasets.Dataset.from_dict(content, features=features)


def _subfolders(path: Path) -> list[Path]:
    return sorted(item for item in path.iterdir() if item.is_dir() and item.name[0] != ".")


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)


def _source(name: str, found: Mapping[str, Any], *, size: int | None, fit: Fit) -> Source:
    splits = {ROLES[key.lower()]: found[key] for key in found if key.lower() in ROLES}
    splits = {role: split for role, split in splits.items() if len(split)}
    if "train" not in splits:
        raise DataError(f"{name} must have training samples, but its splits are {list(found)}")
    image, label = _columns(name, splits["train"].features)
    texts = {role: _texts(split, label) for role, split in splits.items()}
    if "test" in texts and all(text is None for text in texts["test"]):
        del texts["test"], splits["test"]  # a contest's: its labels are not published
    classes = _classes(splits["train"], label, texts["train"])
    encoded = {
        role: split.select_columns([image])
        .rename_columns({image: "image"} if image != "image" else {})
        .cast_column("image", datasets.Image(decode=False))
        for role, split in splits.items()
    }
    look = _look(encoded["train"], size)
    parts = {
        role: Encoded(
            _numbers(name, role, texts[role], classes),
            encoded[role],
            look,
            Numbered.of(f"{name}/{role}", len(encoded[role])),
            fit,
        )
        for role in splits
    }
    return Source(
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        shape=look,
        class_names=tuple(classes),
        flip=True,
    )


def _columns(name: str, features: Mapping[str, Any]) -> tuple[str, str]:
    """The column of images and that of labels."""
    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    images += [key for key, kind in features.items() if _encoded(kind)]
    if not images:
        raise DataError(f"{name} must have a column of images, but its columns are {[*features]}")
    kinds = {key: kind for key, kind in features.items() if key != images[0]}
    labels = [key for key in LABELS if key in kinds]
    labels += [key for key, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)]
    if not labels:
        raise DataError(
            f"{name} must have a column of labels ({', '.join(LABELS)}), "
            f"but its columns are {[*features]}"
        )
    return images[0], labels[0]


def _encoded(kind: Any) -> bool:
    """Whether a column holds image files in binary, unmarked."""
    if isinstance(kind, dict):
        return set(kind) == {"bytes", "path"}
    return isinstance(kind, datasets.Value) and kind.dtype in ("binary", "large_binary")


def _texts(split: Any, label: str) -> list[str | None]:
    """Labels as words, which mean the same in every split; None where a sample has none."""
    kind, values = split.features[label], split[label][:]
    if isinstance(kind, datasets.ClassLabel):
        return [None if v is None or v < 0 else kind.int2str(v) for v in values]
    return [None if v is None else str(v) for v in values]


def _classes(train: Any, label: str, texts: list[str | None]) -> dict[str, int]:
    """Class by name -> its number: the declared order, else numbers by size, names by letter."""
    kind = train.features[label]
    if isinstance(kind, datasets.ClassLabel):
        return {text: number for number, text in enumerate(kind.names)}
    present = {text for text in texts if text is not None}
    whole = all(re.fullmatch(r"-?\d+", text) for text in present)
    return {t: n for n, t in enumerate(sorted(present, key=int if whole else str))}


def _numbers(
    name: str, role: str, texts: list[str | None], classes: Mapping[str, int]
) -> Int[np.ndarray, " samples"]:
    for row, text in enumerate(texts):
        if text is None:
            raise DataError(
                f"every sample must have a label, but {role} sample {row} of {name} has none"
            )
        if text not in classes:
            raise DataError(
                f"every class must occur in training, but {role} sample {row} of {name} is "
                f"of class {text!r}"
            )
    return np.array([classes[text] for text in texts if text is not None], dtype=np.int64)


def _look(encoded: Any, size: int | None) -> Look:
    """The most common size, unless `size` is given; grey only if all probed images are."""
    sizes: Counter[tuple[int, int]] = Counter()
    grey = True
    for cell in _probes(encoded):
        with _opened(cell) as image:
            sizes[image.height, image.width] += 1
            grey = grey and image.mode in ("1", "L", "LA", "I;16")
    height, width = (size, size) if size is not None else sizes.most_common(1)[0][0]
    return height, width, 1 if grey else 3


def _probes(encoded: Any) -> list[Mapping[str, Any]]:
    rows = range(0, len(encoded), -(-len(encoded) // PROBES))
    cells: list[Mapping[str, Any]] = encoded[list(rows)]["image"]
    return cells


def _decoded(cell: Mapping[str, Any], look: Look) -> UInt8[np.ndarray, "height width channels"]:
    """Scaled to cover the wanted size, with a margin of an eighth if larger, then its centre."""
    height, width, channels = look
    with _opened(cell) as image:
        try:
            plain = _plain(image, "L" if channels == 1 else "RGB")
        except OSError as error:
            raise DataError(f"an image must be whole, but {_where(cell)} is not: {error}") from None
    if plain.size != (width, height):
        plain = _covering(plain, height, width)
    return np.asarray(plain, dtype=np.uint8).reshape(height, width, channels)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert(mode)


def _covering(image: Image.Image, height: int, width: int) -> Image.Image:
    """Shorter side to 8/7 of the wanted (256 for 224) where the image has that much."""
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


@contextlib.contextmanager
def _opened(cell: Mapping[str, Any]) -> Iterator[Image.Image]:
    content = cell["bytes"]
    try:
        image = Image.open(io.BytesIO(content) if content is not None else cell["path"])
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"an image must be readable, but {_where(cell)} is not: {error}") from None
    with image:
        yield image


def _where(cell: Mapping[str, Any]) -> str:
    return cell["path"] or "one without a name"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars inside: the command line has its own."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Asks the cache at once where the hub does not answer, instead of retrying for a minute."""
    constants, config = huggingface_hub.constants, datasets.config
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    if not any(before) and not _reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def _reachable(endpoint: str) -> bool:
    try:
        huggingface_hub.get_session().head(endpoint, timeout=5)
    except Exception:  # whatever the client's transport raises
        return False
    return True


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
