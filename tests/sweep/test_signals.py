"""A signal stops a sweep once, and in the main thread."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from orchestrator.sweep import signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of these tests are gone after each."""
    before = {number: signal.getsignal(number) for number in signals.REASONS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signals._pending = None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_and_raised_again_where_it_was_swallowed(number: int) -> None:
    signals.listen()
    with pytest.raises(signals.REASONS[number]):
        os.kill(os.getpid(), number)
    with pytest.raises(signals.REASONS[number]):
        signals.check()
    assert signals.exit_code() == 128 + number


def test_a_machine_that_stops_us_twice_interrupts_the_stop_not_again() -> None:
    signals.listen()
    with pytest.raises(signals.HungUp):
        os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_nohup_is_respected() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    signals.check()


def test_what_starts_inside_ignores_a_hang_up_which_takes_effect_after() -> None:
    signals.listen()
    sleeper: list[subprocess.Popen[bytes]] = []
    with pytest.raises(signals.HungUp), signals.no_hang_up():  # noqa: PT012
        sleeper.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        os.kill(os.getpid(), signal.SIGHUP)
        sleeper[0].send_signal(signal.SIGHUP)
    sleeper[0].communicate(b"\n", timeout=60)
    assert sleeper[0].returncode == 0
