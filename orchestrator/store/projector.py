"""The projection in a separate process, so that MLflow takes no time from the driver.

The driver writes lines to it: first the store's URI in JSON, which may hold a password and so is no
argument, then words (`flush`, `stop`). The process answers with lines of JSON: the offset that it
has reached, and log messages. Its input ends when the driver dies, however that happens, and the
process ends with it.

It is no `multiprocessing` process: a spawned one imports the user's script again, which fails where
the script has no `if __name__ == "__main__"`, and takes the user's working folder as its own path.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

import orchestrator
from orchestrator.record.address import Address
from orchestrator.store.mirror import Projection

logger = logging.getLogger(__name__)

EVERY = 3.0
"""Seconds between two reads of the log; writing many epochs costs as much as writing one, and a
trial that runs at such a moment is written apart from those that ended."""
SERVE = """
import signal
for number in (signal.SIGTERM, signal.SIGHUP):  # sent to all below a driver; it says when to stop
    signal.signal(number, signal.SIG_IGN)
from orchestrator.store.projector import serve
serve()
"""


class Projector:
    """Copies the log into MLflow in the background; an unreachable server is tried again.

    Events that the store refuses for good are written to `mlflow-refused.jsonl` beside the log.
    """

    def __init__(self, log: Path, uri: str, study: str) -> None:
        self._log = log
        self._uri = uri
        self._command = [sys.executable, "-P", "-c", SERVE, str(log), study]
        self._offset = 0
        self._moved = threading.Condition()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep, name="projector", daemon=True)
        self.refused = 0
        """Number of events that the store refused for good."""

    @property
    def pid(self) -> int | None:
        """Identifier of the running process, or None."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Begins with the events that the log already holds."""
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Whether the store has all that the log holds now, within `timeout` seconds."""
        goal = self._log.stat().st_size
        self._send("flush")
        with self._moved:
            return self._moved.wait_for(lambda: self._offset >= goal, timeout)

    def stop(self, timeout: float = 30.0) -> None:
        """Ends the process; runs of interrupted trials are marked as killed until they resume.

        A write that takes longer than `timeout` seconds is left to the next run.
        """
        self._stopping.set()
        self._send("stop")
        if self._thread.is_alive() and not self._ended.wait(timeout):
            logger.warning("MLflow has not finished a write; the next run finishes it")
            if self._process is not None:
                self._process.kill()

    def _keep(self) -> None:
        """Starts the process, reads its answers, and starts it again if it died."""
        pause = 0.5
        while not self._stopping.is_set():
            offset = self._offset
            started = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=_environment(),
                process_group=0,  # the driver answers a Ctrl-C
            )
            # to close its input is to write once more what a process that died did not read
            with contextlib.suppress(BrokenPipeError), started as process:
                _send(process, json.dumps(self._uri))
                self._process = process
                if self._stopping.is_set():
                    self._send("stop")
                self._read(process)
            code = started.returncode
            if not self._stopping.is_set():
                logger.warning(
                    "the projection to MLflow died (%d); it starts again in %.3g s", code, pause
                )
                self._stopping.wait(pause)
                pause = 0.5 if self._offset > offset else min(2 * pause, 30.0)
        self._ended.set()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            try:
                answer = json.loads(line)
            except json.JSONDecodeError:  # cut short by a kill, or printed by a library
                continue
            if "message" in answer:
                logger.log(answer["level"], "%s", answer["message"])
                continue
            with self._moved:
                self._offset, self.refused = answer["offset"], answer["refused"]
                self._moved.notify_all()

    def _send(self, word: str) -> None:
        if self._process is not None:
            _send(self._process, word)


def _send(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None, "it is a pipe"
    try:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    except (OSError, ValueError):  # it died; it is started again, or was to end anyway
        logger.debug("the projection to MLflow does not read its input")


def _environment() -> dict[str, str]:
    """The driver's environment, with this isoflop ahead of any other module of its name.

    `-P` keeps the user's working folder, and any `methods.py` in it, off the path.
    """
    home = str(Path(orchestrator.__file__).parents[1])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (home, path)))}


class _ToDriver(logging.Handler):
    """Sends log records to the driver, which logs them as its own; none holds a password."""

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address

    def emit(self, record: logging.LogRecord) -> None:
        message = self._address.redact(record.getMessage().partition("\n")[0])
        _answer({"level": record.levelno, "message": message})


class _Words:
    """Words from the driver; when the input ends, so does this process."""

    def __init__(self, source: IO[str]) -> None:
        self._source = source
        self.wake = threading.Event()
        self.stop = threading.Event()
        threading.Thread(target=self._listen, name="words", daemon=True).start()

    def _listen(self) -> None:
        for word in self._source:
            if word.strip() == "stop":
                self.stop.set()
            self.wake.set()
        if not self.stop.is_set():
            os._exit(0)  # like a kill; the next projection finishes what this one leaves


def serve() -> None:
    """Runs the process; its arguments are the log and the study, its first line the store's URI."""
    log, study, line = Path(sys.argv[1]), sys.argv[2], sys.stdin.readline()
    if not line:
        return  # the driver died
    uri: str = json.loads(line)
    logging.getLogger().addHandler(_ToDriver(Address(uri)))
    os.nice(10)  # the sweep has priority; the rest is written at its end
    words = _Words(sys.stdin)
    with FileLock(log.with_name("mlflow.lock")):  # a process that lost its driver may still write
        follow(Projection(log, uri, study), words)
    sys.stdout.flush()
    os._exit(0)  # the driver waits, and the interpreter's normal exit is slow


def follow(projection: Projection, words: _Words) -> None:
    """Projects new events of the log until the driver asks to stop."""
    pause = 0.5
    while not words.stop.is_set():
        try:
            projection.advance()
        except Exception as error:  # nothing that MLflow does may stop the sweep
            logger.warning(
                "MLflow did not accept a write; it is tried again in %.3g s: %s", pause, error
            )
            projection.forget()
            words.stop.wait(pause)
            pause = min(2 * pause, 30.0)
        else:
            pause = 0.5
            _answer({"offset": projection.offset, "refused": len(projection.refused)})
            words.wake.wait(EVERY)
            words.wake.clear()
    try:
        projection.mark_interrupted()
    except Exception as error:
        reason = str(error).partition("\n")[0]
        logger.warning("MLflow does not show which trials are interrupted: %s", reason)


def _answer(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()
