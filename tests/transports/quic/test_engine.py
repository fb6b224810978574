"""One end of a connection against everything that a network or a peer may do to it."""

from __future__ import annotations

import itertools
import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qh3 import tls
from qh3.quic.packet import encode_quic_version_negotiation

from libp2p.errors import PeerIdMismatch
from libp2p.transports.quic import _engine
from libp2p.transports.quic._engine import EXCESSIVE_WORK, MAX_HANDSHAKE, MAX_HELLO, Engine, EngineConfig, Start
from libp2p.transports.quic._packets import Header, PacketKind, Tokens, read_header, read_retry
from tests.transports.quic.pairs import (
    CLIENT,
    SERVER,
    Pair,
    events,
    identity,
    make_client,
    make_pair,
    make_server,
    named,
    peer,
)


def test_a_handshake() -> None:
    """Q2: both know each other at the end, and neither before."""
    pair = make_pair()
    assert pair.client.is_client and not pair.server.is_client
    assert pair.client.remote_key is None and pair.server.remote_key is None
    pair.exchange()
    assert pair.client.remote_key == identity(2)[0].public_key
    assert pair.server.remote_key == identity(1)[0].public_key
    assert pair.client.identity_failure is None
    assert "handshake_complete" in named(pair.client) and "handshake_complete" in named(pair.server)
    assert pair.client.rtt is not None and pair.client.idle_timeout == 30.0


def test_no_stream_before_the_identity() -> None:
    """The server takes nothing from a client that has not proved who it is."""
    pair = make_pair()
    assert not pair.client.can_open
    pair.exchange(1)
    assert not pair.server.authenticated and not pair.server.can_open
    assert "stream_data" not in named(pair.server)


def test_the_dialled_peer_is_compared_first() -> None:
    """S1: nothing is told to another peer but that it is over, and not why."""
    seen = bytearray()
    pair = make_pair(expected=peer(1))
    pair.exchange()
    failure = pair.client.identity_failure
    assert isinstance(failure, PeerIdMismatch) and failure.actual == peer(2)
    assert not pair.client.authenticated and not pair.server.authenticated
    assert "handshake_failed" in named(pair.client)
    closed = named(pair.server)["peer_closed"]
    assert closed[4] == b""
    assert not seen


def test_expected_peer_answers() -> None:
    pair = make_pair(expected=peer(2))
    pair.exchange()
    assert pair.client.authenticated


def test_handshake_survives_loss_and_disorder() -> None:
    """Q8: the ClientHello takes two packets, in any order."""
    for seed in range(8):
        rng = random.Random(seed)
        pair = make_pair()

        def lose(data: bytes, from_client: bool, rng: random.Random = rng) -> bytes | None:
            return None if rng.random() < 0.25 else data

        pair.change = lose
        for _ in range(60):
            pair.exchange(1)
            pair.now += 0.5
        assert pair.client.authenticated and pair.server.authenticated, seed
    pair = make_pair()
    first = [data for data, _ in pair.client.transmit(pair.now)]
    assert len(first) >= 2
    pair.server.receive(reversed(first), CLIENT, pair.now)
    pair.exchange()
    assert pair.client.authenticated


def test_altered_handshakes() -> None:
    """Any datagram with a byte changed, or cut: no identity comes of it, or the very right one."""
    for number in range(120):
        rng = random.Random(number)
        pair = make_pair()
        count, victim = 0, rng.randrange(6)

        def alter(data: bytes, from_client: bool, victim: int = victim, rng: random.Random = rng) -> bytes:
            nonlocal count
            count += 1
            if count - 1 != victim:
                return data
            if rng.random() < 0.3:
                return data[: rng.randrange(len(data))]
            broken = bytearray(data)
            broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return bytes(broken)

        pair.change = alter
        pair.exchange()
        assert pair.client.remote_key in (None, identity(2)[0].public_key)
        assert pair.server.remote_key in (None, identity(1)[0].public_key)


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=1500), max_size=8), st.booleans())
def test_garbage(datagrams: list[bytes], established: bool) -> None:
    """Whatever arrives, nothing is raised, and a connection that is there stays."""
    pair = make_pair()
    if established:
        pair.exchange()
    for engine, address in ((pair.client, SERVER), (pair.server, CLIENT)):
        engine.receive(datagrams, address, pair.now)
        engine.receive_segments(b"".join(datagrams) or b"x", 100, address, pair.now)
        engine.receive([b"\x40" + data for data in datagrams], address, pair.now)
        events(engine)
        engine.transmit(pair.now)
    if established:
        pair.exchange()
        assert pair.client.authenticated and pair.server.can_open


def test_tls_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parser raises beyond alerts ends the handshake, and nothing else."""
    for fault in (ValueError, IndexError, TypeError, AttributeError, AssertionError):
        pair = make_pair()

        def broken(*args: object, fault: type[Exception] = fault, **kwargs: object) -> None:
            raise fault("made up")

        monkeypatch.setattr(pair.server._bridge, "receive_crypto", broken)
        pair.exchange()
        code = named(pair.server)["handshake_failed"][1]
        assert code == 0x100 + 50
        assert not pair.client.authenticated


def test_an_alert_past_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_pair()

    def broken(*args: object) -> None:
        raise tls.AlertDecryptError("made up")

    monkeypatch.setattr(pair.server._bridge, "receive_crypto", broken)
    pair.exchange()
    assert named(pair.server)["handshake_failed"][1] == 0x100 + 51


def test_strangers_are_heard_for_so_long_only() -> None:
    """T3: the engine keeps what arrives out of order, byte by byte: before there is an identity, it gets little, and
    before there is proof of an address, still less."""
    noise = [b"\xc0" + bytes(999)]
    for size, client, heard in ((11, False, True), (17, False, False), (28, True, True), (33, True, False)):
        pair = make_pair()
        end, address = (pair.client, SERVER) if client else (pair.server, CLIENT)
        end.receive(noise * size, address, pair.now)
        pair.exchange()
        assert end.authenticated is heard, (size, client)
    shown = make_server(Start(bytes(8), bytes(8), True))
    assert pair.server._may_send == MAX_HELLO < shown._may_send == MAX_HANDSHAKE
    pair = make_pair()
    pair.exchange()
    assert pair.server._may_send == MAX_HANDSHAKE


def test_a_stateless_reset() -> None:
    """RFC 9000, section 10.3: a server that has forgotten everything but its token ends the connection."""
    pair = make_pair()
    pair.exchange()
    token = pair.server._bridge.stateless_reset_token
    assert token is not None
    for data, ends in ((bytes(40), False), (token[::-1], False), (token, True)):
        pair.client.receive([b"\x40" + bytes(30) + data], SERVER, pair.now)
        assert ("connection_terminated" in named(pair.client)) is ends
    assert not pair.client.can_open


def test_amplification() -> None:
    """T3: at most three times what an unproved address has sent."""
    pair = make_pair()
    received = sent = 0
    for data, _ in pair.client.transmit(pair.now):
        received += len(data)
        pair.server.receive([data], CLIENT, pair.now)
    for _ in range(50):
        sent += sum(len(data) for data, _ in pair.server.transmit(pair.now))
        pair.now += 0.5
        pair.server.handle_timeout(pair.now)
    assert 0 < sent <= 3 * received


# --- Retry and Version Negotiation, as a client meets them


def retried(client: Engine, *, cid: bytes = b"chosen!!") -> tuple[bytes, bytes]:
    """A Retry that answers the client, and the connection id it began with."""
    header = read_header(client.transmit(1.0)[0][0])
    assert header is not None
    return Tokens(bytes(32)).retry(header, ("127.0.0.1", 4001), cid, 1.0), header.destination_cid


def test_retry() -> None:
    """The client begins again with the token, and the handshake comes to its end."""
    client = make_client()
    packet, original = retried(client)
    client.receive([packet], SERVER, 1.0)
    again = read_header(client.transmit(1.0)[0][0])
    retry = read_retry(packet)
    assert again is not None and retry is not None
    assert (again.destination_cid, again.token) == (b"chosen!!", retry.token)
    pair = Pair(client, make_server(Start(b"chosen!!", original, True)))
    pair.now = 3.0  # what was sent at first is lost
    pair.exchange(20)
    assert client.authenticated and pair.server.authenticated


def test_retries_that_are_not_believed() -> None:
    """A wrong tag, another's, a second one, one that comes late, one for a server."""
    client = make_client()
    packet, _ = retried(client)
    client.receive([packet[:-1] + bytes([packet[-1] ^ 1])], SERVER, 1.0)
    client.receive([retried(make_client(config=EngineConfig()))[0][:30]], SERVER, 1.0)
    stranger = read_header(client.transmit(1.5)[0][0]) if client.transmit(1.5) else None
    assert stranger is None or stranger.token == b""
    for_another = Header(PacketKind.INITIAL, b"12345678", b"87654321", 1200)
    wrong_cid = Tokens(bytes(32)).retry(for_another, ("127.0.0.1", 4001), b"chosen!!", 1.0)
    client.receive([wrong_cid], SERVER, 1.0)
    client.receive([packet], SERVER, 1.0)
    assert client._start.retried
    core = client._core
    client.receive([packet], SERVER, 1.0)
    assert client._core is core
    pair = make_pair()
    pair.exchange()
    pair.server._take_retry(packet, pair.now)
    assert not pair.server._start.retried


def test_version_negotiation() -> None:
    """Q1: a peer of other versions is a failure, unless the packet lies."""
    client = make_client()
    header = read_header(client.transmit(1.0)[0][0])
    assert header is not None
    for source, versions in ((b"somebody", [2]), (header.destination_cid, [1, 2])):
        client.receive([encode_quic_version_negotiation(source, header.source_cid, versions)], SERVER, 1.0)
        assert events(client) == []
    packet = encode_quic_version_negotiation(header.destination_cid, header.source_cid, [0x6B3343CF])
    client.receive([packet, packet], SERVER, 1.0)
    [ended] = events(client)
    assert ended[0] == "connection_terminated" and b"other versions" in ended[3]  # type: ignore[operator]
    assert client.next_timeout() is None
    pair = make_pair()
    pair.exchange()
    pair.client._take_version_negotiation(pair.client.initial_cid, (2,))
    assert "connection_terminated" not in named(pair.client)


# --- commands on what is gone


def test_commands_on_nothing_do_nothing() -> None:
    pair = make_pair()
    pair.exchange()
    engine = pair.client
    assert not engine.send(1 << 40, b"x")
    engine.reset(1, 0)
    engine.stop(1 << 40, 0)
    assert engine.unsent(1 << 40) == 0
    engine.close(1, "done")
    engine.ping()
    assert not engine.send(0, b"x") and not engine.can_open


def test_joined_datagrams_and_single_ones_are_the_same() -> None:
    for joined in (False, True):
        pair = make_pair()
        pair.exchange()
        stream_id = pair.client.open_stream()
        pair.client.send(stream_id, bytes(20_000))
        pair.client.finish(stream_id)
        events(pair.server)
        datagrams = [data for data, _ in pair.client.transmit(pair.now)]
        size = len(datagrams[0])
        if joined:
            same = [data for data in datagrams if len(data) == size]
            pair.server.receive_segments(b"".join(same), size, CLIENT, pair.now)
            pair.server.receive([data for data in datagrams if len(data) != size], CLIENT, pair.now)
        else:
            pair.server.receive(datagrams, CLIENT, pair.now)
        got = 0
        for event in events(pair.server):
            if event[0] == "stream_data":
                assert isinstance(event[2], bytes)
                got += len(event[2])
        assert got > 10_000


def test_post_handshake_messages_of_a_client() -> None:
    """There are none: the server closes."""
    pair = make_pair()
    pair.exchange()
    pair.client._core.send_crypto(3, 0, b"\x04\x00\x00\x00")
    pair.exchange()
    assert "handshake_failed" in named(pair.server)


def test_tickets_without_end() -> None:
    """A client reads past some, not past any number."""
    pair = make_pair()
    pair.exchange()
    ticket = b"\x04\x00\x00\x0e" + bytes(9) + b"\x00\x01a\x00\x00"
    for number in range(MAX_HANDSHAKE // len(ticket)):
        pair.server._core.send_crypto(3, number * len(ticket), ticket)
        if number % 50 == 0:
            assert pair.client._core.state == "connected"
            pair.exchange(3)
    pair.exchange(5)
    assert "handshake_failed" in named(pair.client)


class Clock:
    """A processor of which each look at it takes ``step`` seconds."""

    step = 0.0
    now = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_keys_do_not_last_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9001, section 6.6: new ones after so many packets, in either direction, though packets are lost meanwhile."""
    pair = make_pair()
    pair.exchange()
    monkeypatch.setattr(_engine, "KEY_LIFE", 20)
    rng, phases = random.Random(1), list[int | None]()
    sent = rng.randbytes(200_000)
    stream_id = pair.client.open_stream()
    pair.client.send(stream_id, sent)
    pair.change = lambda data, from_client: None if rng.random() < 0.05 else data
    got = bytearray()
    while len(got) < len(sent):
        pair.exchange(1)
        pair.now += 0.05
        got += b"".join(bytes(event[2]) for event in events(pair.server) if event[0] == "stream_data")  # type: ignore[call-overload]
        phases.append(pair.client._core.send_key_phase)
    assert got == sent
    assert sum(one != other for one, other in itertools.pairwise(phases)) >= 3


def test_keys_that_the_peer_has_not_taken_yet_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9001, section 6.1."""
    pair = make_pair()
    pair.exchange()
    monkeypatch.setattr(_engine, "KEY_LIFE", 1)
    phases = []
    for _ in range(3):
        pair.client.ping()
        assert pair.client.transmit(pair.now)
        phases.append(pair.client._core.send_key_phase)
    assert phases == [1, 1, 1]


@pytest.mark.parametrize("joined", [True, False])
def test_packets_that_take_too_much_work(joined: bool) -> None:
    """Twice is too much, once is bad luck and paid back; then nothing is looked at any more, and the peer is told."""
    pair = make_pair()
    pair.exchange()
    events(pair.server)
    clock = Clock()
    pair.server._outside = replace(pair.server._outside, processor=clock, stopwatch=clock)
    stream_id = pair.client.open_stream()
    pair.client.send(stream_id, bytes(20_000))
    packets = [data for data, _ in pair.client.transmit(pair.now)]
    size = statistics.mode(map(len, packets))
    pair.server.receive([data for data in packets if len(data) != size], CLIENT, pair.now)
    packets = [data for data in packets if len(data) == size]
    events(pair.server)
    clock.step = 0.2
    pair.server.receive(packets[:1], CLIENT, pair.now)
    assert set(named(pair.server)) == {"stream_data"}
    clock.step = 1e-6
    for _ in range(400):
        pair.server.receive(packets[:1], CLIENT, pair.now)  # it pays back
    clock.step = 0.2
    if joined:
        pair.server.receive_segments(b"".join(packets[1:6]), size, CLIENT, pair.now)
    else:
        pair.server.receive(packets[1:6], CLIENT, pair.now)
    assert named(pair.server)["protocol_error"][1] == EXCESSIVE_WORK
    clock.step = 0.0
    pair.server.receive(packets[6:], CLIENT, pair.now)
    assert not events(pair.server)
    pair.exchange(2)
    assert named(pair.client)["peer_closed"][2] == EXCESSIVE_WORK


def test_larger_datagrams_when_the_path_takes_them() -> None:
    """The client finds out; nothing is sent in larger ones before."""
    sizes: list[int] = []
    pair = make_pair()

    def note(data: bytes, from_client: bool) -> bytes | None:
        sizes.append(len(data))
        return data if len(data) <= 1400 else None

    pair.change = note
    pair.exchange(30)
    pair.now += 1.0
    pair.exchange(30)
    stream_id = pair.client.open_stream()
    sizes.clear()
    pair.client.send(stream_id, bytes(50_000))
    pair.exchange(50)
    assert max(sizes) <= 1472 and sum(size == 1472 for size in sizes) < 5
