"""Ports for servers that a test starts, ends, and starts again."""

import random
import socket

PORTS = range(20_000, 32_000)
"""Where neither the system nor Ray takes ports for others."""


def free_port() -> int:
    """A port of this machine that nobody listens on, and that nobody is given by chance."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port among {PORTS}")
