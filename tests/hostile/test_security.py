"""Cases S1, S2, S6, S7 and S8: who is there, proved or not, and records that say so."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import trio

from libp2p.abc import Direction
from libp2p.addressing import parse
from libp2p.crypto.keys import KeyType, generate
from libp2p.errors import DecodeError, DialError, PeerIdMismatch, SecurityError
from libp2p.peer_id import PeerId
from libp2p.records.envelope import Envelope
from libp2p.records.peer_record import DOMAIN, PAYLOAD_TYPE, PeerRecord
from libp2p.testing import seeded_key
from libp2p.testing.conformance.stream import receive_all
from libp2p.testing.raw import (
    ACK,
    DATA,
    FIN,
    HEADER,
    Identity,
    NoiseXX,
    RawPeer,
    Wants,
    handshake_payload,
    line,
    pb,
    read_line,
    uvarint,
    yamux,
)
from tests.hostile.cases import Attack, under_attack
from tests.security.noise_raw import met

pytestmark = pytest.mark.bar_c

ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


# --- S1 ---------------------------------------------------------------------------------------------------------------


async def test_S1_another_peer_answers() -> None:
    """PeerIdMismatch with both ids, before any muxer byte; closed at once; not tried again."""
    wanted = PeerId.from_key(seeded_key("wanted").public_key)
    async with under_attack() as attack:
        addr, listener = await attack.listen("100.9.9.9")
        impostor = Identity("impostor")
        seen: list[RawPeer] = []

        async def answer() -> None:
            peer = await attack.accept(listener, identity=impostor)
            seen.append(peer)
            await peer.answer("/noise")
            with pytest.raises((EOFError, trio.BrokenResourceError)):
                await peer.handshake(Wants(muxers=("/yamux/1.0.0",)))

        attack.victim.peerstore.add_addrs(wanted, [addr], ttl=1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            before = trio.current_time()
            with pytest.raises(DialError) as caught:
                await attack.victim.connect(wanted)
            assert trio.current_time() - before < 0.1
        ((tried, error),) = caught.value.attempts
        assert tried == addr
        assert isinstance(error, PeerIdMismatch)
        assert error.expected == wanted
        assert bytes(error.actual) == impostor.peer
        assert seen[0].remote_payload == b"", "the impostor never learnt who dialled"
        dials = len(attack.hosts.network.connections)
        with pytest.raises(DialError):
            await attack.victim.connect(wanted)
        assert len(attack.hosts.network.connections) <= dials, "it was dialled again"
        assert not attack.victim.connections(wanted)
        assert not attack.opened


# --- S2 ---------------------------------------------------------------------------------------------------------------


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _payloads(noise: NoiseXX, identity: Identity) -> Iterator[tuple[str, bytes]]:
    """Handshake payloads that prove nothing."""
    static, domain = noise.static_public, b"noise-libp2p-static-key:"
    good, other = identity.sign(domain + static), Identity("somebody else")

    def payload(signature: bytes, key: bytes | None = None) -> bytes:
        return handshake_payload(identity, static, signature=signature, key=key)

    for bit in range(0, 512, 2):
        yield f"bit {bit}", payload(_flipped(good, bit))
    signatures = {
        "empty": b"",
        "short": good[:-1],
        "half": good[:32],
        "long": good + b"\0",
        "zeros": bytes(64),
        "ones": b"\xff" * 64,
        "random": random.Random(1).randbytes(64),
        "no domain": identity.sign(static),
        "domain only": identity.sign(domain),
        "no colon": identity.sign(domain[:-1] + static),
        "domain of TLS": identity.sign(b"libp2p-tls-handshake:" + static),
        "another session": identity.sign(domain + NoiseXX(initiator=True).static_public),
        "ephemeral": identity.sign(domain + noise.e.public_key().public_bytes_raw()),
        "own key": identity.sign(domain + identity.public),
        "other key": other.sign(domain + static),
        # The same signature with the group's order added to its second half: a second proof out of one (RFC 8032).
        "malleated": good[:32] + (int.from_bytes(good[32:], "little") + ED25519_ORDER).to_bytes(32, "little"),
    }
    yield from ((name, payload(signature)) for name, signature in signatures.items())
    raw_key = identity.public[4:]
    keys = {
        "other's key": other.public,
        "no key": b"",
        "RSA type": pb(1, 0) + pb(2, raw_key),
        "secp256k1 type": pb(1, 2) + pb(2, raw_key),
        "ECDSA type": pb(1, 3) + pb(2, raw_key),
        "unknown type": pb(1, 77) + pb(2, raw_key),
        "no type": pb(2, raw_key),
        "no data": pb(1, 1),
        "short key": pb(1, 1) + pb(2, raw_key[:-1]),
        "long key": pb(1, 1) + pb(2, raw_key + b"\0"),
        "swapped fields": pb(2, raw_key) + pb(1, 1),
        "garbage": b"\xff" * 36,
        "padded type": b"\x08\x81\x00" + pb(2, raw_key),
        "twice": identity.public + identity.public,
    }
    yield from ((name, payload(good, key)) for name, key in keys.items())
    whole = handshake_payload(identity, static)
    yield from ((f"cut at {at}", whole[:at]) for at in range(0, len(whole), 11))
    yield "nothing", b""
    yield "junk", random.Random(2).randbytes(100)
    yield "only a signature", pb(2, good)
    yield "fields swapped", pb(2, identity.public) + pb(1, good)


@pytest.mark.parametrize("role", list(Direction), ids=lambda role: role.value)
async def test_S2_no_payload_without_a_proof_is_accepted(role) -> None:
    """All variants, in both roles: a security error every time."""
    raw, identity = NoiseXX(initiator=False), Identity("victim of theft")
    names = [name for name, _ in _payloads(raw, identity)]
    assert 2 * len(names) >= 600
    for number, name in enumerate(names):

        async def act(peer: RawPeer, number: int = number) -> None:
            bad = list(_payloads(peer.noise, identity))[number][1] if number >= 256 else _bad_bit(peer, number)
            await peer.handshake(Wants(payload=bad))

        def _bad_bit(peer: RawPeer, number: int) -> bytes:
            good = identity.sign(b"noise-libp2p-static-key:" + peer.noise.static_public)
            return handshake_payload(identity, peer.noise.static_public, signature=_flipped(good, 2 * number))

        async with met(role, act=act) as found:
            assert found.channel is None, name
            assert isinstance(found.error, SecurityError), name


async def test_S2_a_thief_reaches_no_handler() -> None:
    """The same against a host: no connection object ever exists, and nobody else notices."""
    async with under_attack() as attack:
        for signature in (b"", bytes(64), Identity("thief").sign(b"anything")):
            for muxers in ((), ("/yamux/1.0.0",)):
                peer = await attack.dial()
                assert await peer.propose("/noise") == "/noise"
                await peer.handshake(Wants(signature=signature, muxers=muxers))
                with trio.fail_after(0.1), pytest.raises((EOFError, trio.BrokenResourceError)):
                    await peer.read_message()
        assert not attack.opened


# --- S6 ---------------------------------------------------------------------------------------------------------------


async def test_S6_the_first_bad_tag_is_the_last_record() -> None:
    """Wherever it comes, nothing behind it is believed, and the connection is over."""
    for at in range(0, 20, 3):
        async with met(Direction.INBOUND) as found:
            assert found.channel is not None
            records = [bytearray(found.raw.noise.seal(b"%04d" % number)) for number in range(20)]
            records[at][-1] ^= 0x80
            got = bytearray()
            with pytest.raises(SecurityError):
                for record in records:
                    await found.raw.stream.send_all(record)
                    got += await found.channel.stream.receive_some()
            assert bytes(got) == b"".join(b"%04d" % number for number in range(at))


@pytest.mark.parametrize("order", [(0, 0), (1, 0), (0, 2), (2, 1, 0), (0, 1, 1)], ids=str)
async def test_S6_replayed_swapped_and_dropped_records_end_it(order) -> None:
    async with met(Direction.INBOUND) as found:
        assert found.channel is not None
        records = [found.raw.noise.seal(b"%d" % number) for number in range(3)]
        got = bytearray()
        with pytest.raises(SecurityError):
            for number in order:
                await found.raw.stream.send_all(records[number])
                got += await found.channel.stream.receive_some()
        assert b"012".startswith(bytes(got))


@pytest.mark.parametrize("size", [0, 1, 15])
async def test_S6_records_too_short_for_a_tag_end_it(size) -> None:
    async with met(Direction.INBOUND) as found:
        assert found.channel is not None
        await found.raw.stream.send_all(size.to_bytes(2, "big") + bytes(size))
        with pytest.raises(SecurityError):
            await found.channel.stream.receive_some()


async def test_S6_a_long_record_without_data_holds_little() -> None:
    """65,535 promised, and then silence: at most that much is kept."""
    async with met(Direction.INBOUND) as found:
        assert found.channel is not None
        await found.raw.stream.send_all(b"\xff\xff" + bytes(65_534))
        with trio.move_on_after(10) as scope:
            await found.channel.stream.receive_some()
        assert scope.cancelled_caught
        assert len(found.channel.stream._left) <= 65_537  # type: ignore[attr-defined]


async def test_S6_empty_records_without_end_end_it() -> None:
    """Records that carry nothing cost a decryption each."""
    async with met(Direction.INBOUND) as found:
        assert found.channel is not None
        for _ in range(900):
            await found.raw.stream.send_all(found.raw.noise.seal(b""))
        await found.raw.stream.send_all(found.raw.noise.seal(b"in between"))
        assert await found.channel.stream.receive_some() == b"in between"
        await found.raw.stream.send_all(b"".join(found.raw.noise.seal(b"") for _ in range(2000)))
        with pytest.raises(SecurityError, match="empty"):
            await found.channel.stream.receive_some()


async def test_S6_oversized_handshake_messages_are_read_and_refused() -> None:
    async def act(peer: RawPeer) -> None:
        await peer.send_message(peer.noise.write(bytes(65_535 - 32)))
        peer.noise.read(await peer.read_message())
        await peer.send_message(peer.noise.write(handshake_payload(peer.identity, peer.noise.static_public)[:-1]))

    async with met(Direction.INBOUND, act=act) as found:
        assert isinstance(found.error, SecurityError)


async def test_S6_bad_records_cost_a_peer_its_connection_and_nobody_else() -> None:
    async with under_attack() as attack:
        for bad in (b"\x00\x00", b"\x00\x10" + bytes(16), b"\xff\xff" + bytes(65_535)):
            peer = await attack.connect()
            await peer.stream.send_all(bad)
            with trio.fail_after(0.1):
                assert await receive_all(peer.stream) is not None
        assert len(attack.opened) == 3


# --- S7 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weak", ["/plaintext/2.0.0", "/secio/1.0.0", "/tls/1.0.0", "/noise/ix", "/multistream/1.0.0"])
async def test_S7_weaker_protocols_are_not_there(weak) -> None:
    """Not last in the list: absent. And a dialler proposes only its own."""
    async with under_attack() as attack:
        peer = await attack.dial()
        assert await peer.propose(weak) == "na"
        await peer.stream.send_all(line("/noise"))
        assert await read_line(peer.stream) == "/noise"
        await peer.handshake()
        _, listener = await attack.listen("100.8.8.8")
        proposals: list[str] = []

        async def refuse_all() -> None:
            far = await attack.accept(listener)
            assert await read_line(far.stream) == "/multistream/1.0.0"
            await far.stream.send_all(HEADER)
            proposals.append(await read_line(far.stream))
            assert len(await far.read_message()) == 32  # the first of the handshake, which went with the proposal
            await far.stream.send_all(line("na"))
            with pytest.raises((EOFError, trio.BrokenResourceError)):
                proposals.append(await read_line(far.stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse_all)
            with pytest.raises(DialError):
                await attack.victim.connect(listener.addresses[0])
        assert proposals == ["/noise"]


async def test_S7_who_changes_the_negotiation_in_transit_gets_nothing() -> None:
    """A middleman that swaps the security protocol in the clear makes the handshake fail, not weaker."""
    async with under_attack() as attack:
        swapped = []

        def middleman(wire, data: bytes) -> bytes | None:
            if b"/noise\n" in data and wire.dialer and wire.source.startswith("node"):
                swapped.append(data)
                return data.replace(line("/noise"), line("/plaintext/2.0.0"))
            return None

        with attack.hosts.network.tap(middleman):
            peer = await attack.dial()
            assert await peer.propose("/noise") == "na"
        assert swapped
        assert not attack.opened


@pytest.mark.parametrize("role", list(Direction), ids=lambda role: role.value)
async def test_S7_the_muxer_list_cannot_be_changed_in_transit(role) -> None:
    """It travels encrypted: any change of either message fails the handshake."""

    async def act(peer: RawPeer) -> None:
        payload = handshake_payload(peer.identity, peer.noise.static_public, muxers=("/yamux/1.0.0",))
        if peer.dialer:
            await peer.send_message(peer.noise.write())
            peer.noise.read(await peer.read_message())
        else:
            peer.noise.read(await peer.read_message())
        message = bytearray(peer.noise.write(payload))
        message[-20] ^= 1
        await peer.send_message(bytes(message))

    async with met(role, muxers=("/yamux/1.0.0",), act=act) as found:
        assert isinstance(found.error, SecurityError)


# --- S8 ---------------------------------------------------------------------------------------------------------------

PEER_KEY, OTHER_KEY = seeded_key("S8"), seeded_key("S8 other")
PEER, OTHER = PeerId.from_key(PEER_KEY.public_key), PeerId.from_key(OTHER_KEY.public_key)
ADDR = parse("/ip4/100.70.1.1/tcp/4001")


def _record(
    seq: int, *, subject: PeerId = PEER, key=PEER_KEY, domain=DOMAIN, kind=PAYLOAD_TYPE, addrs=(ADDR,)
) -> bytes:
    record = PeerRecord(peer=subject, seq=seq, addrs=tuple(addrs))
    return Envelope.seal(key, domain, kind, record.marshal()).marshal()


def _hostile_records() -> Iterator[tuple[str, bytes]]:
    good = _record(50)
    yield "signer is not subject", _record(60, key=OTHER_KEY)
    yield "another domain", _record(60, domain="libp2p-relay-rsvp")
    yield "another type", _record(60, kind=b"\x03\x02")
    yield "8 KiB and one", good + pb(99, b"x" * (8193 - len(good)))
    many = [parse(f"/ip4/100.71.{number // 250}.{number % 250}/tcp/1") for number in range(10_000)]
    yield "ten thousand addresses", _record(60, addrs=many)
    yield "flipped signature", good[:-1] + bytes((good[-1] ^ 1,))
    yield "cut", good[:-5]
    yield "empty", b""
    yield "key replaced", good.replace(PEER_KEY.public_key.marshal(), OTHER_KEY.public_key.marshal())
    yield "random", random.Random(3).randbytes(200)
    yield "RSA too small to count", pb(1, pb(1, 0) + pb(2, b"x" * 100)) + pb(2, PAYLOAD_TYPE) + pb(3, b"") + pb(5, b"x")


async def test_S8_hostile_records_are_refused_at_the_store() -> None:
    """And what it holds is the same, byte for byte."""
    async with under_attack() as attack:
        store = attack.victim.peerstore
        held = _record(50)
        assert store.add_envelope(held, ttl=1000)
        addrs = list(store.addrs(PEER))
        for name, hostile in _hostile_records():
            with pytest.raises(DecodeError):
                store.add_envelope(hostile, ttl=1000)
            assert store.envelope(PEER) == held, name
            assert list(store.addrs(PEER)) == addrs, name
            assert store.envelope(OTHER) is None, name
        for seq in (0, 49, 50):
            assert not store.add_envelope(_record(seq), ttl=1000)
            assert store.envelope(PEER) == held


async def test_S8_the_highest_sequence_number_ages_out() -> None:
    """Only its owner can set it, and not for ever."""
    async with under_attack() as attack:
        store = attack.victim.peerstore
        assert store.add_envelope(_record(2**64 - 1), ttl=20)
        assert not store.add_envelope(_record(5), ttl=100)
        await trio.sleep(30)
        assert store.add_envelope(_record(5), ttl=100)


async def _identify_as(attack: Attack, envelope: bytes, identity: Identity) -> None:
    """Connect, and answer identify with ``envelope`` as the signed record."""
    peer = await attack.dial(identity=identity)
    await peer.connect(Wants(muxers=("/yamux/1.0.0",)))
    message = pb(1, identity.public) + pb(8, envelope)
    answered = False
    with trio.move_on_after(5):
        while not answered:
            frame = await peer.next_frame()
            if frame.payload.endswith(line("/ipfs/id/1.0.0")):
                body = HEADER + line("/ipfs/id/1.0.0") + uvarint(len(message)) + message
                await peer.send(yamux(DATA, ACK | FIN, frame.stream, body))
                answered = True
    assert answered, "identify never asked"
    await trio.sleep(1)


async def test_S8_hostile_records_through_identify() -> None:
    """A peer with somebody else's record, or a broken one, changes nothing about anybody."""
    async with under_attack() as attack:
        store = attack.victim.peerstore
        held = _record(50)
        assert store.add_envelope(held, ttl=10_000)
        for number, (name, hostile) in enumerate([*_hostile_records(), ("replayed", _record(60))]):
            if len(hostile) > 7000:
                continue  # no identify message holds it
            identity = Identity(f"S8-{number}")
            await _identify_as(attack, hostile, identity)
            assert store.envelope(PEER) == held, name
            assert store.envelope(PeerId.from_bytes(identity.peer)) is None, name


@pytest.mark.parametrize("kind", [KeyType.SECP256K1, KeyType.ECDSA])
async def test_S8_records_of_other_keys_are_bound_to_their_owner(kind) -> None:
    key = generate(kind)
    owner = PeerId.from_key(key.public_key)
    async with under_attack() as attack:
        store = attack.victim.peerstore
        assert store.add_envelope(_record(1, subject=owner, key=key), ttl=100)
        with pytest.raises(DecodeError):
            store.add_envelope(_record(9, subject=owner, key=PEER_KEY), ttl=100)
