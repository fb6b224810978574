"""What is said of addresses that no transport of a host takes."""

from __future__ import annotations

import pytest

from libp2p.addressing import parse
from libp2p.swarm._unsupported import not_dialled, not_listened_on

PEER = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"


@pytest.mark.parametrize(
    ("addr", "hint"),
    [
        (f"/ip4/192.0.2.7/tcp/1/p2p/{PEER}/p2p-circuit", "RelayClient"),
        ("/ip4/192.0.2.7/udp/1/webrtc-direct", "WebRTC"),
        ("/ip4/192.0.2.7/udp/1/quic-v1/webtransport", "WebTransport"),
        ("/ip4/192.0.2.7/udp/1/quic", "/quic-v1"),
        ("/ip4/192.0.2.7/udp/1/quic-v1", "the transport Quic"),
        ("/dns4/example.com/tcp/1/wss", "the transport WebSocket"),
        ("/ip4/192.0.2.7/udp/1", "/quic-v1"),
        ("/ip4/192.0.2.7", "a port"),
        ("/memory/1", "no transport of this host can"),
    ],
)
def test_what_is_needed(addr: str, hint: str) -> None:
    assert hint in not_dialled(parse(addr))
    if not addr.startswith("/dns"):
        assert hint in not_listened_on(parse(addr))


def test_what_only_listening_minds() -> None:
    assert "a host's peer id comes from its key" in not_listened_on(parse(f"/ip4/192.0.2.7/tcp/1/p2p/{PEER}"))
    assert "not on a name" in not_listened_on(parse("/dns4/example.com/tcp/1"))
