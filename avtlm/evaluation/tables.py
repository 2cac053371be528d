"""Tables of figures as text."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def as_text(table: "Table", width: int = 100) -> str:
    """What a table looks like in a terminal of this width, without colours."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()


def figures(title: str, values: Mapping[str, str], caption: str | None = None) -> str:
    """A title, a table of one row with a column for each figure, and maybe a line below it."""
    from rich.table import Table

    table = Table()
    for heading in values:
        table.add_column(heading, justify="right")
    table.add_row(*values.values())
    return "\n".join([title, as_text(table), *([] if caption is None else [caption])])  # a title of the table would be as narrow as it
