"""A line of text that is being typed. Pure."""

from __future__ import annotations

import codecs

MAX_LINE = 4096
"""Characters of a line; more are not taken."""

_ENTER = "\r\n"
_ERASE = "\b\x7f"
_END, _ERASE_LINE, _ERASE_WORD, _ESCAPE = "\x04", "\x15", "\x17", "\x1b"


class LineEditor:
    """Turns keys into lines: letters, erasing (Backspace, Ctrl-W, Ctrl-U), Enter, and Ctrl-D for the end.

    Attributes:
        text: the line so far.
        ended: whether Ctrl-D was typed on an empty line; nothing more comes.
    """

    def __init__(self) -> None:
        self.text = ""
        self.ended = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # What follows an Escape: None outside of a sequence, else the sequence so far. Arrows and the like send these.
        self._sequence: str | None = None

    def feed(self, keys: bytes) -> list[str]:
        """Take what was typed. Returns the lines that were finished."""
        lines: list[str] = []
        for char in self._decoder.decode(keys):
            if self.ended:
                break
            if self._sequence is not None:
                self._skip(char)
            elif char in _ENTER:
                lines.append(self.text)
                self.text = ""
            else:
                self._edit(char)
        return lines

    def _edit(self, char: str) -> None:
        if char in _ERASE:
            self.text = self.text[:-1]
        elif char == _ERASE_LINE:
            self.text = ""
        elif char == _ERASE_WORD:
            self.text = self.text.rstrip()
            self.text = self.text[: self.text.rfind(" ") + 1]
        elif char == _END:
            self.ended = not self.text
        elif char == _ESCAPE:
            self._sequence = ""
        elif char.isprintable() and len(self.text) < MAX_LINE:
            self.text += char

    def _skip(self, char: str) -> None:
        """One more character of an escape sequence: ESC and a letter, ESC O and a letter, or ESC [ numbers letter."""
        assert self._sequence is not None
        if (not self._sequence and char in "[O") or (self._sequence.startswith("[") and not "@" <= char <= "~"):
            self._sequence += char
        else:
            self._sequence = None
