"""Signature policies: what a message must say about its author, and proving it. Pure.

Source: libp2p/specs pubsub, "Message Signing"; bytes that are signed as in go and rust (PS6).
"""

from __future__ import annotations

import enum

from ..._util.bounded import LruMap
from ...crypto.keys import PrivateKey, PublicKey, unmarshal_public_key
from ...errors import DecodeError
from ...peer_id import PeerId
from ._codec import SIGNATURE_PREFIX, Message, default_message_id, encode_message, encode_proof, signed_bytes
from ._router import Fault

SEQNO_LENGTH = 8
_FIRST_SEQNO = 1 << 56
"""The smallest number without zeros in front: js leaves those out, and so changes what was signed."""
_KEYS_REMEMBERED = 1024
"""Authors whose parsed keys are kept: parsing one costs about as much as verifying with it."""


class SignaturePolicy(enum.Enum):
    """Whether messages are signed, and which ones are taken."""

    STRICT_SIGN = "strict sign"
    """Sign, and take only messages with a valid signature. What everybody uses unless told otherwise."""
    STRICT_NO_SIGN = "strict no sign"
    """Do not sign, and take only messages that say nothing about their author. Identical data is one message."""
    LAX_SIGN = "lax sign"
    """Sign; take unsigned messages too. Not recommended: whoever leaves out the signature may claim any author."""
    LAX_NO_SIGN = "lax no sign"
    """Do not sign; take messages with and without a signature. Not recommended, as above."""

    @property
    def signs(self) -> bool:
        """Whether this host signs what it publishes."""
        return self in (SignaturePolicy.STRICT_SIGN, SignaturePolicy.LAX_SIGN)


class Signer:
    """Makes and checks the signatures of one host's messages.

    Args:
        policy: what is required of messages, and done to our own.
        key: the key of their author.
        seqno: the sequence number to start from, of at most 63 bits; growing from one start of the host to the next.
        host: the host, where that is not the author.
    """

    def __init__(self, policy: SignaturePolicy, key: PrivateKey, *, seqno: int, host: PeerId | None = None) -> None:
        self._policy = policy
        self._key = key
        self._author = PeerId.from_key(key.public_key)
        self._host = host or self._author
        # The id holds short keys; js attaches the key always, everybody accepts both (PS7).
        self._attached = None if _embedded_key(self._author) else key.public_key.marshal()
        self._seqno = max(seqno, _FIRST_SEQNO)
        self._keys: LruMap[PeerId, PublicKey] = LruMap(_KEYS_REMEMBERED)

    def sign(self, topic: str, data: bytes) -> Message:
        """Return a new message of this host, signed if the policy says so."""
        data = bytes(data)  # of a buffer that may change a copy, of bytes themselves
        author = seqno = signature = key = None
        if self._policy.signs:
            self._seqno += 1
            author, seqno, key = bytes(self._author), self._seqno.to_bytes(SEQNO_LENGTH, "big"), self._attached
        raw = encode_message(topic=topic, data=data, author=author, seqno=seqno)
        if self._policy.signs:
            signature = self._key.sign(SIGNATURE_PREFIX + raw)
            raw += encode_proof(signature, key)
        return Message(
            id=default_message_id(author, seqno, data),
            topic=topic,
            data=data,
            author=self._author if author else None,
            seqno=seqno,
            signature=signature,
            key=key,
            received_from=self._host,
            raw=raw,
        )

    def check(self, message: Message) -> Fault | None:
        """Return what is wrong with a message of somebody else, None when nothing is.

        Order: what costs nothing first, the signature last.
        """
        if message.author == self._host:
            return Fault.SELF_ORIGIN
        if self._policy is SignaturePolicy.STRICT_NO_SIGN:
            said = (message.author, message.seqno, message.signature, message.key)
            return None if said == (None, None, None, None) else Fault.UNEXPECTED_SIGNATURE
        if message.signature is None and self._policy is not SignaturePolicy.STRICT_SIGN:
            # The number is part of the id, and that is remembered.
            return Fault.BAD_SEQNO if len(message.seqno or b"") > SEQNO_LENGTH else None
        if not message.signature:
            return Fault.MISSING_SIGNATURE
        if message.author is None:
            return Fault.MISSING_AUTHOR
        if not message.seqno or len(message.seqno) > SEQNO_LENGTH:
            return Fault.BAD_SEQNO
        key = self._key_of(message.author, message.key)
        if key is None:
            return Fault.BAD_KEY
        return None if key.verify(signed_bytes(message.raw), message.signature) else Fault.BAD_SIGNATURE

    def _key_of(self, author: PeerId, attached: bytes | None) -> PublicKey | None:
        """The key of ``author``, which is the one that is attached if any is. None when there is no such key."""
        key = self._keys.get(author)
        if key is None:
            try:
                key = author.public_key() or unmarshal_public_key(attached or b"")
            except DecodeError:
                return None
            if not author.matches(key):
                return None
            self._keys[author] = key
        if attached is not None and attached != key.marshal():
            return None
        return key


def _embedded_key(peer: PeerId) -> bool:
    return peer.public_key() is not None
