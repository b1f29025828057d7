"""The scripts that stand in the page, and the policy under which a browser runs these alone."""

import base64
import hashlib
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
LIBRARIES = ("d3.min.js", "plot.umd.min.js")
"""In `vendor/`, as published: d3 7.9.2 and Observable Plot 0.6.17."""
PARTS = ("core", "card", "figure", "accuracy", "routing", "groups", "parallel", "tables", "start")
"""In `js/`, in the order in which they stand in one script."""


@cache
def libraries() -> tuple[str, ...]:
    """The text of the libraries that draw."""
    return tuple((FOLDER / "vendor" / name).read_text() for name in LIBRARIES)


@cache
def scripts() -> tuple[str, ...]:
    """The text of every script of the page: the libraries, then the page's own."""
    parts = [(FOLDER / "js" / f"{name}.js").read_text() for name in PARTS]
    return (*libraries(), '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n")


@cache
def policy(allowed_scripts: tuple[str, ...] | None = None, *, more: str = "") -> str:
    """A page's Content-Security-Policy: nothing is fetched but by `more`, no other script runs."""
    texts = scripts() if allowed_scripts is None else allowed_scripts
    digests = (hashlib.sha256(script.encode()).digest() for script in texts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        f"base-uri 'none'; form-action 'none'{more}"
    )
