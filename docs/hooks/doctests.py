"""Examples in docstrings, which start with `>>>`, as code blocks of the API reference."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?m)^>>> .*(?:\n(?!\s*$).+)*")


class Doctests(griffe.Extension):
    """Fences each example; mkdocstrings loads this class by the path of the file."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = EXAMPLE.sub(_fenced, obj.docstring.value)
            obj.docstring.value = text.replace("  # doctest: +SKIP", "")


def _fenced(example: re.Match[str]) -> str:
    return f"```pycon\n{example[0]}\n```"
