"""A store's tables read directly: they say what MLflow says, and are left to it where unknown."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from boards import study_rows
from mlflow import MlflowClient
from stores import held, study

from methods.errors import DatabaseAway, StorageError
from orchestrator import store
from orchestrator.record.address import Address
from orchestrator.results import boards
from orchestrator.store.reading import server, sqlite
from orchestrator.store.reading.failures import storage_errors
from orchestrator.store.reading.runs import Reader, reader
from orchestrator.store.reading.server import Served

QUERIES = (
    "",
    "tags.role = 'report'",
    "tags.role LIKE 'trial-%'",
    "tags.role = 'trial-confirm'",
    "tags.trial = 'dense-00001'",
    "tags.trial = 'Dense-00001'",
    "attributes.status = 'RUNNING'",
    "attributes.end_time >= 1700000100000",
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, template: Path) -> str:
    """A store with a study: runs that ended, one that runs, deleted ones and an odd tag."""
    folder = tmp_path_factory.mktemp("filled")
    shutil.copy(template, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    rows = study_rows(seeds=2, methods=("dense",), budgets=(2.0,))
    held(uri, folder, study(), rows)
    client = MlflowClient(uri)
    found = client.search_runs([experiment(client)], "tags.role = 'trial-search'")
    client.delete_run(found[0].info.run_id)
    client.update_run(found[1].info.run_id, "RUNNING")
    client.set_tag(found[2].info.run_id, "odd", "it's 100 %\n\u00e9")
    client.log_metric(found[2].info.run_id, "odd", float("nan"), step=3)
    client.log_metric(found[2].info.run_id, "odd", 2.5, step=1)
    gone = client.create_experiment("gone")
    client.delete_experiment(gone)
    return uri


def experiment(client: MlflowClient) -> str:
    found = client.get_experiment_by_name("demo")
    assert found is not None
    return str(found.experiment_id)


def test_the_tables_say_what_mlflow_says(filled: str) -> None:
    client = MlflowClient(filled)
    tables, served = reader(filled), Served(client)
    assert isinstance(tables, sqlite.Tables), "a new MLflow has other tables: read what changed"
    assert by_id(tables.experiments()) == by_id(served.experiments())
    for name in ("demo", "gone", "Demo", "none"):
        assert tables.experiment(name) == served.experiment(name)
    number = experiment(client)
    for query in QUERIES:
        for deleted in (False, True):
            found = list(tables.runs(number, query, deleted=deleted))
            assert found == list(served.runs(number, query, deleted=deleted)), query
    runs = list(tables.runs(number, ""))
    assert len({run.status for run in runs}) == 3
    for run in runs:
        assert tables.run(run.run_id) == served.run(run.run_id) == run
        assert tables.params(run.run_id) == served.params(run.run_id)
        for metric in ("curve/val_acc", "odd", "none"):
            both = (each.history(run.run_id, metric) for each in (tables, served))
            assert len({repr(history) for history in both}) == 1
    assert tables.run("none") is None
    assert served.run("none") is None


def by_id(experiments: list[object]) -> list[object]:
    return sorted(experiments, key=repr)


@pytest.mark.parametrize("kind", ["tables", "served"])
def test_more_runs_than_one_request_brings_are_all_read(
    filled: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(filled)
    source: Reader = reader(filled) if kind == "tables" else Served(client)
    number = experiment(client)
    expected = [run.run_id for run in source.runs(number, "")]
    assert len(expected) > 10
    monkeypatch.setattr(server, "PAGE", 3)
    monkeypatch.setattr(sqlite, "CHUNK", 3)
    assert [run.run_id for run in source.runs(number, "")] == expected


def unknown(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = '0123456789ab'")


def without_version(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE alembic_version")


@pytest.mark.parametrize("change", [unknown, without_version, Path.unlink])
def test_tables_that_are_not_known_are_left_to_mlflow(
    tmp_path: Path, template: Path, change: Callable[[Path], None]
) -> None:
    file = Path(shutil.copy(template, tmp_path / "mlflow.db"))
    address = Address.of_file(file)
    assert sqlite.opened(address) is not None
    change(file)
    assert sqlite.opened(address) is None
    if change is unknown:
        with pytest.raises(StorageError, match="a newer MLflow made them"):
            store.read_rows(address.url, "demo")


def test_a_locked_file_is_one_line(tmp_path: Path, template: Path) -> None:
    file = Path(shutil.copy(template, tmp_path / "mlflow.db"))
    uri = f"{Address.of_file(file)}?timeout=0.1"
    source = reader(uri)
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseAway, match="another program holds its lock"), storage_errors(uri):
        source.experiments()
    writer.close()


def test_a_finished_study_is_read_without_mlflow_and_what_only_draws(
    tmp_path: Path, filled: str
) -> None:
    out = Path(shutil.copytree(Address(filled).file.parent, tmp_path / "runs"))
    boards.at_budgets("demo", [2.0], out)  # leaves its cache
    code = f"""
import sys
from pathlib import Path
from orchestrator import store
from orchestrator.results import boards
boards.at_budgets("demo", [2.0], Path({str(out)!r}))
store.read_latencies("sqlite:///{out}/mlflow.db", "demo")
store.link("sqlite:///{out}/mlflow.db", "demo")
print(*{{name.partition(".")[0] for name in sys.modules}}, "scipy.stats" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"mlflow", "sqlalchemy", "pandas", "torch", "optuna", "True"} & set(done) == set()
