"""The data set once per machine: the driver puts it into Ray's object store, workers map it."""

import functools
import logging
from typing import Any

from methods.data.load import Arrays, Data
from orchestrator.trial.job import Settings

logger = logging.getLogger(__name__)

Handle = Any
"""Ray's reference to arrays in the object store."""


def put(data: Data) -> Handle | None:
    """Where workers of this Ray find the data set; None if each is to read it by itself.

    So it is where the object store has no room for them. Of streamed data it holds where each image
    is, and all that was found out of them.
    """
    import ray  # noqa: PLC0415, a board is read without it

    try:
        return ray.put(Arrays.of(data))
    except ray.exceptions.ObjectStoreFullError:
        logger.warning("the object store is too small for %s: workers read it", data.task.name)
        return None


@functools.lru_cache(maxsize=1)
def get(settings: Settings, handle: Handle | None) -> Data:
    """The data set of these settings, cached for the worker's next trial."""
    if handle is None:
        return settings.read()
    import ray  # noqa: PLC0415

    try:
        arrays: Arrays = ray.get(handle)
    except ray.exceptions.RayError as error:  # the node that held it is gone
        logger.warning("%s is read again: %s", settings.data, " ".join(str(error).split()))
        return settings.read()
    return arrays.on(settings.device)
