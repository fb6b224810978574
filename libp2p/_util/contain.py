"""Where exceptions stop: one peer, or one piece of the user's code, must not bring down the host.

Used at exactly three boundaries: the supervisor of a connection, the handler of an inbound stream, and calls into the
user's code (validators, gaters). Nowhere else may a broad ``except`` stand. A callback that must not
raise into Trio hands what it met to the task it concerns, with :func:`capture`.

Expected errors (ours, the operating system's, Trio's about streams) are a peer's doing: debug log and a count.
Anything else is a bug, ours or the user's: error log with traceback and a count, and in strict mode it is raised again.
``Cancelled``, ``KeyboardInterrupt``, ``SystemExit`` and ``GeneratorExit`` always pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import cast

import trio

from ..errors import Libp2pError

EXPECTED = (
    Libp2pError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    trio.EndOfChannel,
)

PASSING = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends more than one peer's affairs, and is meant to."""

_log = logging.getLogger("libp2p.contain")


def capture(call: Callable[[], None]) -> Exception | None:
    """Call, and return what came out, for callbacks that must not raise: it is raised by the task it concerns."""
    try:
        call()
    except Exception as exc:
        return exc
    return None


class Containment:
    """The boundaries of one host.

    Args:
        strict: raise bugs again, so that tests see them.

    Attributes:
        expected: expected errors contained so far, by exception class name.
        bugs: everything else contained so far, by exception class name.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self.expected: dict[str, int] = {}
        self.bugs: dict[str, int] = {}

    def contain(self, what: str, peer: object = None) -> AbstractContextManager[None]:
        """Stop exceptions of the block.

        Args:
            what: what was being done, for the log.
            peer: with or for whom.
        """
        return _Boundary(self, what, peer)

    def take(self, exc: BaseException, what: str, peer: object) -> None:
        """Count and log what a boundary stopped. Raises it again when it is a bug, in strict mode."""
        bug = False
        for leaf in leaves(exc):
            name = type(leaf).__name__
            if isinstance(leaf, EXPECTED):
                self.expected[name] = self.expected.get(name, 0) + 1
                _log.debug("%s %s: %s: %s", what, peer, name, leaf)
            else:
                bug = True
                self.bugs[name] = self.bugs.get(name, 0) + 1
                _log.error("bug in %s %s", what, peer, exc_info=leaf)
        if bug and self._strict:
            raise exc


class _Boundary(AbstractContextManager[None]):
    """One block of :meth:`Containment.contain`. A class, because there is one around every stream."""

    __slots__ = ("_containment", "_peer", "_what")

    def __init__(self, containment: Containment, what: str, peer: object) -> None:
        self._containment = containment
        self._what = what
        self._peer = peer

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if exc is None or isinstance(exc, PASSING):
            return False
        if not isinstance(exc, BaseExceptionGroup):
            self._containment.take(exc, self._what, self._peer)
            return True
        passing, contained = cast("BaseExceptionGroup[BaseException]", exc).split(PASSING)
        if contained is not None:
            self._containment.take(contained, self._what, self._peer)
        if passing is not None:
            raise passing from None
        return True


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions inside a group, however deep; or the exception itself."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        for inner in group.exceptions:
            yield from leaves(inner)
    else:
        yield exc
