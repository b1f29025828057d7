"""A Chromium whose `get` ends when the page asked for stands there, under any load."""

from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

COME = "return !window.left && document.readyState === 'complete'"


class Chromium(Chrome):
    def get(self, url: str) -> None:
        """Under load chromedriver's own `get` may return while the former page still stands."""
        self.execute_script("window.left = true")
        super().get(url)
        WebDriverWait(self, 60).until(lambda _: self.execute_script(COME))
