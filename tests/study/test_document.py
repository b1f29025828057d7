"""A study file is YAML 1.2: a value means one thing, and a mistake names its line."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.errors import StudyError
from orchestrator.study.document import LARGEST, is_text, parsed, read, scalar
from orchestrator.study.places import Places


def fields(tmp_path: Path, text: str | bytes) -> dict[str, object]:
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return dict(read(path, "a study file", StudyError).fields)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, text) for text in ("yes", "No", "on", "OFF", "y", "1:30", "190:20:30", "1_000")),
        *((text, text) for text in ("2026-11-28", "0b11", "1e", "e3", "0x", "1.2.3", "a b")),
        *((text, None) for text in ("~", "null", "NULL", "")),
        *((text, True) for text in ("true", "True", "TRUE")),
        ("false", False),
        *(("0o17", 15), ("0xfF", 255), ("-3", -3), ("+7", 7), ("0", 0), ("-0", 0)),
        *(("1e-3", 0.001), ("1E3", 1000.0), (".5", 0.5), ("2.", 2.0), ("-1.5e+2", -150.0)),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says(text: str, value: object) -> None:
    assert (scalar(text), type(scalar(text))) == (value, type(value))


@pytest.mark.parametrize("text", ["010", "-007", "00", ".inf", "-.INF", ".nan", "1e999", "9" * 41])
def test_a_number_of_two_meanings_or_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a number must"):
        scalar(text)
    assert not is_text(text)


@given(st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False))
def test_python_s_numbers_are_read_back(number: float) -> None:
    assert parsed(repr(number)) == number


def test_what_people_write_is_read(tmp_path: Path) -> None:
    merged = (
        "base: &b {lr: 1e-3, epochs: 2}\nrecipe:\n  <<: *b\n  epochs: 4\n"
        "list: [*b, 'yes', !!str 3]\n"
    )
    base = {"lr": 0.001, "epochs": 2}
    expected = {"base": base, "recipe": {"lr": 0.001, "epochs": 4}, "list": [base, "yes", "3"]}
    assert fields(tmp_path, merged) == expected
    assert fields(tmp_path, merged.replace("\n", "\r\n")) == expected
    assert fields(tmp_path, b"\xef\xbb\xbf" + merged.encode()) == expected
    assert fields(tmp_path, '{"a":1,"b":{"c":[true,null,"\\u00e9\\/"]}}') == {
        "a": 1,
        "b": {"c": [True, None, "é/"]},
    }


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (
            "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n",
            5,
            "b.c must appear once, but appears twice, in lines 3 and 5",
        ),
        ("a: {b: 1, 'b': 2}", 1, "twice, in line 1"),
        ("a: 1\nb: &x [1, *x]\n", 2, "*x must not be inside the value that &x names"),
        ("a: &x\n  b: &y\n    c: *x\n", 3, "*x must not be inside"),
        ("a: *y\n", 1, "nothing has that name"),
        ("a:\n" + "".join(" " * n + "b:\n" for n in range(1, 40)), 18, "at most 16 deep"),
        ("a: 1\nb: " + "[" * 2500 + "]" * 2500, 2, "at most 16 deep"),
        ("a: 1\nb: " + '{"a":' * 2500 + "1" + "}" * 2500, 2, "at most 16 deep"),
        ("a: 1\nseed: 0755\n", 2, "write 755"),
        ("a: 1\n---\nb: 2\n", 2, "must be one document"),
        ("%YAML 1.1\n---\na: yes\n", 1, "declares another version"),
        ("a: !!python/object:os.system x", 1, "delete it"),
        ("a: !!int '3'", 1, "the tag tag:yaml.org,2002:int"),
        ("a: !mine {b: 1}", 1, "the tag !mine"),
        ("? [a, b]\n: 1", 1, "a field's name must be a word"),
        (f"{'k' * 300}: 1", 1, "a field's name must be a word"),
        ("<<: 3", 1, "must name fields to take over"),
        ("a: 1\nb: [1, 2\nc: 3\n", 2, "a closing ]"),
        ("a:\n\t- 1\n", 2, "write spaces"),
        ("a: b: c\n", 1, "quote the value"),
        ("a: 1\n b: 2\n", 2, "quote the value"),
        ("a: 'x\n", 1, "a quote must be closed"),
        ("a: @x\n", 1, "put the value in quotes"),
        ('a: "\\0"', 1, "no control characters"),
        ('a: "\\ud800"', 1, "no control characters"),
        ('a: "\\U00110000"', 1, "must be YAML"),
        ("a: 1\nb: \x07\n", 2, "the character '\\x07'"),
        ("- 1\n- 2\n", 1, "holds a list"),
        ("just text\n", 1, "holds a value"),
        ("# nothing\n", 1, "holds nothing"),
        ("a: [" + "1, " * 30000 + "1]", 1, "at most 20,000 values"),
    ],
)
def test_a_mistake_names_its_line(tmp_path: Path, text: str, line: int, sentence: str) -> None:
    with pytest.raises(StudyError) as caught:
        fields(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.yaml'}:{line}: ")
    assert sentence in message
    assert "\n" not in message
    assert len(message) < 500


def test_what_aliases_repeat_is_bounded_in_time_and_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 30)]
    began = time.process_time()
    with pytest.raises(StudyError, match=r"a.yaml:5: must hold at most 20,000 values"):
        fields(tmp_path, "\n".join(lines))
    assert time.process_time() - began < 10


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    with pytest.raises(StudyError, match="save it as UTF-8"):
        fields(tmp_path, f"{mark}# Größe\nname: x\n".encode(encoding))


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (Path("/dev/zero"), f"at most {LARGEST // 1024} KiB"),
        (Path("/"), "is a folder"),
        (Path("n" * 5000), "File name too long"),
        (Path("nowhere"), "there is none at nowhere"),
        (Path("a\0b"), "null byte"),
    ],
)
def test_what_is_no_file_of_text_is_refused(path: Path, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence) as caught:
        read(path, "a study file", StudyError)
    assert len(str(caught.value)) < 600


def test_a_value_without_a_line_has_that_of_what_it_lies_in() -> None:
    places = Places("f", {(): 1, ("a",): 3})
    assert places.prefix(("a", "b", 0)) == "f:3: "
    assert places.prefix(("c",)) == "f:1: "
    assert Places().prefix(("a",)) == ""
