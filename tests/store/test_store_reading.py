"""Stores that may only be read, in whatever state their last writer left them."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from methods.errors import StorageError
from orchestrator import store
from orchestrator.store import client
from orchestrator.store.place import default_uri

pytestmark = pytest.mark.skipif(
    os.getuid() == 0 and shutil.which("setpriv") is None,
    reason="root ignores permissions; setpriv of util-linux takes that right away",
)
CUT_OFF = """
import os, signal, sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("PRAGMA cache_size = 2")
store.execute("BEGIN IMMEDIATE")
store.execute("UPDATE experiments SET name = name || '-half'")
store.execute("UPDATE experiment_tags SET value = 'half'")
store.execute("CREATE TABLE filler AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
              "FROM n WHERE i < 9999) SELECT hex(randomblob(99)) FROM n")
os.kill(os.getpid(), signal.SIGKILL)
"""
"""A writer that dies in the middle: what it wrote must be undone by whoever reads next."""
READ = """
import sys
from orchestrator import store
from orchestrator.store.client import connect
store.check(sys.argv[1], reading=True)
print(connect(sys.argv[1]).get_experiment_by_name("demo").tags["study_hash"])
"""
"""Prints the hash of a study."""


def unchanged(file: Path) -> None:
    """A store as a sweep leaves it."""


def cut_off(file: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", CUT_OFF, str(file)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert file.with_name("mlflow.db-journal").stat().st_size


def with_a_log(file: Path) -> None:
    database = sqlite3.connect(file)
    assert database.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    database.close()


@pytest.mark.parametrize("leave", [unchanged, cut_off, with_a_log])
def test_a_store_that_may_not_be_written_is_read(
    tmp_path: Path, template: Path, leave: Callable[[Path], None]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    file = Path(shutil.copy(template, runs / "mlflow.db"))
    store.claim(default_uri(runs), "demo", "ab12")
    leave(file)
    before = {path.name: path.read_bytes() for path in runs.iterdir() if path.is_file()}
    for path in (*runs.iterdir(), runs):
        path.chmod(0o555 if path.is_dir() else 0o444)
    rights = "-dac_override,-dac_read_search,-fowner"
    prefix = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    read = subprocess.run(
        [*(prefix if os.getuid() == 0 else ()), sys.executable, "-c", READ, default_uri(runs)],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    runs.chmod(0o755)
    assert read.stdout.strip() == "ab12", read.stderr
    assert {path.name: path.read_bytes() for path in runs.iterdir() if path.is_file()} == before
    assert not list(scratch.iterdir())


def test_without_room_for_a_copy_the_line_says_so(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(shutil.copy(template, tmp_path))

    def refused(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorcode = sqlite3.SQLITE_READONLY
        raise error

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sqlite3, "connect", refused)
    monkeypatch.setattr("orchestrator.store.place.copy_aside", full)
    with pytest.raises(StorageError, match=r"have space for a copy .* No space left"):
        store.check(f"sqlite:///{file}", reading=True)
    with pytest.raises(StorageError, match="must be an SQLite database"):
        store.check(f"sqlite:///{file}")
    assert client.readable(file) == file
