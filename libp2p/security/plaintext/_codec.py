"""The one message of plaintext 2.0: ``Exchange {id, pubkey}`` behind a varint length."""

from __future__ import annotations

from google.protobuf.message import DecodeError as ProtobufDecodeError

from ...crypto.keys import PublicKey, unmarshal_public_key
from ...errors import DecodeError
from ...pb import plaintext_pb2
from ...peer_id import PeerId
from ...wire.framing import frame

MAX_EXCHANGE = 20 * 1024
"""Longest exchange read, in bytes: an RSA key of 8192 bits and its id take a little over 1 KiB."""


def encode_exchange(key: PublicKey) -> bytes:
    """The framed exchange that introduces the owner of ``key``."""
    message = plaintext_pb2.Exchange(id=bytes(PeerId.from_key(key)))
    message.pubkey.ParseFromString(key.marshal())
    return frame(message.SerializeToString())


def decode_exchange(data: bytes) -> tuple[PeerId, PublicKey]:
    """Read an unframed exchange; the id must be the key's. Raises DecodeError."""
    try:
        message = plaintext_pb2.Exchange.FromString(data)
    except ProtobufDecodeError as exc:
        raise DecodeError(f"plaintext exchange does not parse: {exc}") from exc
    if not message.HasField("pubkey"):
        raise DecodeError("plaintext exchange without a key")
    # Partial, because a key message without its required fields is for the next line to refuse.
    key = unmarshal_public_key(message.pubkey.SerializePartialToString())
    peer = PeerId.from_bytes(message.id)
    if peer != PeerId.from_key(key):
        raise DecodeError(f"the key in the exchange is not {peer}'s")
    return peer, key
