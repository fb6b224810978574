"""secp256k1 by ``cryptography``. See :mod:`libp2p.crypto._engine`.

OpenSSL does not care which of the two possible values of s a signature has. So the upper one is refused here when
verifying and replaced when signing, as libsecp256k1 does by itself.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from ._engine import Sign, Verify

_CURVE = ec.SECP256K1()
_SCHEME = ec.ECDSA(hashes.SHA256())
# Order of the group (SEC 2, section 2.4.1).
_N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


def load_public(raw: bytes) -> Verify:
    """Prepare the 33 bytes of a point. Raises ValueError when it is none."""
    key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, raw)

    def verify(data: bytes, signature: bytes) -> bool:
        try:
            if decode_dss_signature(signature)[1] > _N // 2:
                return False
            key.verify(signature, data, _SCHEME)
        except (InvalidSignature, ValueError):
            return False
        return True

    return verify


def load_private(raw: bytes) -> tuple[Sign, bytes]:
    """Prepare the 32 bytes of a number, which is in the group."""
    key = ec.derive_private_key(int.from_bytes(raw, "big"), _CURVE)
    point = key.public_key().public_numbers()

    def sign(data: bytes) -> bytes:
        signature = key.sign(data, _SCHEME)
        r, s = decode_dss_signature(signature)
        return signature if s <= _N // 2 else encode_dss_signature(r, _N - s)

    return sign, bytes((2 + (point.y & 1),)) + point.x.to_bytes(32, "big")
