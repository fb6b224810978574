"""What errors say: who, which stage, and what to try."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from libp2p.errors import ConnectionClosed, SecurityError, StoreLocked, StreamReset
from libp2p.security.noise._machine import Handshake, LocalIdentity


def test_ends_say_who_and_with_which_code() -> None:
    assert str(ConnectionClosed("gone", code=0x1006, remote=True)) == "gone (by the peer, code 0x1006)"
    assert str(ConnectionClosed("gone")) == "gone (locally)"
    assert str(StreamReset(code=7, remote=False)) == "stream reset locally, code 0x7"
    assert str(StreamReset()) == "stream reset by the peer"


def test_a_locked_store_says_what_to_do() -> None:
    assert "give each host its own file" in str(StoreLocked("peers.db"))


def _handshake(*, initiator: bool) -> Handshake:
    static = X25519PrivateKey.generate()
    local = LocalIdentity(static, static.public_key().public_bytes_raw(), b"key", b"signature")
    return Handshake(local, initiator=initiator, ephemeral=X25519PrivateKey.generate())


def test_n10_truncated_second_and_third_messages() -> None:
    """Messages that cannot hold what they must are refused before any of it is used."""
    initiator, responder = _handshake(initiator=True), _handshake(initiator=False)
    assert responder.receive_data(initiator.data_to_send()) is None
    responder.data_to_send()
    with pytest.raises(SecurityError, match="second handshake message is too short"):
        initiator.receive_data(b"\x00\x10" + bytes(16))
    with pytest.raises(SecurityError, match="third handshake message is too short"):
        responder.receive_data(b"\x00\x10" + bytes(16))
