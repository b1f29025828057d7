"""What the tests of the report share."""

from pathlib import Path

import pytest
from boards import study_rows
from reports import write

from orchestrator.board.model import Board


@pytest.fixture(scope="package")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Board, Path]:
    """A board with failures, curves, images and times, and its page."""
    return write(study_rows(), tmp_path_factory.mktemp("report"))
