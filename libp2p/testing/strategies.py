"""Hypothesis strategies for what this library reads and writes. The only module here that needs hypothesis."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import strategies as st
from multiaddr import Multiaddr

from ..addressing import Part, from_parts, parts, with_peer
from ..crypto.keys import PrivateKey, PublicKey, unmarshal_private_key
from ..peer_id import PeerId
from ..protocols.identify import IdentifyInfo
from ..records.peer_record import PeerRecord
from .keys import seeded_key
from .raw import DATA, HEADER, line, mplex, pb, uvarint, yamux

__all__ = [
    "envelopes",
    "identify_infos",
    "ip_addrs",
    "memory_addrs",
    "mplex_wire",
    "multiaddrs",
    "multistream_wire",
    "peer_ids",
    "peer_records",
    "pieces",
    "private_keys",
    "protocol_ids",
    "public_keys",
    "yamux_wire",
]

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Orders of the curves: secrets lie between 1 and one less (SEC 2)."""


# --- keys and ids -----------------------------------------------------------------------------------------------------


def private_keys() -> st.SearchStrategy[PrivateKey]:
    """Ed25519, secp256k1 and P-256 keys. RSA keys take too long to make."""
    return st.one_of(
        st.integers(0, 2**32).map(seeded_key),
        st.integers(1, _SECP256K1_ORDER - 1).map(_secp256k1),
        st.integers(1, _P256_ORDER - 1).map(_p256),
    )


def _secp256k1(secret: int) -> PrivateKey:
    return unmarshal_private_key(pb(1, 2) + pb(2, secret.to_bytes(32, "big")))


def _p256(secret: int) -> PrivateKey:
    der = ec.derive_private_key(secret, ec.SECP256R1()).private_bytes(
        Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    return unmarshal_private_key(pb(1, 3) + pb(2, der))


def public_keys() -> st.SearchStrategy[PublicKey]:
    """The public halves of :func:`private_keys`."""
    return private_keys().map(lambda key: key.public_key)


def peer_ids() -> st.SearchStrategy[PeerId]:
    """Ids that hold their key, and ids that are its hash."""
    return public_keys().map(PeerId.from_key)


# --- addresses --------------------------------------------------------------------------------------------------------


def ip_addrs() -> st.SearchStrategy[Multiaddr]:
    """Addresses of sockets: IPv4 and IPv6, TCP, UDP and what runs on them."""
    hosts = st.one_of(
        st.binary(min_size=4, max_size=4).map(lambda raw: Part("ip4", raw)),
        st.binary(min_size=16, max_size=16).map(lambda raw: Part("ip6", raw)),
    )
    ports = st.binary(min_size=2, max_size=2)
    stacks = st.sampled_from([("tcp",), ("tcp", "ws"), ("tcp", "tls", "ws"), ("udp", "quic-v1")])
    return st.builds(_socket_addr, hosts, ports, stacks)


def _socket_addr(host: Part, port: bytes, stack: tuple[str, ...]) -> Multiaddr:
    return from_parts((host, Part(stack[0], port), *(Part(name) for name in stack[1:])))


def memory_addrs() -> st.SearchStrategy[Multiaddr]:
    """``/memory/N``."""
    return st.integers(0, 2**64 - 1).map(lambda number: from_parts((Part("memory", number.to_bytes(8, "big")),)))


def multiaddrs() -> st.SearchStrategy[Multiaddr]:
    """Addresses of many kinds, with and without a peer, some through a relay."""
    plain = st.one_of(ip_addrs(), memory_addrs(), _dns_addrs())
    with_peers = st.builds(with_peer, plain, peer_ids())
    relayed = st.builds(_through, with_peers, peer_ids())
    return st.one_of(plain, with_peers, relayed)


def _through(relay: Multiaddr, peer: PeerId) -> Multiaddr:
    return with_peer(from_parts((*parts(relay), Part("p2p-circuit"))), peer)


def _dns_addrs() -> st.SearchStrategy[Multiaddr]:
    labels = st.from_regex(r"[a-z][a-z0-9]{0,10}\.[a-z]{2,5}", fullmatch=True)
    kinds = st.sampled_from(["dns", "dns4", "dns6"])
    return st.builds(_dns_addr, kinds, labels, st.binary(min_size=2, max_size=2))


def _dns_addr(kind: str, name: str, port: bytes) -> Multiaddr:
    return from_parts((Part(kind, name.encode()), Part("tcp", port)))


# --- messages ---------------------------------------------------------------------------------------------------------


def protocol_ids() -> st.SearchStrategy[str]:
    """Ids that can be negotiated."""
    return st.from_regex(r"/[a-z0-9]{1,12}(/[a-z0-9.]{1,8}){0,3}", fullmatch=True)


def identify_infos() -> st.SearchStrategy[IdentifyInfo]:
    """What a peer says about itself, each part of it perhaps missing."""
    return st.builds(
        IdentifyInfo,
        public_key=st.none() | public_keys().map(lambda key: key.marshal()),
        listen_addrs=st.lists(ip_addrs(), max_size=5, unique=True).map(tuple),
        protocols=st.lists(protocol_ids(), max_size=8, unique=True).map(tuple),
        observed_addr=st.none() | ip_addrs(),
        protocol_version=st.none() | st.text(max_size=20),
        agent_version=st.none() | st.text(max_size=20),
        signed_peer_record=st.none() | st.binary(max_size=100),
    )


@st.composite
def peer_records(draw: st.DrawFn) -> tuple[PrivateKey, PeerRecord]:
    """A key, and a record of its owner."""
    key = draw(private_keys())
    addrs = tuple(draw(st.lists(ip_addrs(), max_size=5, unique=True)))
    return key, PeerRecord(peer=PeerId.from_key(key.public_key), seq=draw(st.integers(0, 2**64 - 1)), addrs=addrs)


def envelopes() -> st.SearchStrategy[bytes]:
    """Signed peer records as they travel."""
    return peer_records().map(lambda drawn: drawn[1].seal(drawn[0]))


# --- the wire ---------------------------------------------------------------------------------------------------------


def pieces(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Ways to cut ``data``."""
    return st.lists(st.integers(0, len(data)), max_size=20).map(lambda cuts: _cut(data, sorted(cuts)))


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < stop]


def multistream_wire() -> st.SearchStrategy[bytes]:
    """What a peer might send while negotiating: good lines, odd lines, garbage, in any order."""
    odd_lines = st.one_of(st.text(max_size=40), st.sampled_from(["na", "ls", "", "/multistream/1.0.0", "na\n"]))
    return st.lists(
        st.one_of(
            st.just(HEADER),
            protocol_ids().map(line),
            odd_lines.map(line),
            st.builds(_behind_length, st.integers(0, 2**70), st.binary(max_size=40)),
            st.binary(max_size=40),
        ),
        max_size=12,
    ).map(b"".join)


def _behind_length(length: int, body: bytes) -> bytes:
    return uvarint(length) + body


def yamux_wire() -> st.SearchStrategy[bytes]:
    """What a peer might send as yamux: mostly frames, on few streams, with flags and lengths good and bad."""
    frames = st.builds(
        _yamux_frame,
        kind=st.integers(0, 4),
        flags=st.one_of(st.sampled_from([0, 1, 2, 4, 8, 5]), st.integers(0, 0xFFFF)),
        stream=st.one_of(st.integers(0, 6), st.integers(0, 2**32 - 1)),
        payload=st.binary(max_size=60),
        lie=st.none() | st.sampled_from([0, 1, 262_144, 262_145, 2**31, 2**32 - 1]),
        version=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    )
    return st.lists(st.one_of(frames, frames, frames, st.binary(max_size=20)), max_size=20).map(b"".join)


def _yamux_frame(kind: int, flags: int, stream: int, payload: bytes, lie: int | None, version: int) -> bytes:
    return yamux(kind, flags, stream, payload if kind == DATA else b"", length=lie, version=version)


def mplex_wire() -> st.SearchStrategy[bytes]:
    """The same for mplex."""
    messages = st.builds(
        _mplex_message,
        stream=st.one_of(st.integers(0, 4), st.integers(0, 2**62)),
        flag=st.integers(0, 7),
        payload=st.binary(max_size=60),
        lie=st.none() | st.sampled_from([0, 1, 2**20, 2**20 + 1, 2**63]),
    )
    return st.lists(st.one_of(messages, messages, st.binary(max_size=20)), max_size=20).map(b"".join)


def _mplex_message(stream: int, flag: int, payload: bytes, lie: int | None) -> bytes:
    return mplex(stream, flag, payload, length=lie)
