"""Stores that are moved, copied, mounted read-only, busy or oddly named; servers that are none."""

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards import study_rows, undraw
from mlflow import MlflowClient
from stores import held, study

from methods.errors import DatabaseAway, StorageError, StudyError
from methods.files import digest
from orchestrator import store
from orchestrator.cli import main
from orchestrator.record import journal
from orchestrator.results import boards
from orchestrator.store import place
from orchestrator.store.place import default_uri

ODD = ("q?m", "50%25off", "50%", "a#b", "[x]*", "two  words", "l\nne", "日本", ".dot")
"""Names of a folder that URLs, shells or globs read otherwise."""
SECRET = "hunter@2x"
HELPERS = Path(__file__).parents[1] / "helpers"


def published(out: Path, template: Path) -> str:
    """A study with its board in a separate store; the store's URI."""
    what = study("demo", budgets=[2.0], methods={"dense": {}, "skipnet": {}})
    out.mkdir(parents=True)
    (out / "mlflow.db").write_bytes(template.read_bytes())
    uri = default_uri(out)
    store.claim(uri, "demo", what.hash)
    rows = study_rows(seeds=2, methods=("dense", "skipnet"), budgets=(2.0,))
    chosen = {row.config for row in rows if row.role == "confirm"}
    held(uri, out, what, [row for row in rows if row.config in chosen])
    outcome = boards.show("demo", out)
    store.write_board(uri, "demo", outcome.board, outcome.report.parent)
    return uri


pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """A folder of runs to copy."""
    out = tmp_path_factory.mktemp("finished") / "runs"
    with pytest.MonkeyPatch.context() as changed:
        undraw(changed)
        published(out, template)
    return out


def contents(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): digest(file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_copy_is_read_by_itself_and_the_original_is_not_touched(
    tmp_path: Path, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    shutil.copytree(finished, original)
    shutil.copytree(finished, copy)
    for file in (copy / "mlartifacts").rglob("provenance.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "classes": 7}))
    assert store.read_study(default_uri(copy), "demo").classes == 7
    assert store.read_study(default_uri(original), "demo").classes == 10
    assert store.read_stored(default_uri(original), "demo").files.keys() >= {"report.html"}

    before, its_hash = contents(original), study_hash(copy)
    store.claim(default_uri(copy), "demo", its_hash)
    assert "was moved here" in caplog.text
    outcome = boards.show("demo", copy)
    store.write_board(default_uri(copy), "demo", outcome.board, outcome.report.parent)
    assert contents(original) == before
    client = MlflowClient(default_uri(copy))  # MLflow's pages ask as it does
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id]):
        path = Path(run.info.artifact_uri.removeprefix("file://"))
        assert path.is_relative_to(copy / "mlartifacts" / "demo")


def study_hash(out: Path) -> str:
    experiment = MlflowClient(default_uri(out)).get_experiment_by_name("demo")
    assert experiment is not None
    return str(experiment.tags["study_hash"])


def test_a_store_without_its_files_says_so(tmp_path: Path, finished: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(finished / "mlflow.db", copy)
    with pytest.raises(StorageError, match=r"beside its store, but .*/copy/mlartifacts/.*moves"):
        boards.show("demo", copy)


@pytest.mark.parametrize(
    ("location", "sentence"),
    [("mlflow-artifacts:/1", "through its MLflow server"), ("file:///els/ewhere", "written to")],
)
def test_files_that_lie_elsewhere_are_not_guessed(
    tmp_path: Path, finished: Path, location: str, sentence: str
) -> None:
    shutil.copy(finished / "mlflow.db", tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ?", (location,))
    with pytest.raises(StorageError, match=sentence):
        boards.show("demo", tmp_path)


@pytest.mark.full
def test_a_folder_without_rights_is_read_and_not_changed(tmp_path: Path, finished: Path) -> None:
    out, cache = tmp_path / "runs", tmp_path / "cache"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "demo" / "cache")
    before = contents(out)
    code = READING.format(out=str(out))
    with without_rights(out) as prefix:
        done = subprocess.run(
            [*prefix, sys.executable, "-c", code],
            env={
                **os.environ,
                "XDG_CACHE_HOME": str(cache),
                "COLUMNS": "200",
                "PYTHONPATH": str(HELPERS),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "skipnet" in done.stdout
    assert "cannot be written: report and cache lie in" in done.stderr
    assert list(cache.rglob("report.html"))
    assert done.stdout.count("must be a folder that can be written") == 1
    assert done.stdout.count("must be writable") == 1
    assert contents(out) == before


READING = """
from pathlib import Path
from boards import undraw
from pytest import MonkeyPatch
from methods.errors import StorageError
from orchestrator.cli import main
from orchestrator.store.place import check, check_folder, default_uri
undraw(MonkeyPatch())
try:
    main(["board", "demo", "--out", {out!r}])
except SystemExit as ended:
    assert not ended.code
for refuse in (lambda: check_folder(Path({out!r})), lambda: check(default_uri(Path({out!r})))):
    try:
        refuse()
    except StorageError as error:
        print(error)
"""
"""Prints a board, and how `run` would refuse the same folder."""


@contextlib.contextmanager
def without_rights(folder: Path) -> Iterator[list[str]]:
    """What stands before a command that has no right to write below a folder."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for each in folders:
        each.chmod(0o555)
    try:
        if os.getuid() != 0:
            yield []
            return
        program = shutil.which("setpriv")
        if program is None:
            pytest.skip("root ignores permissions; setpriv of util-linux takes that right away")
        rights = "-dac_override,-dac_read_search,-fowner"
        yield [program, f"--bounding-set={rights}", f"--inh-caps={rights}"]
    finally:
        for each in folders:
            each.chmod(0o755)


def test_a_busy_store_is_read_or_a_line_says_so(tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    uri = default_uri(tmp_path / "runs")
    with contextlib.closing(
        sqlite3.connect(tmp_path / "runs" / "mlflow.db", isolation_level=None)
    ) as writer:
        writer.execute("BEGIN IMMEDIATE")  # as a sweep does while it writes
        assert boards.show("demo", tmp_path / "runs").board.methods
        writer.execute("COMMIT")
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseAway, match="another program holds its lock"):
            store.check(f"{uri}?timeout=0.1", reading=True)
        writer.execute("COMMIT")
    store.check(f"{uri}?timeout=0.1", reading=True)


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name_holds_a_store_and_nothing_is_made_beside_it(
    tmp_path: Path, template: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    out = Path(name)
    place.check_folder(out, "demo")
    out.mkdir()
    (out / "mlflow.db").write_bytes(template.read_bytes())
    what, uri = study("demo", budgets=[2.0], methods={"dense": {}}), default_uri(out)
    store.check(uri)
    store.claim(uri, "demo", what.hash)
    held(uri, out, what, study_rows(seeds=1, methods=("dense",), budgets=(2.0,))[-2:])
    store.check(uri, reading=True)
    assert store.read_study(uri, "demo").study["name"] == "demo"
    assert names(Path()) == [name]
    assert names(Path(name)) == ["demo", "mlartifacts", "mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize(
    "name",
    ["a" * 300, "ä" * 200, "/".join(["b" * 200] * 30), os.fsdecode(b"caf\xe9"), "file/below"],
    ids=["bytes", "letters", "path", "latin-1", "file"],
)
def test_a_folder_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--out must") as caught:
        place.check_folder(tmp_path / name, "demo")
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    assert names(tmp_path) == ["file"]


def test_an_sqlite_uri_is_taken_as_sqlalchemy_takes_it(tmp_path: Path, template: Path) -> None:
    (tmp_path / "x.db").write_bytes(template.read_bytes())
    uri = f"sqlite:///{tmp_path}/x.db?timeout=60"
    store.check(uri)
    store.claim(uri, "demo", "ab12")
    assert names(tmp_path) == ["mlflow.db.lock", "x.db"]
    with pytest.raises(StudyError, match="must be a store of studies"):
        store.check(f"sqlite:///{tmp_path}/y.db?timeout=60", reading=True)


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A port whose server says the same to everybody; says nothing for no answer."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        clients: list[socket.socket] = []  # one that is closed would be an answer

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    clients.append(client)
                    if answer:
                        client.sendall(answer)
                        client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-none\r\n",
        b"",
        b"\0" * 99,
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.1 500 X\r\n\r\n",
    ],
    ids=["ssh", "silence", "zeros", "html", "500"],
)
def test_what_is_no_server_is_one_line_without_the_password(
    answer: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(place, "PATIENCE", 0.5)
    monkeypatch.chdir(tmp_path)
    with answering(answer) as where:
        for scheme in ("http", "https", "postgresql"):
            url = f"{scheme}://ann:{SECRET}@{where}/name"
            with pytest.raises(SystemExit) as ended:
                main(["board", "demo", "--mlflow", url])
            printed = "".join(capsys.readouterr())
            assert ended.value.code == 2
            assert "must answer" in printed
            assert printed.count("\n") == 1
            assert SECRET not in printed
            assert SECRET.rpartition("@")[2] not in printed
    assert not names(tmp_path)


def test_a_database_of_optuna_that_is_none_is_one_line_without_the_password() -> None:
    with answering(b"SSH-2.0-none\r\n") as where:
        url = f"postgresql://ann:{SECRET}@{where}/name?connect_timeout=2"
        with pytest.raises(DatabaseAway, match="must answer") as caught:
            journal.check(url)
    assert SECRET.rpartition("@")[2] not in str(caught.value)
