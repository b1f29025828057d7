"""The watch in a real browser: what it shows of a sweep, and that it keeps its place."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from logs import begun, driver, end, epoch, search, start, whole, write
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from orchestrator.live import watch as watching
from orchestrator.live.follow import Follower
from orchestrator.live.server import Server
from orchestrator.live.watch import Watch
from orchestrator.record.events import Event
from orchestrator.record.log import mark_finished

pytestmark = pytest.mark.browser
RUNS = [begun(), *whole("dense-00000"), *whole("skipnet-00000"), start("dense-00001")]


class Site:
    """A server of one study, and the study's driver in as far as it holds the lock."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.watch = Watch(Follower(folder))
        self.watch.start()
        self.server = Server(self.watch, "127.0.0.1", port)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, *events: Event) -> None:
        write(self.folder, list(events), mode="a")

    def close(self) -> None:
        self.watch.stop()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(watching, "EVERY", 0.05)
    write(tmp_path / "watched", RUNS)
    with driver(tmp_path / "watched"):
        site = Site(tmp_path / "watched")
        yield site
        site.close()


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[Any]:
    browser.get(site.server.url)
    until(browser, lambda: text(browser, "headline") == "Searching")
    yield browser
    assert browser.get_log("browser") == []


def until(browser: Any, holds: Any) -> None:
    WebDriverWait(browser, 60, 0.05).until(lambda _: holds())


def text(browser: Any, name: str) -> str:
    return str(browser.find_element(By.ID, name).text)


def frame_of(browser: Any) -> Any:
    """The board that is shown."""
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "iframe:not(.coming)"))
    return browser.find_element(By.CSS_SELECTOR, "iframe:not(.coming)")


def test_running_trials_have_curves_that_grow(page: Any, site: Site) -> None:
    assert page.title == "16 % · Searching · watched"
    assert "2 of at most 12 trials" in text(page, "progress")
    assert not page.find_elements(By.CSS_SELECTOR, ".trials svg")
    site.add(epoch("dense-00001", 1, 0.25), epoch("dense-00001", 2, 0.5))
    until(page, lambda: "epoch 2 of 4, 50.0 % on validation" in page.page_source.lower())
    line = page.find_element(By.CSS_SELECTOR, ".trials svg path[stroke-width], .trials svg path")
    assert line.is_displayed()
    site.add(end("dense-00001"))
    until(page, lambda: "3 of at most 12" in text(page, "progress"))
    assert not page.find_element(By.ID, "running").is_displayed()


def test_the_board_claims_nothing_and_follows_unless_it_is_in_use(page: Any, site: Site) -> None:
    frame = frame_of(page)
    page.switch_to.frame(frame)
    assert page.find_element(By.TAG_NAME, "h1").text == "Interim: this board claims nothing"
    assert page.find_elements(By.CSS_SELECTOR, "#accuracy svg")
    page.find_element(By.CSS_SELECTOR, "#accuracy button[aria-pressed]").click()
    page.switch_to.default_content()
    site.server.watch._next = 0.0
    site.add(*whole("dense-00001")[1:])
    until(page, lambda: page.find_element(By.ID, "newer").is_displayed())
    assert page.find_element(By.TAG_NAME, "iframe") == frame, "a reader's filter was lost"
    page.find_element(By.CSS_SELECTOR, "#newer button").click()
    until(page, lambda: frame_of(page) != frame)
    newer = frame_of(page)
    height = newer.size["height"]
    page.switch_to.frame(newer)
    assert "3 search trials complete" in page.page_source
    assert page.find_elements(By.CSS_SELECTOR, "#parallel svg .trials path"), "without MLflow"
    assert page.execute_script("return document.body.offsetHeight") <= height
    page.switch_to.default_content()
    site.server.watch._next = 0.0
    site.add(*whole("skipnet-00001"))
    until(page, lambda: page.find_elements(By.TAG_NAME, "iframe")[0] != newer)


def test_a_finished_sweep_shows_its_report(page: Any, site: Site) -> None:
    frame_of(page)
    write(site.folder, search())
    report = site.folder / "report" / "report.html"
    report.parent.mkdir()
    report.write_text("<!doctype html><title>x</title><main><h1>The real one</h1></main>")
    mark_finished(site.folder / "wal.jsonl", begun().hash)
    until(page, lambda: text(page, "headline") == "Writing the board")
    sweep = site.server.watch.follower.sweep
    assert sweep is not None
    sweep.time = int(report.stat().st_mtime * 1000) - 1
    until(page, lambda: text(page, "headline") == "Finished")
    until(page, lambda: "report" in frame_of(page).get_attribute("src"))
    assert text(page, "about") == "The final board, as the driver wrote it."
    page.switch_to.frame(frame_of(page))
    assert page.find_element(By.TAG_NAME, "h1").text == "The real one"
    page.switch_to.default_content()


def test_a_watch_that_ends_is_missed_and_found_again(browser: Any, site: Site) -> None:
    browser.get(site.server.url)
    until(browser, lambda: text(browser, "headline") == "Searching")
    port = site.server.server_port
    site.close()
    until(browser, lambda: browser.find_element(By.ID, "away").is_displayed())
    site.add(*whole("dense-00001")[1:])
    again = Site(site.folder, port)
    site.server, site.watch = again.server, again.watch
    until(browser, lambda: "3 of at most 12" in text(browser, "progress"))
    assert not browser.find_element(By.ID, "away").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_has_no_complaint_and_nothing_overflows(
    page: Any, site: Site, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_core_python.base")
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    site.add(epoch("dense-00001", 1, 0.25))
    frame = frame_of(page)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_script(axe.AXE_SCRIPT)
    page.switch_to.frame(frame)
    page.execute_script(axe.AXE_SCRIPT)
    page.switch_to.default_content()
    result = page.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    flaws = [
        (flaw["id"], [node["html"][:120] for node in flaw["nodes"]][:3])
        for flaw in result["violations"]
    ]
    assert flaws == []


def test_any_text_is_shown_as_text(page: Any, site: Site) -> None:
    site.add(end("dense-00001", "FAIL", "<img src=x onerror=alert(1)> & <b>bold</b>"))
    until(page, lambda: "<img src=x" in page.find_element(By.CSS_SELECTOR, ".latest").text)
    assert not page.find_elements(By.CSS_SELECTOR, ".latest img, .latest b")


def test_a_log_that_cannot_be_read_is_told_and_recovers(page: Any, site: Site) -> None:
    whole_log = (site.folder / "wal.jsonl").read_bytes()
    (site.folder / "wal.jsonl").write_bytes(b'{"event": "lost", "trial": "x"}\n')
    until(page, lambda: text(page, "headline") == "Cannot be read")
    (site.folder / "wal.jsonl").write_bytes(whole_log)
    until(page, lambda: text(page, "headline") == "Searching")
