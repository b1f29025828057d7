"""What a report was drawn from, so that the same report is not drawn again."""

import functools
import importlib.metadata
import json
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import orchestrator
from methods import files
from methods.files import UNFINISHED, digest
from orchestrator.record.provenance import encode_provenance
from orchestrator.record.rows import Row
from orchestrator.report.content import Report
from orchestrator.study.file import Study

CODE = ("board", "record", "report", "study")
"""The rooms on which a report depends, beside its sources."""
VALUES = attrgetter(*(field.name for field in fields(Row) if field.name != "params"))
"""All of a row but its parameters, whose order means nothing."""
LIBRARIES = ("matplotlib", "jinja2", "numpy", "scipy", "pandas", "pyarrow", "optuna", "moocore")
"""The libraries on which its files depend."""


class Stamp:
    """A file that says from what the files of a report were drawn, and what they hold."""

    def __init__(self, file: Path, sources: str) -> None:
        self._file = file
        self._sources = sources

    def holds(self, folder: Path) -> bool:
        """Whether the folder has the report of these sources, each file as it was written."""
        try:
            stamp = json.loads(self._file.read_text())
            drawn = stamp["files"]
            return bool(stamp["sources"] == self._sources and drawn and drawn == _digests(folder))
        except (OSError, ValueError, KeyError, TypeError):  # it was never drawn, or is damaged
            return False

    def put(self, folder: Path) -> None:
        """Notes that the folder has it now."""
        stamp = {"sources": self._sources, "files": _digests(folder)}
        files.write(self._file, json.dumps(stamp, indent=1))


def sources(study: Study, report: Report) -> str:
    """SHA-256 of all that a report is drawn from, the code included."""
    parts = (
        _code(),
        study.model_dump_json(),
        json.dumps(encode_provenance(report.provenance), sort_keys=True, default=str),
        report.board.rules,
        sorted(repr((VALUES(row), sorted(row.params.items()))) for row in report.rows),
        sorted((trial, list(curve)) for trial, curve in report.curves.items()),
        sorted(report.images),  # a row has the digest of what its file holds
        list(report.times),
    )
    return digest(repr(parts))


@functools.cache
def _code() -> str:
    here = Path(orchestrator.__file__).parent
    code = [file for room in CODE for file in sorted((here / room).rglob("*.*"))]
    text = [digest(file.read_bytes()) for file in code if file.suffix != ".pyc"]
    return digest(" ".join([*text, *(importlib.metadata.version(each) for each in LIBRARIES)]))


def _digests(folder: Path) -> dict[str, str]:
    """By name: what the files of a folder hold."""
    return {
        file.name: digest(file.read_bytes())
        for file in sorted(folder.iterdir())
        if file.is_file() and not file.match(UNFINISHED)
    }
