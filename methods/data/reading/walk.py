"""What lies in a folder, found by literal names: images, Parquet files, and what is left out."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from methods.data.parts import LeftOut
from methods.data.reading import picture
from methods.data.reading.picture import Cell
from methods.errors import DataError

LEFTOVERS = frozenset(
    (
        *("__MACOSX", "Thumbs.db", "desktop.ini", "Icon\r", "@eaDir", "$RECYCLE.BIN"),
        *("System Volume Information", "lost+found", "__pycache__"),
    )
)
"""Names of files and folders that systems leave, beside hidden ones."""

PARQUET = frozenset((".parquet", ".pq", ".parq"))
TARS = frozenset((".tar",))

FOREIGN = frozenset(
    [
        ".heic",
        ".heif",
        ".svg",
        ".jxl",
        ".dng",
        ".raw",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".rw2",
        ".raf",
        ".eps",
        ".ps",
        ".pdf",
        ".dcm",
        ".nii",
    ]
)
"""Suffixes of pictures that are not read."""

LISTED = 5
"""Files of one folder that are left out for one reason: of more, the folder is named."""


@dataclass(eq=False)
class Folder:
    """A folder and what it holds, in the order of names; links are followed."""

    path: Path
    folders: list["Folder"] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    """Names of files."""
    parquet: list[Path] = field(default_factory=list)
    tars: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    """Pictures in formats that are not read."""
    others: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def full(self) -> list["Folder"]:
        """Its folders that hold images, at whatever depth."""
        return [folder for folder in self.folders if folder.has_images]

    @property
    def has_images(self) -> bool:
        return bool(self.images) or any(folder.has_images for folder in self.folders)

    def walk(self) -> Iterator["Folder"]:
        """The folder itself and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def every_image(self) -> list[str]:
        """Paths of images at whatever depth, sorted folder by folder."""
        top = str(self.path / "_")[:-1]
        if not self.folders:
            return [top + image for image in self.images]
        items = [(image, [top + image]) for image in self.images]
        items += [(folder.name, folder.every_image()) for folder in self.folders]
        return list(chain.from_iterable(paths for _, paths in sorted(items)))

    def every_tar(self) -> list[Path]:
        """Tar files at whatever depth, sorted."""
        return sorted(file for folder in self.walk() for file in folder.tars)

    def every_parquet(self) -> list[Path]:
        """Parquet files at whatever depth, sorted."""
        return sorted(file for folder in self.walk() for file in folder.parquet)


@dataclass
class Omissions:
    """What is left out of a data set, and why; paths are relative to its root."""

    root: Path
    _items: list[tuple[Path, str]] = field(default_factory=list)

    def add(self, path: Path, why: str) -> None:
        self._items.append((path, why))

    def listed(self) -> tuple[LeftOut, ...]:
        """One each; many files of one folder for one reason are one, with their count."""
        groups = Counter((path.parent, why) for path, why in self._items)
        listed: dict[LeftOut, None] = {}
        for path, why in self._items:
            count = groups[path.parent, why]
            if count > LISTED:
                place = f"{shown(path.parent, self.root)}/"
                listed[LeftOut(place, f"{count} of its files: {why}")] = None
            else:
                listed[LeftOut(shown(path, self.root), why)] = None
        return tuple(listed)


def shown(path: Path, root: Path) -> str:
    """A path relative to the root; bytes that are no text appear as escapes."""
    return printable(str(path.relative_to(root)))


def printable(name: str) -> str:
    """The name of a file; bytes that are no text appear as escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def walk(root: Path, omissions: Omissions) -> Folder:
    """All below `root` that is not hidden and that no system left there.

    Raises:
        DataError: a folder that cannot be listed.
    """
    return _walk(root, omissions, frozenset())


def _walk(path: Path, omissions: Omissions, above: frozenset[tuple[int, int]]) -> Folder:
    folder = Folder(path)
    try:
        place = path.stat()
        with os.scandir(path) as entries:
            items = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"a folder must be readable, but {path}: {error.strerror}") from None
    above |= {(place.st_dev, place.st_ino)}
    for item in items:
        if item.name.startswith("."):
            omissions.add(path / item.name, "hidden")
        elif item.name in LEFTOVERS:
            omissions.add(path / item.name, "left there by a system or an archive")
        else:
            _sort(item, folder, omissions, above)
    return folder


def _sort(
    entry: os.DirEntry[str], folder: Folder, omissions: Omissions, above: frozenset[tuple[int, int]]
) -> None:
    """Puts one entry where it belongs."""
    suffix = _suffix(entry.name)
    if suffix in picture.suffixes() and not _is(entry.is_dir):
        folder.images.append(entry.name)
        return
    item = folder.path / entry.name
    if _is(entry.is_dir):
        place = item.stat()
        if (place.st_dev, place.st_ino) in above:
            omissions.add(item, "a link to a folder above it")
        else:
            folder.folders.append(_walk(item, omissions, above))
    elif suffix == "" and _without_suffix(item):
        folder.images.append(entry.name)
    elif suffix in PARQUET and (_is(entry.is_file) or not item.exists()):
        folder.parquet.append(item)  # a link to nothing: reading it says so
    elif suffix in TARS:
        folder.tars.append(item)
    elif suffix in FOREIGN:
        folder.foreign.append(item)
        omissions.add(item, f"{suffix} is not read; convert it to PNG or JPEG")
    else:
        folder.others.append(item)
        omissions.add(item, "no image, by its suffix")


def _suffix(name: str) -> str:
    """As `Path.suffix`, in lower case."""
    stem, _, ending = name.rpartition(".")
    return f".{ending.lower()}" if stem and ending else ""


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of a kind; a link that leads nowhere is of none."""
    try:
        return kind()
    except OSError:
        return False


def _without_suffix(path: Path) -> bool:
    """Whether a file whose name has no suffix is an image by its content."""
    try:
        picture.header(Cell(path.name, None, path))
    except DataError:
        return False
    return True
