"""Cases S1, S2, S3, S5 and S7 over TLS, against a host: who proves nothing is nobody there."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from libp2p.abc import Direction, ProtocolId, RawConnection
from libp2p.addressing import parse
from libp2p.crypto.certificate import make_certificate, verify_certificate
from libp2p.crypto.keys import KeyType, PrivateKey, generate
from libp2p.errors import DialError, PeerIdMismatch, SecurityError
from libp2p.events import ConnectionOpened
from libp2p.host import RunningHost
from libp2p.peer_id import PeerId
from libp2p.security.noise import Noise
from libp2p.security.tls import Tls
from libp2p.testing import Hosts, Memory, memory_network, seeded_key
from libp2p.testing.raw import HEADER, line, pb, read_line
from tests.crypto.test_certificate import NOW, PREFIX, build, own_key, sequence, signed_key
from tests.security.tls_raw import YAMUX, RawTls, met, raw_context

pytestmark = pytest.mark.bar_c

IDENTITY = seeded_key("victim of theft")


def _tls(key: PrivateKey, muxers: Sequence[ProtocolId]) -> Tls:
    """With the clock by which the bad certificates are valid."""
    return Tls(key, muxers, clock=lambda: NOW)


@dataclass
class _Siege:
    """A host with TLS, whoever it let in, and a friend of its."""

    hosts: Hosts
    opened: list[ConnectionOpened] = field(default_factory=list)
    streams: list[trio.abc.AsyncResource] = field(default_factory=list)

    @property
    def victim(self) -> RunningHost:
        return self.hosts[0]

    async def dial(self, context: SSL.Context) -> RawTls:
        """Connect to the victim up to ``/tls/1.0.0``."""
        dialed = await Memory(self.hosts.network).dial(self.victim.listen_addrs()[0], peer=None)
        stream = dialed.stream
        self.streams.append(stream)
        await stream.send_all(HEADER + line("/tls/1.0.0"))
        assert await read_line(stream) == "/multistream/1.0.0"
        assert await read_line(stream) == "/tls/1.0.0"
        return RawTls(stream, context, dialer=True)


@asynccontextmanager
async def _siege() -> AsyncIterator[_Siege]:
    async with (
        memory_network(2, security=[Noise, _tls], connect="full") as hosts,
        trio.open_nursery() as nursery,
    ):
        siege = _Siege(hosts)

        async def watch() -> None:
            with siege.victim.subscribe(ConnectionOpened) as events:
                async for event in events:
                    siege.opened.append(event)

        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        yield siege
        await trio.sleep(20)
        assert not siege.opened, "somebody got in"
        assert len(siege.victim.connections()) == 1, "the friend is still there"
        for stream in siege.streams:
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def _ends(raw: RawTls) -> None:
    """The victim ends the connection at once, whatever we say."""
    with trio.fail_after(0.1), pytest.raises((EOFError, trio.BrokenResourceError, SSL.Error)):
        while await raw.receive():
            pass
        raise EOFError


# --- S3: the bypass of having no certificate --------------------------------------------------------------------------


@pytest.mark.parametrize("alpn", [(b"libp2p",), (YAMUX.encode(), b"libp2p")], ids=["later", "early"])
async def test_S3_a_dialer_without_a_certificate_gets_no_connection(alpn) -> None:
    """Neither as somebody made up nor as ourselves: no connection object exists, no handler runs."""
    async with _siege() as siege:
        for _ in range(3):
            raw = await siege.dial(raw_context(bare=True, alpn=alpn))
            await raw.handshake()  # in TLS 1.3 the client is done before the server has looked
            try:
                # What it would say next: the muxer, and a ping.
                await raw.send(HEADER + line(YAMUX))
            except trio.BrokenResourceError:
                pass
            await _ends(raw)
        assert {connection.peer for connection in siege.victim.connections()} == {siege.hosts[1].local_peer}
        assert siege.victim.local_peer not in siege.victim.peerstore.peers()


@pytest.mark.parametrize(
    "certificate",
    [
        lambda: build(without=True),
        lambda: build(extension=sequence(IDENTITY.public_key.marshal(), b"")),
        lambda: build(extension=sequence(b"", b"")),
    ],
    ids=["web certificate", "no signature", "no key"],
)
async def test_S3_a_certificate_without_a_proof_gets_no_connection(certificate) -> None:
    async with _siege() as siege:
        raw = await siege.dial(raw_context(certificate=certificate(), private_key=own_key()))
        await raw.handshake()
        await _ends(raw)


# --- S1 ---------------------------------------------------------------------------------------------------------------


async def test_S1_another_peer_answers() -> None:
    wanted = PeerId.from_key(seeded_key("wanted").public_key)
    async with _siege() as siege:
        listener = await Memory(siege.hosts.network).listen(parse("/memory/0"))
        addr = listener.addresses[0]
        siege.victim.peerstore.add_addrs(wanted, [addr], ttl=1000)
        seen: list[RawTls] = []

        async def refuse_noise() -> RawConnection:
            raw = await listener.accept()
            assert isinstance(raw, RawConnection)
            siege.streams.append(raw.stream)
            assert await read_line(raw.stream) == "/multistream/1.0.0"
            assert await read_line(raw.stream) == "/noise"
            await raw.stream.send_all(HEADER + line("na"))
            return raw

        async def answer() -> None:
            await refuse_noise()  # the dialer began the handshake with its proposal, and so has to come again
            raw = await refuse_noise()
            assert await read_line(raw.stream) == "/tls/1.0.0"
            await raw.stream.send_all(line("/tls/1.0.0"))
            seen.append(RawTls(raw.stream, raw_context(), dialer=False))
            with pytest.raises((EOFError, trio.BrokenResourceError)):
                await seen[0].handshake()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(DialError) as caught:
                await siege.victim.connect(wanted)
        ((tried, error),) = caught.value.attempts
        assert tried == addr
        assert isinstance(error, PeerIdMismatch)
        assert error.expected == wanted
        assert seen[0].connection.get_peer_certificate() is None, "the impostor never learnt who dialled"
        siege.streams.append(listener)


# --- S2 ---------------------------------------------------------------------------------------------------------------


def _extensions() -> Iterator[tuple[str, bytes]]:
    """Contents of the extension that prove nothing."""
    public = own_key().public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    identity, good = IDENTITY.public_key.marshal(), IDENTITY.sign(PREFIX + spki)
    for bit in range(0, 512, 2):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit}", sequence(identity, bytes(changed))
    other = seeded_key("somebody else")
    session = make_certificate(IDENTITY, now=NOW).certificate.public_key()
    signatures = {
        "empty": b"",
        "short": good[:-1],
        "long": good + b"\0",
        "zeros": bytes(64),
        "random": random.Random(1).randbytes(64),
        "no domain": IDENTITY.sign(spki),
        "domain only": IDENTITY.sign(PREFIX),
        "domain of Noise": IDENTITY.sign(b"noise-libp2p-static-key:" + spki),
        "other key": other.sign(PREFIX + spki),
        "own key": IDENTITY.sign(PREFIX + identity),
        "point alone": IDENTITY.sign(PREFIX + public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)),
    }
    yield from ((name, sequence(identity, signature)) for name, signature in signatures.items())
    yield "another session", signed_key(IDENTITY, session)
    keys = {
        "other's key": other.public_key.marshal(),
        "no key": b"",
        "RSA type": pb(1, 0) + pb(2, identity[4:]),
        "secp256k1 type": pb(1, 2) + pb(2, identity[4:]),
        "ECDSA type": pb(1, 3) + pb(2, identity[4:]),
        "unknown type": pb(1, 77) + pb(2, identity[4:]),
        "short key": pb(1, 1) + pb(2, identity[4:-1]),
        "swapped fields": pb(2, identity[4:]) + pb(1, 1),
        "garbage": b"\xff" * 36,
    }
    yield from ((name, sequence(key, good)) for name, key in keys.items())
    whole = sequence(identity, good)
    yield from ((f"cut at {at}", whole[:at]) for at in range(0, len(whole), 7))


@pytest.mark.parametrize("role", list(Direction), ids=lambda role: role.value)
async def test_S2_no_extension_without_a_proof_is_accepted(role) -> None:
    """All variants, in both roles, through whole handshakes."""
    variants = list(_extensions())
    assert 2 * len(variants) >= 580
    for name, extension in variants:
        context = raw_context(certificate=build(extension=extension), private_key=own_key())
        async with met(role, context) as found:
            assert found.channel is None, name
            assert isinstance(found.error, SecurityError), name
            assert "libp2p extension" in str(found.error) or "did not sign" in str(found.error), name


# --- S5 ---------------------------------------------------------------------------------------------------------------


def _off_the_curve() -> bytes:
    raw = generate(KeyType.ECDSA).public_key.raw
    return raw[:-1] + bytes((raw[-1] ^ 1,))


def _identity_keys() -> dict[str, bytes]:
    def rsa_key(bits: int, exponent: int = 65537) -> bytes:
        modulus = (1 << bits - 1) | 1
        public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        return pb(1, 0) + pb(2, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    return {
        "RSA-1024": rsa_key(1024),
        "RSA-8193": rsa_key(8193),
        "RSA-16384": rsa_key(16384),
        "off the curve": pb(1, 3) + pb(2, _off_the_curve()),
        "long": pb(1, 1) + pb(2, bytes(9000)),
    }


@pytest.mark.parametrize("what", list(_identity_keys()))
async def test_S5_identity_keys_are_looked_at_before_they_are_used(what) -> None:
    extension = sequence(_identity_keys()[what], bytes(256))
    context = raw_context(certificate=build(extension=extension), private_key=own_key())
    async with met(Direction.INBOUND, context) as found:
        assert isinstance(found.error, SecurityError)
        assert "libp2p extension" in str(found.error)


@pytest.mark.real_clock("measures processor time")
def test_S5_a_certificate_costs_its_reader_little() -> None:
    """The largest RSA key that is accepted for the certificate itself, against the clock."""
    key = rsa.generate_private_key(65537, 4096)
    data = build(key)
    before = time.process_time()
    for _ in range(20):
        verify_certificate(data, now=NOW)
    assert (time.process_time() - before) / 20 < 0.005


# --- S7 ---------------------------------------------------------------------------------------------------------------


async def test_S7_the_muxer_list_cannot_be_changed_in_transit() -> None:
    """It travels in the clear, and is part of what both sides sign."""

    def strip(wire, data: bytes) -> bytes | None:
        return data.replace(b"/yamux/1.0.0", b"/yamux/1.0.1")

    async with memory_network(2, security=[Tls]) as hosts:
        with hosts.network.tap(strip), pytest.raises(DialError) as caught:
            await hosts[0].connect(hosts[1].addrs[0])
        ((_, error),) = caught.value.attempts
        assert isinstance(error, SecurityError)
        assert not hosts[1].connections()
