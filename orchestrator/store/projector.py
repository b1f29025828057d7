"""The projection in a process of its own, so that MLflow takes no time of the driver's.

The driver writes words to it (`flush`, `stop`), it answers with lines of JSON: how far it is, and
what it has to say. It ends with its driver: its input ends then, however the driver died.
"""

import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import orchestrator
from orchestrator.store.mirror import Projection

logger = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two looks at the log: a write of many epochs costs what a write of one does."""
SERVE = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ctrl-C; Ray says it to all below a driver
from orchestrator.store.projector import serve
serve()
"""


class Projector:
    """Follows the log into MLflow in the background; a server that is away is tried again.

    What the store refuses for good goes to `mlflow-refused.jsonl` beside the log.
    """

    def __init__(self, log: Path, uri: str, study: str) -> None:
        self._log = log
        self._command = [sys.executable, "-c", SERVE, str(log), uri, study]
        self._offset = 0
        self._moved = threading.Condition()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep, name="projector", daemon=True)
        self.refused = 0
        """How many events the store refused for good."""

    @property
    def pid(self) -> int | None:
        """The process, where one runs."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Begin, with all that the log holds already."""
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Whether all that the log holds now reached the store within `timeout` seconds."""
        goal = self._log.stat().st_size
        self._say("flush")
        with self._moved:
            return self._moved.wait_for(lambda: self._offset >= goal, timeout)

    def stop(self, timeout: float = 30.0) -> None:
        """End; runs of interrupted trials are marked as killed until they go on.

        What takes longer than `timeout` seconds is left to the next run.
        """
        self._stopping.set()
        self._say("stop")
        if self._thread.is_alive() and not self._ended.wait(timeout):
            logger.warning("MLflow still takes a write; the next run finishes what it leaves open")
            if self._process is not None:
                self._process.kill()

    def _keep(self) -> None:
        """Start the process, hear it out, and start it again if it died."""
        pause = 0.5
        while not self._stopping.is_set():
            before = self._offset
            with subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=_environment(),
                process_group=0,  # a Ctrl-C is the driver's to answer
            ) as self._process:
                if self._stopping.is_set():
                    self._say("stop")
                self._hear(self._process)
            code = self._process.returncode
            if not self._stopping.is_set():
                logger.warning("the projection to MLflow died (%d), again in %.3g s", code, pause)
                self._stopping.wait(pause)
                pause = 0.5 if self._offset > before else min(2 * pause, 30.0)
        self._ended.set()

    def _hear(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            try:
                told = json.loads(line)
            except json.JSONDecodeError:  # torn by a kill, or some library's own print
                continue
            if "message" in told:
                logger.log(told["level"], "%s", told["message"])
                continue
            with self._moved:
                self._offset, self.refused = told["offset"], told["refused"]
                self._moved.notify_all()

    def _say(self, word: str) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
        except (OSError, ValueError):  # it died; it is started again, or was to end anyway
            logger.debug("the projection to MLflow hears no more")


def _environment() -> dict[str, str]:
    """The driver's own, in which isoflop is found wherever it lies."""
    home = str(Path(orchestrator.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (home, known)))}


class _Told(logging.Handler):
    """Log records as lines for the driver."""

    def emit(self, record: logging.LogRecord) -> None:
        _tell({"level": record.levelno, "message": record.getMessage().partition("\n")[0]})


class _Words:
    """What the driver says; when it says no more, this process ends."""

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
            os._exit(0)  # as a kill would: the next projection finishes what this one leaves


def serve() -> None:
    """The process: its log, store and study are its arguments."""
    log, uri, study = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    logging.getLogger().addHandler(_Told())
    os.nice(10)  # the sweep goes first; what is late is written at its end
    words = _Words(sys.stdin)
    with log.with_name("mlflow.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one that lost its driver may be at its last write
        follow(Projection(log, uri, study), words)
    sys.stdout.flush()
    os._exit(0)  # the driver waits for it, and an interpreter's own end takes its time


def follow(projection: Projection, words: _Words) -> None:
    """Project what the log gains until the driver says to stop."""
    pause = 0.5
    while not words.stop.is_set():
        try:
            projection.advance()
        except Exception as error:  # nothing that MLflow does may stop the sweep
            logger.warning("MLflow did not take a write, again in %.3g s: %s", pause, error)
            projection.forget()
            words.stop.wait(pause)
            pause = min(2 * pause, 30.0)
        else:
            pause = 0.5
            _tell({"offset": projection.offset, "refused": len(projection.refused)})
            words.wake.wait(EVERY)
            words.wake.clear()
    try:
        projection.mark_interrupted()
    except Exception as error:
        reason = str(error).partition("\n")[0]
        logger.warning("MLflow was not told which trials are interrupted: %s", reason)


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
