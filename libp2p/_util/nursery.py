"""Exceptions of a block that runs inside nurseries come out as themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NoReturn, cast

import trio

from .contain import leaves


class Block:
    """The user's block inside nurseries of ours, and what came out of it."""

    def __init__(self) -> None:
        self._raised: BaseException | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Goes around the user's code."""
        try:
            yield
        except BaseException as exc:
            self._raised = exc
            raise

    def accounts_for(self, found: list[BaseException]) -> BaseException | None:
        """The block's own exception, when ``found`` is all that is in it, cancellations apart."""
        raised = self._raised
        if isinstance(raised, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", raised)
            raised = group
            if any(isinstance(leaf, trio.Cancelled) for leaf in leaves(group)):
                raised = group.split(trio.Cancelled)[1]
        # Compared by what is inside: nurseries that are cancelled rebuild the groups that pass them.
        if raised is None or [id(leaf) for leaf in leaves(raised)] != [id(leaf) for leaf in found]:
            return None
        return raised


@asynccontextmanager
async def open_unwrapping_nursery(block: Block | None = None) -> AsyncIterator[trio.Nursery]:
    """A nursery for a context manager of ours.

    When exactly one exception comes out of it, that exception is raised without the groups around it: who writes
    ``async with open_host(...)`` has no nursery in mind and writes ``except DialError``. A group that the user's own
    code raised stays whole.

    Args:
        block: watches the user's code, where it may raise groups of its own.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        found = [leaf for leaf in leaves(group) if not isinstance(leaf, trio.Cancelled)]
        single = None if block is None else block.accounts_for(found)
        if single is None and len(found) == 1:
            single = found[0]
        if single is not None:
            _raise_as_it_was(single)
        raise


def _raise_as_it_was(exc: BaseException) -> NoReturn:
    context = exc.__context__
    try:
        raise exc
    finally:
        # It keeps its own context; Python has just put the group there, which says nothing.
        exc.__context__ = context
