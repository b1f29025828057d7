"""Predicted milliseconds of a trial before it runs."""

import logging

import torch

from methods.api import Task
from methods.errors import MethodError
from methods.machine import device_name, threads, tune_allocator
from methods.shipping.layers import Layers
from methods.values import Params
from orchestrator.record.history import History
from orchestrator.record.provenance import Clock
from orchestrator.study.check import layers
from orchestrator.study.params import parts

logger = logging.getLogger(__name__)


def clock(task: Task, device: str, count: int, batch: int) -> Clock:
    """What a study's milliseconds are measured by, in a worker that has the device; `count` is its
    threads."""
    tune_allocator()
    torch.set_num_threads(count)
    table = Layers(task, device, batch)
    return Clock(table.reference_ms, batch, device_name(device), count)


class Predictor:
    """The least milliseconds of a trial of a study, on the scale of the study's record.

    By the table of layers of this machine, which the driver runs on. Nothing is predicted where the
    driver lacks the device of the workers.
    """

    def __init__(self, history: History, task: Task) -> None:
        self._history = history
        self._task = task
        self._table: Layers | None = None

    def __call__(self, method: str, params: Params) -> float | None:
        study, begun = self._history.study, self._history.begun
        recorded = begun.provenance.clock if begun else None
        if recorded is None:
            return None
        with threads(recorded.threads):
            self._table = self._table or layers(study, self._task)
            if self._table is None:
                return None
            try:
                least = self._table.least_ms(parts(method, params)[0])
            except MethodError:
                raise
            except Exception as error:  # the trial itself will tell
                logger.warning("a network of %s could not be timed: %s", method, error)
                return None
            return least / self._table.reference_ms * recorded.reference_ms
