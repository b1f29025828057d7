"""The card of an export: its description as JSON, with the digests of its files."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from methods.errors import ExportError

Format = Literal["torch", "pt2", "onnx"]
CARD = "card.json"
VERSION = 1
"""Version of the card's layout."""
MODEL: Mapping[Format, str] = MappingProxyType(
    {"torch": "model.safetensors", "pt2": "model.pt2", "onnx": "model.onnx"}
)
"""The file that holds the network, by format."""


def read_card(folder: Path) -> dict[str, Any]:
    """The content of an export's card.

    Raises:
        ExportError: there is no card, or its layout is that of another version of isoflop.
    """
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        version = card["card"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{folder} must be an export with its {CARD}, but: {error}") from None
    if version != VERSION:
        raise ExportError(
            f"{folder / CARD} has layout {version}, but this isoflop reads {VERSION}; install the "
            "version of isoflop that the card names"
        )
    return card


def needed(package: str, what: str) -> Any:
    """A package of the extra `export`, imported on demand.

    Raises:
        ExportError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ExportError(
            f"{what} needs {package}, which is not installed: `pip install 'isoflop[export]'`"
        ) from None
