"""The handshake payload of libp2p's Noise (specs noise/README.md, "The Libp2p Handshake Payload").

The schema is in ``proto/noise.proto``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import DecodeError
from ...wire import proto

MAX_MUXERS = 32
"""Most muxer ids read from a payload."""
MAX_CERTHASHES = 32
"""Most certificate hashes read from a payload."""

# Those of the schema, and some room for fields of the future.
_MAX_FIELDS = 16
_IDENTITY_KEY, _IDENTITY_SIG, _EXTENSIONS = 1, 2, 4
_CERTHASHES, _MUXERS = 1, 2


@dataclass(frozen=True, slots=True)
class Payload:
    """What each side says about itself inside the handshake.

    Attributes:
        identity_key: the marshalled public identity key.
        identity_sig: its signature over the static Noise key.
        muxers: muxers this side speaks, best first; empty for no early negotiation.
        certhashes: WebTransport certificate hashes, as multihashes.
    """

    identity_key: bytes
    identity_sig: bytes
    muxers: tuple[str, ...] = ()
    certhashes: tuple[bytes, ...] = ()


def encode_payload(identity_key: bytes, identity_sig: bytes, muxers: Sequence[str]) -> bytes:
    """Bytes of a payload."""
    message = proto.write_bytes(_IDENTITY_KEY, identity_key) + proto.write_bytes(_IDENTITY_SIG, identity_sig)
    extensions = b"".join(proto.write_bytes(_MUXERS, muxer.encode()) for muxer in muxers)
    return message + proto.write_bytes(_EXTENSIONS, extensions) if extensions else message


def decode_payload(data: bytes) -> Payload:
    """Read a payload; unknown fields are ignored. Raises DecodeError."""
    fields = {_IDENTITY_KEY: b"", _IDENTITY_SIG: b""}
    muxers: list[str] = []
    certhashes: list[bytes] = []
    for field in proto.read(data, _MAX_FIELDS):
        if field.number in fields:
            fields[field.number] = field.as_bytes()
        elif field.number == _EXTENSIONS:
            _read_extensions(field.as_bytes(), muxers, certhashes)
    return Payload(fields[_IDENTITY_KEY], fields[_IDENTITY_SIG], tuple(muxers), tuple(certhashes))


def _read_extensions(data: bytes, muxers: list[str], certhashes: list[bytes]) -> None:
    for field in proto.read(data, MAX_MUXERS + MAX_CERTHASHES + _MAX_FIELDS):
        if field.number == _MUXERS:
            try:
                muxers.append(field.as_bytes().decode())
            except UnicodeDecodeError:
                raise DecodeError("the id of a muxer is not UTF-8") from None
        elif field.number == _CERTHASHES:
            certhashes.append(field.as_bytes())
    if len(muxers) > MAX_MUXERS or len(certhashes) > MAX_CERTHASHES:
        raise DecodeError("Noise payload with too many entries")
