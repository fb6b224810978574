"""Peer records: a peer's own statement of its addresses, in a signed envelope, so that others can pass it on.

Source: libp2p/specs RFC 0003; the schema is in ``proto/peer_record.proto``. Domain and payload type are the ones all
implementations use; those in the RFC's text are obsolete, but rust's rendezvous knows no others (:data:`OBSOLETE`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multiaddr import Multiaddr

from .. import addressing
from ..crypto.keys import PrivateKey
from ..errors import DecodeError
from ..peer_id import PeerId
from ..wire import proto
from .envelope import Envelope

DOMAIN = "libp2p-peer-record"
"""The domain of the envelope, as all implementations but rust's rendezvous have it."""
PAYLOAD_TYPE = b"\x03\x01"
"""Multicodec libp2p-peer-record, 0x0301, as two bytes."""


@dataclass(frozen=True, slots=True)
class RecordForm:
    """What a record is sealed as: the domain of its signature, and the type its envelope says."""

    domain: str
    payload_type: bytes


STANDARD = RecordForm(DOMAIN, PAYLOAD_TYPE)
"""What everybody uses."""
OBSOLETE = RecordForm("libp2p-routing-state", b"/libp2p/routing-state-record")
"""What the RFC says, and rust's rendezvous insists on."""
MAX_ADDRS = 256
"""Most addresses in a record that is opened. Real ones have a few dozen."""
MAX_SEQ = (1 << 64) - 1
"""The highest sequence number."""

_PEER_ID, _SEQ, _ADDRESSES = 1, 2, 3
_MULTIADDR = 1
# Room for fields of the future.
_MAX_FIELDS = MAX_ADDRS + 16
_MAX_ENTRY_FIELDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRecord:
    """The addresses of a peer at some point of its life."""

    peer: PeerId
    seq: int
    """Grows with every new record of the peer; a record replaces only records with a lower one. It is no time."""
    addrs: tuple[Multiaddr, ...]
    """Where the peer can be reached, without ``/p2p`` at the end."""

    def seal(self, key: PrivateKey, *, form: RecordForm = STANDARD) -> bytes:
        """Return the record in an envelope signed with ``key``, serialized.

        Raises:
            ValueError: ``key`` is not the key of ``peer``, or ``seq`` does not fit into 64 bits.
        """
        if not self.peer.matches(key.public_key):
            raise ValueError(f"a record of {self.peer} must be signed with its own key")
        return Envelope.seal(key, form.domain, form.payload_type, self.marshal()).marshal()

    def marshal(self) -> bytes:
        """Return the serialized record, which is the payload of the envelope.

        Raises:
            ValueError: ``seq`` does not fit into 64 bits.
        """
        out = [proto.write_bytes(_PEER_ID, bytes(self.peer))]
        if self.seq:
            out.append(proto.write_uint(_SEQ, self.seq))
        out += [proto.write_bytes(_ADDRESSES, proto.write_bytes(_MULTIADDR, addr.to_bytes())) for addr in self.addrs]
        return b"".join(out)

    @classmethod
    def from_envelope(cls, envelope: Envelope, *, form: RecordForm = STANDARD) -> PeerRecord:
        """Return the record in ``envelope``, which :meth:`Envelope.open` has verified for the domain of ``form``.

        Addresses that cannot be read or that name another peer are left out, as are repetitions.

        Raises:
            DecodeError: the envelope holds something else, a malformed record, one with too many addresses, or one
                about another peer than the signer.
        """
        if envelope.payload_type != form.payload_type:
            raise DecodeError(f"an envelope of type {envelope.payload_type[:16].hex()} holds no peer record")
        peer_id, seq, addrs = _read(envelope.payload)
        peer = envelope.signer
        if peer_id != bytes(peer):
            raise DecodeError(f"{peer} signed a peer record about somebody else")
        return cls(peer=peer, seq=seq, addrs=tuple(_usable(addrs, peer)))


def open_peer_record(data: bytes, *, form: RecordForm = STANDARD) -> PeerRecord:
    """Return the record in a serialized envelope, after checking the signature and that the signer is the subject.

    Whether it is newer than one that is already known is for the caller to check.

    Raises:
        DecodeError: as for :meth:`Envelope.open` and :meth:`PeerRecord.from_envelope`.
    """
    return PeerRecord.from_envelope(Envelope.open(data, form.domain, payload_type=form.payload_type), form=form)


def _read(payload: bytes) -> tuple[bytes, int, list[bytes]]:
    peer_id, seq = b"", 0
    addrs: list[bytes] = []
    for field in proto.read(payload, _MAX_FIELDS):
        if field.number == _PEER_ID:
            peer_id = field.as_bytes()
        elif field.number == _SEQ:
            seq = field.as_uint()
        elif field.number == _ADDRESSES:
            entry = proto.read(field.as_bytes(), _MAX_ENTRY_FIELDS)
            addrs += [inner.as_bytes() for inner in entry if inner.number == _MULTIADDR]
    if len(addrs) > MAX_ADDRS:
        raise DecodeError(f"a peer record with more than {MAX_ADDRS} addresses")
    return peer_id, seq, addrs


def _usable(addrs: Iterable[bytes], peer: PeerId) -> Iterable[Multiaddr]:
    found: dict[Multiaddr, None] = {}
    for data in addrs:
        try:
            addr, named = addressing.split_peer(addressing.parse(data))
        except DecodeError:
            # One address of a kind not known here must not cost the others.
            continue
        if named in (None, peer) and addr.to_bytes():
            found[addr] = None
    return found
