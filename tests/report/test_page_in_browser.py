"""The page in a real browser: whole at each width, by keyboard, on paper."""

import pytest
from boards import BUDGETS

from orchestrator.board.verdict import verdict


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_whole(report, browser, width):
    board, path = report
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    assert browser.execute_script("return innerWidth") == width
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) == 0
    assert browser.find_element("tag name", "h1").text == verdict(board)
    cut = """return [...document.querySelectorAll('section > .scroll')].filter(
        e => e.scrollWidth > e.clientWidth + 1).length"""
    if width == 1280:
        assert browser.execute_script(cut) == 0
    drawn = """return [...document.querySelectorAll('figure svg')].filter(
        e => !e.closest('.static')).map(e => e.clientHeight)"""
    heights = browser.execute_script(drawn)
    latency = 2
    assert len(heights) == latency + 2 * len(board.methods) + 3 * len(BUDGETS)
    assert min(heights) > 80
    live = "return document.querySelector('#accuracy .plot > svg').clientHeight"
    assert browser.execute_script(live) > 300
    overflow = """return [...document.querySelectorAll('figure svg')].flatMap(svg => {
        const box = svg.getBoundingClientRect();
        return [...svg.querySelectorAll('text')].filter(t => {
            const b = t.getBoundingClientRect();
            return b.right > box.right + 2 || b.left < box.left - 2;
        }).map(t => t.textContent)})"""
    assert browser.execute_script(overflow) == []
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_details_open_by_keyboard(report, browser):
    from selenium.webdriver.common.keys import Keys

    browser.get(report[1].as_uri())
    summary = browser.find_element("css selector", "details:not(.static) > summary")
    summary.send_keys(Keys.ENTER)
    assert (
        browser.find_element("css selector", "details:not(.static)").get_attribute("open")
        is not None
    )


@pytest.mark.browser
def test_the_keyboard_goes_past_the_links_to_every_table(report, browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(key):
        ActionChains(browser).send_keys(key).perform()
        focus = "const e = document.activeElement; return [e.tagName, e.innerText, e.role ?? '', "
        return browser.execute_script(f"{focus}e.getAttribute('aria-label') ?? '']")

    browser.get("about:blank")
    browser.get(report[1].as_uri())
    assert press(Keys.TAB)[:2] == ["A", "Skip to the leaderboard"]
    visible = "return document.activeElement.getBoundingClientRect().left >= 0"
    assert browser.execute_script(visible)
    press(Keys.ENTER)
    assert press(Keys.TAB)[2:] == ["region", "Table: Leaderboard at equal FLOPs"]
    stops = [press(Keys.TAB) for _ in range(80)]
    assert ["region", "Table: Effort"] in [where[2:] for where in stops]
    assert {where[0] for where in stops} >= {"BUTTON", "SELECT", "SUMMARY", "A"}
    assert sum(where[0] == "SUMMARY" for where in stops) == 6
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_paper_holds_all_of_it(report, browser):
    size = {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        browser.get(report[1].as_uri())
        heights = """return [...document.querySelectorAll('details:not([open]) table')].map(
            e => e.getBoundingClientRect().height)"""
        assert min(browser.execute_script(heights)) > 20
        wide = """return [...document.querySelectorAll('table, svg, h1, p')].filter(
            e => e.getBoundingClientRect().right > 719).length"""
        assert browser.execute_script(wide) == 0
        hidden = "return getComputedStyle(document.querySelector('nav')).display"
        assert browser.execute_script(hidden) == "none"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
