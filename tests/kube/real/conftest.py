"""A real API server for each test of this folder, where `make kube-check` asks for one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiserver import RealServer
from binaries import Binaries, Missing, binaries


@pytest.fixture(scope="session")
def real_binaries() -> Binaries:
    if "ISOFLOP_KUBE_CHECK" not in os.environ:
        pytest.skip("`make kube-check` runs a real API server")
    try:
        return binaries()
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def real(real_binaries: Binaries, tmp_path: Path) -> Iterator[RealServer]:
    folder = tmp_path / "real"
    folder.mkdir()
    with RealServer(real_binaries, folder) as server:
        yield server
