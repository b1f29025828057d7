"""The command that shows what a study would read of a data set."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from methods.errors import DataError, StorageError
from orchestrator.cli.console import Fit, Resize, Size, console, near
from orchestrator.report.table import number, table, text

if TYPE_CHECKING:
    from methods.data.digest import Digest
    from methods.data.load import Data
    from methods.data.parts import Source

CLASSES = 30
"""Classes that the terminal lists at most: the largest and the smallest."""
LEFT_OUT = 10
"""Files left out that the terminal lists at most; `--json` lists all."""
IMBALANCE = 10
"""Ratio of the largest class to the smallest at and above which an imbalance is reported."""


def data(  # noqa: PLR0917
    name: Annotated[
        str,
        typer.Argument(
            metavar="PATH|NAME",
            help="Name a folder of images, a Parquet or tar file, or a data set.",
        ),
    ],
    size: Size = None,
    fit: Fit = "crop",
    resize: Resize = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a contact sheet of every class to this PNG file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    broken: Annotated[
        bool, typer.Option("--broken", help="List every image that cannot be read, and why.")
    ] = False,
) -> None:
    """Show what a study reads of a data set: splits, classes, sizes, and what it leaves out."""
    if sheet is not None and (sheet.suffix.lower() != ".png" or not sheet.parent.is_dir()):
        raise DataError(f"--sheet must be a PNG file (*.png) in a folder, but got {sheet}")
    if broken:
        _print_broken(name)
        return
    with Console(stderr=True).status("Reading every image"):
        from methods.data.load import load
        from methods.data.survey import survey

        loaded = load(name, size=size, fit=fit, resize=resize)
        read = survey(loaded)
        if sheet is not None:
            _write_sheet(_source(loaded), sheet)
    if as_json:
        print(json.dumps(_object(loaded, read.digest)))
        return
    _print(loaded, read.digest)
    if sheet is not None:
        console.print(f"Sheet: {near(sheet)}", highlight=False, markup=False, soft_wrap=True)


def _print_broken(name: str) -> None:
    from methods.data import sources

    with Console(stderr=True).status("Reading every image"):
        images = sources.broken(name)
    for image in images:
        console.print(f"{image.path}: {image.why}", highlight=False, markup=False, soft_wrap=True)
    if images:
        raise DataError(
            f"every image must be readable, but {len(images):,} of {name} "
            f"{'is' if len(images) == 1 else 'are'} not; the lines above state the reasons"
        )
    console.print("Every image can be read.")


def _source(loaded: "Data") -> "Source":
    assert loaded.origin is not None, "the data were read by this process"
    return loaded.origin.source


def _write_sheet(source: "Source", path: Path) -> None:
    from methods import files
    from methods.data.sheet import sheet

    picture = sheet(source)
    try:
        files.write(path, lambda file: picture.save(file, "PNG"))
    except OSError as error:
        raise StorageError(
            f"--sheet must be a file that can be written, but {path}: {error.strerror}"
        ) from None


def _counts(source: "Source") -> dict[str, dict[str, int]]:
    """By part, the images of each class; a class without one counts 0."""
    import numpy as np

    counts = {
        role: np.bincount(part.labels, minlength=source.classes)
        for role, part in source.parts.items()
    }
    return {
        role: {name: int(count) for name, count in zip(source.class_names, own, strict=True)}
        for role, own in counts.items()
    }


def _object(loaded: "Data", digest: "Digest") -> dict[str, object]:
    """What `--json` prints."""
    source = _source(loaded)
    return {
        "splits": {
            role: {"images": sum(classes.values()), "classes": classes}
            for role, classes in _counts(source).items()
        },
        "size": list(source.shape[:2]),
        "channels": source.shape[2],
        "mean": [round(value, 6) for value in loaded.train.mean.tolist()],
        "left_out": [{"path": item.path, "why": item.why} for item in source.left_out],
        "duplicates_across_splits": sum(digest.duplicates.values()),
        "digest": digest.sha256,
    }


def _print(loaded: "Data", digest: "Digest") -> None:
    source = _source(loaded)
    height, width, channels = source.shape
    colour = "grey" if channels == 1 else "in colour"
    images = sum(part.images for part in digest.parts.values())
    console.print(
        f"[bold]{escape(loaded.task.name)}[/]: {images:,} images of {height} x {width}, {colour}, "
        f"{source.classes:,} {'class' if source.classes == 1 else 'classes'}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_classes(source))
    for line in _lines(loaded, digest):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _classes(source: "Source") -> Table:
    """Images of each class by part; of many classes, the largest and the smallest."""
    counts = _counts(source)
    grid = table(text("class"), *(number(role) for role in counts))
    names = sorted(source.class_names, key=lambda name: -counts["train"][name])
    shown = list(source.class_names)
    if len(names) > CLASSES:
        shown = [*names[: CLASSES // 2], "", *names[-(CLASSES // 2) :]]
    for name in shown:
        grid.add_row(
            escape(name) if name else f"({len(names) - len(shown) + 1:,} more)",
            *(f"{own[name]:,}" if name else "" for own in counts.values()),
        )
    grid.add_section()
    grid.add_row("all", *(f"{sum(own.values()):,}" for own in counts.values()))
    return grid


def _lines(loaded: "Data", digest: "Digest") -> Iterator[str]:
    """The facts other than class counts, a line each."""
    source = _source(loaded)
    for role, part in digest.parts.items():
        yield f"Stored, {role}: {_listed(part.sizes)}; {_listed(part.modes)}"
    yield from source.notes
    if loaded.train.size is not None:
        height, width = loaded.train.size
        yield f"Training cuts {height} x {width} out of them by chance, and evaluation the centre."
    sizes = ", ".join(f"{len(getattr(loaded, role)):,} {role}" for role in digest.splits)
    yield f"A study with seed 0 divides it into {sizes}."
    mean, std = (
        ", ".join(f"{value:.4g}" for value in values.tolist())
        for values in (loaded.train.mean, loaded.train.std)
    )
    yield f"Normalisation, from the training split: mean {mean}, deviation {std} in pixel values."
    ordered = sorted(_counts(source)["train"].items(), key=lambda item: item[1])
    (rare, least), (common, most) = ordered[0], ordered[-1]
    if most >= IMBALANCE * max(1, least):
        yield (
            f"Imbalance: {common!r} has {most:,} training images and {rare!r} {least:,}; accuracy "
            "counts every image alike."
        )
    for role, count in digest.duplicates.items():
        of = len(getattr(loaded, role))
        before = "training" if role == "validation" else "training or validation"
        where = f"{role} images are in {before} too, pixel for pixel"
        yield f"Duplicates: {count:,} of {of:,} {where}."
    for item in source.left_out[:LEFT_OUT]:
        yield f"Left out: {item.path}: {item.why}"
    if len(source.left_out) > LEFT_OUT:
        yield f"Left out: {len(source.left_out) - LEFT_OUT:,} more; --json lists all."
    if digest.sampled is not None:
        sampled = f"Contents: {digest.sampled:,} images were hashed"
        yield f"{sampled}; of all others, the names and sizes."
    yield f"Digest: {digest.sha256[:12]}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())
