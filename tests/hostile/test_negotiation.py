"""Cases M1 and M2: negotiations that never end, and lines that are none."""

from __future__ import annotations

import pytest
import trio

from libp2p.abc import Stream
from libp2p.errors import DialError, NegotiationError
from libp2p.testing.raw import (
    DATA,
    FIN,
    HEADER,
    NA,
    RST,
    WINDOW_UPDATE,
    RawPeer,
    Wants,
    line,
    read_lines,
    uvarint,
    yamux,
)
from tests.hostile.cases import ends, open_raw_stream, under_attack

pytestmark = pytest.mark.bar_c

TOKENS = {
    "line of a megabyte": HEADER + uvarint(1024 * 1024) + b"x" * 100_000,
    "ten byte varint": HEADER + b"\xff" * 9 + b"\x01",
    "endless varint": HEADER + b"\x80" * 5000,
    "padded length": HEADER + b"\x85\x00/a/1\n",
    "no newline": HEADER + b"\x05/a/1x",
    "no text": HEADER + line(b"\xff\xfe/1"),
    "no header": line("/ipfs/ping/1.0.0"),
    "other header": line("/multistream/2.0.0"),
    "empty line": HEADER + b"\x00",
    "HTTP": b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\nUser-Agent: Mozilla\r\nAccept: */*\r\n\r\n" * 3,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
}


async def _closed_within(peer: RawPeer, seconds: float) -> bytes:
    """What the victim says until it closes the raw connection, which must be soon."""
    said = bytearray()
    with trio.fail_after(seconds):
        try:
            while chunk := await peer.stream.receive_some():
                said += chunk
        except trio.BrokenResourceError:
            pass
    return bytes(said)


# --- M1 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flood", [line("/x/1"), line("ls"), line("/" + "y" * 900)], ids=["proposals", "ls", "long"])
async def test_M1_a_million_proposals_on_a_connection(flood) -> None:
    """At most 32 answers and 64 KiB are spent on it."""
    async with under_attack() as attack:
        peer = await attack.dial()
        async with trio.open_nursery() as nursery:

            async def propose() -> None:
                try:
                    await peer.stream.send_all(HEADER)
                    for _ in range(1000):
                        await peer.stream.send_all(flood * 1000)
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(propose)
            answers = read_lines(await _closed_within(peer, 1))
        assert answers[0] == "/multistream/1.0.0"
        assert set(answers[1:]) <= {"na"}
        assert len(answers) <= 33
        assert not attack.opened


async def test_M1_a_million_proposals_on_a_stream() -> None:
    """They cost the stream; the connection and everybody else go on."""
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, HEADER + line("/x/1") * 100)
        answers, codes = bytearray(), list[int]()
        with trio.fail_after(1):
            while not codes:
                frame = await peer.next_frame()
                if frame.stream == 1:
                    answers += frame.payload
                    codes += [frame.length] if frame.flags & RST else []
        assert codes == [0x1001]
        assert read_lines(bytes(answers)).count("na") <= 32
        await open_raw_stream(peer, 3, HEADER + line("/ipfs/ping/1.0.0") + bytes(32))
        echoed = bytearray()
        with trio.fail_after(1):
            while not echoed.endswith(bytes(32)):
                frame = await peer.next_frame()
                echoed += frame.payload if frame.stream == 3 else b""


async def test_M1_a_peer_that_never_answers() -> None:
    """On the raw connection and on a stream: ended at its deadline, 15 s and 10 s."""
    async with under_attack() as attack:
        silent = await attack.dial()
        before = trio.current_time()
        await _closed_within(silent, 16)
        assert trio.current_time() - before == pytest.approx(15.0, abs=0.01)
        peer = await attack.connect()
        await peer.send(yamux(WINDOW_UPDATE, 1, 1))
        before = trio.current_time()
        with trio.fail_after(11):
            while True:
                frame = await peer.next_frame()
                if frame.stream == 1 and frame.flags & RST:
                    break
        assert trio.current_time() - before == pytest.approx(10.0, abs=0.01)


async def test_M1_a_listener_that_always_says_no() -> None:
    """The dialer proposes its own list, once, and its error says what that was."""
    async with under_attack() as attack:
        addr, listener = await attack.listen()
        heard = bytearray()

        async def refuse() -> None:
            peer = await attack.accept(listener)
            try:
                await peer.stream.send_all(HEADER + NA * 1_000_000)
            except trio.BrokenResourceError:
                pass
            try:
                while chunk := await peer.stream.receive_some():
                    heard.extend(chunk)
            except trio.BrokenResourceError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with trio.fail_after(1), pytest.raises(DialError) as caught:
                await attack.victim.connect(addr)
        ((_, error),) = caught.value.attempts
        assert isinstance(error, NegotiationError)
        assert error.offered == ("/noise",)
        # The first message of the handshake went with the proposal: a length, and a key for this connection alone.
        assert heard[-34:-32] == b"\x00\x20"
        assert read_lines(bytes(heard[:-34])) == ["/multistream/1.0.0", "/noise"]


# --- M2 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
async def test_M2_bad_lines_cost_a_connection(token) -> None:
    """Refused on the prefix, at once."""
    async with under_attack() as attack:
        peer = await attack.dial()
        try:
            await peer.stream.send_all(token)
        except trio.BrokenResourceError:
            pass
        await _closed_within(peer, 0.1)
        assert not attack.opened


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
async def test_M2_bad_lines_cost_a_stream(token) -> None:
    """And nothing else."""
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, token[:200_000])
        with trio.fail_after(0.1):
            while True:
                frame = await peer.next_frame()
                if frame.stream == 1 and frame.flags & RST:
                    break
        assert frame.length == 0x1001
        assert attack.victim.connections(attack.opened[0].peer)


@pytest.mark.parametrize("answer", TOKENS.values(), ids=TOKENS)
async def test_M2_bad_answers_are_typed(answer) -> None:
    """The dialer's side of the same."""
    async with under_attack() as attack:
        addr, listener = await attack.listen()

        async def babble() -> None:
            peer = await attack.accept(listener)
            try:
                await peer.stream.send_all(answer)
            except trio.BrokenResourceError:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(babble)
            with trio.fail_after(1), pytest.raises(DialError) as caught:
                await attack.victim.connect(addr)
        ((_, error),) = caught.value.attempts
        assert isinstance(error, NegotiationError)


async def test_M2_application_bytes_shaped_like_tokens() -> None:
    """Whatever the application sends behind its proposal reaches the handler and is not taken for a proposal."""
    received: list[bytes] = []

    async def handler(stream: Stream) -> None:
        received.append(b"".join([bytes(chunk) async for chunk in stream]))

    payloads = [HEADER, NA, line("/ipfs/ping/1.0.0"), HEADER + line("ls"), b"\x00", b"\xff" * 2000]
    async with under_attack() as attack:
        attack.victim.handle("/sink/1", handler)
        peer = await attack.connect()
        for number, payload in enumerate(payloads):
            stream = 2 * number + 1
            await open_raw_stream(peer, stream, HEADER + line("/sink/1") + payload)
            await peer.send(yamux(DATA, FIN, stream))
        await trio.sleep(0.5)
    assert sorted(received) == sorted(payloads)


async def test_M2_bad_muxer_negotiation_costs_the_connection() -> None:
    """The third place where lines are read: inside the secure channel."""
    for token in TOKENS.values():
        async with under_attack(settle=1) as attack:
            peer = await attack.dial()
            await peer.propose("/noise")
            await peer.handshake(Wants())
            try:
                await peer.send(token)
            except trio.BrokenResourceError:
                pass
            await ends(peer, 0.1)
            assert not attack.opened
