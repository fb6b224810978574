"""Something that is looked at again and again: a table that stays in its place on a terminal, else lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ._text import clean


class View:
    """Where tables are drawn. Made by :meth:`Output.view`.

    Args:
        console: where results go.
        as_json: print JSON lines.
        live: the place on the terminal; None where there is none.
    """

    def __init__(self, console: Console, *, as_json: bool, live: Live | None) -> None:
        self._console = console
        self._as_json = as_json
        self._live = live

    def draw(
        self,
        record: Mapping[str, object],
        *,
        title: str,
        caption: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
    ) -> None:
        """Show how things are now: ``record`` as JSON, or the rest for people."""
        if self._as_json:
            print(json.dumps(record), flush=True)
        elif self._live is not None:
            table = Table(*columns, title=Text(clean(title)), caption=Text(clean(caption)))
            for row in rows:
                table.add_row(*[Text(clean(cell)) for cell in row])
            self._live.update(table, refresh=True)
        else:
            self._console.print(clean(title))
            for row in rows:
                self._console.print(clean("  ".join(row).rstrip()))


@contextmanager
def open_view(console: Console, *, as_json: bool, in_place: bool) -> Iterator[View]:
    """Draw on ``console`` while the block is open; what was drawn last stays.

    Args:
        in_place: draw over what was drawn before, as only a terminal can.
    """
    if not in_place:
        yield View(console, as_json=as_json, live=None)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield View(console, as_json=as_json, live=live)
