"""The data set once per machine: the driver puts it into Ray's object store, workers map it."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

from methods.data.load import Arrays, Data, load

logger = logging.getLogger(__name__)

Handle = Any
"""Ray's reference to arrays in the object store."""


def put(data: Data) -> Handle | None:
    """Where workers of this Ray find the data set; None if each is to read it by itself.

    So it is where the data are streamed, and where the object store has no room for them.
    """
    import ray  # noqa: PLC0415, a board is read without it

    arrays = Arrays.of(data)
    if arrays is None:
        return None
    try:
        return ray.put(arrays)
    except ray.exceptions.ObjectStoreFullError:
        logger.warning("the object store is too small for %s: workers read it", data.task.name)
        return None


def held(settings: Mapping[str, Any]) -> Data:
    """The data set of these settings, kept for the worker's next trial."""
    place = settings["data"], settings["data_seed"], settings["device"]
    return _held(*place, settings.get("shared"))


@functools.lru_cache(maxsize=1)
def _held(name: str, seed: int, device: str, shared: Handle | None) -> Data:
    if shared is None:
        return load(name, seed=seed, device=device)
    import ray  # noqa: PLC0415

    try:
        arrays: Arrays = ray.get(shared)
    except ray.exceptions.RayError as error:  # the node that held it is gone
        logger.warning("%s is read anew: %s", name, " ".join(str(error).split()))
        return load(name, seed=seed, device=device)
    return arrays.on(device)
