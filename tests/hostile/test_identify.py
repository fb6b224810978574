"""Cases I1, I2 and I5: what a peer says about itself, how often, and pings that are none; by hand, beside canaries."""

from __future__ import annotations

import pytest
import trio

from libp2p.addressing import parse
from libp2p.peer_id import PeerId
from libp2p.testing.raw import (
    ACK,
    DATA,
    FIN,
    HEADER,
    RST,
    SYN,
    WINDOW_UPDATE,
    Identity,
    RawPeer,
    Wants,
    line,
    pb,
    uvarint,
    yamux,
)
from libp2p.testing.rig import Budget, rss
from tests.hostile.cases import Attack, open_raw_stream, under_attack

pytestmark = pytest.mark.bar_c

ID, PUSH, PING = "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"


def _message(*fields: bytes) -> bytes:
    body = b"".join(fields)
    return uvarint(len(body)) + body


def _addr(number: int) -> bytes:
    return bytes(parse(f"/ip4/100.40.{number // 250}.{number % 250}/tcp/4001").to_bytes())


async def _connected(attack: Attack, identity: Identity, ip: str | None = None) -> RawPeer:
    before = len(attack.opened)
    peer = await attack.dial(ip, identity=identity)
    await peer.connect(Wants(muxers=("/yamux/1.0.0",)))
    while len(attack.opened) == before:
        await trio.sleep(0.01)
    return peer


async def _asked(peer: RawPeer) -> int:
    """The stream on which the victim asks who this is."""
    with trio.fail_after(5):
        while True:
            frame = await peer.next_frame()
            if frame.payload.endswith(line(ID)):
                return frame.stream


async def _answer(peer: RawPeer, stream: int, data: bytes, *, end: bool = True) -> None:
    """Say ``data`` on ``stream`` in frames that fit its window."""
    whole = HEADER + line(ID) + data
    try:
        for start in range(0, len(whole), 60_000):
            await peer.send(yamux(DATA, ACK if start == 0 else 0, stream, whole[start : start + 60_000]))
        if end:
            await peer.send(yamux(DATA, FIN, stream))
    except trio.BrokenResourceError:
        pass


# --- I1 ---------------------------------------------------------------------------------------------------------------

ME = Identity("bomber")
BOMBS = {
    "8 KiB and one": _message(pb(1, ME.public), pb(6, "x" * 8192)),
    "length of 2^63": uvarint(2**63) + b"x" * 100,
    "length of 2^31": uvarint(2**31) + b"x" * 100,
    "eleven parts": _message(pb(3, "/x/1")) * 11,
    "a thousand parts": _message(pb(3, "/x/1")) * 1000,
    "somebody else's key": _message(pb(1, Identity("other").public)),
    "garbage": _message(b"\xff" * 50),
    "nothing": b"",
    "cut short": _message(pb(1, ME.public))[:-3],
    "megabytes": (uvarint(8000) + b"\x0a" * 8000) * 100,
    "nested groups": _message(b"\x0b" * 4000),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
async def test_I1_bombs_leave_nothing(bomb) -> None:
    """Not a byte of them is believed, and they end within the five seconds of a conversation."""
    async with under_attack() as attack:
        peer = await _connected(attack, ME)
        them = PeerId.from_bytes(ME.peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answer, peer, await _asked(peer), bomb)
            nursery.start_soon(peer.frames_until_end)
            await trio.sleep(6)
            nursery.cancel_scope.cancel()
        store = attack.victim.peerstore
        assert not store.protocols(them)
        assert not store.metadata(them)
        assert not store.addrs(them)


async def test_I1_a_key_that_is_not_the_channels_ends_the_connection() -> None:
    async with under_attack() as attack:
        peer = await _connected(attack, ME)
        await _answer(peer, await _asked(peer), BOMBS["somebody else's key"])
        with trio.fail_after(1):
            await peer.frames_until_end()


async def test_I1_ten_thousand_of_everything_are_cut() -> None:
    """As many as fit into ten messages of 8 KiB: at most 500 addresses and 128 protocols are kept."""
    async with under_attack() as attack:
        peer = await _connected(attack, ME)
        parts = [_message(pb(1, ME.public))]
        for start in range(0, 2800, 700):
            numbers = range(start, start + 700)
            parts.append(_message(*(pb(2, _addr(number)) for number in numbers)))
            parts.append(_message(*(pb(3, f"/p/{number}") for number in numbers)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answer, peer, await _asked(peer), b"".join(parts))
            nursery.start_soon(peer.frames_until_end)
            await trio.sleep(6)
            nursery.cancel_scope.cancel()
        them = PeerId.from_bytes(ME.peer)
        assert len(attack.victim.peerstore.addrs(them)) <= 500
        assert len(attack.victim.peerstore.protocols(them)) <= 128


async def test_I1_a_drip_ends_at_its_deadline() -> None:
    """Five seconds for all of it, however many bytes come."""
    async with under_attack() as attack:
        peer = await _connected(attack, ME)
        stream = await _asked(peer)
        began = trio.current_time()
        await _answer(peer, stream, b"", end=False)

        async def drip() -> None:
            for byte in _message(pb(1, ME.public), pb(6, "x" * 100)):
                await peer.send(yamux(DATA, 0, stream, bytes((byte,))))
                await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            with trio.fail_after(10):
                while not ((frame := await peer.next_frame()).stream == stream and frame.flags & (RST | FIN)):
                    pass
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began <= 5.5
        assert not attack.victim.peerstore.metadata(PeerId.from_bytes(ME.peer))


# --- I2 ---------------------------------------------------------------------------------------------------------------


async def _push(peer: RawPeer, stream: int, *fields: bytes) -> None:
    data = HEADER + line(PUSH) + _message(*fields)
    await peer.send(yamux(DATA, SYN, stream, data) + yamux(DATA, FIN, stream))


async def test_I2_a_thousand_pushes_a_second() -> None:
    """Ten at once and one in five seconds are taken from a neighbourhood; the rest is told so."""
    async with under_attack(budget=Budget(memory=20e6, kept=10e6)) as attack:
        peer = await _connected(attack, ME)
        taken: list[int] = []
        codes: list[int] = []

        async def listen() -> None:
            while True:
                frame = await peer.next_frame()
                if frame.payload.endswith(line(ID)):
                    await _answer(peer, frame.stream, _message(pb(1, ME.public)))
                elif frame.flags & RST:
                    codes.append(frame.length)
                elif frame.flags & FIN and frame.stream % 2:
                    taken.append(frame.stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await trio.sleep(1)
            memory = 0.0
            for number in range(2000):
                await _push(peer, 2 * number + 1, pb(3, f"/p/{number % 2}"), pb(3, "/always/1"))
                await trio.sleep(0.001)
                if number == 500:
                    memory = rss()
            assert rss() - memory <= 8e6
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert 10 <= len(taken) <= 13
        assert set(codes) <= {0x1003, 0x1002}
        assert len(codes) > 1900
        protocols = attack.victim.peerstore.protocols(PeerId.from_bytes(ME.peer))
        assert "/always/1" in protocols
        assert len(protocols) == 2, "replaced, not appended"


async def test_I2_a_hundred_peers_of_one_network() -> None:
    """Together they have what one of them would have."""
    async with under_attack(budget=Budget(memory=60e6, kept=30e6)) as attack:
        taken: list[int] = []

        async def pusher(number: int, nursery: trio.Nursery) -> None:
            identity = Identity(f"pusher-{number}")
            peer = await _connected(attack, identity, f"100.50.1.{number + 1}")
            stream = await _asked(peer)
            await _answer(peer, stream, _message(pb(1, identity.public)))
            for push in range(3):
                await _push(peer, 2 * push + 1, pb(3, f"/p/{push}"))
            with trio.move_on_after(3):
                while True:
                    frame = await peer.next_frame()
                    if frame.flags & FIN and frame.stream % 2:
                        taken.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(pusher, number, nursery)
                await trio.sleep(0.01)
        assert len(taken) <= 12


# --- I5 ---------------------------------------------------------------------------------------------------------------


async def _pong(peer: RawPeer, stream: int, within: float = 1.0) -> tuple[bytes, int]:
    """What comes back on a ping stream, and the flags that end it, or 0."""
    got, flags = b"", 0
    with trio.move_on_after(within):
        while not flags:
            frame = await peer.next_frame()
            if frame.stream == stream:
                got, flags = got + frame.payload, frame.flags & (FIN | RST)
    return got.removeprefix(HEADER + line(PING)), flags


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64, 100])
async def test_I5_pings_of_other_sizes(size) -> None:
    """32 bytes are a ping and are echoed; the rest waits for its end."""
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, HEADER + line(PING) + bytes(range(size)))
        echoed, _ = await _pong(peer, 1)
        assert echoed == bytes(range(size // 32 * 32))


async def test_I5_a_megabyte_of_pings_is_echoed_within_its_window() -> None:
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, HEADER + line(PING))
        got = bytearray()

        async def collect() -> None:
            while True:
                frame = await peer.next_frame()
                if frame.kind == DATA and frame.stream == 1:
                    got.extend(frame.payload)
                    await peer.send(yamux(WINDOW_UPDATE, 0, 1, length=len(frame.payload)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            for _ in range(16):
                await peer.send(yamux(DATA, 0, 1, bytes(65_536)))
                await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        assert len(got) >= 1024 * 1024


async def test_I5_the_third_stream_is_refused_and_a_hog_ends() -> None:
    """Two streams a peer, thirty seconds each, however busy they are."""
    async with under_attack() as attack:
        peer = await attack.connect()
        for stream in (1, 3, 5):
            await open_raw_stream(peer, stream, HEADER + line(PING) + bytes(32))
            await trio.sleep(0.1)
        ended: dict[int, tuple[float, int]] = {}
        began = trio.current_time()

        async def listen() -> None:
            while len(ended) < 3:
                frame = await peer.next_frame()
                if frame.flags & (FIN | RST) and frame.stream % 2:
                    ended[frame.stream] = (trio.current_time() - began, frame.flags & (FIN | RST))

        async def hog() -> None:
            while True:
                await peer.send(yamux(DATA, 0, 1, bytes(32)))
                await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hog)
            with trio.fail_after(60):
                await listen()
            nursery.cancel_scope.cancel()
    assert ended[5][0] < 1
    assert ended[5][1] == RST
    assert ended[1][0] == pytest.approx(30.0, abs=1.0)
    assert ended[3][0] == pytest.approx(30.0, abs=1.0)
