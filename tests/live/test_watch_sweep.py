"""A real sweep, watched by the command beside it: killed, resumed, and none the worse for it."""

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from faults import ROOT, Sweep, different
from ports import free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
SMALL = """
name: watched
data: digits
budgets: [0.3]
recipe: {epochs: 24, batch_size: 64}
resources: {concurrency: 2}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
search: {trials: 4}
confirm: {seeds: 2}
"""


class Reader:
    """Every state that a watch tells, as a browser's EventSource takes them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.states: list[dict[str, Any]] = []
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def until(self, what: str, timeout: float = 240) -> dict[str, Any]:
        """The first state from now on with this headline."""
        begin = max(0, len(self.states) - 1)
        with self._news:
            self._news.wait_for(lambda: self._first(what, begin) is not None, timeout)
        state = self._first(what, begin)
        assert state is not None, (what, [each["headline"] for each in self.states])
        return state

    def _first(self, what: str, begin: int) -> dict[str, Any] | None:
        return next((s for s in self.states[begin:] if s["headline"] == what), None)

    def _read(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("GET", "/events", headers={"Accept": "text/event-stream"})
        answer = connection.getresponse()
        while line := answer.readline():
            if line.startswith(b"data: "):
                with self._news:
                    self.states.append(json.loads(line[6:]))
                    self._news.notify_all()


def content(folder: Path) -> dict[str, str]:
    """A folder's files with their digests and dates."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        + str(path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def settled(folder: Path) -> dict[str, str]:
    """The same, once what the killed driver had started has written its last."""
    before: dict[str, str] = {}
    while (now := content(folder)) != before:
        before = now
        time.sleep(3)
    return now


def get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    return answer.read()


def test_a_sweep_that_is_watched_killed_and_resumed_is_the_sweep_it_would_be(
    tmp_path: Path,
) -> None:
    watched, alone = Sweep(tmp_path / "watched", SMALL), Sweep(tmp_path / "alone", SMALL)
    port = free_port()
    words = ["watch", str(watched.file), "--out", str(watched.out), "--port", str(port)]
    main = "from orchestrator.cli import main; main()"
    watch = subprocess.Popen(
        [sys.executable, "-c", main, *words, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert watch.stdout is not None
        assert watch.stdout.readline() == f"Watch:  http://127.0.0.1:{port}/\n"
        reader = Reader(port)
        assert "isoflop run watched" in reader.until("Waits to begin")["detail"]
        assert not watched.out.exists()
        watched.start()
        reader.until("Searching")
        watched.until("end")
        watched.kill()
        stopped = reader.until("Interrupted")
        assert stopped["running"] == []
        deadline = time.monotonic() + 60
        while not stopped["board"]:  # the log's last lines may be read after the driver's death
            assert time.monotonic() < deadline
            stopped = reader.until("Interrupted")
            time.sleep(0.1)
        assert stopped["board"] == 1
        before = settled(watched.folder)
        assert b"Interim: this board claims nothing" in get(port, "/board")
        get(port, "/")
        assert content(watched.folder) == before
        watched.start()
        reader.until("Confirming on fresh seeds")
        assert watched.wait() == 0, watched.printed()
        final = reader.until("Finished")
        assert (final["done"], final["planned"], final["final"]) == (6, 6, True)
        report = watched.folder / "report" / "report.html"
        assert get(port, "/report") == report.read_bytes()
        os.kill(watch.pid, signal.SIGINT)
        _, err = watch.communicate(timeout=30)
        assert (watch.returncode, err) == (0, "")
    finally:
        watch.kill()
        watch.communicate()
        watched.close()
    curves = [trial["curve"] for state in reader.states for trial in state["running"]]
    assert any(len(curve) > 1 for curve in curves), "no running trial had a curve"
    alone.start()
    assert alone.wait() == 0, alone.printed()
    assert different(watched.rows(), alone.rows()) == []
    left = {path.name for path in watched.folder.iterdir()}
    assert left == {path.name for path in alone.folder.iterdir()}, "the watch left a file"
