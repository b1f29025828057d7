"""WebDataset's shards: tar files whose members of one key are a sample, read where they lie.

A sample is an image and its label, `0001.jpg` beside `0001.cls` or `0001.json`; or an image in a
folder that is its class, `cat/0001.jpg`. Nothing is unpacked: the place of each image in its file
is noted once.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int, Int64

from methods.data.parts import LeftOut, Stamps, Texts
from methods.data.reading import labels, picture
from methods.data.reading.encoded import Labelled
from methods.data.reading.folders import split_word
from methods.data.reading.labels import Words
from methods.data.reading.parquet import keys, split_files
from methods.data.reading.picture import Cell
from methods.data.reading.tables import LABELS
from methods.data.reading.walk import Omissions, printable, shown
from methods.errors import DataError

END = bytes(tarfile.BLOCKSIZE)
"""A block of zeros, with which every tar ends."""

MOST = 1 << 20
"""Bytes of a label's file at most."""


@dataclass(frozen=True)
class Members:
    """Images of one split, by their places in tar files."""

    files: tuple[Path, ...]
    file: Int[np.ndarray, " samples"]
    """Per image: number of its file."""
    offset: Int64[np.ndarray, " samples"]
    """Bytes before it in that file."""
    size: Int64[np.ndarray, " samples"]
    names: Texts

    @cached_property
    def key(self) -> str:
        return keys(self.files, "tar")

    @cached_property
    def stamps(self) -> Stamps:
        """See `Part.stamps`."""
        sizes, times = Stamps.of(self.files)
        return Stamps(sizes[self.file], times[self.file])

    def cell(self, row: int) -> Cell:
        path = self.files[self.file[row]]
        return Cell(self.names[row], _bytes(path, int(self.offset[row]), int(self.size[row])))


@dataclass
class _Sample:
    """Members of one key."""

    folder: str
    images: list[tarfile.TarInfo] = field(default_factory=list)
    label: object = None
    part: bool = False
    """Whether it may be no sample, but a part of one such as its mask: `0001.mask.png`."""


@dataclass
class _Split:
    """What the shards of one split hold, image by image."""

    file: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    values: list[object] = field(default_factory=list)
    """Labels beside the images, None where there is none."""


def read(path: Path, files: Sequence[Path], omissions: Omissions) -> Labelled:
    """A tar file, or those of a folder, divided by the words in their names.

    Raises:
        DataError: a file that is no whole, uncompressed tar, or has no labelled images.
    """
    root = path if path.is_dir() else path.parent
    groups = split_files(root, files) if path.is_dir() else {"train": list(files)}
    if "train" not in groups:
        raise DataError(f"{path} must have training samples, but its splits are {sorted(groups)}")
    splits, left_out = {}, list(omissions.listed())
    for role, group in groups.items():
        split = _Split()
        for number, file in enumerate(group):
            others = _gather(split, number, file, shown(file, root))
            if others:
                left_out.append(LeftOut(shown(file, root), f"{others} members that are no images"))
        splits[role] = split
    if not splits["train"].names:
        raise DataError(f"{path} must have training samples, but its tar files hold no images")
    beside = any(value is not None for split in splits.values() for value in split.values)
    words = {role: _words(str(path), split, beside=beside) for role, split in splits.items()}
    numbering = labels.classes(str(path), words["train"], None)
    return Labelled(
        name=str(path),
        splits={
            role: (
                _members(groups[role], split),
                labels.numbers(str(path), role, words[role], numbering),
            )
            for role, split in splits.items()
        },
        class_names=tuple(numbering),
        left_out=tuple(left_out),
        notes=("labels are beside the images" if beside else "labels are the images' folders",),
    )


def _gather(split: _Split, number: int, file: Path, name: str) -> int:
    """Adds the images of a file to a split; the number of members that are something else."""
    samples: dict[str, _Sample] = {}
    others = 0
    for member in _members_of(file):
        place = PurePosixPath(member.name)
        stem, _, ending = place.name.partition(".")
        if not member.isreg() or place.name.startswith(".") or "__MACOSX" in place.parts:
            others += member.isreg()
            continue
        ending = ending.lower()
        if "." in ending and place.suffix.lower() in picture.suffixes():
            samples[str(place)] = _Sample(str(place.parent), [member], part=True)
            continue
        sample = samples.setdefault(str(place.parent / stem), _Sample(str(place.parent)))
        if f".{ending}" in picture.suffixes():
            sample.images.append(member)
        elif ending in ("cls", "json", "txt") and member.size <= MOST:
            value = _label(file, member, ending)
            sample.label = value if sample.label is None or ending == "cls" else sample.label
        else:
            others += 1
    labelled = any(sample.label is not None for sample in samples.values())
    for sample in samples.values():
        if sample.part and labelled:
            others += 1
            continue
        if len(sample.images) > 1:
            both = " and ".join(image.name for image in sample.images[:2])
            raise DataError(f"a sample must have one image, but {name} has {both}")
        for image in sample.images:
            split.file.append(number)
            split.offset.append(image.offset_data)
            split.size.append(image.size)
            split.names.append(f"{name}:{printable(image.name)}")
            split.folders.append(sample.folder)
            split.values.append(sample.label)
    return others


def _members_of(file: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, in order.

    Raises:
        DataError: it is none, is compressed, or ends in the middle.
    """
    try:
        with file.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            end = 0
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # which would hold all of them
                end = tar.offset
                yield member
            stream.seek(end)
            if stream.read(len(END)) != END:
                raise tarfile.ReadError("it ends without the zeros that close a tar")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"every tar file must be whole and uncompressed, but {file} is not: {text}; copy it "
            "again, or unpack what is compressed (`gunzip`)"
        ) from None


def _label(file: Path, member: tarfile.TarInfo, ending: str) -> object:
    """What a member beside an image says its class is; None where it does not.

    Raises:
        DataError: it is no text, or no JSON.
    """
    content = _bytes(file, member.offset_data, member.size)
    try:
        text = content.decode().strip()
        if ending != "json":
            return int(text) if ending == "cls" and text.lstrip("-").isdigit() else text or None
        facts = json.loads(text)
    except ValueError as error:
        raise DataError(f"{file}:{member.name} must be readable, but: {error}") from None
    if not isinstance(facts, Mapping):
        return facts
    return next((facts[name] for name in LABELS if name in facts), None)


def _words(name: str, split: _Split, *, beside: bool) -> Words:
    """The classes of a split's images.

    Raises:
        DataError: images without a class.
    """
    if beside:
        return Words(labels.words(name, "cls or json", split.values, None), split.names)
    roles = {
        word
        for folder in set(split.folders)
        for part in folder.split("/")
        if (word := split_word(part))
    }
    if roles:
        raise DataError(
            f"each tar file must belong to one split by its name, but inside those of {name} are "
            f"folders {' and '.join(sorted(roles))}; write a tar for each split"
        )
    classes = [labels.composed(PurePosixPath(folder).name) or None for folder in split.folders]
    return Words(classes, split.names)


def _members(files: Sequence[Path], split: _Split) -> Members:
    return Members(
        tuple(files),
        np.array(split.file, np.int64),
        np.array(split.offset, np.int64),
        np.array(split.size, np.int64),
        Texts.of(split.names),
    )


def _bytes(file: Path, offset: int, size: int) -> bytes:
    """A piece of a file; less where the file was cut."""
    place = os.open(file, os.O_RDONLY)
    try:
        return os.pread(place, size, offset)
    finally:
        os.close(place)
