"""Data sets of the Hugging Face hub, through `datasets`."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub

from methods.data.parts import LeftOut, Numbered
from methods.data.reading import tables
from methods.data.reading.encoded import Labelled
from methods.data.reading.folders import ROLES
from methods.data.reading.tables import HEAD, Rows
from methods.errors import DataError


def read(repository: str) -> Labelled:
    """A data set of the hub, or of the local cache where the hub cannot be reached.

    Raises:
        DataError: neither has it, access to it was not granted, or it has no labelled images.
    """
    try:
        with _quiet(), offline_if_unreachable():
            splits = dict(datasets.load_dataset(repository))
    except Exception as error:  # the hub, its client and the builder each raise their own
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"data set {repository!r} must be on the Hugging Face hub or in the local cache, "
            f"but: {text}; check the network (and `hf auth login` if it is gated), "
            "or give a path"
        ) from None
    roles = {key: ROLES[key.casefold()] for key in splits if key.casefold() in ROLES}
    keys = {role: key for key, role in roles.items() if len(splits[key])}
    by_role = {role: splits[key] for role, key in keys.items()}
    left_out = [
        LeftOut(key, "its name is not that of a split") for key in splits if key not in roles
    ]
    if "train" not in by_role:
        raise DataError(f"{repository} must have training samples, but its splits are {[*splits]}")
    chosen = tables.columns(repository, _table(by_role["train"]).slice(0, HEAD))
    read = {}
    for role, split in by_role.items():
        table = _table(split)
        names = Numbered((f"{repository}/{role}",), (len(table),))
        key = functools.partial(str, f"{split._fingerprint} {chosen.image}")
        again = functools.partial(_images, repository, keys[role], chosen.image)
        rows = Rows(tuple(table.column(chosen.image).chunks), names, (None,), key, again)
        read[role] = rows, table.column(chosen.label).to_pylist()
    return tables.labelled(repository, read, chosen, left_out=left_out)


def _images(repository: str, split: str, column: str) -> tuple[Any, ...]:
    """The images of a split, in another process than the one that read it."""
    with _quiet(), offline_if_unreachable():
        table = _table(_splits(repository)[split])
    return tuple(table.column(column).chunks)


@functools.lru_cache(maxsize=1)
def _splits(repository: str) -> dict[str, Any]:
    return dict(datasets.load_dataset(repository))


def cached(repository: str) -> bool:
    """Whether a data set of the hub lies in the local cache."""
    return (Path(datasets.config.HF_DATASETS_CACHE) / repository.replace("/", "___")).is_dir()


def _table(split: Any) -> Any:
    """The Arrow table of a split, which marks its columns as Hugging Face does."""
    return split.data.table.replace_schema_metadata(split.features.arrow_schema.metadata)


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
def offline_if_unreachable() -> Iterator[None]:
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
