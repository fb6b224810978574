"""TLS against its specification (T1 to T14, EM1 to EM3) and against peers that follow no specification."""

from __future__ import annotations

import hashlib
import ssl

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

import libp2p
from libp2p.abc import Direction
from libp2p.crypto.certificate import make_certificate
from libp2p.crypto.keys import KeyType, PrivateKey, generate
from libp2p.errors import PeerIdMismatch, SecurityError
from libp2p.muxers.mplex import Mplex
from libp2p.muxers.yamux import Yamux
from libp2p.peer_id import PeerId
from libp2p.protocols.ping import ping
from libp2p.security.noise import Noise
from libp2p.security.pnet import PreSharedKey
from libp2p.security.tls import Tls
from libp2p.security.tls._engine import MAX_HANDSHAKE, MAX_HANDSHAKE_RECORDS
from libp2p.security.tls._records import MAX_SILENT, SUITES
from libp2p.testing import memory_network, open_memory_host, seeded_key
from libp2p.testing.conformance.stream import receive_all, receive_exactly
from libp2p.testing.flaky import Dribble, Plain
from libp2p.transports.memory import MemoryNetwork
from tests.crypto.test_certificate import DAY, NOW, build, own_key
from tests.security.noise_raw import streams
from tests.security.tls_raw import MPLEX, OURS, THEIRS, YAMUX, RawTls, Sealer, met, raw_context

BOTH = pytest.mark.parametrize("role", list(Direction), ids=lambda role: role.value)
KEY_UPDATE = b"\x18\0\0\x01\x01"
"""A handshake message: change your keys, and I ask you to change yours (RFC 8446, 4.6.3)."""


# --- with a second implementation's rules -----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("suite", SUITES)
async def test_talks_to_a_context_of_another_hand(role, suite) -> None:
    async with met(role, raw_context(suite=suite.encode())) as found:
        assert found.raw.connection.get_cipher_name() == suite
        assert found.raw_error is None
        assert found.channel is not None
        assert found.channel.remote_peer == PeerId.from_key(THEIRS.public_key)
        assert found.channel.remote_key == THEIRS.public_key
        assert found.channel.muxer is None
        for size in (1, 1000, 16_384, 16_385, 200_000):
            data = hashlib.shake_128(b"%d" % size).digest(size)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.raw.send, data)
                assert await receive_exactly(found.channel.stream, size) == data
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.channel.stream.send_all, data)
                got = bytearray()
                while len(got) < size:
                    got += await found.raw.receive()
            assert got == data


# --- T1: versions -----------------------------------------------------------------------------------------------------


@BOTH
async def test_T1_an_older_tls_is_refused(role) -> None:
    async with met(role, raw_context(version=SSL.TLS1_2_VERSION)) as found:
        assert isinstance(found.error, SecurityError)
        assert "protocol" in str(found.error)


# --- T2, S3: exactly one certificate ----------------------------------------------------------------------------------


async def test_T2_S3_a_dialer_without_a_certificate_is_nobody() -> None:
    async with met(Direction.INBOUND, raw_context(bare=True)) as found:
        assert isinstance(found.error, SecurityError)
        assert "did not return a certificate" in str(found.error)
        assert found.raw_error is None, "it believed to be done, as TLS 1.3 has it"
        with pytest.raises(SSL.Error, match="certificate required"):
            await found.raw.receive()


async def test_T2_S3_a_dialer_of_the_standard_library_is_nobody() -> None:
    """Another TLS, which was never told to have a certificate."""
    async with streams() as (ours, theirs), trio.open_nursery() as nursery:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["libp2p"])

        async def dial() -> None:
            with pytest.raises(trio.BrokenResourceError):
                secured = trio.SSLStream(theirs, context)
                await secured.do_handshake()
                await secured.receive_some()

        nursery.start_soon(dial)
        with pytest.raises(SecurityError, match="did not return a certificate"):
            await Tls(OURS).secure(ours, direction=Direction.INBOUND, peer=None)
        await ours.aclose()


@BOTH
async def test_T2_a_chain_is_refused(role) -> None:
    more = make_certificate(OURS, now=NOW).certificate
    for count in (1, 3):
        async with met(role, raw_context(chain=[more] * count)) as found:
            assert isinstance(found.error, SecurityError)
            assert f"{count + 1} certificates" in str(found.error)


def _bad_certificates() -> dict[str, tuple[bytes, str]]:
    return {
        "expired": (build(ends=-1), "expired"),
        "not yet valid": (build(begins=1), "not valid yet"),
        "no extension": (build(without=True), "no libp2p extension"),
        "unknown critical": (
            build(more=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x"), True),)),
            "unknown critical extension",
        ),
        "signed by another": (build(signer=make_certificate(OURS, now=NOW).private_key), "did not sign itself"),
        "stolen identity": (build(extension=b"\x30\x04\x04\x00\x04\x00"), "libp2p extension"),
        "long": (
            build(more=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(64_000)), False),)),
            "at most",
        ),
    }


@BOTH
@pytest.mark.parametrize("what", list(_bad_certificates()))
async def test_S4_a_bad_certificate_is_refused_with_its_reason(role, what) -> None:
    """The whole list is in the tests of certificates; these go through the handshake."""
    data, reason = _bad_certificates()[what]
    async with met(role, raw_context(certificate=data, private_key=own_key())) as found:
        assert found.channel is None
        assert isinstance(found.error, SecurityError)
        assert reason in str(found.error)


async def test_S4_a_certificate_expires_on_the_way() -> None:
    """It is looked at once, at the end, and what counts is that moment."""
    async with met(
        Direction.INBOUND, raw_context(certificate=build(), private_key=own_key()), now=NOW + DAY + 1
    ) as found:
        assert "expired" in str(found.error)


@BOTH
async def test_T5_the_extension_may_be_critical(role) -> None:
    async with met(role, raw_context(certificate=build(critical=True), private_key=own_key())) as found:
        assert found.channel is not None


@BOTH
async def test_S2_a_copied_certificate_is_of_no_use(role) -> None:
    """Somebody shows another's certificate, and does not hold its key."""
    stolen = make_certificate(seeded_key("victim"), now=NOW)
    context = raw_context()
    context.use_certificate(stolen.certificate)
    with pytest.raises(SSL.Error):
        context.check_privatekey()
    async with met(role, context) as found:
        assert found.channel is None


# --- T9, EM1 to EM3: ALPN ---------------------------------------------------------------------------------------------


async def _client_hello(muxers: tuple[str, ...]) -> bytes:
    """The first flight of a dialer."""
    async with streams() as (ours, theirs):
        with trio.move_on_after(1):
            await Tls(OURS, muxers).secure(ours, direction=Direction.OUTBOUND, peer=None)
        return bytes(await theirs.receive_some(65536))


def _extensions(hello: bytes) -> dict[int, bytes]:
    """The extensions of a ClientHello by number (RFC 8446, 4.1.2)."""
    assert hello[:1] == b"\x16"
    assert hello[5] == 1
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    at += 2
    found = {}
    while at < len(hello):
        number, size = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        found[number] = hello[at + 4 : at + 4 + size]
        at += 4 + size
    return found


async def test_EM1_T10_what_a_dialer_says_first() -> None:
    for muxers in ((), (YAMUX,), (MPLEX, YAMUX)):
        extensions = _extensions(await _client_hello(muxers))
        names = b"".join(bytes((len(name),)) + name.encode() for name in (*muxers, "libp2p"))
        assert extensions[16] == len(names).to_bytes(2, "big") + names
        assert 0 not in extensions, "no server name"
        assert extensions[43] == b"\x02\x03\x04", "TLS 1.3 and nothing else"
        assert 41 not in extensions, "nothing is resumed"
        assert 42 not in extensions, "no early data"


@pytest.mark.parametrize(
    ("offered", "muxers", "agreed"),
    [
        ((YAMUX, "libp2p"), (YAMUX, MPLEX), YAMUX),
        ((MPLEX, YAMUX, "libp2p"), (YAMUX, MPLEX), MPLEX),
        (("/other/1", MPLEX, "libp2p"), (YAMUX, MPLEX), MPLEX),
        (("/other/1", "libp2p"), (YAMUX,), None),
        (("libp2p",), (YAMUX,), None),
        (("libp2p", YAMUX), (YAMUX,), None),
        ((YAMUX, "libp2p"), (), None),
    ],
    ids=str,
)
async def test_EM2_a_listener_takes_the_first_it_knows(offered, muxers, agreed) -> None:
    context = raw_context(alpn=[name.encode() for name in offered])
    async with met(Direction.INBOUND, context, muxers=muxers) as found:
        assert found.channel is not None
        assert found.channel.muxer == agreed
        assert found.raw.connection.get_alpn_proto_negotiated() == (agreed or "libp2p").encode()


@pytest.mark.parametrize(("choice", "agreed"), [(b"libp2p", None), (YAMUX.encode(), YAMUX)])
async def test_EM2_a_dialer_takes_the_listeners_choice(choice, agreed) -> None:
    async with met(Direction.OUTBOUND, raw_context(choose=lambda _: choice), muxers=(MPLEX, YAMUX)) as found:
        assert found.channel is not None
        assert found.channel.muxer == agreed


@pytest.mark.parametrize("choice", [b"/other/1", b"h2", MPLEX.encode(), SSL.NO_OVERLAPPING_PROTOCOLS])
async def test_EM2_S7_a_choice_that_was_not_offered_is_refused(choice) -> None:
    async with met(Direction.OUTBOUND, raw_context(choose=lambda _: choice), muxers=(YAMUX,)) as found:
        assert isinstance(found.error, SecurityError)


@pytest.mark.parametrize("offered", [(b"h2",), (b"/other/1", b"http/1.1"), (b"\xff",), (b"libp2p2",)], ids=str)
async def test_EM3_T9_nothing_in_common_ends_the_handshake(offered) -> None:
    async with met(Direction.INBOUND, raw_context(alpn=offered), muxers=(YAMUX,)) as found:
        assert isinstance(found.error, SecurityError)
        assert "no ALPN protocol in common" in str(found.error)
        assert found.raw_error is not None
        assert "no application protocol" in str(found.raw_error)


async def test_T9_a_dialer_without_ALPN_is_refused() -> None:
    async with met(Direction.INBOUND, raw_context(alpn=())) as found:
        assert isinstance(found.error, SecurityError)
        assert "no ALPN" in str(found.error)


# --- T10, T11, T13, T14 -----------------------------------------------------------------------------------------------


async def test_T10_a_server_name_is_ignored() -> None:
    async def act(raw: RawTls) -> None:
        raw.connection.set_tlsext_host_name(b"example.org")
        await raw.handshake()

    async with met(Direction.INBOUND, act=act) as found:
        assert found.channel is not None


async def test_T11_S1_another_peer_than_expected_never_sees_who_dialled() -> None:
    expected = PeerId.from_key(seeded_key("expected").public_key)
    async with met(Direction.OUTBOUND, peer=expected) as found:
        assert isinstance(found.error, PeerIdMismatch)
        assert (found.error.expected, found.error.actual) == (expected, PeerId.from_key(THEIRS.public_key))
        assert isinstance(found.raw_error, EOFError)
        assert found.raw.connection.get_peer_certificate() is None, "our certificate was never sent"


async def test_T11_a_listener_may_expect_somebody_too() -> None:
    expected = PeerId.from_key(seeded_key("expected").public_key)
    async with met(Direction.INBOUND, peer=expected) as found:
        assert isinstance(found.error, PeerIdMismatch)


async def test_T13_a_large_hello() -> None:
    """It spans records and packets; a listener takes it in pieces of any size. Ours is large itself."""
    alpn = [b"/muxer/%04d" % number + b"x" * 200 for number in range(200)] + [b"libp2p"]
    async with met(Direction.INBOUND, raw_context(alpn=alpn), wrap=lambda stream: Dribble(stream, 700)) as found:
        assert found.channel is not None


async def test_a_handshake_without_end_is_given_up() -> None:
    async def act(raw: RawTls) -> None:
        for _ in range(10_000):
            await raw.stream.send_all(b"\x14\x03\x03\x00\x01\x01" * 1000)

    for role in Direction:
        async with met(role, act=act) as found:
            assert isinstance(found.error, SecurityError)


async def test_a_hello_in_crumbs_is_given_up() -> None:
    """A message as long as OpenSSL takes, a byte a record: what surrounds it is counted too."""

    async def act(raw: RawTls) -> None:
        head, crumb = b"\x16\x03\x01\x00\x01", b"\x16\x03\x01\x00\x01\x00"
        await raw.stream.send_all(b"".join(head + bytes((byte,)) for byte in b"\x01\x01\xff\x00"))
        for _ in range(100):
            await raw.stream.send_all(crumb * 1000)

    async with met(Direction.INBOUND, act=act) as found:
        assert isinstance(found.error, SecurityError)
        assert f"longer than {MAX_HANDSHAKE} bytes or {MAX_HANDSHAKE_RECORDS} records" in str(found.error)


async def test_T14_the_certificate_is_fresh_and_not_of_the_identity() -> None:
    seen = set()
    for _ in range(2):
        async with met(Direction.INBOUND) as found:
            certificate = found.raw.connection.get_peer_certificate(as_cryptography=True)
            assert certificate is not None
            seen.add(certificate.public_bytes(Encoding.DER))
    assert len(seen) == 2


KINDS = [(KeyType.ED25519, 0), (KeyType.SECP256K1, 0), (KeyType.ECDSA, 0), (KeyType.RSA, 2048), (KeyType.RSA, 4096)]


@pytest.fixture(scope="module")
def keys() -> list[PrivateKey]:
    return [generate(kind, bits=bits) for kind, bits in KINDS]


async def test_every_kind_of_identity_with_every_other(keys) -> None:
    protocols = [Tls(key) for key in keys]
    for dialer, dialer_key in zip(protocols, keys, strict=True):
        for listener, listener_key in zip(protocols, keys, strict=True):
            async with streams() as (ours, theirs), trio.open_nursery() as nursery:
                expected = PeerId.from_key(dialer_key.public_key)

                async def listen(listener=listener, theirs=theirs, expected=expected) -> None:
                    await listener.secure(theirs, direction=Direction.INBOUND, peer=expected)

                nursery.start_soon(listen)
                channel = await dialer.secure(ours, direction=Direction.OUTBOUND, peer=None)
                assert channel.remote_key == listener_key.public_key


# --- no session outlives its connection -------------------------------------------------------------------------------


async def test_a_session_is_of_no_use() -> None:
    """None is handed out, and who comes back with a session shows a certificate like everybody."""
    tls = Tls(OURS, clock=lambda: NOW)
    sessions: list[SSL.Session] = []
    context = raw_context()
    for attempt in range(2):
        async with streams() as (ours, theirs), trio.open_nursery() as nursery:
            raw = RawTls(theirs, context, dialer=True)
            if attempt:
                raw.connection.set_session(sessions[0])

            async def dial(raw=raw) -> None:
                await raw.handshake()

            nursery.start_soon(dial)
            channel = await tls.secure(ours, direction=Direction.INBOUND, peer=None)
            shaken = len(raw.seen)
            await channel.stream.send_all(b"x")
            assert await raw.receive() == b"x"
            assert len(raw.seen) == shaken + 5 + 1 + 17, "one record; no tickets"
            session = raw.connection.get_session()
            assert session is not None
            sessions.append(session)
            # A resumed handshake would not show certificates again.
            assert len(raw.seen) > 1000, "a whole handshake, certificate and all"
            await channel.stream.aclose()


# --- records ----------------------------------------------------------------------------------------------------------


async def test_N10_a_changed_record_ends_it() -> None:
    for at in (0, 3, 5, 30, -1):
        async with met(Direction.INBOUND) as found:
            assert found.channel is not None
            record = bytearray(Sealer(found.secrets["CLIENT_TRAFFIC_SECRET_0"]).seal(b"some bytes" * 10))
            record[at] ^= 0x40
            await found.raw.stream.send_all(bytes(record) + bytes(70_000))
            with pytest.raises(SecurityError) as caught:
                await found.channel.stream.receive_chunks()
            assert caught.value.stage == "record"
            with pytest.raises((SecurityError, trio.BrokenResourceError)):
                await found.channel.stream.receive_chunks()


@pytest.mark.parametrize("order", [(0, 0), (1, 0), (0, 2), (2, 1, 0), (0, 1, 1)], ids=str)
async def test_S6_replayed_swapped_and_dropped_records_end_it(order) -> None:
    """As with Noise: what came in order is delivered, and nothing behind the first that did not."""
    async with met(Direction.INBOUND) as found:
        assert found.channel is not None
        sealer = Sealer(found.secrets["CLIENT_TRAFFIC_SECRET_0"])
        records = [sealer.seal(b"%d" % number) for number in range(3)]
        got = bytearray()
        with pytest.raises(SecurityError):
            for number in order:
                await found.raw.stream.send_all(records[number])
                got += await found.channel.stream.receive_some()
        assert b"012".startswith(bytes(got))


@BOTH
async def test_the_end_needs_a_farewell(role) -> None:
    """With it, the end of the stream; without it, somebody may have cut the connection."""
    async with met(role) as found:
        assert found.channel is not None
        await found.raw.send(b"last words")
        await found.raw.close()
        assert await found.channel.stream.receive_some() == b"last words"
        assert await found.channel.stream.receive_some() == b""
        assert list(await found.channel.stream.receive_chunks()) == []
    for plain in (False, True):
        async with met(role, wrap=Plain if plain else lambda stream: stream) as found:
            assert found.channel is not None
            await found.raw.send(b"last words")
            await found.raw.stream.aclose()
            assert await found.channel.stream.receive_some() == b"last words"
            with pytest.raises(trio.BrokenResourceError, match="without a farewell"):
                await found.channel.stream.receive_some()


@pytest.mark.parametrize("plain", [False, True])
async def test_we_say_farewell(plain) -> None:
    async with met(Direction.OUTBOUND, wrap=Plain if plain else lambda stream: stream) as found:
        assert found.channel is not None
        await found.channel.stream.send_all(b"bye")
        await found.channel.stream.aclose()
        await found.channel.stream.aclose()
        assert await found.raw.receive() == b"bye"
        assert await found.raw.receive() == b"", "not an EOFError"
        with pytest.raises(trio.ClosedResourceError):
            await found.channel.stream.receive_some()
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await found.channel.stream.send_all(b"more")


@pytest.mark.parametrize("plain", [False, True])
async def test_closing_waits_for_nobody(plain) -> None:
    """Not for a peer that reads nothing, and not when it is cancelled."""
    for cancelled in (False, True):
        async with met(Direction.OUTBOUND, wrap=Plain if plain else lambda stream: stream) as found:
            assert found.channel is not None
            stream = found.channel.stream
            with trio.move_on_after(1):
                await stream.send_all(bytes(3_000_000))
            started = trio.current_time()
            with trio.CancelScope() as scope:
                if cancelled:
                    scope.cancel()
                await stream.aclose()
            assert trio.current_time() - started <= 1.0
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await found.raw.stream.send_all(b"x")


async def test_an_alert_says_why() -> None:
    async with met(Direction.OUTBOUND) as found:
        assert found.channel is not None
        # OpenSSL's tickets were the first two records.
        alert = Sealer(found.secrets["SERVER_TRAFFIC_SECRET_0"], 2).seal(b"\x02\x2a", 21)
        await found.raw.stream.send_all(alert)
        with pytest.raises(SecurityError, match="bad certificate"):
            await found.channel.stream.receive_some()


async def test_new_keys_are_taken() -> None:
    """A peer may change its keys and ask for ours to change; the answer leaves with what is written next."""
    async with met(Direction.INBOUND) as found:
        assert found.channel is not None
        sealer = Sealer(found.secrets["CLIENT_TRAFFIC_SECRET_0"])
        await found.raw.stream.send_all(sealer.seal(KEY_UPDATE, 22))
        with trio.move_on_after(1):
            await found.channel.stream.receive_some()
        await found.channel.stream.send_all(b"with new keys")
        assert await found.raw.receive() == b"with new keys"


@BOTH
async def test_a_key_that_is_used_up_is_replaced(role, monkeypatch) -> None:
    monkeypatch.setattr("libp2p.security.tls._stream.MAX_RECORDS", 3)
    async with met(role) as found:
        assert found.channel is not None
        for number in range(20):
            await found.channel.stream.send_all(b"%d" % number)
            assert await found.raw.receive() == b"%d" % number
        await found.raw.send(b"nobody asked")
        assert await found.channel.stream.receive_some() == b"nobody asked"


@pytest.mark.parametrize(("kind", "content"), [(23, b""), (22, KEY_UPDATE)], ids=["empty records", "key updates"])
async def test_M5_records_without_content_and_without_end(kind, content) -> None:
    """Bounded between two with content."""
    async with met(Direction.INBOUND) as found, trio.open_nursery() as nursery:
        assert found.channel is not None
        secret = found.secrets["CLIENT_TRAFFIC_SECRET_0"]

        async def flood() -> None:
            sealer, key = Sealer(secret), secret
            try:
                for _ in range(MAX_SILENT):
                    await found.raw.stream.send_all(sealer.seal(content, kind))
                    if content:
                        key = Sealer._expand(key, b"traffic upd", 32)
                        sealer = Sealer(key)
                await found.raw.stream.send_all(sealer.seal(b"so far, so good"))
                while True:
                    await found.raw.stream.send_all(sealer.seal(b""))
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(flood)
        assert await found.channel.stream.receive_some() == b"so far, so good"
        with pytest.raises(SecurityError, match="without end") as caught:
            await found.channel.stream.receive_some()
        assert caught.value.stage == "record"
        await found.channel.stream.aclose()


async def test_M5_answers_do_not_pile_up() -> None:
    """A peer that asks for new keys between bytes that count gets one for all, once something is sent to it."""
    async with met(Direction.INBOUND) as found:
        assert found.channel is not None
        stream, key = found.channel.stream, found.secrets["CLIENT_TRAFFIC_SECRET_0"]
        for _ in range(1000):
            sealer = Sealer(key)
            await found.raw.stream.send_all(sealer.seal(b"x") + sealer.seal(KEY_UPDATE, 22))
            key = Sealer._expand(key, b"traffic upd", 32)
            assert await stream.receive_some() == b"x"
        before = len(found.raw.seen)
        await stream.send_all(b"y")
        assert await found.raw.receive() == b"y"
        assert len(found.raw.seen) - before == (5 + 5 + 17) + (5 + 1 + 17)


async def test_answers_leave_with_what_is_written_next() -> None:
    async with met(Direction.INBOUND) as found:
        assert found.channel is not None
        stream, key = found.channel.stream, found.secrets["CLIENT_TRAFFIC_SECRET_0"]
        for number in range(6):
            sealer = Sealer(key)
            await found.raw.stream.send_all(sealer.seal(b"x" * 16_000) + sealer.seal(KEY_UPDATE, 22))
            key = Sealer._expand(key, b"traffic upd", 32)
            await receive_exactly(stream, 16_000)
            if number % 2:
                await stream.send_all(b"%d" % number)
                assert await found.raw.receive() == b"%d" % number


async def test_the_largest_record() -> None:
    async with met(Direction.INBOUND) as found:
        assert found.channel is not None
        sealer = Sealer(found.secrets["CLIENT_TRAFFIC_SECRET_0"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.raw.stream.send_all, sealer.seal(b"x" * 16_384))
            assert await receive_exactly(found.channel.stream, 16_384) == b"x" * 16_384
        await found.raw.stream.send_all(sealer.seal(b"x" * 16_385))
        with pytest.raises(SecurityError):
            await found.channel.stream.receive_some()


# --- in a host --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, False])
async def test_hosts_agree_on_the_muxer_early_or_later(early) -> None:
    def make(key: PrivateKey, muxers) -> Tls:
        return Tls(key, muxers if early else ())

    async with memory_network(2, security=[make], muxers=[Yamux, Mplex], connect="full") as (one, two):
        assert await ping(one, two.local_peer, count=1)
        assert await ping(two, one.local_peer, count=1)


async def test_C5_hosts_with_noise_and_tls_meet_those_with_one() -> None:
    network = MemoryNetwork()
    async with (
        open_memory_host(network, security=[Noise, Tls]) as both,
        open_memory_host(network, security=[Tls]) as tls,
        open_memory_host(network, security=[Noise]) as noise,
    ):
        for one, other in ((both, tls), (both, noise)):
            await one.connect(other.addrs[0])
            assert await ping(one, other.local_peer, count=1)


@pytest.mark.sockets("the engine loads in a thread, and writes leave at the end of a tick")
@pytest.mark.parametrize("psk", [None, PreSharedKey(bytes(32))], ids=["public", "private"])
async def test_over_tcp(psk) -> None:
    """The defaults offer it; with a private network below it as well."""
    data = hashlib.shake_128(b"tcp").digest(3_000_000)

    async def echo(stream: libp2p.Stream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async with (
        libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], psk=psk) as server,
        libp2p.open_host(security=[Tls], psk=psk) as client,
    ):
        server.handle("/echo/1", echo)
        await client.connect(server.addrs[0])
        async with await client.open_stream(server.local_peer, "/echo/1") as stream, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            nursery.start_soon(send)
            assert await receive_all(stream) == data


def test_the_extra_is_named_when_it_is_missing(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"libp2p-trio\[tls\]"):
        Tls(OURS)
