"""Plaintext 2.0 against its specification (requirements P1 to P3)."""

from __future__ import annotations

import pytest
import trio

from libp2p.abc import Direction
from libp2p.errors import DecodeError, PeerIdMismatch, SecurityError
from libp2p.peer_id import PeerId
from libp2p.security.plaintext import Plaintext
from libp2p.security.plaintext._codec import decode_exchange
from libp2p.testing import Memory, memory_network, seeded_key
from libp2p.testing.raw import NA, Identity, RawPeer, pb, read_uvarint, uvarint
from tests.security.noise_raw import OURS, streams

PEER = Identity("plain")


def _exchange(*, peer: bytes = PEER.peer, key: bytes = PEER.public, extra: bytes = b"") -> bytes:
    body = pb(1, peer) + pb(2, key) + extra
    return uvarint(len(body)) + body


async def _secure(received: bytes, *, peer: PeerId | None = None, close: bool = True):
    """What the library makes of ``received``; its channel, and what it sent."""
    async with streams() as (ours, theirs):
        await theirs.send_all(received)
        if close:
            await theirs.send_eof()
        channel = await Plaintext(OURS).secure(ours, direction=Direction.OUTBOUND, peer=peer)
        return channel, await theirs.receive_some()


async def test_P1_the_bytes_of_an_exchange() -> None:
    _, sent = await _secure(_exchange())
    size, body = read_uvarint(sent)
    assert size == len(body)
    assert body == pb(1, bytes(PeerId.from_key(OURS.public_key))) + pb(2, OURS.public_key.marshal())


async def test_P1_both_sides_send_at_once() -> None:
    """Neither waits for the other to begin."""
    for direction in Direction:
        async with streams() as (ours, theirs), trio.open_nursery() as nursery:

            async def secure(stream=ours, direction: Direction = direction) -> None:
                await Plaintext(OURS).secure(stream, direction=direction, peer=None)

            nursery.start_soon(secure)
            assert await theirs.receive_some()
            nursery.cancel_scope.cancel()


async def test_P1_what_follows_belongs_to_the_application() -> None:
    async with streams() as (ours, theirs):
        await theirs.send_all(_exchange() + b"application")
        channel = await Plaintext(OURS).secure(ours, direction=Direction.INBOUND, peer=None)
        assert bytes(channel.remote_peer) == PEER.peer
        assert channel.remote_key.marshal() == PEER.public
        assert channel.muxer is None
        assert await channel.stream.receive_some() == b"application"


@pytest.mark.parametrize(
    "received",
    [
        _exchange(peer=Identity("other").peer),
        _exchange(peer=b""),
        _exchange(peer=b"\x00\x01"),
        _exchange(key=b""),
        _exchange(key=pb(1, 9) + pb(2, b"x" * 32)),
        _exchange()[:-1],
        b"",
        b"\xff" * 10,
        uvarint(20 * 1024 + 1) + bytes(100),
        uvarint(4) + b"\xff\xff\xff\xff",
        b"\x80\x00",
    ],
)
async def test_P2_an_exchange_that_is_not_right_is_refused(received) -> None:
    with pytest.raises(SecurityError):
        await _secure(received)


async def test_P2_another_peer_than_expected_is_refused() -> None:
    expected = PeerId.from_key(seeded_key("expected").public_key)
    with pytest.raises(PeerIdMismatch) as caught:
        await _secure(_exchange(), peer=expected)
    assert (caught.value.expected, bytes(caught.value.actual)) == (expected, PEER.peer)


async def test_P2_unknown_fields_are_ignored() -> None:
    channel, _ = await _secure(_exchange(extra=pb(77, b"future")))
    assert bytes(channel.remote_peer) == PEER.peer


async def test_P3_no_host_speaks_it_unless_told_to() -> None:
    async with memory_network(1) as hosts:
        dialed = await Memory(hosts.network).dial(hosts[0].listen_addrs()[0], peer=None)
        assert await RawPeer(dialed.stream).propose("/plaintext/2.0.0") == NA[1:-1].decode()
        await dialed.stream.aclose()


def test_an_exchange_without_a_key() -> None:
    """Is refused like any other that is incomplete."""
    for data in (b"", b"\x0a\x01x", b"\x0a\x01x\x12\x00"):
        with pytest.raises(DecodeError):
            decode_exchange(data)
