"""Signals that stop a sweep: Ctrl-C, SIGTERM, and SIGHUP when the terminal is closed.

Whoever sends SIGTERM may kill 3 s later, as Ray does with a job that it stops.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


class HungUp(KeyboardInterrupt):
    """SIGHUP arrived: the terminal, or the connection to it, was closed."""


REASONS: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
    signal.SIGHUP: HungUp,
}
"""Signal -> what it raises in the main thread."""
_pending: type[KeyboardInterrupt] | None = None


def listen() -> None:
    """From now on these signals stop the sweep, but for a SIGHUP that `nohup` has it ignore."""
    global _pending  # noqa: PLW0603
    _pending = None
    for number in REASONS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def check() -> None:
    """Raise the stop again where a finaliser, or a callback from C, swallowed it."""
    if _pending is not None:
        raise _pending


def reason() -> type[KeyboardInterrupt]:
    """What stopped the sweep; Ray's own code raises a plain KeyboardInterrupt for any of them."""
    return _pending or KeyboardInterrupt


def exit_code() -> int:
    """What a shell reports for a process that this signal ended."""
    return 128 + next(number for number, kind in REASONS.items() if kind is reason())


def leave(code: int) -> None:
    """End this process now: after Ray and torch the interpreter's own exit takes seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def no_hang_up() -> Iterator[None]:
    """Processes that start inside the block ignore SIGHUP, which a terminal sends to all of them.

    The driver stops them; a worker that died by itself would be held against its trial. A SIGHUP
    that arrives inside the block takes effect at its end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    global _pending  # noqa: PLW0603
    by_hand = number == signal.SIGINT
    if not by_hand and _pending in (Terminated, HungUp):
        return  # a second one would interrupt what the first one has stopped in good order
    if not by_hand or _pending is None:
        _pending = REASONS[number]
    raise REASONS[number]
