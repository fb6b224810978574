"""TLS and private networks against real peers, in both roles; ``role`` says what *we* do. Time here is real."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import libp2p
from libp2p.protocols.ping import ping

from .conftest import Record
from .ours import Ours, join, open_ours, pattern_digest
from .peer import Peer, PeerFailed, start_peer

ROLES = pytest.mark.parametrize("role", ["dial", "listen"])
MIB = 1024 * 1024
KEY_TYPES = ("ed25519", "secp256k1", "ecdsa", "rsa")

pytestmark = pytest.mark.real_clock


@asynccontextmanager
async def connected(
    name: str, role: str, *, muxer: str = "yamux", key_type: str = "ed25519", our_key_type: str = "ed25519",
    security: str, psk: str | None = None, their_psk: str | None = None,
) -> AsyncIterator[tuple[Ours, Peer, libp2p.PeerId]]:  # fmt: skip
    """Our host and the peer, connected."""
    flags = {"psk": their_psk or psk} if psk else {}
    with trio.fail_after(90):
        async with (
            open_ours(
                stack=muxer, key_type=our_key_type, security=security, psk=psk, listen=role == "listen"
            ) as ours,
            start_peer(name, muxer=muxer, key_type=key_type, security=security, **flags) as peer,
        ):  # fmt: skip
            yield ours, peer, await join(ours, peer, role)


async def talk(ours: Ours, peer: Peer, peer_id: libp2p.PeerId, size: int) -> None:
    """Ping both ways and echo ``size`` bytes both ways."""
    assert len(await ping(ours.host, peer_id, count=3)) == 3
    assert len((await peer("ping", peer=ours.peer_id, count=3))["rtts_ms"]) == 3
    assert await ours.echo(peer_id, size, 1) == pattern_digest(1, size)
    assert (await peer("echo", peer=ours.peer_id, size=size, seed=2))["sha256"] == pattern_digest(2, size)


Built = dict[str, dict[str, Any]]


def _size(name: str) -> int:
    return 16 * MIB if name != "py" else MIB


def _private_size(name: str) -> int:
    # js-libp2p's cipher for private networks grows its memory with each chunk, until it dies, once one was above 640
    # KiB; how much its streams join into one depends on how busy the machine is.
    return MIB // 2 if name == "js" else _size(name)


@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@ROLES
async def test_tls(role: str, muxer: str, built: Built, record: Record) -> None:
    """With every key type of the peer; bytes both ways. go and js agree on the muxer by ALPN, rust does not."""
    failed: list[str] = []
    for name, features in built.items():
        for what in ("tls", muxer):
            if what not in features["securities"] + features["muxers"]:
                record("tls", name, muxer, role, "unsupported-by-peer", features["unsupported"].get(what, what), 0)
                break
        else:
            started, status, reason = trio.current_time(), "pass", ""
            try:
                for key_type in features["key_types"]:
                    async with connected(name, role, muxer=muxer, key_type=key_type, security="tls") as (
                        ours,
                        peer,
                        peer_id,
                    ):
                        await talk(ours, peer, peer_id, _size(name) if key_type == "ed25519" else 1000)
                        [connection] = ours.host.connections(peer_id)
                        assert connection.remote_key.key_type.name.lower() == key_type
            except* (AssertionError, PeerFailed, libp2p.Libp2pError, trio.TooSlowError) as group:
                status, reason = "fail", repr(group.exceptions[0])[:300]
                failed.append(f"{name}: {reason}")
            record("tls", name, muxer, role, status, reason, trio.current_time() - started)
    assert not failed, "\n".join(failed)


@ROLES
async def test_tls_our_keys(role: str, built: Built, record: Record) -> None:
    """The peer takes our certificates, whatever identity vouches for them."""
    failed: list[str] = []
    for name, features in built.items():
        if "tls" not in features["securities"]:
            continue
        started, status, reason = trio.current_time(), "pass", ""
        try:
            for key_type in features["key_types"]:
                async with connected(name, role, our_key_type=key_type, security="tls") as (ours, peer, _):
                    assert (await peer("ping", peer=ours.peer_id, count=1))["rtts_ms"]
        except* (AssertionError, PeerFailed, libp2p.Libp2pError, trio.TooSlowError) as group:
            status, reason = "fail", repr(group.exceptions[0])[:300]
            failed.append(f"{name}: {reason}")
        record("tls_our_keys", name, "yamux", role, status, reason, trio.current_time() - started)
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("security", ["noise", "tls"])
@ROLES
async def test_private_network(role: str, security: str, built: Built, record: Record) -> None:
    """Members talk; with another key there is no connection."""
    failed: list[str] = []
    for name, features in built.items():
        if not features.get("psk") or security not in features["securities"]:
            record(
                f"private-{security}",
                name,
                "yamux",
                role,
                "unsupported-by-peer",
                features["unsupported"].get("psk", ""),
                0,
            )
            continue
        started, status, reason, psk = trio.current_time(), "pass", "", secrets.token_hex(32)
        try:
            async with connected(name, role, security=security, psk=psk) as (ours, peer, peer_id):
                await talk(ours, peer, peer_id, _private_size(name))
            with pytest.RaisesGroup(pytest.RaisesExc((libp2p.Libp2pError, PeerFailed)), flatten_subgroups=True):
                async with connected(name, role, security=security, psk=psk, their_psk=secrets.token_hex(32)):
                    raise AssertionError("connected")
        except* (AssertionError, PeerFailed, libp2p.Libp2pError, trio.TooSlowError) as group:
            status, reason = "fail", repr(group.exceptions[0])[:300]
            failed.append(f"{name}: {reason}")
        record(f"private-{security}", name, "yamux", role, status, reason, trio.current_time() - started)
    assert not failed, "\n".join(failed)
