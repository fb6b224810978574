"""The library's Noise against a peer that writes by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from cryptography.exceptions import InvalidTag

from libp2p.abc import Direction, SecureChannel
from libp2p.addressing import parse
from libp2p.crypto.keys import PrivateKey
from libp2p.errors import SecurityError
from libp2p.peer_id import PeerId
from libp2p.security.noise import Noise
from libp2p.testing import Memory, MemoryNetwork, seeded_key
from libp2p.testing.raw import RawPeer, Wants
from libp2p.transports.memory import MemoryStream

OURS = seeded_key("ours")


@dataclass
class Met:
    """How a handshake went."""

    raw: RawPeer
    channel: SecureChannel | None = None
    error: Exception | None = None
    raw_done: bool = False


@asynccontextmanager
async def streams() -> AsyncIterator[tuple[MemoryStream, MemoryStream]]:
    """Two ends of a raw connection."""
    network = MemoryNetwork()
    listener = await Memory(network).listen(parse("/memory/0"))
    dialed = (await Memory(network).dial(listener.addresses[0], peer=None)).stream
    accepted = (await listener.accept()).stream
    await listener.aclose()
    assert isinstance(dialed, MemoryStream)
    assert isinstance(accepted, MemoryStream)
    try:
        yield dialed, accepted
    finally:
        with trio.CancelScope(shield=True):
            await dialed.aclose()
            await accepted.aclose()


@asynccontextmanager
async def met(
    role: Direction,
    wants: Wants | None = None,
    *,
    key: PrivateKey = OURS,
    muxers: tuple[str, ...] = (),
    peer: PeerId | None = None,
    act: Callable[[RawPeer], Awaitable[None]] | None = None,
) -> AsyncIterator[Met]:
    """Let the library, in ``role``, meet a raw peer; like the swarm, it closes its stream when it fails.

    Args:
        act: what the raw peer does, instead of its handshake.
    """
    async with streams() as (ours, theirs):
        raw = RawPeer(theirs, dialer=role is Direction.INBOUND)
        result = Met(raw)

        async def secure() -> None:
            try:
                result.channel = await Noise(key, muxers).secure(ours, direction=role, peer=peer)
            except (SecurityError, trio.BrokenResourceError) as exc:
                result.error = exc
                await ours.aclose()

        async def speak() -> None:
            try:
                await (raw.handshake(wants) if act is None else act(raw))
                result.raw_done = True
            except (EOFError, trio.BrokenResourceError, InvalidTag):
                pass

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(secure)
                nursery.start_soon(speak)
            yield result
