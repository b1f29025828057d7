"""What lies in a folder, found by literal names: images, Parquet files, and what is left out."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
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
    images: list[Path] = field(default_factory=list)
    parquet: list[Path] = field(default_factory=list)
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

    def every_image(self) -> list[Path]:
        """Images at whatever depth, sorted."""
        return sorted(image for folder in self.walk() for image in folder.images)

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
    return os.fsencode(path.relative_to(root)).decode(errors="backslashreplace")


def stamp(path: Path) -> tuple[int, int]:
    """Size of a file, and when it was changed last, in nanoseconds; zeros where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


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
        items = sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"a folder must be readable, but {path}: {error.strerror}") from None
    above |= {(place.st_dev, place.st_ino)}
    for item in items:
        if item.name.startswith("."):
            omissions.add(item, "hidden")
        elif item.name in LEFTOVERS:
            omissions.add(item, "left there by a system or an archive")
        else:
            _sort(item, folder, omissions, above)
    return folder


def _sort(
    item: Path, folder: Folder, omissions: Omissions, above: frozenset[tuple[int, int]]
) -> None:
    """Puts one entry where it belongs."""
    try:
        place = item.stat()
    except OSError:
        place = None  # a link to nothing: reading it says so
    if place is not None and stat.S_ISDIR(place.st_mode):
        if (place.st_dev, place.st_ino) in above:
            omissions.add(item, "a link to a folder above it")
        else:
            folder.folders.append(_walk(item, omissions, above))
        return
    suffix = item.suffix.lower()
    if suffix in picture.suffixes() or (suffix == "" and _without_suffix(item)):
        folder.images.append(item)
    elif suffix in PARQUET and (place is None or stat.S_ISREG(place.st_mode)):
        folder.parquet.append(item)
    elif suffix in FOREIGN:
        folder.foreign.append(item)
        omissions.add(item, f"{suffix} is not read; convert it to PNG or JPEG")
    else:
        folder.others.append(item)
        omissions.add(item, "no image, by its suffix")


def _without_suffix(path: Path) -> bool:
    """Whether a file whose name has no suffix is an image by its content."""
    try:
        picture.header(Cell(path.name, None, path))
    except DataError:
        return False
    return True
