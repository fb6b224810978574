"""A socket and its connections: dialling, accepting, strangers, floods, faults. On the virtual clock."""

from __future__ import annotations

import errno
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from libp2p.abc import MuxedStream
from libp2p.addressing import names, parse
from libp2p.crypto.keys import generate
from libp2p.errors import ConnectionClosed, PeerIdMismatch, TransportError
from libp2p.peer_id import PeerId
from libp2p.transports.quic._admission import MAX_HANDSHAKES, RETRY_ABOVE
from libp2p.transports.quic._connection import CLOSE_GRACE, QuicConnection
from libp2p.transports.quic._engine import Address, Engine
from libp2p.transports.quic._machine import HANDSHAKE_TIMEOUT
from libp2p.transports.quic._packets import MIN_INITIAL, PacketKind, read_header
from libp2p.transports.quic._transport import BACKLOG, QuicTransport
from tests.transports.quic.net import FakeUdp, Net, connect, open_net
from tests.transports.quic.pairs import make_client

STRANGER: Address = ("198.51.100.7", 5555)


def peer_of(node_key: object) -> PeerId:
    return PeerId.from_key(node_key.public_key)  # type: ignore[attr-defined]


async def echo_once(ours: QuicConnection, theirs: QuicConnection) -> None:
    """One stream there and back, on connections that nobody runs yet."""
    async with trio.open_nursery() as nursery:

        def accept(stream: object) -> None:
            nursery.start_soon(answer, stream)

        async def answer(stream: object) -> None:
            await stream.send_all(await stream.receive_some())  # type: ignore[attr-defined]

        await nursery.start(ours.run, accept)
        await nursery.start(theirs.run, accept)
        stream = await ours.open_stream()
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


async def test_both_ends_know_each_other() -> None:
    """Q2, Q4, Q6: identities, addresses, and a dial that comes from where the dialler listens."""
    async with open_net() as net:
        alice, bob = await net.node(), await net.node()
        listener, ours_listener = await net.listener(bob), await net.listener(alice)
        ours, theirs = await connect(alice, listener)
        assert ours.remote_key == bob.key.public_key and theirs.remote_key == alice.key.public_key
        assert ours.remote_peer == peer_of(bob.key) and theirs.remote_peer == peer_of(alice.key)
        assert ours.remote_addr == theirs.local_addr == listener.addresses[0]
        assert theirs.remote_addr == ours_listener.addresses[0]
        assert names(ours.local_addr) == ("ip4", "udp", "quic-v1")
        assert "up" in repr(ours) and ours.rtt is not None
        await echo_once(ours, theirs)


async def test_many_dials_share_a_socket() -> None:
    """Several connections between the same two sockets stay apart."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        pairs = [await connect(alice, listener) for _ in range(5)]
        assert len({ours.local_addr for ours, _ in pairs}) == 1
        async with trio.open_nursery() as nursery:
            for ours, theirs in pairs:
                nursery.start_soon(echo_once, ours, theirs)


async def test_wrong_peer() -> None:
    """S1: an error that names both, and nothing is accepted over there."""
    async with open_net() as net:
        alice, bob = await net.node(), await net.node()
        listener = await net.listener(bob)
        other = peer_of(generate())
        with pytest.raises(PeerIdMismatch) as caught:
            await alice.transport.dial(listener.addresses[0], peer=other)
        assert (caught.value.expected, caught.value.actual) == (other, peer_of(bob.key))
        with trio.move_on_after(1) as scope:
            await listener.accept()
        assert scope.cancelled_caught


async def test_nobody_answers() -> None:
    """A dial ends by itself, and leaves no socket behind."""
    async with open_net() as net:
        alice = await net.node()
        with pytest.raises(TransportError, match="too long"):
            await alice.transport.dial(parse("/ip4/127.0.0.1/udp/9/quic-v1"), peer=None)
        assert trio.current_time() <= HANDSHAKE_TIMEOUT + 1
        assert not net.udp.sockets


async def test_a_listener_that_is_closed_leaves_connections_alone() -> None:
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, theirs = await connect(alice, listener)
        waiting = await alice.transport.dial(listener.addresses[0], peer=None)
        await listener.aclose()
        await listener.aclose()
        await trio.sleep(0.1)
        assert waiting.machine.ended or waiting.end is not None or waiting.machine.events(trio.current_time())
        with pytest.raises(TransportError):
            await alice.transport.dial(listener.addresses[0], peer=None)
        await echo_once(ours, theirs)
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()


async def test_too_many_wait_to_be_accepted() -> None:
    """The rest is refused, with a code."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        for _ in range(BACKLOG):
            await alice.transport.dial(listener.addresses[0], peer=None)
        one_more = await alice.transport.dial(listener.addresses[0], peer=None)
        with pytest.raises(ConnectionClosed) as caught:
            await one_more.run(lambda stream: None)
        assert caught.value.code == 2 and caught.value.remote


async def test_an_address_that_is_taken() -> None:
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        with pytest.raises(TransportError, match="in use"):
            await alice.transport.listen(listener.addresses[0])


async def test_a_transport_that_does_not_run() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        await QuicTransport(generate()).listen(parse("/ip4/127.0.0.1/udp/0/quic-v1"))


async def test_the_end_of_the_transport_is_the_end_of_its_connections() -> None:
    """And of its listeners; the peers are told."""
    async with open_net() as net:
        bob = await net.node()
        async with open_net() as inner:
            inner.udp = net.udp
            alice = await inner.node()
            listener = await net.listener(bob)
            ours, theirs = await connect(alice, listener)
        assert ours.end is not None
        with trio.fail_after(1), pytest.raises(ConnectionClosed):
            while True:
                await theirs.run(lambda stream: None)
                raise ConnectionClosed


# --- strangers


def socket_of(net: Net, listener_port: int) -> FakeUdp:
    return next(sock for address, sock in net.udp.sockets.items() if address[1] == listener_port)


async def test_a_flood_of_initials() -> None:
    """T3: memory for a few, Retry for the next, nothing for the rest; and who knocks honestly gets in."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        endpoint = listener.endpoint
        sock = socket_of(net, endpoint.address[1])
        received = sent = 0
        answers: list[PacketKind] = []

        def count(data: bytes, source: Address, target: Address) -> bytes | None:
            nonlocal sent
            if target[0].startswith("198.51."):
                sent += len(data)
                header = read_header(data)
                assert header is not None
                answers.append(header.kind)
                return None
            return data

        net.udp.filter = count
        hello = make_client().transmit(1.0)[0][0]
        for number in range(600):
            data = bytearray(hello)
            data[6:14] = random.Random(number).randbytes(8)  # as if for another connection: it does not decrypt
            received += len(data)
            sock.arrive(bytes(data), (f"198.51.{number // 250}.{number % 250}", 5555))
        await trio.testing.wait_all_tasks_blocked()
        assert endpoint._admission.count == RETRY_ABOVE <= MAX_HANDSHAKES
        assert answers.count(PacketKind.RETRY) == 600 - RETRY_ABOVE
        assert sent <= 3 * received
        assert len(endpoint._by_cid) <= 2 * MAX_HANDSHAKES
        ours, theirs = await connect(alice, listener)
        assert ours.machine.engine._start.retried
        await trio.sleep(HANDSHAKE_TIMEOUT + 5)
        assert endpoint._admission.count == 0 and len(endpoint._cids) == 1
        await echo_once(ours, theirs)


async def test_garbage() -> None:
    """Random datagrams, truncated and altered ones, in the middle of a connection's life."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, theirs = await connect(alice, listener)
        sock = socket_of(net, listener.endpoint.address[1])
        rng = random.Random(5)
        cids = list(listener.endpoint._by_cid)
        for number in range(1500):
            size = rng.choice((0, 1, 9, 50, 1200, 1500))
            data = rng.randbytes(size)
            if number % 3 == 0:
                data = bytes([0x40 | rng.randrange(64)]) + rng.choice(cids) + data
            elif number % 3 == 1:
                data = b"\xc0\x00\x00\x00\x01\x08" + rng.choice(cids) + data
            sock.arrive(data, rng.choice((STRANGER, ("127.0.0.1", 40_001))))
        await trio.testing.wait_all_tasks_blocked()
        assert listener.endpoint._admission.count <= MAX_HANDSHAKES
        await echo_once(ours, theirs)


async def test_other_versions_get_an_answer_only_when_they_are_long_enough() -> None:
    async with open_net() as net:
        listener = await net.listener(await net.node())
        sock = socket_of(net, listener.endpoint.address[1])
        answers: list[bytes] = []
        net.udp.filter = lambda data, source, target: answers.append(data)
        for size in (100, MIN_INITIAL):
            sock.arrive(b"\xc0\x6b\x33\x43\xcf\x08" + bytes(8) + b"\x00" + bytes(size), STRANGER)
        await trio.testing.wait_all_tasks_blocked()
        [answer] = answers
        header = read_header(answer)
        assert header is not None and header.kind is PacketKind.VERSION_NEGOTIATION


async def test_strangers_get_nothing_where_nobody_listens() -> None:
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, _ = await connect(alice, listener)
        port = ours.local_addr
        sock = next(sock for address, sock in net.udp.sockets.items() if f"/{address[1]}/" in str(port))
        await trio.sleep(1)
        before = net.udp.datagrams
        sock.arrive(make_client().transmit(1.0)[0][0], STRANGER)
        await trio.testing.wait_all_tasks_blocked()
        assert net.udp.datagrams == before


# --- faults


async def test_a_full_socket_loses_nothing() -> None:
    """What the kernel does not take waits, and so does who would send more."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, theirs = await connect(alice, listener)
        sock = next(sock for address, sock in net.udp.sockets.items() if f"/{address[1]}/" in str(ours.local_addr))
        got = bytearray()
        async with trio.open_nursery() as nursery:

            async def read(stream: object) -> None:
                async for chunk in stream:  # type: ignore[attr-defined]
                    got.extend(chunk)

            await nursery.start(theirs.run, lambda stream: nursery.start_soon(read, stream))
            await nursery.start(ours.run, lambda stream: None)
            stream = await ours.open_stream()
            sock.full = True
            await stream.send_all(bytes(100_000))
            await stream.send_all(b"x" * 100)
            await stream.send_eof()
            await trio.sleep(0.1)  # the engine paces what it sends
            endpoint = ours._endpoint
            assert endpoint._unsent and ours in endpoint._waiting and not got
            waiting = len(endpoint._unsent)
            await trio.sleep(2)
            assert len(endpoint._unsent) == waiting  # nothing is added meanwhile
            sock.make_room()
            with trio.fail_after(5):
                while len(got) < 100_100:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def test_a_network_that_loses_and_repeats() -> None:
    """Streams stay whole."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, theirs = await connect(alice, listener)
        rng = random.Random(3)

        def lossy(data: bytes, source: Address, target: Address) -> bytes | None:
            if rng.random() < 0.05 and target in net.udp.sockets:
                net.udp.sockets[target].arrive(data, source)
            return None if rng.random() < 0.05 else data

        net.udp.filter = lossy
        sent = random.Random(1).randbytes(300_000)
        got = bytearray()
        async with trio.open_nursery() as nursery:

            async def read(stream: object) -> None:
                async for chunk in stream:  # type: ignore[attr-defined]
                    got.extend(chunk)
                nursery.cancel_scope.cancel()

            await nursery.start(theirs.run, lambda stream: nursery.start_soon(read, stream))
            await nursery.start(ours.run, lambda stream: None)
            stream = await ours.open_stream()
            await stream.send_all(sent)
            await stream.send_eof()
            await trio.sleep(120)
        assert got == sent


async def test_a_long_way_that_loses_one_in_a_hundred() -> None:
    """50 ms there and back: some hundred kilobytes come back whole, soon, and the connection closes in order."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        rng = random.Random(7)
        net.udp.delay = 0.025
        net.udp.filter = lambda data, source, target: None if rng.random() < 0.01 else data
        for _ in range(2):
            ours, theirs = await connect(alice, listener)
            started = trio.current_time()
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    for end in (ours, theirs):
                        await nursery.start(end.run, partial(_start, nursery))
                    stream = await ours.open_stream()
                    await stream.send_all(bytes(300_000))
                    await stream.send_eof()
                    assert b"".join([chunk async for chunk in stream]) == bytes(300_000)
                    await ours.aclose()
            assert trio.current_time() - started < 5


def _start(nursery: trio.Nursery, stream: MuxedStream) -> None:
    nursery.start_soon(_echo_whole, stream)


async def _echo_whole(stream: MuxedStream) -> None:
    await stream.send_all(b"".join([chunk async for chunk in stream]))
    await stream.aclose()


async def test_an_address_that_cannot_be_reached() -> None:
    """The first datagram says so."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        await net.listener(alice)
        for sock in net.udp.sockets.values():
            sock.error = OSError(errno.ENETUNREACH, "Network is unreachable")
        with pytest.raises(TransportError, match="unreachable"):
            await alice.transport.dial(listener.addresses[0], peer=None)


async def test_a_time_that_does_not_pass() -> None:
    """A connection that wants to be woken again and again holds up nobody."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, theirs = await connect(alice, listener)
        asked = 0

        def at_once() -> float:
            nonlocal asked
            asked += 1
            return trio.current_time() if asked < 500 else math.inf

        theirs.machine.next_timeout = at_once  # type: ignore[method-assign]
        theirs.machine.engine.ping()
        theirs.flush()
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert 0 < asked < 500
        ours.abort()


async def test_a_bug_in_one_connection_ends_that_connection() -> None:
    """Not the socket, and not the others on it; whoever runs it gets the exception."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, theirs = await connect(alice, listener)
        good = await connect(alice, listener)

        def broken(*args: object) -> None:
            raise ZeroDivisionError

        theirs.machine.receive = broken  # type: ignore[assignment,method-assign]
        with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError)):
            async with trio.open_nursery() as nursery:
                await nursery.start(theirs.run, lambda stream: None)
                await nursery.start(ours.run, lambda stream: None)
                stream = await ours.open_stream()
                await stream.send_all(b"hello")
                await trio.sleep(1)
        await echo_once(*good)


async def test_closing_says_why() -> None:
    """The code of an abort arrives; an orderly close is no error."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, theirs = await connect(alice, listener)
        ours.abort(0x1006)
        with pytest.raises(ConnectionClosed) as caught:
            await theirs.run(lambda stream: None)
        assert (caught.value.code, caught.value.remote) == (0x1006, True)
        ours, theirs = await connect(alice, listener)
        await ours.aclose()
        await theirs.run(lambda stream: None)
        with pytest.raises(ConnectionClosed):
            await theirs.open_stream()


async def test_closing_waits_for_what_was_sent() -> None:
    """A whole message and its end, of which little had left, because the peer is far away: it arrives whole."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, theirs = await connect(alice, listener)
        net.udp.delay = 0.05
        accepted = list[MuxedStream]()
        await net.nursery.start(theirs.run, accepted.append)
        await net.nursery.start(ours.run, lambda stream: None)
        stream, other = await ours.open_stream(), await ours.open_stream()
        await stream.send_all(bytes(200_000))
        await stream.send_eof()
        await stream.aclose()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write_without_end, other)
            with trio.fail_after(CLOSE_GRACE):
                await ours.aclose()
        await theirs._over.wait()
        assert b"".join([chunk async for chunk in accepted[0]]) == bytes(200_000)


async def _write_without_end(stream: MuxedStream) -> None:
    with pytest.raises(ConnectionClosed):
        while True:
            await stream.send_all(bytes(1000))


@asynccontextmanager
async def abandoned() -> AsyncIterator[QuicConnection]:
    """A connection to a peer that nothing reaches any more."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, _ = await connect(alice, listener)
        await net.nursery.start(ours.run, lambda stream: None)
        net.udp.filter = lambda data, source, target: None
        yield ours


@pytest.mark.parametrize("cancelled", [False, True])
async def test_closing_does_not_wait_for_ever(cancelled: bool) -> None:
    async with abandoned() as ours:
        stream = await ours.open_stream()
        await stream.send_eof(b"hello")
        with trio.move_on_after(0.1 if cancelled else math.inf), trio.fail_after(1.1 * CLOSE_GRACE):
            await ours.aclose()
        assert ours.end is not None
        assert trio.current_time() <= (0.2 if cancelled else 1.1 * CLOSE_GRACE)


@pytest.mark.parametrize("end", [False, True])
async def test_waiting_for_a_peer_costs_nothing(monkeypatch: pytest.MonkeyPatch, end: bool) -> None:
    """Something is lost, an end waits, nobody answers: the timers of loss come, and no others."""
    async with abandoned() as ours:
        stream = await ours.open_stream()
        await stream.send_all(b"hello")
        if end:
            await stream.send_eof()
        looks = 0
        transmit = Engine.transmit

        def count(engine: Engine, now: float) -> list[tuple[bytes, Address]]:
            nonlocal looks
            looks += 1
            return transmit(engine, now)

        monkeypatch.setattr(Engine, "transmit", count)
        await trio.sleep(5)
        assert ours.machine.engine.repeats
        assert looks < 50


async def test_idle_connections_stay() -> None:
    """Q5: an hour of silence, kept alive."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, theirs = await connect(alice, listener)

        async def run(end: QuicConnection) -> None:
            with pytest.raises(ConnectionClosed, match="Idle"):
                await end.run(lambda stream: None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, ours)
            nursery.start_soon(run, theirs)
            await trio.sleep(3600)
            assert ours.end is None and theirs.end is None
            assert len(ours._endpoint._timers) < 20
            net.udp.filter = lambda data, source, target: None
            started = trio.current_time()
        assert trio.current_time() - started < 45


async def test_a_socket_that_breaks() -> None:
    """Takes its connections and its listener along, and nothing else."""
    async with open_net() as net:
        alice, bob = await net.node(), await net.node()
        listener, other = await net.listener(bob), await net.listener(bob)
        ours, theirs = await connect(alice, listener)
        sock = socket_of(net, listener.endpoint.address[1])

        def broken() -> tuple[bytes, int, Address]:
            raise OSError(errno.EBADF, "Bad file descriptor")

        sock.receive = broken  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                with pytest.raises(OSError, match="gone"):
                    await listener.accept()

            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            sock.arrive(b"x", STRANGER)
        assert theirs.end is not None
        with trio.fail_after(1), pytest.raises(ConnectionClosed):
            await ours.run(lambda stream: None)
            raise ConnectionClosed  # told in order
        await listener.aclose()
        await echo_once(*await connect(alice, other))


async def test_a_socket_that_cannot_send() -> None:
    """Fails the connection that wanted to."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, _ = await connect(alice, listener)
        sock = next(sock for address, sock in net.udp.sockets.items() if f"/{address[1]}/" in str(ours.local_addr))

        def broken(datagrams: object) -> tuple[int, OSError | None]:
            raise OSError(errno.EBADF, "Bad file descriptor")

        sock.send = broken  # type: ignore[method-assign]
        ours.machine.engine.ping()
        ours.flush()
        assert ours.end is not None
        with pytest.raises(OSError, match="Bad file"):
            await ours.run(lambda stream: None)


async def test_an_engine_that_fails() -> None:
    """Fails its connection as one that is lost, for whoever sends and whoever runs it."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        ours, _ = await connect(alice, listener)

        def broken(now: float) -> list[tuple[bytes, Address]]:
            raise ConnectionClosed("the QUIC engine failed")

        ours.machine.transmit = broken  # type: ignore[method-assign]
        ours.flush()
        assert ours.end is not None
        with pytest.raises(ConnectionClosed, match="engine failed"):
            await ours.run(lambda stream: None)


async def test_a_handshake_that_failed_counts_until_it_is_gone() -> None:
    """Or a stranger could have as many made as it can begin."""
    async with open_net() as net:
        alice, listener = await net.node(), await net.listener(await net.node())
        with pytest.raises(PeerIdMismatch):
            await alice.transport.dial(listener.addresses[0], peer=peer_of(generate()))
        assert listener.endpoint._admission.count == 1
        await trio.sleep(30)
        assert listener.endpoint._admission.count == 0 and not listener.endpoint._cids
