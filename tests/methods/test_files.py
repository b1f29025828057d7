"""A file is whole or absent, whoever writes it at once and whatever goes wrong."""

import errno
import hashlib
import multiprocessing
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults import mounted
from hypothesis import given
from hypothesis import strategies as st

from methods import files


@given(content=st.binary() | st.text())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes | str):
    path = tmp_path_factory.mktemp("files") / "new" / "folder" / "file.bin"
    raw = content.encode() if isinstance(content, str) else content
    files.write(path, content)
    assert path.read_bytes() == raw
    files.write(path, lambda file: file.write(raw + b"!"))
    assert path.read_bytes() == raw + b"!"
    assert list(path.parent.iterdir()) == [path]
    assert files.digest(content) == hashlib.sha256(raw).hexdigest()


def test_the_file_that_is_replaced_takes_another_name(tmp_path: Path):
    path, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    files.write(path, "1", previous=previous)
    assert not previous.exists()
    for former, latter in (("1", "2"), ("2", "3")):
        files.write(path, latter, previous=previous)
        assert (previous.read_text(), path.read_text()) == (former, latter)
    assert sorted(tmp_path.iterdir()) == [path, previous]


def test_a_writer_that_fails_changes_nothing(tmp_path: Path):
    path = tmp_path / "file"
    files.write(path, "before")
    with pytest.raises(ZeroDivisionError):
        files.write(path, lambda file: file.write(bytes(1 // 0)), previous=tmp_path / "previous")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "before"


def test_a_full_disk_says_so_and_changes_nothing(tmp_path: Path):
    with mounted(tmp_path / "small", "64k") as folder:
        path = folder / "file"
        files.write(path, "before")
        for content in (bytes(1 << 17), lambda file: file.write(bytes(1 << 17))):
            with pytest.raises(OSError, match="No space left") as caught:
                files.write(path, content, previous=folder / "previous")
            assert caught.value.errno == errno.ENOSPC
            assert caught.value.errno in files.NO_ROOM
            assert list(folder.iterdir()) == [path]
            assert path.read_text() == "before"
        files.write(path, bytes(1 << 15))


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        files.write(tmp_path / "file" / "inside", "text")


LENGTH = 1 << 16


def _write_often(path: Path, letter: str) -> None:
    for _ in range(50):
        files.write(path, letter * LENGTH)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_writers_at_once_leave_one_whole_file(tmp_path: Path, kind: str):
    path = tmp_path / "file"
    if kind == "threads":
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(_write_often, [path] * 4, "abcd"))
    else:
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        workers = [context.Process(target=_write_often, args=(path, letter)) for letter in "abcd"]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            if path.exists():
                content = path.read_text()
                assert content in {letter * LENGTH for letter in "abcd"}
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
    assert path.read_text() in {letter * LENGTH for letter in "abcd"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_while_it_is_written_leaves_the_file_as_it_was(tmp_path: Path):
    path = tmp_path / "file"
    files.write(path, "before")
    code = (
        "import os, signal, sys, pathlib; from methods import files\n"
        "def half(file):\n"
        "    file.write(bytes(100_000)); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write(pathlib.Path(sys.argv[1]), half)"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "before"
    (unfinished,) = tmp_path.glob(files.UNFINISHED)
    assert unfinished != path
    assert unfinished.stat().st_size == 100_000
