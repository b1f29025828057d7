"""Output that is closed, breaks, or has an encoding without Unicode."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import ROOT

from orchestrator.cli import streams

PRINTS = """
import sys
from orchestrator.cli import streams
with streams.guarded():
    {before}
    for number in range(20000):
        print({text!r}, number)
    print("end", file=sys.stderr)
"""


def printed(
    before: str = "pass", text: str = "line", **options: object
) -> "subprocess.Popen[bytes]":
    code = PRINTS.format(before=before, text=text)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("before", "code", "says"),
    [
        ("pass", 141, b""),
        (
            "streams.outlive('the sweep continues')",
            0,
            b"isoflop: standard output has no reader any more; the sweep continues\nend\n",
        ),
    ],
)
def test_a_reader_that_goes_away_ends_what_prints_and_no_sweep(
    before: str, code: int, says: bytes
) -> None:
    process = printed(before, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == says
    process.stderr.close()
    assert process.wait(60) == code


def test_a_full_disk_below_the_output_is_a_line() -> None:
    with Path("/dev/full").open("wb") as full:
        process = printed(stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == b"isoflop: standard output failed: No space left on device\n"


def test_errors_that_nobody_reads_are_no_reason_to_end() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = printed("print('x' * 9999, file=sys.stderr)", stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.endswith(b"line 19999\n")


def test_text_comes_out_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    text = "± 3 ≤ é \udcff €"
    process = printed(text=text, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.splitlines()[0] == rb"+- 3 <= \xe9 \udcff \u20ac 0"


def test_a_name_that_is_no_text_comes_out_in_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    output, _ = printed(text="é \udcff", stdout=subprocess.PIPE).communicate(timeout=60)
    assert output.splitlines()[0] == "é \\udcff 0".encode()


CLOSED = """
import os, sys
from orchestrator.cli import streams
with streams.guarded():
    print("nowhere", sys.stdin.read())
    held = open({path!r}, "w")
    held.write("mine")
    held.flush()
    os.write(1, b"a library's words")
    sys.exit(7 if held.fileno() < 3 else 0)
"""


def test_files_do_not_take_the_place_of_closed_streams(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def close() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    code = CLOSED.format(path=str(path))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, preexec_fn=close, check=False)
    assert done.returncode == 0
    assert path.read_text() == "mine"


def test_a_stream_without_a_descriptor_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    with streams.guarded():
        assert sys.stdout is output
        streams.outlive("the sweep continues")
