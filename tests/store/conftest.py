"""An empty store for each test."""

from pathlib import Path

import pytest


@pytest.fixture
def uri(tmp_path: Path, template: Path) -> str:
    place = tmp_path / "mlflow.db"
    place.write_bytes(template.read_bytes())
    return f"sqlite:///{place}"
