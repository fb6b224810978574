"""Exceptions of a block that runs inside nurseries come out as themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .contain import leaves


@asynccontextmanager
async def open_unwrapping_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery for a context manager of ours.

    When exactly one exception comes out of it, that exception is raised without the groups around it: who writes
    ``async with open_host(...)`` has no nursery in mind and writes ``except DialError``.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        found = [leaf for leaf in leaves(group) if not isinstance(leaf, trio.Cancelled)]
        if len(found) == 1:
            # The leaf keeps its own cause and context; the group around it says nothing.
            raise found[0] from found[0].__cause__
        raise
