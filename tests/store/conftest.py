"""An empty store for each test, and a server for those that do not kill it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import Server


@pytest.fixture
def uri(tmp_path: Path, template: Path) -> str:
    place = tmp_path / "mlflow.db"
    place.write_bytes(template.read_bytes())
    return f"sqlite:///{place}"


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[Server]:
    """An MLflow server on SQLite; a test that uses it has a study of its own name."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(template.read_bytes())
    server = Server(folder)
    server.start()
    yield server
    server.kill()
