"""What a command says: results on standard output, as text or as JSON; everything else on standard error."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ..errors import DialError
from ._text import clean

Part: TypeAlias = "str | tuple[str, str]"
"""A piece of a line: text, or text and its style."""

DIM = "bright_black"
GOOD = "green"
NAME = "cyan"
BAD = "bold red"
_COLUMN = 12


class Output:
    """Where one command speaks.

    Args:
        as_json: print results as JSON lines.
        verbose: how often ``-v`` was given.
    """

    def __init__(self, *, as_json: bool = False, verbose: int = 0) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self._out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads the results as they come."""
        return self._out.is_terminal and not self.as_json

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._out.width

    def result(self, record: Mapping[str, object], *parts: Part) -> None:
        """Print one result: ``record`` as JSON, or ``parts`` as a line for people."""
        if self.as_json:
            print(json.dumps(record), flush=True)
        else:
            self._out.print(_line(parts))

    def listing(self, record: Mapping[str, object], lines: Iterable[str]) -> None:
        """Print one result: ``record`` as JSON, or ``lines`` for people."""
        if self.as_json:
            print(json.dumps(record), flush=True)
        else:
            for line in lines:
                self._out.print(_line((line,)))

    def fields(self, record: Mapping[str, str | float | Sequence[str] | None]) -> None:
        """Print one result: for people, a line for each field, and for each item of a list."""
        if self.as_json:
            print(json.dumps(record), flush=True)
            return
        for name, value in record.items():
            items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            for index, item in enumerate(items):
                label = name.replace("_", " ") if index == 0 else ""
                self._out.print(_line(((f"{label:<{_COLUMN}}", DIM), "-" if item is None else str(item))))

    def text(self, *parts: Part) -> None:
        """Print a line for people, which JSON does not have."""
        if not self.as_json:
            self._out.print(_line(parts))

    def note(self, *parts: Part) -> None:
        """Say something besides the results, to people."""
        if not self.as_json:
            self._err.print(_line(parts))

    def failure(self, exc: Exception) -> None:
        """Say why the command failed: as text on standard error, and with JSON also as the last result."""
        if self.as_json:
            print(json.dumps({"error": described(exc)}), flush=True)
        if self.verbose > 1:
            traceback.print_exception(exc)
        first, *rest = str(exc).splitlines() or [type(exc).__name__]
        self._err.print(_line((("error: ", BAD), first)))
        for line in rest:
            self._err.print(_line((line,)))

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show that something goes on while the block runs; only on a terminal."""
        if self._err.is_terminal and not self.as_json:
            with self._err.status(Text(clean(what), style=DIM), spinner="dots"):
                yield
        else:
            yield

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[str], None]]:
        """As :meth:`waiting`; what is shown is replaced by what the function is given."""
        if self._err.is_terminal and not self.as_json:
            with self._err.status(Text(clean(what), style=DIM), spinner="dots") as status:
                yield lambda text: status.update(Text(clean(text), style=DIM))
        else:
            yield lambda _: None

    def draw_input(self, prompt: str, typed: str) -> None:
        """Show ``prompt`` and the end of ``typed`` on the line where the cursor is, and leave the cursor behind it."""
        room = max(1, self.width - cell_len(prompt) - 1)
        while cell_len(typed) > room:
            typed = typed[1:]
        self.erase_line()
        self._out.print(Text.assemble((prompt, DIM), typed), end="")

    def erase_line(self) -> None:
        """Empty the line where the cursor is. For terminals."""
        self._out.file.write("\r\x1b[K")
        self._out.file.flush()


def described(exc: Exception) -> dict[str, object]:
    """An error for programs."""
    record: dict[str, object] = {"type": type(exc).__name__, "message": str(exc)}
    if isinstance(exc, DialError):
        record["attempts"] = [
            {
                "addr": str(addr),
                "stage": getattr(cause, "stage", "transport"),
                "type": type(cause).__name__,
                "reason": getattr(cause, "reason", None) or str(cause),
            }
            for addr, cause in exc.attempts
        ]
    return record


def _line(parts: tuple[Part, ...]) -> Text:
    return Text.assemble(*(clean(part) if isinstance(part, str) else (clean(part[0]), part[1]) for part in parts))
