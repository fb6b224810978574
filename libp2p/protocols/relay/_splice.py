"""A circuit at the relay: two streams, joined until both have ended or a limit cuts them."""

from __future__ import annotations

import enum

import trio

from ...abc import Stream
from ._codec import CircuitLimit

CHUNK = 64 * 1024
"""Bytes that one direction of a circuit holds at most between reading and writing (ours; go: 2 KiB)."""


class CircuitEnd(enum.Enum):
    """What ended a circuit."""

    CLOSED = "closed"
    """Both ends were done."""
    LOST = "lost"
    """An end was reset, or its connection lost."""
    DATA_LIMIT = "data limit"
    DURATION_LIMIT = "duration limit"


class _DataLimitReached(Exception):
    """A direction of a circuit has carried what it may."""


async def splice(one: Stream, other: Stream, limit: CircuitLimit) -> CircuitEnd:
    """Carry bytes both ways, and the end of each way, until there is no more or a limit is reached.

    Both streams are closed when this returns, and reset unless both ends were done.
    """
    end = CircuitEnd.DURATION_LIMIT
    try:
        with trio.CancelScope(deadline=trio.current_time() + (limit.duration or float("inf"))):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pump, one, other, limit.data)
                    nursery.start_soon(_pump, other, one, limit.data)
                end = CircuitEnd.CLOSED
            except* _DataLimitReached:
                end = CircuitEnd.DATA_LIMIT
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                end = CircuitEnd.LOST
    finally:
        if end is not CircuitEnd.CLOSED:
            one.reset()
            other.reset()
    await one.aclose()
    await other.aclose()
    return end


async def _pump(source: Stream, target: Stream, most: int | None) -> None:
    if most is None:
        while chunk := await source.receive_some(CHUNK):
            await target.send_all(chunk)
    else:
        # One byte more than may pass tells a sender that has just finished from one that goes on.
        while chunk := await source.receive_some(min(CHUNK, most + 1)):
            await target.send_all(chunk[:most])
            if len(chunk) > most:
                raise _DataLimitReached
            most -= len(chunk)
    await target.send_eof()
