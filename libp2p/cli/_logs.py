"""What the library logs, on standard error: quiet unless asked."""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import TypeAlias

from .._util.contain import leaves
from ._text import clean

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _Formatter(logging.Formatter):
    """One line a record, tracebacks only when wanted.

    Args:
        tracebacks: whether an exception is printed whole.
    """

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__("%(relativeCreated)7d ms %(levelname)-7s %(name)s: %(message)s")
        self._tracebacks = tracebacks

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without what would move a terminal's cursor, and with the exception's own text."""
        line = clean(super().formatMessage(record))
        if self._tracebacks or not record.exc_info or record.exc_info[1] is None:
            return line
        return f"{line}: {_summary(record.exc_info[1])}"

    def formatException(self, ei: _ExcInfo) -> str:
        """The traceback, or nothing."""
        return super().formatException(ei) if self._tracebacks else ""


def configure(verbose: int) -> None:
    """Send the log of this process to standard error: warnings; with 1 also notes; with 2 everything."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(tracebacks=verbose > 1))
    logger = logging.getLogger("libp2p")
    logger.addHandler(handler)
    logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    if verbose < 2:
        sys.excepthook = _brief


def _brief(kind: type[BaseException], exc: BaseException, traceback_: TracebackType | None) -> None:
    """What an exception that nobody expected prints."""
    for leaf in leaves(exc):
        print(f"bug: {_summary(leaf)}; -vv shows where, please report it", file=sys.stderr)


def _summary(exc: BaseException) -> str:
    return clean("".join(traceback.format_exception_only(exc)).strip())
