"""Being stopped: SIGTERM is Ctrl-C from a machine, which kills after 3 s (Ray stopping a job)."""

import os
import signal
import sys
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


_told = False


def listen() -> None:
    """From now on SIGTERM raises `Terminated` in the main thread."""
    global _told  # noqa: PLW0603
    _told = False
    signal.signal(signal.SIGTERM, _stop)


def check() -> None:
    """Raise `Terminated` again if it was swallowed: by a finaliser, or a callback from C."""
    if _told:
        raise Terminated


def leave() -> None:
    """End this process now: the interpreter's own way of it takes seconds after Ray and torch."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + signal.SIGTERM)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    global _told  # noqa: PLW0603
    if not _told:
        _told = True
        raise Terminated
