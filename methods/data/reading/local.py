"""Data sets of one's own: Parquet or tar files, a folder of them, or a folder of images."""

import errno
from pathlib import Path

from methods.data.reading import folders, parquet, tars, walk
from methods.data.reading.encoded import Labelled
from methods.data.reading.walk import Folder, Omissions
from methods.errors import DataError


def existing(name: str) -> Path | None:
    """The file or folder of this very name, or of what `~` stands for; None if there is none.

    Raises:
        DataError: whether it exists cannot be told.
    """
    try:
        path = Path(name)
        if not path.exists() and name.startswith("~"):
            path = path.expanduser()
        return path if name and path.exists() else None
    except (ValueError, RuntimeError):  # a null byte, or nobody's home
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise DataError(f"data must be readable, but {name}: {error.strerror}") from None


def read(path: Path) -> Labelled:
    """The labelled images at a path.

    Raises:
        DataError: neither form, unreadable, or without labels.
    """
    path = path.absolute()  # a trial's process works in another folder
    omissions = Omissions(path)
    if path.is_file():
        if path.suffix.lower() in walk.TARS:
            return tars.read(path, [path], omissions)
        if path.suffix.lower() not in walk.PARQUET:
            raise DataError(f"a data file must be Parquet (*.parquet) or *.tar, but got {path}")
        return parquet.read(path, [path], omissions)
    if not path.is_dir():
        raise DataError(f"data must be a file or a folder, but {path} is neither")
    top = walk.walk(path, omissions)
    files = top.every_parquet()
    if files and (not top.has_images or _is_table(top, files)):
        return parquet.read(path, files, omissions)
    shards = top.every_tar()
    if shards and not top.has_images:
        return tars.read(path, shards, omissions)
    for file in shards:
        omissions.add(file, "a tar file beside image files")
    for file in files:
        omissions.add(file, "Parquet without images, beside image files")
    return folders.read(top, omissions)


def _is_table(top: Folder, files: list[Path]) -> bool:
    """Whether Parquet files among images are the data set, whose paths name those images.

    Raises:
        DataError: the Parquet files hold images, too.
    """
    tables = [file for file in files if parquet.refers_to_images(file)]
    for file in tables:
        if parquet.holds_images(file):
            raise DataError(
                f"a folder must hold image files or Parquet files with images, but {top.path} has "
                f"both: {file.name} and {Path(top.every_image()[0]).name}; give the path of one, "
                "or move the other away"
            )
    return bool(tables)
