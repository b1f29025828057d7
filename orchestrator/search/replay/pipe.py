"""A question to a searcher in a process of its own, which is killed where it does not answer."""

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from methods.errors import SearcherError

SERVER = Path(__file__).with_name("serve.py")
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""What JSON holds."""


class Pipe:
    """A process that serves the searcher at a place.

    It is the leader of a process group, so that nothing that the searcher starts is left behind.
    """

    def __init__(
        self, name: str, place: str, *, python: str, folder: Path, patience: float
    ) -> None:
        """Start the process, in which nothing is imported yet.

        Raises:
            SearcherError: the interpreter cannot be started.
        """
        self._name = name
        self._patience = patience
        self._read = b""
        self._open = True
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        try:
            self._process = subprocess.Popen(
                [python, str(SERVER), place, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,
                env={"PYTHONHASHSEED": "0", **os.environ},  # a class may depend on a set's order
            )
        except OSError as error:
            self._said.close()
            raise SearcherError(
                f"{name} must be run by a Python interpreter, but {python} cannot be started: "
                f"{error.strerror}"
            ) from None

    def ask(self, do: str, session: str = "", content: Mapping[str, Plain] | None = None) -> Plain:
        """The answer to one question.

        Raises:
            SearcherError: the searcher raised, ended or did not answer in time; it is ended.
        """
        question = {"do": do, "session": session, "with": dict(content or {})}
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the reason is told below
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        at = f" in {do}" + (f" for {session}" if session else "")
        reply = json.loads(self._line(at))
        if "answer" in reply:
            answer: Plain = reply["answer"]
            return answer
        self.close()
        if "unusable" in reply:
            raise SearcherError(f"the searcher {self._name} {reply['unusable']}")
        raise SearcherError(f"the searcher {self._name} must not raise, but{at} {reply['raised']}")

    def close(self) -> None:
        """End the process, and all that it started."""
        if not self._open:
            return
        self._open = False
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _line(self, at: str) -> bytes:
        assert self._process.stdout is not None
        file, end = self._process.stdout.fileno(), time.monotonic() + self._patience
        while b"\n" not in self._read:
            if not select.select([file], [], [], max(0.0, end - time.monotonic()))[0]:
                self.close()
                raise SearcherError(
                    f"the searcher {self._name} must answer within {self._patience:g} seconds, "
                    f"but did not{at}; --patience gives it more"
                )
            piece = os.read(file, 2**16)
            if not piece:
                raise self._ended(at)
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _ended(self, at: str) -> SearcherError:
        try:
            code: int | None = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
        self.close()
        if code is None:
            return SearcherError(f"the searcher {self._name} must answer, but closed its pipe{at}")
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return SearcherError(
            f"the process of the searcher {self._name} must not end by itself, but did{at}, {how}"
            + (f": {last[:300]}" if last else "")
        )
