"""What is typed, or piped in, line by line."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import trio

from ._editor import LineEditor
from ._errors import Failure
from ._output import Output, Part

if sys.platform != "win32":
    import termios
    import tty

MAX_PIPED_LINE = 1024 * 1024
"""Bytes of a line from a pipe: no longer one fits into a message."""
_STDIN = 0
_READ_SIZE = 64 * 1024
_PROMPT = "> "
_HUNG_UP = b"\x15\x04"


class PipedLines:
    """The lines of standard input, whatever it is. The last one may lack its newline.

    Args:
        out: where results go; see :meth:`show`.
    """

    def __init__(self, out: Output) -> None:
        self._out = out
        self._buffer = bytearray()
        self._ended = False

    def __aiter__(self) -> PipedLines:
        return self

    async def __anext__(self) -> bytes:
        """The next line, without its newline."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0 and not self._ended:
            searched = len(self._buffer)
            if searched > MAX_PIPED_LINE:
                raise Failure(f"a line of more than {MAX_PIPED_LINE} bytes; messages are not that long")
            # In a thread that is left behind when the command ends: nobody can make a read of a terminal return. Not by
            # sys.stdin, whose lock that thread would hold while the interpreter ends.
            chunk = await trio.to_thread.run_sync(os.read, _STDIN, _READ_SIZE, abandon_on_cancel=True)
            self._ended = not chunk
            self._buffer += chunk
        if end < 0:
            if not self._buffer:
                raise StopAsyncIteration
            end = len(self._buffer)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def show(self, record: Mapping[str, object], *parts: Part) -> None:
        """Print a result."""
        self._out.result(record, *parts)


class TypedLines:
    """The lines that a person types, on a terminal that also shows what others say.

    The terminal is asked for single keys, so that the line being typed can be moved out of the way of what is printed.

    Args:
        out: where results go.
    """

    def __init__(self, out: Output) -> None:
        self._out = out
        self._editor = LineEditor()
        self._lines: deque[str] = deque()

    def __aiter__(self) -> TypedLines:
        return self

    async def __anext__(self) -> bytes:
        """The next line."""
        self._draw()
        while not self._lines:
            if self._editor.ended:
                raise StopAsyncIteration
            await trio.lowlevel.wait_readable(_STDIN)
            self._lines.extend(self._editor.feed(_read_keys()))
            self._draw()
        self._out.erase_line()
        return self._lines.popleft().encode()

    def show(self, record: Mapping[str, object], *parts: Part) -> None:
        """Print a result above the line that is being typed."""
        self._out.erase_line()
        self._out.result(record, *parts)
        self._draw()

    def _draw(self) -> None:
        self._out.draw_input(_PROMPT, self._editor.text)


def _read_keys() -> bytes:
    """What was typed. When the terminal is gone: an empty line and Ctrl-D."""
    try:
        return os.read(_STDIN, _READ_SIZE) or _HUNG_UP
    except OSError:
        return _HUNG_UP


@contextmanager
def open_input(out: Output) -> Iterator[PipedLines | TypedLines]:
    """Read standard input while the block is open: with line editing when a person sits at both ends."""
    if sys.platform == "win32" or not (out.is_terminal and os.isatty(_STDIN)):
        yield PipedLines(out)
        return
    before = termios.tcgetattr(_STDIN)
    tty.setcbreak(_STDIN)
    try:
        yield TypedLines(out)
    finally:
        out.erase_line()
        termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)
