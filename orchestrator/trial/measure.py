"""The operating points at a phase's end: their figures, and the proof of their price."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from methods.api import Method, Network, RoutedNetwork
from methods.data.load import Data, Split
from methods.errors import Diverged, WrongPrice
from methods.macs import executed_macs
from methods.shipping.size import Size, size
from methods.shipping.turns import SINGLE, in_turns, reference
from methods.training.evaluate import Evaluation, evaluate
from methods.training.routing import DRAWS, Routing, routing
from orchestrator.board.model import Worth
from orchestrator.board.stats.intervals import Summary
from orchestrator.board.words import static_reason, static_text
from orchestrator.record.events import Figures, Point
from orchestrator.record.evidence import Alike, Decided, Shot, routing_figures
from orchestrator.record.provenance import Clock
from orchestrator.record.rows import not_finite

logger = logging.getLogger(__name__)

PROOF = 64
"""Validation images on which the stated price is compared with the MACs that are executed."""
RUNS = 8
"""Largest number of images over which the peak memory is measured: each costs other MACs."""


NORMAL = 1.96
"""Standard errors on either side of a mean of many images, for 95 %."""
FEW = 2
"""Exchanges of decisions on the validation split, which give a warning and no figure."""


class Measured(NamedTuple):
    """An operating point and, where the test split was read, what it gave on each test image."""

    point: Point
    shot: Shot | None


def measure(
    method: Method,
    views: Mapping[str, Network],
    name: str,
    data: Data,
    device: str,
    *,
    test: bool,
    clock: Clock | None = None,
) -> list[Measured]:
    """Every operating point of a phase: validation figures, and test figures if asked for.

    With a `clock` each is timed, too, on validation images.

    Raises:
        Diverged: a figure that is not finite.
        WrongPrice: the deployed network does not execute what the network says it costs.
    """
    points = []
    for point_name, view in views.items():
        validation = _tried(view, data.validation, device, draws=FEW)
        tested = _tried(view, data.test, device, draws=DRAWS) if test else None
        point = Point(
            "/".join(part for part in (name, point_name) if part),
            validation.figures(),
            tested.figures() if tested else None,
        )
        if flaw := not_finite([point]):
            raise Diverged(flaw)
        images = data.validation.head(PROOF)[0].to(device)
        prove(method, view, images)
        sizes = _size(method, view, images, validation.evaluation)
        point = replace(point, **asdict(sizes))
        if clock:
            point = _timed(point, method.deploy(view), data, device, clock)
        if alarms := [*filter(None, (validation.alarm(), method.alarm(view, images)))]:
            point = replace(point, alarm="; ".join(alarms))
            logger.warning("%s: %s", point.point or "network", point.alarm)
        points.append(Measured(point, tested.shot() if tested else None))
    return points


def prove(method: Method, net: Network, images: torch.Tensor) -> None:
    """Compares the price of a batch with what the deployed network executes on it.

    It computes in double precision, on a copy. The deployed form rounds in another order, and in
    single precision an image on a gate's threshold may fall on either side.

    Raises:
        WrongPrice: they differ by one MAC or more.
    """
    twin = copy.deepcopy(net).double().eval()
    images = images.double()
    with torch.no_grad():
        stated = int(twin(images).macs.sum().item())
    executed = executed_macs(method.deploy(twin), images)
    if stated != executed:
        raise WrongPrice(
            f"the price must equal the executed MACs, but the network states {stated} MACs for "
            f"{len(images)} images and the deployed network executes {executed}"
        )


def _timed(point: Point, deployed: torch.nn.Module, data: Data, device: str, clock: Clock) -> Point:
    """The operating point with its milliseconds, on the scale of the study's record."""
    images = data.validation.head(max(SINGLE, clock.batch))[0].to(device)
    turns = in_turns(deployed, reference(data.task).to(device), images, clock.batch)
    ms, spread_ms = turns.calibrated(clock.reference_ms)
    return replace(
        point,
        ms=ms,
        spread_ms=spread_ms,
        clock_ms=turns.ms,
        reference_ms=turns.reference_ms,
    )


def _size(method: Method, net: Network, images: torch.Tensor, evaluation: Evaluation) -> Size:
    """The deployed network's size; what runs on an image shows in its MACs, the dearest first."""
    _, firsts = np.unique(evaluation.macs[: len(images)], return_index=True)
    return size(method.deploy(net), images[firsts[::-1][:RUNS].tolist()])


@dataclass(frozen=True)
class _Tried:
    """A network on a split: what it gave, and what its decisions are worth."""

    evaluation: Evaluation
    routing: Routing | None

    def figures(self) -> Figures:
        evaluation = self.evaluation
        decided = self._decided()
        return Figures(
            accuracy=evaluation.accuracy,
            macs_mean=evaluation.macs_mean,
            loss=evaluation.loss,
            macs_std=evaluation.macs_std,
            macs_p95=evaluation.macs_p95,
            macs_max=evaluation.macs_max,
            top5=None if evaluation.among_five is None else float(evaluation.among_five.mean()),
            **(routing_figures(evaluation.labels, decided) if decided else {}),
        )

    def shot(self) -> Shot:
        evaluation = self.evaluation
        return Shot(
            evaluation.predictions,
            evaluation.macs,
            evaluation.losses,
            self._decided(),
            evaluation.among_five,
        )

    def alarm(self) -> str | None:
        """Says that deciding per image is not shown to pay, with the likely reason."""
        if self.routing is None:
            return None
        figures = self.figures()
        worth = Worth(
            gain=_over_images(self.routing.worth),
            images=True,
            another=figures.another or 0.0,
            majority=figures.majority or 0.0,
            majority_macs=figures.majority_macs or 0.0,
            everything=figures.everything,
            everything_macs=figures.everything_macs,
            alike=figures.alike or 0.0,
        )
        if worth.dynamic:
            return None
        alike = worth.alike == 1  # another image's decisions are its own: a worth of 0, no figure
        return f"static: {static_reason(worth) if alike else static_text(worth)}"

    def _decided(self) -> Decided | None:
        routing = self.routing
        if routing is None:
            return None
        decisions, every = routing.own.decisions, routing.everything
        assert decisions is not None, "a network that routes has decided"
        return Decided(
            decisions,
            np.stack([evaluation.predictions for evaluation in routing.another], axis=1),
            Alike(routing.majority.predictions, routing.majority.macs),
            Alike(every.predictions, every.macs) if every else None,
        )


def _over_images(worth: Float[np.ndarray, " images"]) -> Summary:
    """The mean of one network's worth with its normal interval over images."""
    mean, error = float(worth.mean()), float(worth.std() / np.sqrt(len(worth)))
    return Summary(1, mean, None, mean - NORMAL * error, mean + NORMAL * error)


def _tried(net: Network, split: Split, device: str, *, draws: int) -> _Tried:
    evaluation = evaluate(net, split, device=device)
    if not isinstance(net, RoutedNetwork):
        return _Tried(evaluation, None)
    return _Tried(evaluation, routing(net, split, evaluation, draws=draws, device=device))
