"""Sending and receiving without a task switch where none is needed: for conversations that have a checkpoint anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ..abc import Buffer, DirectStream, Stream


async def send_eagerly(stream: Stream, data: Buffer) -> None:
    """``send_all``; a checkpoint only if it has to wait."""
    try:
        stream.send_nowait(data)
    except trio.WouldBlock:
        await stream.send_all(data)


async def receive_eagerly(stream: Stream) -> bytes | bytearray:
    """``receive_some``; a checkpoint only if it has to wait. A loop of these lets others run when all is taken."""
    try:
        return stream.receive_nowait()
    except trio.WouldBlock:
        return await stream.receive_some()


async def send_directly(stream: DirectStream, data: Buffer) -> None:
    """``send_all`` of a stream below; a checkpoint only if it has to wait."""
    with memoryview(data) as view:
        sent = 0
        while sent < len(view):
            try:
                sent += stream.send_nowait(view[sent:])
            except trio.WouldBlock:
                await stream.wait_writable()
