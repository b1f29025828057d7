"""The page that stays open while a sweep runs, and the policy under which a browser shows it."""

from functools import cache
from pathlib import Path

import jinja2

from orchestrator.report import page as report
from orchestrator.report.interactive.scripts import libraries, policy

FOLDER = Path(__file__).parent
MORE = "; connect-src 'self'; frame-src 'self'; frame-ancestors 'none'"
"""What the page fetches: the events and the boards of its own server."""


@cache
def scripts() -> tuple[str, ...]:
    """The libraries of the report, then the page's own script."""
    return (*libraries(), (FOLDER / "js" / "live.js").read_text())


@cache
def headers() -> dict[str, str]:
    """The policy of the page, as a header."""
    return {"Content-Security-Policy": policy(scripts(), more=MORE)}


def page(study: str) -> bytes:
    """The page of a study; its script fills it with what the server tells."""
    folders = [FOLDER / "templates", Path(report.__file__).parent / "templates"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("live.html.j2")
    return template.render(study=study, scripts=scripts()).encode()
