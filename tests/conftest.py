"""Shapes in signatures are checked under pytest, and only here; what all test files share."""

import atexit
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # beside busy tests, 15 is nearly nothing
if "PYTEST_XDIST_WORKER" not in os.environ:  # the processes of one run share a cache
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-")  # the user's own is left alone
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:  # as in a background job, or below `nohup`
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )

import filelock
import hypothesis
import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from postgres import Postgres

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

install_import_hook("methods", "shapes.checked").__enter__()

SWITCHES = """
headless=new no-sandbox disable-gpu disable-quic no-first-run disable-sync
disable-background-networking disable-component-update window-size=1600,900
"""
SHARING = ("tests/results/", "tests/store/")
"""Rooms whose test files share fixtures that take long to make."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that start Ray come first, then those with a slow test: they take longest."""
    items.sort(key=lambda item: (not marked(item.path, "ray"), not marked(item.path, "slow")))


def pytest_runtest_setup() -> None:
    """The first calls of each test are checked anew."""
    import shapes  # and with it torch, which the process that hands tests out can do without

    shapes.counts.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores, since some tests wait; four at most."""
    return min(1 + (os.cpu_count() or 1), 4)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each file stays in one process, each room that shares fixtures, and all that start Ray.

    So fixtures are made once, and no two sweeps fight for the same cores.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if marked(config.rootpath / file, "ray"):
                return "ray"
            return next((room for room in SHARING if file.startswith(room)), file)

    config.option.loadscopereorder = False
    return Scheduler(config, log)


@functools.cache
def marked(file: Path, name: str) -> bool:
    """Whether a test of this file has the marker."""
    return f"pytest.mark.{name}" in file.read_text()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store of MLflow's to copy: its tables take seconds to make."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # all processes share it
    file = folder / "mlflow.db"
    with filelock.FileLock(folder / "mlflow.lock"):
        if not file.exists():
            from mlflow import MlflowClient

            made = folder / "made.db"
            MlflowClient(f"sqlite:///{made}").search_experiments()
            made.rename(file)
    return file


@pytest.fixture(scope="session")
def drilled(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Any:
    """A finished sweep with a kill of each kind behind it; its tests have `timeout(900)`."""
    from drill import drilled_in_shadows

    return drilled_in_shadows(tmp_path_factory.mktemp("drilled"), template)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boards without figures, which are drawn in tests/report."""
    from boards import undraw

    undraw(monkeypatch)


@pytest.fixture
def postgres() -> "Iterator[Postgres]":
    """A PostgreSQL that runs; the test may stop it and start it again."""
    from postgres import Postgres

    server = Postgres()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all pages."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from chromium import Chromium
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in SWITCHES.split():
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chromium(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def browser(chromium: Any) -> Any:
    """The browser on an empty page, with a log that holds nothing of the tests before."""
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.get("about:blank")
    chromium.get_log("browser")
    return chromium
