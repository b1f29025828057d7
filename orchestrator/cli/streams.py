"""Standard input, output and error that may be closed, break, or have an encoding without Unicode.

A sweep outlives its output. A command that only prints ends with it, as `cat` does.
"""

import codecs
import contextlib
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD = ("stdin", "stdout", "stderr")
"""Python's names of the descriptors 0, 1 and 2."""
SPELLINGS = {"±": "+-", "†": "^", "≤": "<=", "…": "...", "–": "-", "—": "-", "×": "x"}  # noqa: RUF001
"""Spellings in ASCII of what the commands print beyond it."""
_ERRORS = "isoflop.spelled"


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside the block standard output and error take any text, whatever happens to their readers.

    What an encoding lacks is spelt in ASCII. Once output cannot be written, a command ends: with
    the exit code 141 (128 + SIGPIPE) where its reader has gone, else with 1 and a line on standard
    error. After `outlive` it continues instead. Standard error is never a reason to end.
    """
    codecs.register_error(_ERRORS, _spelled)
    _open_missing()
    originals = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_guard(stream) for stream in originals)
    try:
        yield
    finally:
        try:
            sys.stderr.flush()
            sys.stdout.flush()
        finally:
            sys.stdout, sys.stderr = originals


def outlive(what: str) -> None:
    """From now on an output that breaks is one line on standard error; `what` continues."""
    if isinstance(sys.stdout, _Guarded):
        sys.stdout.sink.outlived_by = what


class _Guarded(io.TextIOWrapper):
    """A standard stream whose bytes go through a sink."""

    def __init__(self, stream: TextIO, sink: "_Sink") -> None:
        super().__init__(
            io.BufferedWriter(sink), encoding=stream.encoding, errors=_ERRORS, line_buffering=True
        )
        self.sink = sink


class _Sink(io.RawIOBase):
    """A descriptor; once it has failed, what is written to it vanishes."""

    def __init__(self, descriptor: int, outlived_by: str) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._broken = False
        self.outlived_by = outlived_by
        """What continues when the descriptor fails; empty where the command ends."""

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        """Write all of it; a failure is hidden from the caller."""
        while not self._broken:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another process on the terminal made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                self._broken = True
                self._report(error)
        return memoryview(data).nbytes

    def _report(self, error: OSError) -> None:
        gone = error.errno == errno.EPIPE
        if self is getattr(sys.stderr, "sink", None):
            return
        if self.outlived_by:
            reason = "has no reader any more" if gone else f"failed: {error.strerror}"
            print(f"isoflop: standard output {reason}; {self.outlived_by}", file=sys.stderr)
        elif gone:
            raise SystemExit(128 + signal.SIGPIPE)
        else:
            print(f"isoflop: standard output failed: {error.strerror}", file=sys.stderr)
            raise SystemExit(1)


def _guard(stream: TextIO) -> TextIO:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # a stream of a test's or a notebook's
        return stream
    stream.flush()
    return _Guarded(stream, _Sink(descriptor, ""))


def _open_missing() -> None:
    """Give descriptors that were closed the null device, before a file of the sweep takes them."""
    for descriptor, name in enumerate(STANDARD):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, os.O_RDWR)  # it takes the lowest free number, most often this
        os.set_inheritable(null, null == descriptor)
        setattr(sys, name, os.fdopen(null, "r" if name == "stdin" else "w"))


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Python's handler of characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(SPELLINGS.get(each) or _escaped(each) for each in characters), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()
