"""Cases T3 and T6, and what else of the bar reaches QUIC: floods, forged addresses, and frames that make work.

On the virtual clock, over a network in memory; work and memory are real. An honest peer must notice nothing.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from libp2p.abc import MuxedStream
from libp2p.crypto.keys import PrivateKey
from libp2p.errors import ConnectionClosed, RemoteProtocolError, StreamReset, TransportError
from libp2p.host import HostConfig, RunningHost, open_host
from libp2p.muxers.yamux import Yamux
from libp2p.peerstore import MemoryPeerstore
from libp2p.protocols.identify import Identify
from libp2p.protocols.ping import Ping, ping
from libp2p.security.noise import Noise
from libp2p.swarm import BackoffConfig, Gater, SwarmConfig
from libp2p.testing import seeded_key
from libp2p.testing.cut import Scenario, cut_everywhere
from libp2p.testing.rig import StepWatch, rss
from libp2p.transports.dns import DnsResolver
from libp2p.transports.quic import _transport
from libp2p.transports.quic._admission import MAX_HANDSHAKES, RETRY_ABOVE
from libp2p.transports.quic._connection import QuicConnection
from libp2p.transports.quic._endpoint import Endpoint
from libp2p.transports.quic._engine import BURST, EXCESSIVE_WORK, Address, _Bridge
from libp2p.transports.quic._machine import HANDSHAKE_TIMEOUT, LINGER, MAX_RESETS
from libp2p.transports.quic._packets import MIN_INITIAL, PacketKind, read_header
from libp2p.transports.quic._transport import QuicListener, QuicTransport
from tests.hostile.quic import (
    RawQuic,
    ack,
    crypto_frame,
    dial_raw,
    new_connection_id,
    path_challenge,
    stream_frame,
    varint,
)
from tests.hostile.test_muxers import STEPS, finish, open_pair, take_step
from tests.transports.quic.net import FakeUdp, Net, UdpNetwork, connect, open_net
from tests.transports.quic.pairs import make_client

STEP = 0.150
"""Seconds of processor time of the longest step; half a receive of the dearest frames takes 80 ms, once."""
MEMORY = 16e6


@dataclass
class Scene:
    """A listener, and an honest peer whose echo is answered before and after."""

    net: Net
    listener: QuicListener
    sock: FakeUdp
    honest: QuicConnection
    nursery: trio.Nursery
    ended: list[Exception]

    async def run(self, connection: QuicConnection) -> None:
        """Serve what the other end opens, as a swarm would."""
        try:
            await connection.run(lambda stream: self.nursery.start_soon(_echo, stream))
        except (ConnectionClosed, RemoteProtocolError) as exc:
            self.ended.append(exc)

    async def attack(self) -> tuple[RawQuic, QuicConnection]:
        """A hostile peer, and the connection with it, which runs."""
        peer = await dial_raw(self.net, self.listener)
        connection = await self.listener.accept()
        self.nursery.start_soon(self.run, connection)
        await wait_all_tasks_blocked()
        return peer, connection

    async def ask(self) -> None:
        """The honest peer has something echoed."""
        with trio.fail_after(1):
            stream = await self.honest.open_stream()
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            await stream.aclose()


async def _echo(stream: MuxedStream) -> None:
    try:
        async for chunk in stream:
            await stream.send_all(chunk)
        await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """A listener under attack while the block runs; then the verdict on steps and memory."""
    async with open_net() as net, trio.open_nursery() as nursery:
        listener = await net.listener(await net.node())
        sock = next(sock for bound, sock in net.udp.sockets.items() if bound[1] == listener.endpoint.address[1])
        ours, theirs = await connect(await net.node(), listener)
        found = Scene(net, listener, sock, ours, nursery, [])
        nursery.start_soon(found.run, ours)
        nursery.start_soon(found.run, theirs)
        await found.ask()
        watch = StepWatch()
        trio.lowlevel.add_instrument(watch)
        before = rss()
        try:
            yield found
            await found.ask()
        finally:
            trio.lowlevel.remove_instrument(watch)
        assert watch.longest <= STEP, f"{watch.where} took {watch.longest:.3f} s"
        assert rss() - before <= MEMORY
        nursery.cancel_scope.cancel()


# --- strangers


async def test_T3_a_flood_of_datagrams_from_everywhere() -> None:
    """5,000 in a second, of one byte and of 1,200: little is remembered, and nobody gets more than he sent thrice."""
    sent: Counter[str] = Counter()
    got: Counter[str] = Counter()
    async with scene() as s:

        def note(data: bytes, source: Address, target: Address) -> bytes | None:
            got[target[0]] += len(data)
            return None if target[0].startswith("198.51.") else data

        s.net.udp.filter = note
        hello = make_client().transmit(1.0)[0][0]
        for number in range(5000):
            data = b"\xc0" if number % 2 else hello[:6] + number.to_bytes(8, "big") + hello[14:]
            host = f"198.51.{number // 250}.{number % 250}"
            sent[host] += len(data)
            s.sock.arrive(data, (host, 5555))
            if number % 50 == 0:
                await trio.sleep(0.01)
                assert s.listener.endpoint._admission.count <= MAX_HANDSHAKES
                assert len(s.listener.endpoint._by_cid) <= 2 * MAX_HANDSHAKES + 20
            if number % 500 == 0:
                await s.ask()
        await trio.sleep(HANDSHAKE_TIMEOUT + 5)
        assert s.listener.endpoint._admission.count == 0
    assert all(got[host] <= 3 * sent[host] for host in sent)


async def test_T3_a_token_is_good_for_one_address() -> None:
    """A Retry that somebody else was given lets nobody in."""
    async with scene() as s:
        answers: list[bytes] = []

        def note(data: bytes, source: Address, target: Address) -> bytes | None:
            if not target[0].startswith("198.51."):
                return data
            answers.append(data)
            return None

        s.net.udp.filter = note
        hello = make_client().transmit(1.0)[0][0]
        for number in range(RETRY_ABOVE):
            s.sock.arrive(hello[:6] + number.to_bytes(8, "big") + hello[14:], (f"198.51.100.{number}", 5555))
        client = make_client()
        s.sock.arrive(client.transmit(1.0)[0][0], ("198.51.100.200", 5555))
        await wait_all_tasks_blocked()
        headers = [header for header in map(read_header, answers) if header is not None]
        [retry] = [data for data, header in zip(answers, headers, strict=True) if header.kind is PacketKind.RETRY]
        client.receive([retry], s.listener.endpoint.address, 1.0)
        again = client.transmit(1.0)[0][0]
        count = s.listener.endpoint._admission.count
        s.sock.arrive(again, ("198.51.100.201", 5555))
        await wait_all_tasks_blocked()
        assert s.listener.endpoint._admission.count == count, "another Retry at most"
        s.sock.arrive(again, ("198.51.100.200", 5555))
        await wait_all_tasks_blocked()
        assert s.listener.endpoint._admission.count == count + 1


async def test_T3_handshakes_that_stop_half_way() -> None:
    """Real hellos whose senders never answer: each costs ten seconds, and one address has 16 places."""
    sent: Counter[Address] = Counter()
    got: Counter[Address] = Counter()
    async with scene() as s:

        def note(data: bytes, source: Address, target: Address) -> bytes | None:
            got[target] += len(data)
            return None if target[0].startswith("198.51.") else data

        s.net.udp.filter = note
        for number in range(40):
            source = ("198.51.100.1", 1000 + number) if number % 2 else (f"198.51.100.{number}", 5555)
            for data, _ in make_client(seed=number).transmit(1.0):
                sent[source] += len(data)
                s.sock.arrive(data, source)
            await wait_all_tasks_blocked()
        assert s.listener.endpoint._admission.count == 20 + 16
        await trio.sleep(HANDSHAKE_TIMEOUT + 5)
        assert s.listener.endpoint._admission.count == 0
        assert len(s.listener.endpoint._cids) == 1
    assert all(got[source] <= 3 * sent[source] for source in sent)


async def test_T3_many_hellos_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a millisecond or two: others get their turn in between."""
    begun = most = 0
    begin = Endpoint._begin

    def count(*args: Any, **kwargs: Any) -> QuicConnection:
        nonlocal begun, most
        begun, most = begun + 1, max(most, begun + 1)
        return begin(*args, **kwargs)

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal begun
            begun = 0

    async with scene() as s:
        monkeypatch.setattr(Endpoint, "_begin", count)
        hello = make_client().transmit(1.0)[0][0]
        for number in range(RETRY_ABOVE):
            s.sock.arrive(hello[:6] + number.to_bytes(8, "big") + hello[14:], (f"198.51.100.{number}", 5555))
        trio.lowlevel.add_instrument(steps := Steps())
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)
        assert s.listener.endpoint._admission.count == RETRY_ABOVE
    assert most == 1


async def test_T3_hellos_full_of_gaps() -> None:
    """Each byte out of order takes eighteen: of fifty who send 50 KiB of nothing else, little is kept."""
    async with scene() as s:
        before = s.net.udp.filter
        s.net.udp.filter = lambda *sent: None if sent[2][0].startswith("198.51.") else before(*sent)
        for number in range(RETRY_ABOVE):
            source = (f"198.51.100.{number}", 5555)
            client = make_client(seed=number)
            for data, _ in client.transmit(1.0):
                s.sock.arrive(data, source)
            for piece in range(50):
                client._core.send_crypto(0, 100_000 + 1000 * piece, bytes(900))
                client._core.handle_timer(2.0 + piece / 4)
                while (sent := client._core.poll_transmit(2.0 + piece / 4)) is not None:
                    s.sock.arrive(sent[0], source)
            await wait_all_tasks_blocked()
        assert s.listener.endpoint._admission.count == RETRY_ABOVE


async def test_T3_who_takes_all_places_keeps_nobody_out() -> None:
    """Six machines show where they are, take every place and finish nothing: whoever comes next gets in."""
    async with scene() as s:
        before, answers = s.net.udp.filter, dict[Address, list[bytes]]()

        def note(data: bytes, source: Address, target: Address) -> bytes | None:
            if not target[0].startswith("198.51."):
                return before(data, source, target)
            answers.setdefault(target, []).append(data)
            return None

        s.net.udp.filter = note

        async def occupy() -> None:
            for number in itertools.count():
                source = (f"198.51.100.{number % 6}", 1000 + number)
                client = make_client(seed=number)
                for _ in range(2):  # the second time with a token, if there was a Retry
                    for data, _ in client.transmit(1.0):
                        s.sock.arrive(data, source)
                    await wait_all_tasks_blocked()
                    client.receive(
                        [data for data in answers.get(source, ()) if data[0] & 0xF0 == 0xF0],
                        s.listener.endpoint.address,
                        1.0,
                    )
                if number > 100:
                    await trio.sleep(0.05)

        s.nursery.start_soon(occupy)
        while s.listener.endpoint._admission.count < MAX_HANDSHAKES:
            await trio.sleep(0.01)
        for _ in range(3):
            node = await s.net.node()
            with trio.fail_after(5):
                ours = await node.transport.dial(s.listener.addresses[0], peer=None)
                await s.listener.accept()
            ours.abort()
            assert s.listener.endpoint._admission.count <= MAX_HANDSHAKES


async def test_T3_a_flood_of_other_versions() -> None:
    """Each is told which version there is, in fewer bytes than it took to ask; nothing is remembered."""
    async with scene() as s:
        out = 0

        def note(data: bytes, source: Address, target: Address) -> bytes | None:
            nonlocal out
            if target[0] != "198.51.100.7":
                return data
            out += len(data)
            return None

        s.net.udp.filter = note
        for number in range(2000):
            head = b"\xc0" + (0x0A0A0A0A + number).to_bytes(4, "big") + b"\x08" + number.to_bytes(8, "big") + b"\x00"
            s.sock.arrive(head.ljust(MIN_INITIAL, b"\x00"), ("198.51.100.7", 5555))
        await wait_all_tasks_blocked()
        assert 0 < out < 100 * 2000
        assert s.listener.endpoint._admission.count == 0


async def test_T3_answers_to_strangers_do_not_pile_up() -> None:
    """Not even when nothing can be sent: those of connections wait for room, those to strangers are left out."""
    async with scene() as s:
        s.sock.full = True
        endpoint = s.listener.endpoint
        hello = make_client().transmit(1.0)[0][0]
        for number in range(200):
            source = (f"198.51.{number // 250}.{number % 250}", 5555)
            s.sock.arrive(hello[:6] + number.to_bytes(8, "big") + hello[14:], source)
            s.sock.arrive((b"\xc0\x0a\x0a\x0a\x0a\x08" + bytes(9)).ljust(MIN_INITIAL, b"\x00"), source)
        await wait_all_tasks_blocked()
        assert endpoint._admission.count == RETRY_ABOVE
        assert len(endpoint._unsent) <= BURST
        s.sock.make_room()


async def test_T3_resets_that_are_forged() -> None:
    """Who sees a connection's ids, but not its tokens, cannot end it: datagrams that look like stateless resets."""
    async with scene() as s:
        dialer = next(sock for sock in s.net.udp.sockets.values() if sock is not s.sock)
        rng = random.Random(1)
        for sock, cids in ((s.sock, list(s.listener.endpoint._by_cid)), (dialer, [b""])):
            for number in range(1000):
                cid = cids[number % len(cids)]
                token = bytes(16) if number % 5 == 0 else rng.randbytes(16)  # of an end that has told none, perhaps
                data = bytes([0x40 | rng.randrange(64)]) + cid + rng.randbytes(rng.randrange(60)) + token
                sock.arrive(data, s.sock.address if sock is dialer else dialer.address)
        await wait_all_tasks_blocked()
        assert s.honest.end is None


async def test_T6_early_data_is_not_there() -> None:
    """0-RTT packets, with an id that is known and with one that is not: no answer, no state, no stream."""
    async with scene() as s:
        peer, connection = await s.attack()
        known = list(s.listener.endpoint._cids[connection])
        peer.answers.clear()
        for number in range(500):
            cid = known[0] if number % 2 else number.to_bytes(8, "big")
            body = varint(1180, 2) + os.urandom(1180)
            peer.send(b"\xd0\x00\x00\x00\x01\x08" + cid + b"\x00" + body)
        await wait_all_tasks_blocked()
        assert not peer.answers and connection.end is None
        assert s.listener.endpoint._admission.count == 0


# --- a peer that has proved who it is


COUNT = 100_000
Frames = Callable[[], Iterable[bytes]]


def _fragments() -> Iterable[bytes]:
    return (stream_frame(0, 2 * number, b"x") for number in range(1, COUNT // 2))


def _new_ids() -> Iterable[bytes]:
    return (new_connection_id(number, number) for number in range(10, COUNT))


def _retired_ids() -> Iterable[bytes]:
    return (b"\x19" + varint(number) for number in range(1, COUNT))


def _challenges() -> Iterable[bytes]:
    return (path_challenge(number) for number in range(COUNT))


ENDED: dict[str, tuple[Frames, str]] = {
    "new ids, each retires the ones before": (_new_ids, "too much work"),
    "ids retired as fast as they come": (_retired_ids, "too much work"),
    "challenges whose answers are not acknowledged": (_challenges, "acknowledges nothing"),
    "more new ids than are allowed": (
        lambda: (new_connection_id(number, 0) for number in range(10, COUNT)),
        "ConnectionId",
    ),
    "packets acknowledged that were never sent": (lambda: [ack(1 << 40, 500)] * 200, "AckOfUnsent"),
    "streams above the limit": (lambda: (stream_frame(4 * number, 0, b"x") for number in range(COUNT)), "limit"),
    "more than the window of a stream": (lambda: [stream_frame(0, 1_100_000, b"x")], "Limit"),
    "tokens, which only servers give": (lambda: [b"\x07\x10" + bytes(16)] * 1000, "NEW_TOKEN"),
    "frames that do not exist": (lambda: [b"\x21" * 100] * 1000, "unknown frame"),
    "handshake messages after the handshake": (lambda: [crypto_frame(0, b"\x04\x00\x00\x00")], "handshake"),
}
BORNE: dict[str, Frames] = {
    "every other byte of a stream": _fragments,
    "every other byte of a stream, backwards": lambda: reversed(list(_fragments())),
    "every other byte of the handshake": lambda: (crypto_frame(2 * number + 9, b"x") for number in range(COUNT // 2)),
    "a stream byte by byte": lambda: (stream_frame(0, number, b"x") for number in range(COUNT)),
    "data without any": lambda: [stream_frame(0, 0, b"")] * COUNT,
    "pings": lambda: [b"\x01"] * COUNT,
    "credit for a stream": lambda: (b"\x11" + varint(0) + varint(1_000_000 + number) for number in range(COUNT)),
    "credit for streams": lambda: (b"\x12" + varint(1000 + number) for number in range(COUNT)),
    "reading is over, again and again": lambda: (b"\x05" + varint(0) + varint(number) for number in range(COUNT)),
    "it is blocked, it says": lambda: (b"\x15" + varint(0) + varint(number) for number in range(COUNT)),
}


@pytest.mark.parametrize("what", ENDED)
async def test_T6_frames_that_cost_a_peer_its_connection(what: str) -> None:
    """And nobody else anything."""
    frames, why = ENDED[what]
    async with scene() as s:
        peer, connection = await s.attack()
        peer.send_frames(frames())
        await wait_all_tasks_blocked()
        assert connection.end is not None
        [error] = s.ended
        assert why in str(error)
        await trio.sleep(5)
        assert len(s.listener.endpoint._cids) == 1, "it is forgotten"


@pytest.mark.parametrize("what", BORNE)
async def test_T6_frames_that_cost_next_to_nothing(what: str) -> None:
    """They are allowed, and bounded by credit or forgotten at once."""
    async with scene() as s:
        peer, connection = await s.attack()
        peer.send_frames(BORNE[what]())
        await wait_all_tasks_blocked()
        assert connection.end is None and not s.ended
        await s.ask()
        connection.abort()


async def test_T6_acknowledgements_full_of_gaps() -> None:
    """Of packets that were sent: thousands of answers, every other one acknowledged, again and again."""
    async with scene() as s:
        peer, connection = await s.attack()
        peer.send_frames(path_challenge(number) for number in range(1500))
        await wait_all_tasks_blocked()
        peer.send_frames([ack(1400, 500)] * 500)
        await wait_all_tasks_blocked()
        assert connection.end is None
        connection.abort()


async def test_T6_a_peer_that_moves_all_the_time() -> None:
    """Each packet from another address: who lives there gets three times what it seems to send at most."""
    sent: Counter[str] = Counter()
    got: Counter[str] = Counter()
    async with scene() as s:
        peer, _ = await s.attack()
        before = s.net.udp.filter

        def note(data: bytes, source: Address, target: Address) -> bytes | None:
            got[target[0]] += len(data)
            return None if target[0].startswith("203.0.") else before(data, source, target)

        s.net.udp.filter = note
        for number in range(300):
            peer.address = (f"203.0.113.{number % 250}", 9)
            data = peer.packet(stream_frame(0, number, b"x") + path_challenge(number))
            sent[peer.address[0]] += len(data)
            peer.send(data)
            await wait_all_tasks_blocked()
        await trio.sleep(5)
    assert all(got[host] <= 3 * size for host, size in sent.items())


async def test_T6_transport_parameters_that_end_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused, unless what is left happens to be whole; the listener lives."""
    whole = _Bridge.serialize_transport_parameters
    refused = 0
    async with scene() as s:
        node = await s.net.node()
        for cut in range(1, 60, 5):

            def said(bridge: _Bridge, cut: int = cut) -> bytes:
                parameters = whole(bridge)
                return parameters[:cut] + b"\xff" if bridge.configuration.is_client else parameters

            monkeypatch.setattr(_Bridge, "serialize_transport_parameters", said)
            try:
                await node.transport.dial(s.listener.addresses[0], peer=None)
            except TransportError:
                refused += 1
        assert refused >= 10
        await s.ask()


async def test_M6_resets_that_were_asked_for() -> None:
    """Who is refused one stream after the other answers each refusal with a reset, which is only right."""
    async with scene() as s:
        refused, connection = await connect(await s.net.node(), s.listener)
        s.nursery.start_soon(s.run, refused)
        await s.nursery.start(connection.run, lambda stream: stream.reset(1))
        for _ in range(MAX_RESETS // 50 + 5):
            for _ in range(50):
                stream = await refused.open_stream()
                await stream.send_all(b"x")
            await trio.sleep(0.1)
        assert refused.end is None and connection.end is None
        assert connection.machine.in_use["streams"] == 0
        connection.abort()


# --- X1


class _Dialling(Scenario[tuple[RunningHost, RunningHost]]):
    """A connection over QUIC between hosts, from the first packet to a ping and the end."""

    @asynccontextmanager
    async def setup(self) -> AsyncIterator[tuple[RunningHost, RunningHost]]:
        async with trio.open_nursery() as nursery:
            udp = UdpNetwork()
            nursery.start_soon(udp.run)
            transports: list[QuicTransport] = []
            async with _open_host(udp, transports) as one, _open_host(udp, transports) as other:
                yield one, other
                await trio.sleep(60)
                assert one.swarm.scopes.usage().get("dials", 0) == 0
                assert not one.connections() and not other.connections()
                for endpoint in (endpoint for transport in transports for endpoint in transport._endpoints):
                    assert not (endpoint._cids or endpoint._by_cid or endpoint._dials or endpoint._handshakes)
                    assert endpoint.live == endpoint._admission.count == 0
            assert not udp.sockets
            nursery.cancel_scope.cancel()

    async def act(self, state: tuple[RunningHost, RunningHost]) -> None:
        one, other = state
        await one.connect(other.addrs[0])
        await ping(one, other.local_peer)
        await one.disconnect(other.local_peer)
        await trio.sleep(1)


@asynccontextmanager
async def _open_host(udp: UdpNetwork, transports: list[QuicTransport]) -> AsyncIterator[RunningHost]:
    def make(key: PrivateKey) -> QuicTransport:
        transports.append(QuicTransport(key, open_socket=udp.open))
        return transports[-1]

    async with open_host(
        key=seeded_key(f"{len(transports)}"),
        listen=["/ip4/127.0.0.1/udp/0/quic-v1"],
        services=[Identify(), Ping()],
        transports=[make],
        security=[Noise],
        muxers=[Yamux()],
        peerstore=MemoryPeerstore(),
        resolver=DnsResolver(),
        gater=Gater(),
        config=HostConfig(swarm=SwarmConfig(backoff=BackoffConfig(base=0, coefficient=0)), strict=True),
    ) as host:
        yield host


@pytest.mark.limit(120)
def test_X1_cancelled_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """X1: at every scheduling point; nothing is left, and the same works afterwards."""
    monkeypatch.setattr(_transport, "self_test", lambda *_: None)  # takes half the time, and waits for nothing
    assert cut_everywhere(_Dialling()) > 30


# --- streams, as of the muxers


async def test_M6_rapid_reset_ends_the_connection() -> None:
    """At most 256 handlers live at once, each sees its end, and a thousand resets in ten seconds are enough."""
    live = most = began = 0

    async def handler(stream: MuxedStream) -> None:
        nonlocal live, most, began
        live, began = live + 1, began + 1
        most = max(most, live)
        try:
            while True:
                await stream.receive_some()
        except (StreamReset, ConnectionClosed):
            live -= 1

    async with scene() as s:
        hostile, connection = await connect(await s.net.node(), s.listener)
        s.nursery.start_soon(s.run, hostile)

        async def serve() -> None:
            with pytest.raises(RemoteProtocolError, match="resets too many"):
                await connection.run(lambda stream: s.nursery.start_soon(handler, stream))

        s.nursery.start_soon(serve)
        for _ in range(MAX_RESETS // 50 + 5):
            if hostile.end is not None:
                break
            for _ in range(50):
                stream = await hostile.open_stream()
                await stream.send_all(b"x")
                stream.reset(1)
            await trio.sleep(0.1)
        assert hostile.end is not None and hostile.end.code == EXCESSIVE_WORK
        await wait_all_tasks_blocked()
    assert MAX_RESETS <= began <= MAX_RESETS + 256
    assert most <= 256
    assert live == 0


@settings(max_examples=20)
@given(STEPS, st.sampled_from([0.0, 0.02]), st.integers(0, 1000))
async def test_M10_storms_of_everything(steps: list[tuple[str, int, int, int]], loss: float, seed: int) -> None:
    """On a network that loses as well: bytes stay in order, the end comes once, nothing waits for ever or is left."""
    with trio.fail_after(600):
        async with open_net() as net:
            listener = await net.listener(await net.node())
            ends: list[Any] = list(await connect(await net.node(), listener))
            rng = random.Random(seed)
            net.udp.delay = 0.001
            net.udp.filter = lambda data, source, target: None if rng.random() < loss else data
            for end in ends:
                end.accepted = []
                await net.nursery.start(end.run, end.accepted.append)
            pairs: list[tuple[Any, Any]] = []
            for what, which, side, size in steps:
                if what == "open" or not pairs:
                    pairs.append(await open_pair((ends[0], ends[1]), side))
                    continue
                pair = pairs[which % len(pairs)]
                await take_step(pair[side], what, min(size, 20_000))
                for one, other in (pair, pair[::-1]):
                    assert bytes(other.written).startswith(one.read) or other.done
            for pair in pairs:
                await finish(pair)
            await trio.sleep(LINGER + 5)
            for end in ends:
                assert end.end is None
                assert set(end.machine.in_use.values()) == {0}
                assert not end._streams
