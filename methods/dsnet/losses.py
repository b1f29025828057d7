"""The losses of DS-Net: the sandwich of widths under a teacher, and those of the gate.

Li et al., DS-Net (arXiv 2103.13258), sections 3.3 and 4; the sandwich rule is Yu and Huang's
(arXiv 1903.05134).
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Images, Labels
from methods.dsnet.gate import Odds
from methods.dsnet.layers import recalibrating
from methods.dsnet.supernet import SlimMobileNet
from methods.macs import in_evaluation

Teacher = Literal["average", "largest", "labels"]
"""average: the average of past supernets; largest: the supernet's own largest network; labels: no
teacher, every width learns from the labels."""
RARE = 0.02
"""Lower bound of the frequency of a kind of label, by which it is weighted."""


class Lessons(NamedTuple):
    """How the widths of a supernet learn."""

    teacher: Teacher
    ensemble: bool
    """Whether the smallest network learns from the mean of the teacher's three others."""
    dropout: float
    """Dropout of the largest network's pooled features."""
    smoothing: float
    """Smoothing of the labels."""


def sandwich(
    student: SlimMobileNet,
    average: SlimMobileNet,
    images: Images,
    labels: Labels,
    lessons: Lessons,
) -> Tensor:
    """Sum of four cross-entropies, in nats: largest, two random choices, smallest.

    The largest network learns from labels, the others from the teacher's largest; with an ensemble
    the smallest learns from the mean of the teacher's three others. Draws two different choices
    from torch's global generator, the same for teacher and student. Choices share their front, so
    it runs once.
    """
    layout = student.layout
    smallest, *middle = (layout.uniform(choice) for choice in (0, *_two_of(layout.choices)))
    hard = partial(F.cross_entropy, target=labels, label_smoothing=lessons.smoothing)
    largest = student(images, layout.largest, lessons.dropout)
    features, _ = student.front(images, smallest)
    narrower = [student.back(features, path) for path in (*middle, smallest)]
    loss = hard(largest)
    if lessons.teacher == "labels":
        return torch.stack([loss, *map(hard, narrower)]).sum()
    with torch.no_grad():
        said = [largest, *narrower[:2]]
        if lessons.teacher == "average":
            said = [average(images, layout.largest)]
            if lessons.ensemble:
                features, _ = average.front(images, smallest)
                said += [average.back(features, path) for path in middle]
        soft = [logits.detach().softmax(1) for logits in said]
        mean = torch.stack(soft).mean(0) if lessons.ensemble else soft[0]
    for logits, target in zip(narrower, (soft[0], soft[0], mean), strict=True):
        loss = loss + F.cross_entropy(logits, target)
    return loss


def recalibrate(supernet: SlimMobileNet, batches: Iterable[Images]) -> None:
    """Recompute the statistics of every width and the largest network: means over the batches."""
    layout = supernet.layout
    with recalibrating(supernet) as means:
        for images in batches:
            means.next_batch()
            supernet(images, layout.largest)
            features, _ = supernet.front(images, layout.uniform(0))
            for choice in range(layout.choices):
                supernet.back(features, layout.uniform(choice))


def sparsification(
    odds: Odds, right: Bool[Tensor, " batch"], easy: Float[Tensor, ""] | None
) -> Tensor:
    """Mean cross-entropy of the gate, in nats; the label is the first choice if that is right.

    Otherwise the label is the last choice. On log-softmax of the raw logits; the authors' code
    takes softmax outputs for logits. `easy` is the running fraction of right images, by which both
    kinds of label get equal weight.
    """
    targets = torch.where(right, 0, odds.shape[1] - 1)
    losses = F.cross_entropy(odds, targets, reduction="none")
    if easy is None:
        return losses.mean()
    usual = torch.where(right, easy, 1 - easy).clamp(min=RARE)
    return (losses * 0.5 / usual).mean()


def monotony(choices: Int[Tensor, " batch"], widths: Sequence[int], advice: str) -> str | None:
    """A one-sentence warning with this advice if these decisions are degenerate, else None.

    They are if all images take one choice, or if the choices carry less than 0.2 bits.
    """
    rates = torch.bincount(choices, minlength=len(widths)).double() / len(choices)
    bits = -float(torch.xlogy(rates, rates).sum()) / math.log(2)
    most = int(rates.argmax())
    if bits == 0:
        return f"the gate has collapsed: every image takes choice {widths[most]}; {advice}"
    if bits < 0.2:
        return (
            f"the gate decides nearly alike for every image ({bits:.3f} bits): "
            f"{float(rates[most]):.1%} take choice {widths[most]}; {advice}"
        )
    return None


@contextlib.contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Inside, `net` is in evaluation mode and its parameters get no gradient."""
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    with in_evaluation(net):
        net.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


def _two_of(choices: int) -> list[int]:
    return torch.randperm(choices)[:2].tolist()
