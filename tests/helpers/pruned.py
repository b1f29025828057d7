"""ResReps of many sizes, without their weights where only shapes matter."""

import torch

from methods.api import Task
from methods.resrep.method import CompactedResNet, ResRep

CIFAR = Task("cifar10", 3, 32, 32, 10)
IMAGENET = Task("imagenet", 3, 224, 224, 1000)
FIFTY = ResRep(depth=50, family="imagenet", target=0.455)
NARROW = ResRep(depth=50, family="imagenet", width=0.1)
LARGE = Task("large", 3, 64, 64, 5)


def on_meta(method: ResRep, task: Task) -> CompactedResNet:
    with torch.device("meta"):
        return method.build(task)


def masked(net: CompactedResNet) -> int:
    return sum(int((~compactor.mask).sum()) for compactor in net.compactors)
