"""The `isoflop` command as a function of this process: it starts no interpreter."""

import signal
from typing import NamedTuple

import pytest

from orchestrator.cli import main

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Called(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def called(capsys: pytest.CaptureFixture[str], *words: str) -> Called:
    """The command with these words; signal handlers that it sets are taken back."""
    handlers = [(number, signal.getsignal(number)) for number in HANDLED]
    capsys.readouterr()
    code = 0
    try:
        main(list(words))
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    return Called(code, *capsys.readouterr())
