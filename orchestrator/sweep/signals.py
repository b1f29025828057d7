"""Being stopped: by Ctrl-C, or by SIGTERM from a machine, which kills after 3 s (Ray, of a job)."""

import os
import signal
import sys
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


_told: type[KeyboardInterrupt] | None = None


def listen() -> None:
    """From now on SIGTERM raises `Terminated` in the main thread; Ctrl-C is remembered, too."""
    global _told  # noqa: PLW0603
    _told = None
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _interrupt)


def check() -> None:
    """Raise again what was swallowed: by a finaliser, or a callback from C."""
    if _told is not None:
        raise _told


def leave() -> None:
    """End this process now: the interpreter's own way of it takes seconds after Ray and torch."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + signal.SIGTERM)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    global _told  # noqa: PLW0603
    if _told is not Terminated:
        _told = Terminated
        raise Terminated


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    global _told  # noqa: PLW0603
    _told = _told or KeyboardInterrupt
    raise KeyboardInterrupt
