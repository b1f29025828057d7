"""Batches that are made ahead: decoded by worker processes, or by a thread.

torch's own DataLoader would do it, but it hands pixels over in files of /dev/shm, which a container
often has too little of, bounds what is ahead by batches and not by bytes, and raises the death of a
worker from a signal handler, wherever the training step is. Here the workers of a pass write into
one piece of memory that they inherit, and nothing is left of them when the pass ends.
"""

import itertools
import mmap
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch
from jaxtyping import Int, UInt8

from methods.data.splits import SomePixels
from methods.errors import DataError

AHEAD_BYTES = 256 << 20
"""Pixels that are ready, or being made, before they are asked for; but one batch at least."""

PIECE, PIECE_BYTES = 16, 8 << 20
"""Images, and bytes of their pixels, that a worker decodes at once; one image at least."""

FEW = 256
"""Images of a pass that are not worth a process: a thread decodes them."""

PARENT = 2.0
"""Seconds between two looks of a worker at whether its parent lives."""

Rows = Int[np.ndarray, " _"]
Take = Callable[[Rows, UInt8[np.ndarray, "_ height width channels"]], object]
"""Writes the pixels of some rows into an array."""
Wait = Callable[[], SomePixels]


def ahead(
    take: Take,
    shape: tuple[int, int, int],
    batches: Iterable[Rows],
    largest: int,
    *,
    workers: int,
    pin: bool = False,
) -> Iterator[SomePixels]:
    """The pixels of each batch of rows in turn, made ahead by so many processes, or by a thread.

    `largest` is the number of rows in the largest batch. Batches are pinned, if wanted, so that
    they move to a GPU beside its work.

    Raises:
        DataError: an image that cannot be read, or a worker that died.
    """
    if not workers:
        yield from _threaded(take, shape, batches, largest, pin=pin)
        return
    size = largest * int(np.prod(shape))
    room = max(1, AHEAD_BYTES // max(1, size))
    piece = max(1, min(PIECE, PIECE_BYTES * largest // max(1, size)))
    slots = np.frombuffer(mmap.mmap(-1, max(1, room * size)), np.uint8)
    slots = slots.reshape(room, largest, *shape)
    pool = ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("fork"),
        initializer=_begin,
        initargs=(take, slots, os.getpid()),
    )

    def start(number: int, rows: Rows) -> Wait:
        slot = number % room
        pieces = [
            pool.submit(_make, slot, first, rows[first : first + piece])
            for first in range(0, len(rows), piece)
        ]
        return lambda: _taken(pieces, slots[slot, : len(rows)], pin=pin)

    yield from _in_turn(pool, itertools.starmap(start, enumerate(batches)), room)


def _threaded(
    take: Take, shape: tuple[int, int, int], batches: Iterable[Rows], largest: int, *, pin: bool
) -> Iterator[SomePixels]:
    room = max(1, AHEAD_BYTES // max(1, largest * int(np.prod(shape))))
    pool = ThreadPoolExecutor(1, "pixels")

    def made(rows: Rows) -> SomePixels:
        pixels = torch.empty((len(rows), *shape), dtype=torch.uint8, pin_memory=pin)
        take(rows, pixels.numpy())
        return pixels

    yield from _in_turn(pool, (pool.submit(made, rows).result for rows in batches), room)


def processes(images: int) -> int:
    """Processes that decode a pass of so many images: one for each core of a trial, or none.

    On one core they would only take turns with the training step.
    """
    cores = torch.get_num_threads()
    forks = "fork" in multiprocessing.get_all_start_methods()
    daemon = multiprocessing.current_process().daemon  # which may have no children
    return cores if cores > 1 and images > FEW and forks and not daemon else 0


def _in_turn(pool: Executor, begun: Iterator[Wait], room: int) -> Iterator[SomePixels]:
    """What each batch gives once it is waited for; up to `room` are begun before that."""
    try:
        waits = deque(itertools.islice(begun, room))
        while waits:
            pixels = waits.popleft()()
            waits.extend(itertools.islice(begun, 1))
            yield pixels
    except BrokenProcessPool:
        raise DataError(
            "every process that decodes images must live until the pass over them ends, but one "
            "was killed, as happens when memory runs out; give the trial more memory or fewer cores"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _taken(
    pieces: Sequence[Future[None]],
    slot: UInt8[np.ndarray, "batch height width channels"],
    *,
    pin: bool,
) -> SomePixels:
    """A copy of what is in a slot, once all its pieces are there."""
    for piece in pieces:
        piece.result()
    pixels = torch.empty(slot.shape, dtype=torch.uint8, pin_memory=pin)
    np.copyto(pixels.numpy(), slot)
    return pixels


class _Own:
    """What a worker has inherited."""

    take: Take
    slots: UInt8[np.ndarray, "room largest height width channels"]


def _begin(take: Take, slots: np.ndarray, parent: int) -> None:
    """A worker's first steps: its signals are its own, and it ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    _Own.take, _Own.slots = staticmethod(take), slots


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT)
    os._exit(1)


def _make(slot: int, first: int, rows: Rows) -> None:
    _Own.take(rows, _Own.slots[slot, first : first + len(rows)])
