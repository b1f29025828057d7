"""The latency of a pair's deployed networks, measured in turns."""

from collections.abc import Callable

import torch

from methods.data.load import Data
from methods.errors import BucketAway, IsoflopError
from methods.machine import device_name, tune_allocator
from methods.shipping.choices import Choices
from methods.shipping.clock import latencies
from methods.shipping.energy import Energy, energy
from methods.shipping.forms import fastest
from orchestrator.board.latency import Pair
from orchestrator.record.events import Latency
from orchestrator.study.params import recorded_parts
from orchestrator.trial.checkpoints import deployed
from orchestrator.trial.job import Settings

BATCHES = {1: 16, 64: 1}
"""Images in one call, and calls of which the mean is taken: single images are not alike."""
ROUNDS = {1: 15, 64: 40}
"""Rounds of such calls: p95 is of 240 and of 40 calls a network."""


def measured(
    pair: Pair, settings: Settings, load: Callable[[], Data] | None = None
) -> list[Latency]:
    """The latencies of one pair, one per size of a batch; runs in a worker that has the device.

    `load` gives the data set, which is read here by default.
    """
    tune_allocator()
    torch.set_num_threads(settings.threads)
    device = settings.device
    try:
        settings.take_methods()
        data = (load or settings.read)()
        trials = settings.depot.below("trials")
        modules = [
            deployed(
                trials.below(one.trial),
                recorded_parts(one.method, one.params)[0],
                data.task,
                one.point,
            ).to(device)
            for one in (pair.network, pair.reference)
        ]
    except BucketAway:
        raise  # the same command measures it
    except (IsoflopError, RuntimeError) as error:
        return [Latency(*pair.key, reason=" ".join(str(error).split())[:500])]
    measurements, choices = [], Choices()
    for batch, calls in BATCHES.items():
        images = torch.split(data.test.head(batch * calls)[0].to(device), batch)[:calls]
        shipped = [fastest(module, images[0], choices) for module in modules]
        timing, reference = latencies(shipped, images, rounds=ROUNDS[batch])
        drawn = energy(shipped, images[0]) if batch > 1 else Energy([], "")
        joules = drawn.joules or (None, None)
        measurements.append(
            Latency(
                *pair.key,
                batch=batch,
                ms=1e3 * timing.median,
                spread_ms=1e3 * timing.spread,
                reference_ms=1e3 * reference.median,
                reference_spread_ms=1e3 * reference.spread,
                p95_ms=1e3 * timing.p95,
                reference_p95_ms=1e3 * reference.p95,
                calls=timing.calls,
                joules=joules[0],
                reference_joules=joules[1],
                energy=drawn.source or None,
                forms=shipped[0].forms,
                reference_forms=shipped[1].forms,
                device=device_name(device),
                threads=settings.threads,
            )
        )
    return measurements
