"""Signed envelopes: some bytes, what they are, and who vouches for them.

The signature covers ``uvarint length ‖ domain ‖ uvarint length ‖ payload type ‖ uvarint length ‖ payload``. The domain
is never sent: both sides know what they are talking about, and an envelope made for one purpose opens for no other.

Source: libp2p/specs RFC 0002; the schema is in ``proto/envelope.proto``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from ..crypto.keys import PrivateKey, PublicKey, unmarshal_public_key
from ..errors import DecodeError
from ..peer_id import PeerId
from ..wire import proto
from ..wire.framing import frame

MAX_LENGTH = 8 * 1024
"""Longest envelope opened by default, in bytes; go reads identify messages, where most of them travel, up to this."""

_REMEMBERED = 256
"""Envelopes whose signature was right and is not checked again: a peer sends the same one each time it connects, and
several services see it. 4 MiB at worst; the usual envelope has 300 bytes."""

# The four of the schema, and some room for fields of the future.
_MAX_FIELDS = 16
_PUBLIC_KEY, _PAYLOAD_TYPE, _PAYLOAD, _SIGNATURE = 1, 2, 3, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A payload and its signer.

    One that comes from :meth:`open` or :meth:`seal` has a valid signature. The constructor checks nothing.
    """

    public_key: PublicKey
    """The signer's key."""
    payload_type: bytes
    """What the payload is, usually a multicodec."""
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def signer(self) -> PeerId:
        """The peer whose key signed. Whether the payload speaks about that peer is for the caller to check."""
        return PeerId.from_key(self.public_key)

    @classmethod
    def seal(cls, key: PrivateKey, domain: str, payload_type: bytes, payload: bytes) -> Envelope:
        """Sign ``payload`` for the purpose ``domain``.

        Raises:
            ValueError: ``domain`` or ``payload_type`` is empty: such an envelope could be replayed anywhere.
        """
        if not domain or not payload_type:
            raise ValueError("an envelope needs a domain and a payload type")
        return cls(
            public_key=key.public_key,
            payload_type=payload_type,
            payload=payload,
            signature=key.sign(_signed_bytes(domain, payload_type, payload)),
        )

    @classmethod
    def open(
        cls, data: bytes, domain: str, *, payload_type: bytes | None = None, max_length: int = MAX_LENGTH
    ) -> Envelope:
        """Return the envelope in ``data`` after checking its signature. The payload is not looked at.

        Args:
            data: the serialized envelope.
            domain: the purpose it must have been sealed for.
            payload_type: what the payload must be; None takes any type, which the caller then has to look at.
            max_length: refuse longer ``data``.

        Raises:
            DecodeError: it is too long, malformed, of another type, or its signature is wrong for this domain.
        """
        if len(data) > max_length:
            raise DecodeError(f"an envelope of {len(data)} bytes is above the limit of {max_length}")
        return (_verified if len(data) <= MAX_LENGTH else _verify)(bytes(data), domain, payload_type)

    @classmethod
    def _decode(cls, data: bytes) -> Envelope:
        fields: dict[int, bytes] = {}
        for item in proto.read(data, _MAX_FIELDS):
            if item.number in fields:
                # Protobuf would merge the two; two readers might not agree how.
                raise DecodeError(f"field {item.number} is twice in an envelope")
            if item.number in (_PUBLIC_KEY, _PAYLOAD_TYPE, _PAYLOAD, _SIGNATURE):
                fields[item.number] = item.as_bytes()
        return cls(
            public_key=unmarshal_public_key(fields.get(_PUBLIC_KEY, b"")),
            payload_type=fields.get(_PAYLOAD_TYPE, b""),
            payload=fields.get(_PAYLOAD, b""),
            signature=fields.get(_SIGNATURE, b""),
        )

    def marshal(self) -> bytes:
        """Return the serialized envelope."""
        fields = (
            (_PUBLIC_KEY, self.public_key.marshal()),
            (_PAYLOAD_TYPE, self.payload_type),
            (_PAYLOAD, self.payload),
            (_SIGNATURE, self.signature),
        )
        return b"".join([proto.write_bytes(number, value) for number, value in fields if value])


def _verify(data: bytes, domain: str, payload_type: bytes | None) -> Envelope:
    envelope = Envelope._decode(data)
    if payload_type is not None and envelope.payload_type != payload_type:
        raise DecodeError(f"an envelope of type {envelope.payload_type[:16].hex()}, not {payload_type.hex()}")
    signed = _signed_bytes(domain, envelope.payload_type, envelope.payload)
    if not envelope.public_key.verify(signed, envelope.signature):
        raise DecodeError(f"the signature of an envelope is wrong for the domain {domain!r}")
    return envelope


# What comes out depends on nothing but the arguments, and failures are not remembered: they take no room from others.
_verified = functools.lru_cache(_REMEMBERED)(_verify)


def _signed_bytes(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    return frame(domain.encode("utf-8")) + frame(payload_type) + frame(payload)
