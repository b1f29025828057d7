"""The evaluation of a trained network: its accuracy, its loss, and its MACs per sample."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import nn
from torch.nn import functional as F

from methods.api import Decisions, Network, RoutedNetwork
from methods.data.load import Split
from methods.parallel.group import objects, rank, slices, workers
from methods.training.figures import figures

MANY = 20
"""Classes from which on the five most likely ones are a figure of their own."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The results of a network on every sample of a split, in the split's order."""

    accuracy: float
    """Fraction of samples whose largest logit is the label's."""
    loss: float
    """Mean cross-entropy, in nats."""
    macs_mean: float
    macs_p95: float
    """The smallest observed cost that at least 95 % of the samples do not exceed."""
    macs_max: float
    macs: Float[np.ndarray, " samples"]
    predictions: Int[np.ndarray, " samples"]
    labels: Int[np.ndarray, " samples"]
    losses: Float[np.ndarray, " samples"]
    """Cross-entropy of each sample, in nats."""
    decisions: Shaped[np.ndarray, "samples decisions"] | None = None
    """What the network decided for each sample; None where it decides nothing."""
    among_five: Bool[np.ndarray, " samples"] | None = None
    """Whether fewer than five logits are larger than the label's; None where there are few
    classes."""

    @property
    def correct(self) -> Bool[np.ndarray, " samples"]:
        """Whether each sample's largest logit is the label's."""
        return np.equal(self.predictions, self.labels)  # type: ignore[no-any-return]

    @property
    def macs_std(self) -> float:
        """Standard deviation over the samples, in MACs."""
        return float(self.macs.std())


def evaluate(
    net: Network,
    split: Split,
    *,
    decisions: Decisions | None = None,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
) -> Evaluation:
    """Accuracy and MACs of `net` in evaluation mode; `net` and all generators are unchanged.

    A network that routes follows `decisions`, a row for each sample of the split, if they are
    given. The workers of a trial run whole batches in turns of their ranks, and all of them have
    all results, as one worker has them.
    """
    starts = range(0, len(split), batch_size)
    own = starts[slices(len(starts), workers())[rank()]]
    mine = slice(own.start, min(own.stop, len(split))) if own else slice(0, 0)
    images = split if workers() == 1 else split.between(mine.start, mine.stop)
    here = None if decisions is None else decisions[mine]
    results = _on(net, images, here, batch_size, device) if own else {}
    parts = objects(results)
    whole = {name: np.concatenate([part[name] for part in parts if part]) for name in parts[0]}
    known = split.labels.cpu().numpy()
    guesses, costs, losses = whole["predictions"], whole["macs"], whole["losses"]
    return Evaluation(
        **figures(guesses, known, costs),
        loss=float(torch.from_numpy(losses).sum()) / len(split),
        macs=costs,
        predictions=guesses,
        labels=known,
        losses=losses,
        decisions=whole.get("decisions"),
        among_five=whole.get("among_five"),
    )


def _on(
    net: Network,
    split: Split,
    decisions: Decisions | None,
    batch_size: int,
    device: str | torch.device,
) -> dict[str, np.ndarray]:
    """The fields of an `Evaluation` that have a value for each sample."""
    losses, predictions, macs, decided, among_five = [], [], [], [], []
    done = 0
    with evaluating(net):
        for images, labels in split.batches(batch_size):
            batch = images.to(device)
            if isinstance(net, RoutedNetwork):
                handed = None if decisions is None else decisions[done : done + len(images)]
                output, rows = net.route(batch, None if handed is None else handed.to(device))
                decided.append(rows)
            else:
                output = net(batch)
            done += len(images)
            logits = output.logits.double()
            truth = labels.to(device)
            losses.append(F.cross_entropy(logits, truth, reduction="none"))
            if logits.shape[1] >= MANY:
                larger = logits > logits.gather(1, truth[:, None])
                among_five.append(larger.sum(1) < 5)
            predictions.append(logits.argmax(1))
            macs.append(output.macs.double())
    values = {
        "predictions": predictions,
        "macs": macs,
        "losses": losses,
        "decisions": decided,
        "among_five": among_five,
    }
    return {name: torch.cat(each).cpu().numpy() for name, each in values.items() if each}


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores the submodules' modes and the generators."""
    modes = {part: part.training for part in module.modules()}
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.is_cuda})
    try:
        module.eval()
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
