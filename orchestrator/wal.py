"""The write-ahead log of a study: one JSON object a line, one writer, any number of readers."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LASTING = ("study", "start", "end")
"""Events that must outlive a power cut before anything follows from them."""


class Log:
    """The writer; a last line that a kill has torn is cut off at opening."""

    def __init__(self, path: Path) -> None:
        cut_torn_line(path)
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def append(self, event: Mapping[str, Any]) -> None:
        """One event, in the hands of the system when this returns."""
        self._file.write(json.dumps(event, sort_keys=True) + "\n")
        self._file.flush()
        if event["event"] in LASTING:
            os.fsync(self._file.fileno())

    def events(self) -> Iterator[dict[str, Any]]:
        """Everything that was ever appended, in order."""
        yield from read(self._path)[0]

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The complete lines from `offset` on, and the offset behind them."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], offset + len(whole)


def cut_torn_line(path: Path) -> None:
    """Cut off what stands behind the last newline: a line that was not written to its end."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
