"""What was measured to be best on this machine, kept on disk so that it is measured once.

One small JSON file per question: any number of processes may share the
folder, and a file that is torn or answers another question is measured again.
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
"""What was measured, and where: whatever may change the answer, as JSON has it."""


class Choices:
    """Question -> the best of its options.

    Kept in `folder`: a user's cache, `$XDG_CACHE_HOME/isoflop/forms`, unless it is given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = _user_folder() if folder is None else folder
        self._made: dict[Path, str] = {}

    def recall(self, question: Question, options: Sequence[str]) -> str | None:
        """The option that was chosen, if this was ever measured among these options."""
        asked, path = self._place(question, options)
        if path in self._made:
            return self._made[path]
        try:
            told = json.loads(path.read_text())
            if told["question"] != asked or told["choice"] not in options:
                raise ValueError("it answers another question")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("measuring again, since %s cannot be used: %s", path, error)
            return None
        return self._made.setdefault(path, told["choice"])

    def keep(self, question: Question, choice: str, seconds: Mapping[str, float]) -> None:
        """Remember the best of the options and what each of them took; a full disk is no error."""
        asked, path = self._place(question, list(seconds))
        self._made[path] = choice
        told = {"question": asked, "choice": choice, "seconds": dict(seconds)}
        try:
            files.write(path, json.dumps(told, indent=1))
        except OSError as error:
            logger.warning("what was measured is not kept: %s", error)

    def _place(self, question: Question, options: Sequence[str]) -> tuple[dict[str, Any], Path]:
        """The question in full, and where its answer lies."""
        asked = {**question, "options": sorted(options)}
        digest = files.digest(json.dumps(asked, sort_keys=True))
        return asked, self.folder / f"{digest[:32]}.json"


def _user_folder() -> Path:
    home = Path(os.environ.get("HOME") or tempfile.gettempdir())
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "isoflop" / "forms"
