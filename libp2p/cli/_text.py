"""Text that came from elsewhere, made fit for a terminal. Pure."""

from __future__ import annotations

# Joiners are no printable characters, but parts of emoji and of words in several scripts.
_JOINERS = "\u200c\u200d"


def clean(text: str) -> str:
    """Return ``text`` with its control characters as escapes: what a peer says cannot move the cursor, nor hide text.

    A terminal would obey them: clear the screen, set the title, write over earlier lines, turn the direction around.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _JOINERS else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def from_bytes(data: bytes) -> str | None:
    """``data`` as text when it is UTF-8, else None."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
