"""A cache on disk of the fastest options on this machine, so that each is measured once.

One small JSON file per question. Any number of processes may share the folder; a file that is torn
or answers another question is ignored and the measurement repeated.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from methods import files

logger = logging.getLogger(__name__)

Question = Mapping[str, Any]
"""The subject and the conditions of a measurement: all that may change the answer, as JSON."""


class Choices:
    """Maps a question to the best of its options.

    Files lie in `folder`, by default in the user's cache, `$XDG_CACHE_HOME/isoflop/forms`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = user_folder("forms") if folder is None else folder
        self._answers: dict[Path, str] = {}

    def recall(self, question: Question, options: Sequence[str]) -> str | None:
        """The best option, or None if these options were never measured against each other."""
        full_question, path = self._place(question, options)
        if path in self._answers:
            return self._answers[path]
        try:
            answer = json.loads(path.read_text())
            if answer["question"] != full_question or answer["choice"] not in options:
                raise ValueError("it belongs to another measurement")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("measuring again, since %s cannot be used: %s", path, error)
            return None
        return self._answers.setdefault(path, answer["choice"])

    def keep(self, question: Question, choice: str, seconds: Mapping[str, float]) -> None:
        """Store the best option and the seconds of each; a full disk is not an error."""
        full_question, path = self._place(question, list(seconds))
        self._answers[path] = choice
        answer = {"question": full_question, "choice": choice, "seconds": dict(seconds)}
        try:
            files.write(path, json.dumps(answer, indent=1))
        except OSError as error:
            logger.warning("the measurement could not be stored: %s", error)

    def _place(self, question: Question, options: Sequence[str]) -> tuple[dict[str, Any], Path]:
        """The question with its options, and the file of its answer."""
        full_question = {**question, "options": sorted(options)}
        digest = files.digest(json.dumps(full_question, sort_keys=True))
        return full_question, self.folder / f"{digest[:32]}.json"


def user_folder(name: str) -> Path:
    """Where what was measured on this machine is kept for this user, by what it is."""
    home = Path(os.environ.get("HOME") or tempfile.gettempdir())
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "isoflop" / name
