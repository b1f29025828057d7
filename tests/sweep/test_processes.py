"""One sweep whose terminal, output, clock and worker fail: no trial is blamed, nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import FILE, ROOT, WORKER, Sweep, below, clean, nothing_lost

from methods.files import write

MINUTES = 0.3
"""Longer than any epoch of the sweep takes, on a busy machine too."""
JUMPING = """
import time
from pathlib import Path
file, real, state = Path(__file__).with_name("hours"), time.time_ns, [0.0, 0]
def jumped():
    if time.monotonic() - state[0] > 0.5:
        state[:] = time.monotonic(), int(file.read_text())
    return real() + state[1] * 3600 * 10**9
time.time_ns = jumped
time.time = lambda: jumped() / 1e9
"""
"""What each Python process of the sweep imports first: a clock that jumps when a file says so."""


class Piped(Sweep):
    """The command before a pipe whose reader leaves after a line, without input or Unicode."""

    def start(self) -> None:
        clock = self.file.parent / "clock"
        clock.mkdir(exist_ok=True)
        (clock / "sitecustomize.py").write_text(JUMPING)
        self.jump(0)
        surroundings = {"PYTHONIOENCODING": "ascii", "TERM": "dumb", "COLUMNS": "40"}
        command = [sys.executable, "-c", self._main, "run", str(self.file), "--out", str(self.out)]
        with self.output.open("ab") as errors:
            self._process = subprocess.Popen(
                ["sh", "-c", 'exec "$@" <&-', "sh", *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                start_new_session=True,
                env={**os.environ, **surroundings, "PYTHONPATH": str(clock)},
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith(b"Study tiny on digits")
        self._process.stdout.close()

    def jump(self, hours: int) -> None:
        """The wall clock is now wrong by so much."""
        write(self.file.parent / "clock" / "hours", str(hours))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_outlives_what_surrounds_it(tmp_path: Path) -> None:
    text = FILE + f"resources: {{concurrency: 1, timeout: {MINUTES}}}\n"
    sweep = Piped(tmp_path, text, before="from orchestrator.sweep import tune; tune.SILENCE = 0\n")
    try:
        sweep.start()
        close_the_terminal(sweep)
        sweep.start()
        freeze_the_worker(sweep)
        assert sweep.wait(600) == 0, sweep.printed()
        reasons = [event["reason"] for event in sweep.events() if event["event"] == "lost"]
        assert len(reasons) == 1
        assert reasons[0].startswith("its worker gave no sign for 0."), reasons
        assert {row.state for row in sweep.rows()} == {"COMPLETE"}
        nothing_lost(sweep, f"sqlite:///{sweep.out / 'mlflow.db'}")
    finally:
        sweep.close()
    clean(sweep.printed())
    assert sweep.printed().count("standard output has no reader any more; the sweep continues") == 2


def close_the_terminal(sweep: Piped) -> None:
    """All of its processes hear that; the driver stops, and no worker dies of it."""
    sweep.until("epoch", 1, 400)
    sweep.jump(1)
    sweep.until("epoch", 3, 400)
    while sweep.events()[-1]["event"] != "start":
        assert sweep.code is None, sweep.printed()
        time.sleep(0.02)
    os.killpg(sweep.pid, signal.SIGHUP)
    assert sweep.wait(120) == 128 + signal.SIGHUP, sweep.printed()
    assert sweep.events()[-1]["event"] == "paused"
    assert not [event for event in sweep.events() if event["event"] == "lost"]


def freeze_the_worker(sweep: Piped) -> None:
    """As a disk does that hangs, or SIGSTOP."""
    sweep.until("epoch", 1 + sum(e["event"] == "epoch" for e in sweep.events()), 400)
    workers: list[int] = []
    while not workers:
        assert sweep.code is None, sweep.printed()
        workers = below(sweep.pid, WORKER)
        time.sleep(0.02)
    os.kill(workers[0], signal.SIGSTOP)
    sweep.jump(-1)
