"""Noise against its specifications (requirements N1 to N11, EM3 to EM7) and a second implementation."""

from __future__ import annotations

import hashlib
import struct
from functools import partial

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from libp2p.abc import Direction, SecureChannel
from libp2p.crypto.keys import KeyType, PrivateKey, generate, unmarshal_public_key
from libp2p.errors import DecodeError, LocalProtocolError, PeerIdMismatch, SecurityError
from libp2p.multistream import Agreed
from libp2p.muxers.mplex import Mplex
from libp2p.muxers.yamux import Yamux
from libp2p.pb import noise_pb2
from libp2p.peer_id import PeerId
from libp2p.protocols.ping import ping
from libp2p.security.noise import Noise
from libp2p.security.noise._codec import Payload, decode_payload, encode_payload
from libp2p.security.noise._machine import Handshake, LocalIdentity
from libp2p.testing import Memory, memory_network, open_memory_host, seeded_key
from libp2p.testing.conformance.stream import receive_exactly
from libp2p.testing.raw import Identity, NoiseXX, RawPeer, Wants, pb, read_uvarint, yamux
from libp2p.transports.memory import MemoryNetwork
from tests.security.noise_raw import OURS, met, streams

BOTH = (Direction.OUTBOUND, Direction.INBOUND)

# --- N1: the published vector -----------------------------------------------------------------------------------------

# Noise_XX_25519_ChaChaPoly_SHA256 of the cacophony set, as used by snow and others.
PROLOGUE = b"John Galt"
INITIATOR_STATIC = bytes.fromhex("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1")
INITIATOR_EPHEMERAL = bytes.fromhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a")
RESPONDER_STATIC = bytes.fromhex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893")
RESPONDER_EPHEMERAL = bytes.fromhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b")
MESSAGES = [
    (
        b"Ludwig von Mises",
        "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f6e204d69736573",
    ),
    (
        b"Murray Rothbard",
        "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884381cbad1f276e038c48378ffce2b65285e08d6b68aaa3"
        "629a5a8639392490e5b9bd5269c2f1e4f488ed8831161f19b7815528f8982ffe09be9b5c412f8a0db50f8814c7194e83f23dbd8d162c"
        "9326ad",
    ),
    (
        b"F. A. Hayek",
        "c7195ffacac1307ff99046f219750fc47693e23c3cb08b89c2af808b444850a80ae475b9df0f169ae80a89be0865b57f58c9fea0d4ec"
        "82a286427402f113e4b6ae769a1d95941d49b25030",
    ),
    (b"Carl Menger", "96763ed773f8e47bb3712f0e29b3060ffc956ffc146cee53d5e1df"),
    (b"Jean-Baptiste Say", "3e40f15f6f3a46ae446b253bf8b1d9ffb6ed9b174d272328ff91a7e2e5c79c07f5"),
    (
        b"Eugen B\xf6hm von Bawerk",
        "eb3f3515110702e047a6c9da4478b6ead94873c11c0f2d710ddb3f09fce024b3a58502ae3f",
    ),
]
HANDSHAKE_HASH = "c8e5f64e846193be2a834104c2a009868d6c9f3bd3c186299888b488b2f1f58e"


def test_N1_second_implementation_agrees_with_the_vector() -> None:
    initiator = NoiseXX(
        initiator=True, static=INITIATOR_STATIC, ephemeral=INITIATOR_EPHEMERAL, prologue=PROLOGUE
    )  # fmt: skip
    responder = NoiseXX(initiator=False, static=RESPONDER_STATIC, ephemeral=RESPONDER_EPHEMERAL, prologue=PROLOGUE)
    sides = [initiator, responder]
    for number, (payload, expected) in enumerate(MESSAGES):
        writer, reader = sides if number % 2 == 0 else sides[::-1]
        if number < 3:
            message = writer.write(payload)
            assert reader.read(message) == payload
        else:
            message = writer.seal(payload)[2:]
            assert reader.open(message) == payload
        assert message.hex() == expected
    assert initiator.h.hex() == responder.h.hex() == HANDSHAKE_HASH


class _VectorHandshake(Handshake):
    """The library's handshake with the vector's payloads in place of libp2p's."""

    def __init__(self, static: bytes, ephemeral: bytes, payloads: list[bytes], *, initiator: bool) -> None:
        self.payloads = payloads
        self.received: list[bytes] = []
        private = X25519PrivateKey.from_private_bytes(static)
        super().__init__(
            LocalIdentity(private, private.public_key().public_bytes_raw(), b"", b""),
            initiator=initiator,
            ephemeral=X25519PrivateKey.from_private_bytes(ephemeral),
            prologue=PROLOGUE,
        )

    def _send_first(self) -> None:
        public = self._ephemeral.public_key().public_bytes_raw()
        self._symmetric.mix_hash(public)
        self._put(public + self._symmetric.encrypt(self.payloads.pop(0)))

    def _payload(self, muxers) -> bytes:
        return self.payloads.pop(0)

    def _accept(self, static: bytes, data: bytes) -> Payload:
        self.received.append(data)
        self._remote = (PeerId.from_key(OURS.public_key), OURS.public_key)
        return Payload(b"", b"")


def test_N1_the_library_agrees_with_the_vector() -> None:
    payloads, expected = zip(*MESSAGES, strict=True)
    initiator = _VectorHandshake(
        INITIATOR_STATIC, INITIATOR_EPHEMERAL, [payloads[0], payloads[2]], initiator=True
    )  # fmt: skip
    responder = _VectorHandshake(RESPONDER_STATIC, RESPONDER_EPHEMERAL, [payloads[1]], initiator=False)
    for number, text in enumerate(expected[:3]):
        writer, reader = (initiator, responder) if number != 1 else (responder, initiator)
        message = writer.data_to_send()
        assert message[2:].hex() == text
        assert int.from_bytes(message[:2], "big") == len(message) - 2
        done = reader.receive_data(message)
        if number == 1:
            ours = done
    assert (initiator.received, responder.received) == ([payloads[1]], [payloads[2]])
    assert ours is not None
    assert done is not None
    for number, cipher in ((3, done.send), (4, ours.send), (5, done.send)):
        sealed = cipher.aead.encrypt(struct.pack("<IQ", 0, cipher.nonce), payloads[number], None)
        cipher.nonce += 1
        assert sealed.hex() == expected[number]
    assert initiator._symmetric.hash.hex() == HANDSHAKE_HASH


async def test_N1_a_prologue_must_be_common() -> None:
    async with streams() as (ours, theirs), trio.open_nursery() as nursery:

        async def fail(noise: Noise, stream, direction: Direction) -> None:
            with pytest.raises((SecurityError, trio.BrokenResourceError)):
                await noise.secure(stream, direction=direction, peer=None)
            await stream.aclose()

        nursery.start_soon(fail, Noise(OURS, prologue=b"a"), ours, Direction.OUTBOUND)
        nursery.start_soon(fail, Noise(OURS, prologue=b"b"), theirs, Direction.INBOUND)


# --- both ways against the second implementation ----------------------------------------------------------------------


@pytest.mark.parametrize("role", BOTH, ids=lambda role: role.value)
async def test_talks_to_the_second_implementation(role) -> None:
    async with met(role) as found:
        assert found.raw_done
        assert found.channel is not None
        assert bytes(found.channel.remote_peer) == found.raw.identity.peer
        assert found.channel.remote_key.marshal() == found.raw.identity.public
        for size in (1, 1000, 65_519, 65_520, 200_000):
            data = hashlib.shake_128(b"%d" % size).digest(size)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.raw.send, data)
                assert await receive_exactly(found.channel.stream, size) == data
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.channel.stream.send_all, data)
                got = b""
                while len(got) < size:
                    got = got + await found.raw.receive()
                assert got == data


# --- N2: lengths ------------------------------------------------------------------------------------------------------


async def test_N2_records_are_at_most_65535_bytes() -> None:
    async with met(Direction.OUTBOUND) as found, trio.open_nursery() as nursery:
        assert found.channel is not None
        nursery.start_soon(found.channel.stream.send_all, bytes(1024 * 1024))
        sizes, total = [], 0
        while total < 1024 * 1024:
            record = await found.raw.read_message()
            sizes.append(len(record))
            total += len(found.raw.noise.open(record))
        assert max(sizes) == 65_535
        assert len(sizes) == 17, "a mebibyte needs seventeen records and no more"


async def test_N2_the_longest_record_is_accepted() -> None:
    async with met(Direction.INBOUND) as found, trio.open_nursery() as nursery:
        assert found.channel is not None
        record = found.raw.noise.seal(b"x" * 65_519)
        assert len(record) == 2 + 65_535
        nursery.start_soon(found.raw.stream.send_all, record)
        assert list(await found.channel.stream.receive_chunks()) == [b"x" * 65_519]


# --- N3 to N6: the payload --------------------------------------------------------------------------------------------


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        tag, data = read_uvarint(data)
        assert tag % 8 == 2
        size, data = read_uvarint(data)
        found.append((tag // 8, data[:size]))
        data = data[size:]
    return found


@pytest.mark.parametrize("role", BOTH, ids=lambda role: role.value)
async def test_N3_payload_bytes(role) -> None:
    muxers = ("/yamux/1.0.0", "/mplex/6.7.0")
    async with met(role, Wants(muxers=muxers), muxers=muxers) as found:
        fields = _fields(found.raw.remote_payload)
        assert [number for number, _ in fields] == [1, 2, 4]
        assert fields[0][1] == OURS.public_key.marshal()
        assert found.raw.noise.rs is not None
        signed = b"noise-libp2p-static-key:" + found.raw.noise.rs.public_bytes_raw()
        assert unmarshal_public_key(fields[0][1]).verify(signed, fields[1][1])
        offered = [value.decode() for number, value in _fields(fields[2][1]) if number == 2]
        # The responder lists all it has, the initiator the one it chose (EM4, EM6).
        assert offered == (["/yamux/1.0.0"] if role is Direction.OUTBOUND else list(muxers))


async def test_N3_without_muxers_there_are_no_extensions() -> None:
    async with met(Direction.INBOUND) as found:
        assert [number for number, _ in _fields(found.raw.remote_payload)] == [1, 2]


async def test_N4_another_peer_than_expected_never_sees_who_dialled() -> None:
    expected = PeerId.from_key(seeded_key("expected").public_key)
    async with met(Direction.OUTBOUND, peer=expected) as found:
        assert isinstance(found.error, PeerIdMismatch)
        assert found.error.expected == expected
        assert bytes(found.error.actual) == found.raw.identity.peer
        assert not found.raw_done
        assert found.raw.remote_payload == b"", "the third message was never sent"


async def test_N5_the_first_message_is_a_key_and_nothing_else() -> None:
    async with streams() as (ours, theirs):
        with trio.move_on_after(1):
            await Noise(OURS, ["/yamux/1.0.0"]).secure(ours, direction=Direction.OUTBOUND, peer=None)
        message = await theirs.receive_some()
        assert message[:2] == b"\x00\x20"
        assert len(message) == 2 + 32


async def test_N5_a_payload_in_the_first_message_is_not_read() -> None:
    async def act(raw: RawPeer) -> None:
        await raw.send_message(raw.noise.write(b"some early data"))
        raw.noise.read(await raw.read_message())
        await raw.send_message(raw.noise.write(raw.payload(Wants())))

    async with met(Direction.INBOUND, act=act) as found:
        assert found.channel is not None
        assert found.channel.muxer is None


async def test_N6_the_static_key_is_fresh_and_not_the_identity() -> None:
    statics = set()
    for _ in range(3):
        async with met(Direction.INBOUND) as found:
            assert found.raw.noise.rs is not None
            statics.add(found.raw.noise.rs.public_bytes_raw())
    assert len(statics) == 3
    assert OURS.public_key.marshal()[4:] not in statics


# --- N7, N11: all kinds of keys ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys() -> dict[str, PrivateKey]:
    return {
        "ed25519": generate(KeyType.ED25519),
        "secp256k1": generate(KeyType.SECP256K1),
        "ecdsa": generate(KeyType.ECDSA),
        "rsa": generate(KeyType.RSA),
        "rsa-4096": generate(KeyType.RSA, bits=4096),
    }


KINDS = ("ed25519", "secp256k1", "ecdsa", "rsa", "rsa-4096")


@pytest.mark.parametrize("listener", KINDS)
@pytest.mark.parametrize("dialer", KINDS)
async def test_N7_N11_every_kind_of_key_with_every_other(keys, dialer, listener) -> None:
    async with streams() as (ours, theirs):
        peers: dict[Direction, PeerId] = {}

        async def secure(stream, key: PrivateKey, direction: Direction, expected: PrivateKey) -> None:
            channel = await Noise(key).secure(stream, direction=direction, peer=PeerId.from_key(expected.public_key))
            peers[direction] = channel.remote_peer

        async with trio.open_nursery() as nursery:
            nursery.start_soon(secure, ours, keys[dialer], Direction.OUTBOUND, keys[listener])
            nursery.start_soon(secure, theirs, keys[listener], Direction.INBOUND, keys[dialer])
        assert peers[Direction.OUTBOUND] == PeerId.from_key(keys[listener].public_key)


async def test_N11_a_long_payload_is_read_whole(keys) -> None:
    async with met(Direction.INBOUND, key=keys["rsa-4096"]) as found:
        assert len(found.raw.remote_payload) > 1000


# --- N8: the future ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", BOTH, ids=lambda role: role.value)
@pytest.mark.parametrize(
    "extra",
    [
        pb(4, pb(1025, b"experimental")),
        pb(4, pb(3, b"x") + pb(1025, 7) + pb(2000, b"y" * 500)),
        pb(1025, b"beside the extensions") + pb(9, 1),
        pb(3, b"the old data field"),
        pb(4, pb(1, b"\x12\x20" + bytes(32))),
    ],
    ids=["extension", "extensions", "fields", "old", "certhash"],
)
async def test_N8_unknown_fields_are_ignored(role, extra) -> None:
    async with met(role, Wants(extra=extra)) as found:
        assert found.channel is not None
        assert found.error is None


# --- N9: the end of the nonces ----------------------------------------------------------------------------------------


async def test_N9_the_last_nonce_is_never_used_to_send() -> None:
    async with met(Direction.OUTBOUND) as found:
        assert found.channel is not None
        stream = found.channel.stream
        stream._nonce_out = 2**64 - 2  # type: ignore[attr-defined]
        stream.write([b"the last one"])
        with pytest.raises(LocalProtocolError, match="nonces"):
            stream.write([b"one too many"])
        found.raw.noise.nonces[1 if found.raw.dialer else 0] = 2**64 - 2
        assert await found.raw.receive() == b"the last one"


async def test_N9_the_last_nonce_is_never_used_to_receive() -> None:
    async with met(Direction.OUTBOUND) as found:
        assert found.channel is not None
        stream = found.channel.stream
        stream._nonce_in = 2**64 - 2  # type: ignore[attr-defined]
        seal = found.raw.noise.seal
        await found.raw.stream.send_all(seal(b"the last one", nonce=2**64 - 2))
        assert await stream.receive_some() == b"the last one"
        await found.raw.stream.send_all(seal(b"one too many", nonce=2**64 - 1))
        with pytest.raises(SecurityError, match="nonces"):
            await stream.receive_some()


# --- N10: tampering ---------------------------------------------------------------------------------------------------


async def test_N10_no_changed_byte_gets_through() -> None:
    for at in range(2, 2 + 40 + 16):
        async with met(Direction.INBOUND) as found:
            assert found.channel is not None
            good, bad = found.raw.noise.seal(b"good"), bytearray(found.raw.noise.seal(b"b" * 40))
            bad[at] ^= 1
            await found.raw.stream.send_all(good + bad + found.raw.noise.seal(b"later"))
            received = []
            with pytest.raises(SecurityError):
                while True:
                    received.append(await found.channel.stream.receive_some())
            assert received in ([], [b"good"])


async def test_N10_an_end_inside_a_record_is_no_end() -> None:
    record = 2 + 7 + 16
    for at in range(record + 1):
        async with met(Direction.INBOUND) as found:
            assert found.channel is not None
            await found.raw.stream.send_all(found.raw.noise.seal(b"partial")[:at])
            await found.raw.stream.aclose()
            if at == 0:
                assert await found.channel.stream.receive_some() == b""
            elif at == record:
                assert await found.channel.stream.receive_some() == b"partial"
            else:
                with pytest.raises(SecurityError):
                    await found.channel.stream.receive_some()


# --- EM: muxers agreed early ------------------------------------------------------------------------------------------

YAMUX, MPLEX = "/yamux/1.0.0", "/mplex/6.7.0"


@pytest.mark.parametrize(
    ("role", "ours", "theirs", "agreed"),
    [
        (Direction.OUTBOUND, (YAMUX, MPLEX), (MPLEX, YAMUX), YAMUX),
        (Direction.INBOUND, (YAMUX, MPLEX), (MPLEX, YAMUX), MPLEX),
        (Direction.INBOUND, (YAMUX, MPLEX), (MPLEX,), MPLEX),
        (Direction.OUTBOUND, (MPLEX,), ("/other", MPLEX), MPLEX),
        (Direction.INBOUND, (MPLEX,), ("/other", MPLEX), MPLEX),
        (Direction.OUTBOUND, (), (YAMUX,), None),
        (Direction.INBOUND, (), (YAMUX,), None),
        (Direction.OUTBOUND, (YAMUX,), (), None),
        (Direction.INBOUND, (YAMUX,), (), None),
    ],
)
async def test_EM4_EM5_the_initiators_order_decides(role, ours, theirs, agreed) -> None:
    async with met(role, Wants(muxers=theirs), muxers=ours) as found:
        assert found.channel is not None
        assert found.channel.muxer == agreed


@pytest.mark.parametrize("role", BOTH, ids=lambda role: role.value)
async def test_EM3_EM5_two_lists_without_overlap_fail(role) -> None:
    async with met(role, Wants(muxers=("/other/1",)), muxers=(YAMUX, MPLEX)) as found:
        assert found.channel is None
        assert isinstance(found.error, SecurityError)
        assert "/other/1" in str(found.error)


@pytest.mark.parametrize("early", [(), (YAMUX,)], ids=["multistream", "early"])
async def test_EM7_a_host_takes_either_way_to_a_muxer(early) -> None:
    async with memory_network(1) as hosts:
        dialed = await Memory(hosts.network).dial(hosts[0].listen_addrs()[0], peer=None)
        raw = RawPeer(dialed.stream)
        await raw.connect(Wants(muxers=early))
        await raw.send(yamux(2, 1, 0, length=77))
        frame = await raw.next_frame()
        while frame.kind != 2:
            frame = await raw.next_frame()
        assert (frame.flags, frame.length) == (2, 77)
        await dialed.stream.aclose()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((Yamux, Mplex), (Mplex, Yamux), YAMUX), ((Mplex, Yamux), (Yamux,), YAMUX), ((Mplex,), (Yamux, Mplex), MPLEX)],
)
async def test_EM4_hosts_agree(one, other, expected) -> None:
    network = MemoryNetwork()
    async with (
        open_memory_host(network, muxers=one) as dialer,
        open_memory_host(network, muxers=other) as listener,
    ):
        connection = await dialer.connect(listener.addrs[0])
        assert connection.muxer == expected  # type: ignore[attr-defined]
        await ping(dialer, listener.local_peer)


# --- Diffie-Hellman with nothing in it --------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), (2**255 - 19).to_bytes(32, "little")], ids=str)
async def test_weak_points_are_refused(point) -> None:
    async def act(raw: RawPeer) -> None:
        await raw.send_message(point)
        await raw.read_message()

    async with met(Direction.INBOUND, act=act) as found:
        assert isinstance(found.error, SecurityError)
        assert "weak" in str(found.error)


@pytest.mark.parametrize("size", [0, 1, 31])
async def test_short_first_messages_are_refused(size) -> None:
    async def act(raw: RawPeer) -> None:
        await raw.send_message(bytes(size))
        await raw.read_message()

    async with met(Direction.INBOUND, act=act) as found:
        assert isinstance(found.error, SecurityError)


def test_EM_ids_of_muxers_that_are_no_text_are_refused() -> None:
    """Found by fuzzing: they reached the message of the error, which was then one of ours."""
    fields = pb(1, Identity("a").public) + pb(2, b"x")
    for ids in ([b"\x80"], [b"/yamux/1.0.0", b"\xff\xfe"]):
        with pytest.raises(DecodeError):
            decode_payload(fields + pb(4, b"".join(pb(2, muxer) for muxer in ids)))


def test_payloads_as_generated_code_has_them() -> None:
    message = noise_pb2.NoiseHandshakePayload(identity_key=b"key", identity_sig=b"signature")
    assert encode_payload(b"key", b"signature", ()) == message.SerializeToString()
    message.extensions.stream_muxers.extend(("/yamux/1.0.0", "/mplex/6.7.0"))
    assert encode_payload(b"key", b"signature", ("/yamux/1.0.0", "/mplex/6.7.0")) == message.SerializeToString()
    message.extensions.webtransport_certhashes.append(b"\x12\x20")
    assert decode_payload(message.SerializeToString() + pb(9, b"of the future")) == Payload(
        b"key", b"signature", ("/yamux/1.0.0", "/mplex/6.7.0"), (b"\x12\x20",)
    )


def test_payloads_with_too_many_entries_are_refused() -> None:
    identity = Identity("many")
    for extensions in (pb(2, "/m") * 33, pb(1, b"\x12\x20") * 33):
        with pytest.raises(ValueError, match="too many"):
            decode_payload(pb(1, identity.public) + pb(2, b"x") + pb(4, extensions))


# --- begun before it is agreed on -------------------------------------------------------------------------------------


class _InTwoPieces:
    """An opening that is answered with ``yes``, in whatever pieces that comes."""

    def __init__(self) -> None:
        self.heard = b""

    def data_to_send(self) -> bytes:
        return b""

    def receive_data(self, data: bytes | bytearray) -> Agreed | None:
        self.heard += data
        return Agreed("/noise", self.heard[3:]) if len(self.heard) >= 3 else None


async def test_a_preface_goes_first_and_the_answer_to_it_is_not_the_handshakes() -> None:
    async with streams() as (ours, theirs), trio.open_nursery() as nursery:
        found: list[SecureChannel] = []

        async def dial() -> None:
            found.append(
                await Noise(OURS).secure(
                    ours, direction=Direction.OUTBOUND, peer=None, preface=b"may I?", opening=_InTwoPieces()
                )
            )

        nursery.start_soon(dial)
        first = await theirs.receive_some()
        assert first[:6] == b"may I?" and len(first) == 6 + 2 + 32
        await theirs.send_all(b"y")
        await trio.testing.wait_all_tasks_blocked()
        found.append(
            await Noise(OURS).secure(theirs, direction=Direction.INBOUND, peer=None, initial=first[6:], preface=b"es")
        )
    assert {channel.remote_key for channel in found} == {OURS.public_key}


async def test_a_listener_answers_before_it_waits() -> None:
    """Most dialers say nothing more before they have the answer."""
    async with streams() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(partial(Noise(OURS).secure, theirs, direction=Direction.INBOUND, peer=None, preface=b"yes"))
        assert await ours.receive_some() == b"yes"
        await Noise(OURS).secure(ours, direction=Direction.OUTBOUND, peer=None)
