"""One trial on several workers: what each sees of the whole batch; on one worker, nothing."""

from methods.parallel.batch import (
    batch_mean,
    everyone,
    per_sample,
    share,
    shared,
    size,
    together,
)
from methods.parallel.group import rank, workers

__all__ = [
    "batch_mean",
    "everyone",
    "per_sample",
    "rank",
    "share",
    "shared",
    "size",
    "together",
    "workers",
]
