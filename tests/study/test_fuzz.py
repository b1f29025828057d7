"""Whatever a study file holds, the reader ends in a study or in an error of one line."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from methods.errors import IsoflopError
from orchestrator.study.file import load
from orchestrator.study.space import spaces

STUDIES = sorted((Path(__file__).parents[2] / "studies").rglob("*.yaml"))
TEXTS = [path.read_text() for path in STUDIES]
WORDS = re.compile(r"[\w.+-]+|[^\w\s]|\n *")
"""Pieces of a study: words and numbers, marks, and line ends with their indentation."""
ODD = [
    *("", " ", "\n", "\n  ", "\t", ":", ": ", "- ", "?", "|", ">", "%", "@", "`", "!", "#", "---"),
    *("{", "}", "[", "]", "{}", "[]", "[[", "{a: {b: ", "&a ", "*a", "&a [*a]", "<<: *a", "!!str "),
    *("!!python/name:os.system ", "!!binary x", "!!timestamp 2001-01-01", "'", '"', '"\\x00"'),
    *('"\\ud800"', "\x00", "\x7f", "\ufeff", "\u2028", "\u0085", "é", "😀", "~", "null", "yes"),
    *("no", "on", "true", "false", "010", "0x10", "0o17", "1:30", "1_000", "1e3", "1e999", "-1"),
    *("0", "-0.0", ".inf", "-.inf", ".nan", "1e-320", "9" * 39, "9" * 5000, "0." + "1" * 500),
    *("low", "high", "step", "choices", "log", "method", "dense", "resnet", "recipe", "name"),
    *("methods", "budgets", "search", "points", "from", "x" * 300, "step: 0", "2026-11-28"),
]
"""What people and tools write where something else should stand."""


@st.composite
def studies(draw: st.DrawFn) -> bytes:
    """A shipped study with some of its pieces replaced, left out, doubled or swapped."""
    pieces = WORDS.findall(draw(st.sampled_from(TEXTS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(pieces) - 1))
        other = draw(st.sampled_from(ODD) | st.text(max_size=8) | st.sampled_from(pieces))
        change = draw(st.sampled_from(("replace", "insert", "delete", "double", "swap", "cut")))
        if change == "replace":
            pieces[place] = other
        elif change == "insert":
            pieces.insert(place, f" {other} ")
        elif change == "delete" and len(pieces) > 1:
            del pieces[place]
        elif change == "double":
            pieces[place:place] = pieces[place : place + draw(st.integers(1, 20))]
        elif change == "swap":
            last = pieces.pop()
            pieces.insert(place, last)
        elif change == "cut":
            pieces = pieces[: place + 1]
    text = " ".join(pieces) if draw(st.booleans()) else _joined(pieces)
    content = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.binary(max_size=4)) + content[place:]
    return content


def _joined(pieces: list[str]) -> str:
    """Pieces with the spaces that YAML needs, so that most of what they hold is read."""
    text = ""
    for piece in pieces:
        text += piece + (" " if piece in (":", ",") else "")
    return text


def check(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        study = load(path)
        spaces(study)
        assert re.fullmatch("[0-9a-f]{12}", study.hash)
    except IsoflopError as error:
        message = str(error)
        assert "\n" not in message, message
        assert len(message) < 2000, message
        assert "Input should" not in message, message


def fuzzed(examples: int) -> Callable[..., None]:
    @settings(
        max_examples=examples,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(content=studies())
    def test(tmp_path: Path, content: bytes) -> None:
        check(tmp_path / "a.yaml", content)

    return test


test_a_mutated_study_is_read_or_refused = fuzzed(200)
test_ten_thousand_mutated_studies_are_read_or_refused = pytest.mark.timeout(3000)(
    pytest.mark.full(fuzzed(10_000))
)
