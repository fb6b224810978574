"""secp256k1 by libsecp256k1, Bitcoin's library: a tenth of the time of OpenSSL. See :mod:`libp2p.crypto._engine`."""

from __future__ import annotations

from coincurve import PrivateKey, PublicKey

from ._engine import Sign, Verify


def load_public(raw: bytes) -> Verify:
    """Prepare the 33 bytes of a point. Raises ValueError when it is none."""
    key = PublicKey(raw)

    def verify(data: bytes, signature: bytes) -> bool:
        try:
            return key.verify(signature, data)
        except ValueError:  # not DER
            return False

    return verify


def load_private(raw: bytes) -> tuple[Sign, bytes]:
    """Prepare the 32 bytes of a number, which is in the group."""
    key = PrivateKey(raw)

    def sign(data: bytes) -> bytes:
        return key.sign(data)  # pyright: ignore[reportUnknownMemberType] - for a parameter that is not used

    return sign, key.public_key.format()
