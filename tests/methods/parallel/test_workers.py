"""Two workers train what one trains: real processes, by gloo, in double precision.

What differs is then no rounding of single precision, which a training would magnify: all is equal
to 1e-9 of its size.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pairs
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional as F

from methods.data.load import load
from methods.errors import DataError
from methods.parallel import batch_mean, everyone, per_sample, share, shared, together
from methods.parallel.group import check_alike, own_rows, slices

WITHIN = {"rtol": 1e-9, "atol": 1e-9}
Left = dict[str, Any]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[Left, Left, Left]:
    """What every trial leaves: with one worker, and on each of two."""
    folder = tmp_path_factory.mktemp("pairs")
    context = mp.spawn(pairs.work, (2, str(folder)), nprocs=2, join=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pairs.exact() as data:
            alone = {name: pairs.run(name, data) for name in pairs.TRIALS}
    finally:
        torch.set_num_threads(threads)
    while not context.join():
        pass
    first, second = (torch.load(Path(folder) / f"{rank}.pt") for rank in range(2))
    return alone, first, second


def apart(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that differ by more than a rounding; whole numbers must be equal."""
    assert left.keys() == right.keys()
    return [name for name in left if not torch.allclose(left[name], right[name], **WITHIN)]


@pytest.mark.parametrize("name", pairs.TRIALS)
def test_two_workers_train_the_network_of_one(trials: tuple[Left, Left, Left], name: str) -> None:
    alone, first, _ = (left[name] for left in trials)
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-9)
    for one, two in zip(alone["states"], first["states"], strict=True):
        assert apart(one["net"], two["net"]) == []
        assert apart(one["generators"], two["generators"]) == []


@pytest.mark.parametrize("name", pairs.TRIALS)
def test_the_state_of_both_workers_is_the_same_to_the_bit(
    trials: tuple[Left, Left, Left], name: str
) -> None:
    _, first, second = (left[name] for left in trials)
    assert first["losses"] == second["losses"]
    for one, two in zip(first["states"], second["states"], strict=True):
        for part in ("net", "generators"):
            assert all(torch.equal(one[part][key], two[part][key]) for key in one[part]), part


@pytest.mark.parametrize("name", pairs.TRIALS)
def test_two_workers_evaluate_as_one(trials: tuple[Left, Left, Left], name: str) -> None:
    alone, first, second = (left[name] for left in trials)
    assert apart(alone["evaluation"], first["evaluation"]) == []
    assert first["points"] == second["points"]
    assert first["points"] == pytest.approx(alone["points"], rel=1e-9)


@pytest.mark.parametrize("name", pairs.RESUMED)
def test_two_workers_resume_to_the_bit(trials: tuple[Left, Left, Left], name: str) -> None:
    for left in trials[1:]:
        assert left[name]["resumed"] == left[name]["losses"][1:]


@pytest.mark.parametrize(("samples", "size", "count"), [(100, 33, 2), (7, 3, 3), (64, 64, 4)])
def test_the_parts_of_a_batch_are_the_batch(samples: int, size: int, count: int) -> None:
    rows = [own_rows(samples, size, rank, count) for rank in range(count)]
    assert torch.cat(rows).sort().values.tolist() == list(range(samples))
    sizes = [part.stop - part.start for part in slices(size, count)]
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == size


def test_the_parts_of_batches_are_those_of_one_worker() -> None:
    split = load("digits").train.between(0, 100)

    def batches(worker: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
        order = torch.Generator().manual_seed(3)
        return list(split.batches(33, shuffle=order, drop_short=True, worker=worker))

    whole, parts = batches((0, 1)), [batches((rank, 2)) for rank in range(2)]
    for (images, labels), *two in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part[0] for part in two]), images)
        assert torch.equal(torch.cat([part[1] for part in two]), labels)


def test_one_worker_sees_nothing_of_it() -> None:
    values, plain = torch.randn(5, 3), F.batch_norm
    with together():
        assert F.batch_norm is plain
        assert batch_mean(values) is values
        assert everyone(values) is values
        assert per_sample(torch.neg, values).equal(-values)
        assert share() == 1
    check_alike({"weight": values}, "now")


def test_a_batch_has_an_image_for_every_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.parallel.batch.workers", lambda: 3)
    with pytest.raises(DataError, match="each of 3 workers must have an image of every batch"):
        next(shared(iter([]), [4, 2]))
