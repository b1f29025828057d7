"""The operating points at a phase's end: their figures, and the proof of their price."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch

from methods.api import Method, Network
from methods.data.load import Data
from methods.errors import Diverged, WrongPrice
from methods.macs import executed_macs
from methods.training.evaluate import Evaluation, evaluate
from orchestrator.record.events import Figures, Point
from orchestrator.record.rows import not_finite

logger = logging.getLogger(__name__)

PROOF = 64
"""Validation images on which the stated price is compared with the MACs that are executed."""


class Measured(NamedTuple):
    """An operating point and, where the test split was read, the result of each test image."""

    point: Point
    test: Evaluation | None


def measure(
    method: Method,
    views: Mapping[str, Network],
    name: str,
    data: Data,
    device: str,
    *,
    test: bool,
) -> list[Measured]:
    """Every operating point of a phase: validation figures, and test figures if asked for.

    Raises:
        Diverged: a figure that is not finite.
        WrongPrice: the deployed network does not execute what the network says it costs.
    """
    points = []
    for point_name, view in views.items():
        validation = evaluate(view, data.validation, device=device)
        test_evaluation = evaluate(view, data.test, device=device) if test else None
        point = Point(
            "/".join(part for part in (name, point_name) if part),
            _figures(validation),
            _figures(test_evaluation) if test_evaluation else None,
        )
        if flaw := not_finite([point]):
            raise Diverged(flaw)
        images = data.validation.head(PROOF)[0].to(device)
        prove(method, view, images)
        if alarm := method.alarm(view, images):
            logger.warning("%s: %s", point.point or "network", alarm)
            point = replace(point, alarm=alarm)
        points.append(Measured(point, test_evaluation))
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
            f"the price must equal what runs, but the network states {stated} MACs for "
            f"{len(images)} images and the deployed network executes {executed}"
        )


def _figures(evaluation: Evaluation) -> Figures:
    return Figures(
        accuracy=evaluation.accuracy,
        macs_mean=evaluation.macs_mean,
        loss=evaluation.loss,
        macs_std=evaluation.macs_std,
        macs_p95=evaluation.macs_p95,
        macs_max=evaluation.macs_max,
    )
