"""The handshake payload of libp2p's Noise (specs noise/README.md, "The Libp2p Handshake Payload")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError as ProtobufDecodeError

from ...errors import DecodeError
from ...pb import noise_pb2

MAX_MUXERS = 32
"""Most muxer ids read from a payload."""
MAX_CERTHASHES = 32
"""Most certificate hashes read from a payload."""


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
    message = noise_pb2.NoiseHandshakePayload(identity_key=identity_key, identity_sig=identity_sig)
    if muxers:
        message.extensions.stream_muxers.extend(muxers)
    return message.SerializeToString()


def decode_payload(data: bytes) -> Payload:
    """Read a payload; unknown fields are ignored. Raises DecodeError."""
    try:
        message = noise_pb2.NoiseHandshakePayload.FromString(data)
        extensions = message.extensions
        if len(extensions.stream_muxers) > MAX_MUXERS or len(extensions.webtransport_certhashes) > MAX_CERTHASHES:
            raise DecodeError("Noise payload with too many entries")
        return Payload(
            identity_key=message.identity_key,
            identity_sig=message.identity_sig,
            muxers=tuple(_texts(extensions.stream_muxers)),
            certhashes=tuple(extensions.webtransport_certhashes),
        )
    except (ProtobufDecodeError, UnicodeDecodeError) as exc:
        raise DecodeError(f"Noise payload does not parse: {exc}") from exc


def _texts(values: Iterable[str | bytes]) -> Iterator[str]:
    # Some runtimes of protobuf let any bytes pass for a string of proto2, and leave them bytes.
    for value in values:
        if isinstance(value, bytes):
            raise DecodeError("the id of a muxer is not UTF-8")
        yield value
