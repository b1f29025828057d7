"""The table style of the terminal: a line under the heads, no frame."""

from rich import box
from rich.table import Column, Table


def table(*columns: Column | str, title: str | None = None, caption: str | None = None) -> Table:
    """An empty table; a column that is named by its head alone holds text."""
    heads = [text(column) if isinstance(column, str) else column for column in columns]
    return Table(
        *heads,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
    )


def text(head: str, *, wrap: bool = True) -> Column:
    """A column of text, which break over lines where the terminal is narrow."""
    return Column(head, no_wrap=not wrap, overflow="fold")


def number(head: str, *, wrap: bool = False) -> Column:
    """A column of figures, flush right, each on one line."""
    return Column(head, justify="right", no_wrap=not wrap, overflow="fold")
