"""Image folders: which sub-folders are splits, which are classes, and what has no label."""

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import numpy as np

from methods.data.parts import Stamps, Texts
from methods.data.reading.encoded import Labelled
from methods.data.reading.labels import Words, check_names, classes, composed, numbers
from methods.data.reading.picture import Cell
from methods.data.reading.walk import Folder, Omissions, printable, shown
from methods.errors import DataError

ROLES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), "train"),
        **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
        **dict.fromkeys(("test", "testing", "eval"), "test"),
    }
)
"""Words for a split -> the role of its samples."""

IMAGES = frozenset(("image", "images", "img", "imgs", "jpegimages", "pictures", "photos"))
"""Names of a folder that holds the images of the folder above it, and is no class."""

FILLERS = IMAGES | {"set", "data", "dataset", "split"}
"""Words that may stand beside a split's in the name of a folder, as in train_images."""


SAMPLED = 64
"""Files whose content tells a set of them from others, beside names, sizes and times of all."""


@dataclass(frozen=True)
class Files:
    """Images of one split, a file each."""

    root: Path
    paths: Texts
    """Relative to the root."""
    names: Texts
    """The same, with escapes for bytes that are no text."""

    @classmethod
    def of(cls, root: Path, paths: Iterable[str]) -> "Files":
        """Files at these paths, each of which begins with that of the root."""
        top = str(root / "_")[:-1]
        inner = Texts.of(path.removeprefix(top) for path in paths)
        odd = any(not name.isprintable() for name in inner)
        return cls(root, inner, Texts.of(map(printable, inner)) if odd else inner)

    @cached_property
    def stamps(self) -> Stamps:
        top = str(self.root / "_")[:-1]
        return Stamps.of(top + path for path in self.paths)

    @property
    def key(self) -> str:
        """By name, size and time of every file, and the content of some."""
        digest = hashlib.blake2b(os.fsencode(self.root.resolve()), digest_size=16)
        for facts in (self.paths.letters, self.paths.ends, *self.stamps):
            digest.update(np.ascontiguousarray(facts).data)
        for path in self.paths[:: len(self.paths) // SAMPLED + 1]:
            with contextlib.suppress(OSError):
                if (self.root / path).is_file():  # a pipe would never end
                    digest.update((self.root / path).read_bytes())
        return digest.hexdigest()

    def cell(self, row: int) -> Cell:
        return Cell(self.names[row], None, self.root / self.paths[row])


def split_word(name: str) -> str | None:
    """The word for a split in the name of a folder that says nothing else: Test_images, val2017.

    'test kits' has none.
    """
    parts = re.findall(r"[^\W\d_]+|\d+", name.casefold())
    words = [word for part in parts for word in _cut(part)]
    splits = [word for word in words if word in ROLES]
    others = [word for word in words if word not in ROLES]
    if len(splits) != 1 or not all(w in FILLERS or re.fullmatch(r"(19|20)\d\d", w) for w in others):
        return None
    return splits[0]


def role_of(name: str) -> str | None:
    """The role of a folder whose whole name says that it is a split."""
    return ROLES.get(split_word(name) or "")


def read(top: Folder, omissions: Omissions) -> Labelled:
    """A folder with one sub-folder of images per class, or with splits of that form.

    Raises:
        DataError: it has neither form, or it can be read in two ways.
    """
    name, notes = str(top.path), []
    place = _unwrapped(top)
    if place is not top:
        notes.append(f"the only folder of images, {shown(place.path, top.path)}/, is read")
    splits = _splits(place, omissions)
    by_class = {
        role: _classes(folder, training=role == "train", omissions=omissions)
        for role, folder in splits.items()
    }
    words, files = {}, {}
    for role, images in by_class.items():
        labels = [label for label, paths in images.items() for _ in paths]
        files[role] = Files.of(top.path, chain.from_iterable(images.values()))
        words[role] = Words(labels, files[role].names)
    numbering = classes(name, words["train"], list(by_class["train"]))
    return Labelled(
        name=name,
        splits={
            role: (files[role], numbers(name, role, words[role], numbering)) for role in splits
        },
        class_names=tuple(numbering),
        left_out=omissions.listed(),
        notes=(*notes, *(() if splits["train"] is place else _split_notes(splits, top))),
    )


def labelled(folder: Folder) -> bool:
    """Whether a folder has class folders."""
    return any(inner.name.casefold() not in IMAGES for inner in folder.full) or len(folder.full) > 1


def _cut(word: str) -> tuple[str, ...]:
    """A word, or the split and the filler that it is written together from, as in trainset."""
    for role in ROLES:
        if word.startswith(role) and word[len(role) :] in FILLERS:
            return role, word[len(role) :]
    return (word,)


def _unwrapped(top: Folder) -> Folder:
    """The folder in which an archive was unpacked, as in flowers/flowers/rose."""
    while len(top.full) == 1 and not top.images and top.full[0].full:
        beside = [folder for folder in top.folders if not folder.has_images]
        if role_of(top.full[0].name) is not None or any(_emptied(folder) for folder in beside):
            break
        top = top.full[0]
    return top


def _splits(top: Folder, omissions: Omissions) -> dict[str, Folder]:
    """Role -> the folder that holds its class folders."""
    roles = {folder: role for folder in top.full if (role := role_of(folder.name))}
    others = [folder for folder in top.full if folder not in roles]
    if not any(labelled(_inner(folder)) for folder in roles):
        _check_undivided(top, roles, others)
        return {"train": top}
    for folder in top.folders:
        if not folder.has_images:
            omissions.add(folder.path, "a folder without images")
    for folder in others:
        omissions.add(
            folder.path, f"is beside {_names(roles)}, but its name is not that of a split"
        )
    for image in top.images:
        omissions.add(top.path / image, f"is beside {_names(roles)}: an image without a label")
    splits: dict[str, Folder] = {}
    for folder, role in roles.items():
        inner = _inner(folder)
        if not labelled(inner):
            if role == "train":
                raise DataError(
                    f"training images must stand in class folders, but {folder.path} has none"
                )
            count = len(folder.every_image())
            omissions.add(folder.path, f"{count} images without class folders: no labels")
        elif role in splits:
            raise DataError(
                f"{top.path} must have one folder of {role} images, but has "
                f"{_names([f for f in roles if roles[f] == role])}; merge or move all but one"
            )
        else:
            splits[role] = inner
    if "train" not in splits:
        beside = f" beside {_names(others)}" if others else ""
        raise DataError(
            f"{top.path} must have training samples in a folder train/, but its splits are "
            f"{_names(roles)}{beside}"
        )
    return splits


def _check_undivided(top: Folder, roles: Mapping[Folder, str], others: Sequence[Folder]) -> None:
    """Refuses class folders that are splits by their names.

    One folder train/ without class folders is a class (of vehicles, say) beside others.
    """
    suspects = [folder for folder, role in roles.items() if role != "train" or len(roles) > 1]
    if not suspects:
        return
    if not others:
        raise DataError(
            f"images must stand in class folders such as train/cat/, but {_names(roles)} of "
            f"{top.path} hold images without labels"
        )
    raise DataError(
        f"{_names(roles)} of {top.path} must be splits with class folders, or be named otherwise "
        f"if they are classes like {_names(others)}: move or rename them"
    )


def _inner(split: Folder) -> Folder:
    """The folder with a split's classes: train/, or train/images/."""
    while (
        len(split.full) == 1
        and not split.images
        and split.full[0].full
        and split.full[0].name.casefold() in IMAGES | {"data"}
    ):
        split = split.full[0]
    return split


def _classes(folder: Folder, *, training: bool, omissions: Omissions) -> dict[str, list[str]]:
    """Class -> the paths of its images, in the order of the folders' names."""
    for image in folder.images:
        omissions.add(folder.path / image, "is beside class folders: an image without a label")
    images: dict[str, list[str]] = {}
    targets: dict[Path, Folder] = {}
    for inner in folder.folders:
        if not inner.has_images:
            _check_no_class(inner, training=training, omissions=omissions)
            continue
        other = targets.setdefault(inner.path.resolve(), inner)
        if other is not inner:
            raise DataError(
                f"every image must have one class, but {other.path} and {inner.path} are the same "
                "folder: one is a link to the other"
            )
        images.setdefault(composed(inner.name), []).extend(inner.every_image())
    if not images:
        loose = "images without labels" if folder.images else "no images"
        raise DataError(
            f"an image folder must have one sub-folder of images per class, but {folder.path} has "
            f"{loose}{_omitted(omissions)}"
        )
    _check_split_in_class(folder)
    check_names(str(folder.path), images)
    return images


def _check_no_class(folder: Folder, *, training: bool, omissions: Omissions) -> None:
    """Refuses a class folder whose images are missing or unreadable; says so of other folders."""
    foreign = [file for inner in folder.walk() for file in inner.foreign]
    if foreign and training:
        suffix = foreign[0].suffix
        raise DataError(
            f"every class must have images that can be read, but the {len(foreign)} of "
            f"{folder.path} are {suffix}; convert them to PNG or JPEG"
        )
    if training and _emptied(folder):
        raise DataError(
            f"every class must have images, but {folder.path} is empty; fill or remove it"
        )
    omissions.add(folder.path, "a folder without images")


def _emptied(folder: Folder) -> bool:
    """Whether a folder without images holds nothing else that would explain it."""
    return not any(inner.others or inner.parquet for inner in folder.walk())


def _check_split_in_class(folder: Folder) -> None:
    parts = [part for inner in folder.full for part in inner.full]
    roles = {role_of(part.name) for part in parts}
    if len(roles) > 1 and None not in roles and not any(inner.images for inner in folder.full):
        raise DataError(
            f"splits must stand above classes, as in train/cat/, but {folder.path} has "
            f"{shown(parts[0].path, folder.path)}/"
        )


def _split_notes(splits: Mapping[str, Folder], top: Folder) -> tuple[str, ...]:
    places = {role: shown(folder.path, top.path) for role, folder in splits.items()}
    return (", ".join(f"{role} is {places[role]}/" for role in sorted(places)),)


def _omitted(omissions: Omissions) -> str:
    """What was left out, for a message that finds nothing else."""
    reasons = Counter(item.why for item in omissions.listed())
    first = [f"{item.path} ({item.why})" for item in omissions.listed()[:3]]
    return f"; left out: {', '.join(first)}" if reasons else ""


def _names(folders: Sequence[Folder] | Mapping[Folder, str]) -> str:
    return " and ".join(f"{folder.name}/" for folder in folders)
