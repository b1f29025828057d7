"""The package that docs/method.md makes, put together from the page."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "method.md"


def mynets(folder: Path) -> Path:
    """Writes the files of the page into a folder; gives the folder."""
    parts: dict[str, list[str]] = {"mynets/__init__.py": []}
    for name, text in re.findall(r'(?ms)^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE.read_text()):
        parts.setdefault(name, []).append(text)
    (folder / "mynets").mkdir(parents=True)
    for name, texts in parts.items():
        (folder / name).write_text("\n\n".join(texts))
    return folder
