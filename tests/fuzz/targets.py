"""What is fuzzed: a target takes bytes, and raises only when it has found a bug.

Each begins from seeds: messages that are right, made by code, so that mutation starts deep inside. Where bytes may be
cut on their way, the first byte of the input chooses where, and the outcome must not depend on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.message import DecodeError as ProtobufError

from libp2p.addressing import parse
from libp2p.crypto.certificate import EXTENSION, SIGNATURE_PREFIX, make_certificate, verify_certificate
from libp2p.crypto.keys import KeyType, generate, unmarshal_public_key
from libp2p.errors import DecodeError, Libp2pError, RemoteProtocolError, SecurityError
from libp2p.multistream import Agreed, Dialer, Listener
from libp2p.muxers._machine import DataReceived, EofReceived, MuxEvent, ResetReceived, StreamOpened
from libp2p.muxers.mplex._machine import MplexConfig, MplexMachine
from libp2p.muxers.yamux._machine import YamuxConfig, YamuxMachine
from libp2p.pb import pubsub_pb2
from libp2p.peer_id import PeerId
from libp2p.protocols.identify import IdentifyInfo
from libp2p.protocols.identify._codec import decode as decode_identify
from libp2p.protocols.identify._codec import encode as encode_identify
from libp2p.protocols.pubsub import RpcLimits
from libp2p.protocols.pubsub._codec import Rpc, Subscription, decode_message, decode_rpc, encode_message, encode_rpc
from libp2p.protocols.pubsub._control import (
    Prune,
    decode_control,
    encode_graft,
    encode_idontwant,
    encode_ihave,
    encode_iwant,
    encode_prune,
)
from libp2p.records.peer_record import PeerRecord, open_peer_record
from libp2p.security.noise._machine import Handshake, LocalIdentity
from libp2p.security.tls._records import MAX_CIPHERTEXT, SUITES, Incoming, TrafficKey
from libp2p.testing import seeded_key
from libp2p.testing.raw import HEADER, NA, Identity, NoiseXX, handshake_payload, line
from libp2p.transports.quic._admission import Admission, Answer
from libp2p.transports.quic._engine import Start, _Bridge
from libp2p.transports.quic._packets import Tokens, destination, read_header, read_retry, version_negotiation
from libp2p.transports.websocket._handshake import answer, check_answer, request
from libp2p.transports.websocket._machine import Frames
from tests.crypto.certificate_vectors import SPEC_CERTIFICATES
from tests.muxers import raw
from tests.muxers.test_machine_properties import check_accounts, normal
from tests.transports.quic.pairs import CLIENT, SERVER, Pair, make_client, make_pair, make_server

NOW = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to fuzz.

    Attributes:
        run: takes one input; an exception is a finding.
        seeds: inputs to begin with.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]


def cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """What follows the first byte, and the same in two pieces or in single bytes."""
    if not data:
        return b"", []
    wire = data[1:]
    if data[0] == 255:
        return wire, [wire[index : index + 1] for index in range(len(wire))]
    place = len(wire) * data[0] // 255
    return wire, [wire[:place], wire[place:]]


# --- certificates -----------------------------------------------------------------------------------------------------


def _certificate(data: bytes) -> None:
    try:
        key = verify_certificate(data, now=NOW)
    except SecurityError:
        return
    assert unmarshal_public_key(key.marshal()) == key


def _certificates() -> Iterable[bytes]:
    yield from (der for der, _ in SPEC_CERTIFICATES.values())
    for key_type in KeyType:
        made = make_certificate(generate(key_type), now=NOW)
        yield made.certificate.public_bytes(Encoding.DER)


_CERTIFICATE_KEY = ec.derive_private_key(7, ec.SECP256R1())


def _certificate_extension(data: bytes) -> None:
    """The extension alone, in a certificate that is right."""
    at = datetime.fromtimestamp(NOW, UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")])
    made = (
        x509.CertificateBuilder(name, name, _CERTIFICATE_KEY.public_key(), 7)
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=1))
        .add_extension(x509.UnrecognizedExtension(EXTENSION, data), critical=True)
        .sign(_CERTIFICATE_KEY, hashes.SHA256())
    )
    _certificate(made.public_bytes(Encoding.DER))


def _extensions() -> Iterable[bytes]:
    public = _CERTIFICATE_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def tagged(tag: int, body: bytes) -> bytes:
        size = len(body)
        return bytes((tag, size) if size < 128 else (tag, 0x82, *size.to_bytes(2, "big"))) + body

    for key_type in KeyType:
        key = generate(key_type)
        signature = key.sign(SIGNATURE_PREFIX + public)
        yield tagged(0x30, tagged(4, key.public_key.marshal()) + tagged(4, signature))


# --- Noise ------------------------------------------------------------------------------------------------------------

_STATIC, _EPHEMERAL = (X25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
_RAW_STATIC, _RAW_EPHEMERAL = bytes([3]) * 32, bytes([4]) * 32


@functools.cache
def _noise_identity() -> LocalIdentity:
    public = _STATIC.public_key().public_bytes_raw()
    key = seeded_key("noise")
    return LocalIdentity(_STATIC, public, key.public_key.marshal(), key.sign(b"noise-libp2p-static-key:" + public))


def _noise_payload(data: bytes) -> None:
    """The payload of a handshake that is right in everything else; the first byte says who dialled."""
    if not data:
        return
    dialled = bool(data[0] & 1)
    ours = Handshake(
        _noise_identity(), initiator=dialled, ephemeral=_EPHEMERAL, muxers=["/yamux/1.0.0", "/mplex/6.7.0"]
    )
    theirs = NoiseXX(initiator=not dialled, static=_RAW_STATIC, ephemeral=_RAW_EPHEMERAL)

    def framed(message: bytes) -> bytes:
        return len(message).to_bytes(2, "big") + message

    if dialled:
        theirs.read(ours.data_to_send()[2:])
    else:
        assert ours.receive_data(framed(theirs.write())) is None
        theirs.read(ours.data_to_send()[2:])
    try:
        done = ours.receive_data(framed(theirs.write(data[1:60_000])))
    except SecurityError:
        return
    assert done is not None and not done.leftover
    assert PeerId.from_key(done.key) == done.peer


def _noise_payloads() -> Iterable[bytes]:
    static = NoiseXX(initiator=True, static=_RAW_STATIC).static_public
    for muxers in ((), ("/yamux/1.0.0",), ("/other/1", "/mplex/6.7.0")):
        payload = handshake_payload(Identity("raw"), static, muxers=muxers)
        yield from (bytes([role]) + payload for role in (0, 1))
    for key_type in KeyType:
        key = generate(key_type)
        signature = key.sign(b"noise-libp2p-static-key:" + static)
        yield b"\0" + handshake_payload(
            Identity("raw"), static, key=key.public_key.marshal(), signature=signature, extra=b"\x1a\x01x"
        )


# --- multistream-select -----------------------------------------------------------------------------------------------


def _negotiated(machine: Dialer | Listener, pieces: Iterable[bytes]) -> tuple[Any, ...]:
    pieces = iter(pieces)
    try:
        for piece in pieces:
            if (agreed := machine.receive_data(piece)) is not None:
                assert isinstance(agreed, Agreed)
                return agreed.protocol, agreed.leftover + b"".join(pieces), machine.data_to_send()
    except Libp2pError as exc:
        return type(exc).__name__, machine.data_to_send()
    return (machine.data_to_send(),)


def _multistream(data: bytes) -> None:
    wire, pieces = cut(data)
    for make in (lambda: Dialer(["/a/1", "/b/1"]), lambda: Listener({"/a/1", "/b/1"}.__contains__)):
        expected = _negotiated(make(), [wire])
        assert _negotiated(make(), pieces) == expected


def _negotiations() -> Iterable[bytes]:
    for wire in (
        HEADER + line("/a/1") + b"leftover",
        HEADER + line("/x/1") + line("/b/1"),
        HEADER + NA + line("/b/1"),
        HEADER + NA + NA,
        HEADER + line("ls") + line("/y/1") * 40,
    ):
        yield from (bytes([place]) + wire for place in (0, 100, 255))


# --- muxers -----------------------------------------------------------------------------------------------------------

_TINY: dict[str, Any] = {"max_frame": 100, "max_inbound": 3, "max_outbound": 4, "max_streams": 5, "max_lingering": 1}
_Mux = YamuxMachine | MplexMachine
_YAMUX: list[Callable[[], _Mux]] = [
    lambda: YamuxMachine(YamuxConfig(), client=False),
    lambda: YamuxMachine(YamuxConfig(ack_backlog=2, **_TINY), client=True),
]
_MPLEX: list[Callable[[], _Mux]] = [
    lambda: MplexMachine(MplexConfig()),
    lambda: MplexMachine(MplexConfig(max_drain=100, **_TINY)),
]


def _opened(make: Callable[[], _Mux]) -> _Mux:
    machine = make()
    for _ in range(2):
        machine.announce(machine.open_stream())
    return machine


def _said(machine: _Mux, pieces: Iterable[bytes]) -> tuple[list[MuxEvent] | None, bytes]:
    events: list[MuxEvent] = []
    try:
        for piece in pieces:
            events += machine.receive_data(piece, 1.0)
            check_accounts(machine)
    except RemoteProtocolError:
        assert machine.stream_count == machine.buffered == 0
        return None, raw.join(machine.data_to_send())
    return normal(events), raw.join(machine.data_to_send())


def _used(machine: _Mux, wire: bytes) -> None:
    """As a busy application does: everything is read, and answered, and ended."""
    now = 1.0
    size = 1 + len(wire) // 8
    for start in range(0, len(wire), size):
        now += 0.01
        try:
            events = machine.receive_data(wire[start : start + size], now)
        except RemoteProtocolError:
            return
        for event in events:
            if isinstance(event, DataReceived):
                machine.consumed(event.stream_id, len(event.data), now)
            elif isinstance(event, StreamOpened):
                machine.acknowledge(event.stream_id)
                credit = machine.send_credit(event.stream_id)
                machine.send_data(event.stream_id, bytes(min(credit, 9)))
            elif isinstance(event, EofReceived):
                machine.send_eof(event.stream_id)
                machine.forget(event.stream_id, now)
            elif isinstance(event, ResetReceived):
                assert event.stream_id not in machine._streams
        check_accounts(machine)
        machine.data_to_send()
        if (timeout := machine.next_timeout()) is not None:
            machine.handle_timeout(max(now, timeout))
        check_accounts(machine)


def _muxer(makers: list[Callable[[], _Mux]], data: bytes) -> None:
    wire, pieces = cut(data)
    for make in makers:
        assert _said(_opened(make), pieces) == _said(_opened(make), [wire])
        try:
            _used(_opened(make), wire)
        except RemoteProtocolError:
            pass  # a timeout found the peer dead


def _yamux_conversations() -> Iterable[bytes]:
    for first in (1, 2):
        a, b = first, first + 2
        yield b"\x40" + b"".join(
            [
                raw.data(a, b"hello", raw.SYN),
                raw.window(b, 1000, raw.SYN),
                raw.ping(7),
                raw.data(b, bytes(90)),
                raw.window(a, 5000),
                raw.data(a, b"", raw.FIN),
                raw.data(b, b"x", raw.RST),
                raw.goaway(0),
            ]
        )
        # And to those that it opened itself.
        yield (
            b"\xff"
            + raw.window(3 - a, 0, raw.ACK)
            + raw.data(3 - a, b"answer", raw.FIN)
            + raw.window(5 - a, 0, raw.RST)
        )


def _mplex_conversations() -> Iterable[bytes]:
    new, theirs, ours = 0, 2, 1
    yield b"\x40" + b"".join(
        [
            raw.message(0, new, b"name"),
            raw.message(0, theirs, b"hello"),
            raw.message(1, new, b""),
            raw.message(1, theirs, bytes(90)),
            raw.message(0, 4, b""),
            raw.message(1, 6, b""),
            raw.message(0, ours, b"answer"),
            raw.message(0, 3, b""),
        ]
    )


# --- WebSocket --------------------------------------------------------------------------------------------------------


def _unframed(client: bool, pieces: Iterable[bytes]) -> tuple[object, ...]:
    machine = Frames(client=client, make_key=lambda: b"\x01\x02\x03\x04")
    payload = b""
    try:
        for piece in pieces:
            buffer = bytearray(piece)
            payload += buffer[: machine.unframe(memoryview(buffer), len(buffer))]
    except RemoteProtocolError as exc:
        return str(exc), machine.encode(b"")
    return payload, machine.closed, machine.at_border, machine.encode(b"")


def _websocket(data: bytes) -> None:
    wire, pieces = cut(data)
    for client in (False, True):
        whole = _unframed(client, [wire])
        # A flood is one within one reading of the socket.
        assert "flood" in str(whole[0]) or _unframed(client, pieces) == whole


def _websocket_frames() -> Iterable[bytes]:
    key = b"\x01\x7f\xf0\x3c"
    for masked in (0, 0x80):
        mask = key if masked else b""
        wire = bytes((0x02, masked | 3)) + mask + b"abc"  # begins a message
        wire += bytes((0x89, masked | 4)) + mask + b"ping"
        wire += bytes((0x80, masked | 126, 0, 200)) + mask + bytes(200)  # ends it
        wire += bytes((0x82, masked | 127, 0, 0, 0, 0, 0, 1, 0, 0)) + mask + bytes(65_536)
        wire += bytes((0x8A, masked)) + mask + bytes((0x88, masked | 2)) + mask + b"\x03\xe8"
        yield b"\x80" + wire
    yield b"\0" + bytes((0x88, 1)) + b"x"


_NONCE = bytes(range(16))


def _websocket_handshake(data: bytes) -> None:
    for check in (answer, lambda head: check_answer(head, _NONCE)):
        try:
            check(data)
        except RemoteProtocolError:
            pass


def _websocket_heads() -> Iterable[bytes]:
    asked = request("example.com:80", "/", _NONCE)
    return asked, answer(asked), asked.replace(b"\r\n\r\n", b"\r\nOrigin: http://x\r\nConnection: keep-alive\r\n\r\n")


# --- messages ---------------------------------------------------------------------------------------------------------


def _pubsub_rpc(data: bytes) -> None:
    try:
        rpc = decode_rpc(data, RpcLimits(entries=200))
    except DecodeError:
        return
    assert decode_rpc(encode_rpc(rpc), RpcLimits()) == rpc
    _as_protobuf(data, rpc)
    for message in rpc.publish:
        try:
            decoded = decode_message(message, PeerId.from_key(seeded_key("x").public_key))
        except DecodeError:
            continue
        assert decoded.raw == message
    try:
        control = decode_control(rpc.control, max_ids=50)
    except DecodeError:
        return
    ids = [*control.ihave, *control.idontwant, control.iwant]
    assert sum(map(len, ids)) <= 200
    assert all(prune.backoff is None or 1 <= prune.backoff <= 3600 for prune in control.prune)


def _as_protobuf(data: bytes, rpc: Rpc) -> None:
    """What is read here, protobuf reads as well, and the same."""
    other = pubsub_pb2.RPC()
    try:
        other.ParseFromString(data)
    except ProtobufError:
        # It also looks into messages, and into fields that are carried here as bytes.
        assert rpc.publish or rpc.control or rpc.extensions
        return
    assert len(other.publish) == len(rpc.publish)
    assert [(s.topic, s.subscribe) for s in rpc.subscriptions] == [
        (s.topicid, s.subscribe) for s in other.subscriptions if s.topicid and isinstance(s.topicid, str)
    ]


def _rpcs() -> Iterable[bytes]:
    author = bytes(PeerId.from_key(seeded_key("x").public_key))
    message = encode_message(topic="t", data=b"data", author=author, seqno=bytes(8), signature=b"s", key=b"k")
    control = b"".join(
        [
            encode_ihave("t", [b"id"] * 3),
            encode_iwant([b"id"]),
            encode_idontwant([b"id"]),
            encode_graft("t"),
            encode_prune(Prune("t", 60.0)),
        ]
    )
    yield encode_rpc(Rpc(subscriptions=(Subscription("t", True),), publish=(message,), control=control))


def _public_key(data: bytes) -> None:
    try:
        key = unmarshal_public_key(data)
    except DecodeError:
        return
    assert unmarshal_public_key(key.marshal()) == key
    assert PeerId.from_bytes(bytes(PeerId.from_key(key))) == PeerId.from_key(key)
    key.verify(b"message", data)


def _public_keys() -> Iterable[bytes]:
    return [generate(key_type).public_key.marshal() for key_type in KeyType]


def _multiaddr(data: bytes) -> None:
    for given in (data, data.decode("utf-8", "replace")):
        try:
            addr = parse(given)
        except DecodeError:
            continue
        assert parse(str(addr)) == addr
        assert parse(addr.to_bytes()) == addr


def _multiaddrs() -> Iterable[bytes]:
    peer = PeerId.from_key(seeded_key("x").public_key)
    for text in (
        "/ip4/1.2.3.4/tcp/1/tls/sni/example.com/ws",
        "/ip6zone/eth0/ip6/fe80::1/udp/1/quic-v1",
        f"/dnsaddr/example.com/p2p/{peer}/p2p-circuit/p2p/{peer}",
        "/unix/a%2Fb",
        "/memory/7",
    ):
        yield text.encode()
        yield parse(text).to_bytes()


def _peer_record(data: bytes) -> None:
    try:
        record = open_peer_record(data)
    except DecodeError:
        return
    assert 0 <= record.seq < 1 << 64


def _peer_records() -> Iterable[bytes]:
    for key_type in KeyType:
        key = generate(key_type)
        peer = PeerId.from_key(key.public_key)
        yield PeerRecord(peer=peer, seq=7, addrs=(parse("/ip4/1.2.3.4/tcp/1"), parse("/memory/7"))).seal(key)


def _identify(data: bytes) -> None:
    _, pieces = cut(data)
    try:
        info = decode_identify(pieces)
    except DecodeError:
        return
    sent = encode_identify(info)
    assert astuple(decode_identify([sent])) == astuple(decode_identify([encode_identify(decode_identify([sent]))]))


def _identifies() -> Iterable[bytes]:
    key = seeded_key("x").public_key.marshal()
    yield b"\xfe" + encode_identify(
        IdentifyInfo(
            public_key=key,
            listen_addrs=(parse("/ip4/1.2.3.4/tcp/1"),),
            observed_addr=parse("/ip4/5.6.7.8/tcp/9"),
            protocols=("/a/1", "/b/1"),
            agent_version="agent",
            protocol_version="1",
        )
    )


# --- TLS --------------------------------------------------------------------------------------------------------------

_TLS = SUITES["TLS_AES_128_GCM_SHA256"], bytes(32)


def _tls_outcome(pieces: Iterable[bytes]) -> tuple[bytes, bool, bool] | None:
    """The data, whether a key was asked for, and whether it ended; None when it was refused."""
    machine, got, left = Incoming(TrafficKey(*_TLS), from_server=True), bytearray(), b""
    target = memoryview(bytearray(MAX_CIPHERTEXT))
    try:
        for piece in pieces:
            left = left + piece
            chunks, start = machine.open(memoryview(left), len(left), target)
            left = left[start:]
            got += b"".join(chunks)
    except SecurityError as exc:
        assert exc.stage == "record"
        return None
    return bytes(got), machine.asked, machine.ended


def _tls_records(data: bytes) -> None:
    """Records that authenticate: each begins with the length of its content, padding and kind among it."""
    content, _ = cut(data)
    key, buffer, wire = TrafficKey(*_TLS), memoryview(bytearray(300)), bytearray()
    while content:
        record, content = content[1 : 1 + content[0]], content[1 + content[0] :]
        wire += buffer[: key.seal(memoryview(record), buffer, 0)]
    whole, pieces = cut(data[:1] + bytes(wire))
    assert _tls_outcome([whole]) == _tls_outcome(pieces)


def _tls_conversations() -> Iterable[bytes]:
    ticket, ask, data, farewell = b"\4\0\0\2xx\x16", b"\x18\0\0\1\1\x16", b"data\x17", b"\1\0\x15"
    for records in (
        (ticket, data, b"padded\x17\0\0", farewell),
        (data, ask),
        (ticket[:3] + b"\x16", ticket[3:], b"\x17"),
    ):
        yield b"\x80" + b"".join(bytes((len(record),)) + record for record in records)


# --- QUIC -------------------------------------------------------------------------------------------------------------


def _quic_packets(data: bytes) -> None:
    """Datagrams of strangers, and the same behind a handshake that is complete."""
    header = read_header(data)
    if header is not None:
        assert header.end <= len(data)
        verdict = Admission(bytes(32)).judge(header, len(data), CLIENT, bytes(8), 1.0)
        assert not isinstance(verdict, Answer) or len(verdict.packet) <= len(data)
    retry = read_retry(data)
    assert retry is None or (retry.token and retry.source_cid)
    destination(data)
    pair, now = _quic_pair(), 2.0
    for end, address in ((pair.client, SERVER), (pair.server, CLIENT)):
        end.receive([data], address, now)
        end.receive_segments(data, max(1, len(data) // 3), address, now)
        assert end.authenticated
    stranger = make_server(Start(data[6:14].ljust(8), data[6:14].ljust(8), False))
    stranger.receive([data], CLIENT, 1.0)
    assert not stranger.authenticated
    assert sum(len(packet) for packet, _ in stranger.transmit(1.0)) <= 3 * len(data)


@functools.cache
def _quic_pair() -> Pair:
    pair = make_pair()
    pair.exchange()
    return pair


def _quic_seeds() -> Iterable[bytes]:
    pair = make_pair()
    sent: list[bytes] = []

    def note(data: bytes, from_client: bool) -> bytes:
        sent.append(data)
        return data

    pair.change = note
    pair.exchange()
    yield from sent[:8]
    header = read_header(sent[0])
    assert header is not None
    yield Tokens(bytes(32)).retry(header, ("127.0.0.1", 4001), bytes(8), 1.0)
    yield version_negotiation(header)


def _transport_parameters(data: bytes) -> None:
    """Of a client, in a handshake that is right otherwise."""
    with patch.object(_Bridge, "serialize_transport_parameters", lambda bridge: data):
        client = make_client()
    server = make_server(Start(client.initial_cid, client.initial_cid, False))
    server.receive([packet for packet, _ in client.transmit(1.0)], CLIENT, 1.0)
    while server.next_event() is not None:
        pass
    server.transmit(1.0)
    assert not server.authenticated


def _parameters() -> Iterable[bytes]:
    yield make_client()._bridge.serialize_transport_parameters()
    yield make_server(Start(bytes(8), bytes(8), False))._bridge.serialize_transport_parameters()


TARGETS: dict[str, Target] = {
    "certificate": Target(_certificate, _certificates),
    "certificate-extension": Target(_certificate_extension, _extensions),
    "identify": Target(_identify, _identifies),
    "mplex": Target(functools.partial(_muxer, _MPLEX), _mplex_conversations),
    "multiaddr": Target(_multiaddr, _multiaddrs),
    "multistream": Target(_multistream, _negotiations),
    "noise-payload": Target(_noise_payload, _noise_payloads),
    "peer-record": Target(_peer_record, _peer_records),
    "public-key": Target(_public_key, _public_keys),
    "pubsub-rpc": Target(_pubsub_rpc, _rpcs),
    "quic-packet": Target(_quic_packets, _quic_seeds),
    "quic-transport-parameters": Target(_transport_parameters, _parameters),
    "tls-records": Target(_tls_records, _tls_conversations),
    "websocket": Target(_websocket, _websocket_frames),
    "websocket-handshake": Target(_websocket_handshake, _websocket_heads),
    "yamux": Target(functools.partial(_muxer, _YAMUX), _yamux_conversations),
}
"""Every target by its name."""
