"""Who may connect; case T9: nobody makes us dial into private networks."""

from __future__ import annotations

import pytest
from multiaddr import Multiaddr

from libp2p.abc import Direction
from libp2p.addressing import parse
from libp2p.peer_id import PeerId
from libp2p.swarm._gater import BlockList, Gater, remote_addr_allowed

BAD = PeerId.parse("QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN")
GOOD = PeerId.parse("QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa")
ADDR = parse("/ip4/9.9.9.9/tcp/1")


def verdicts(gater: Gater, peer: PeerId, addr: Multiaddr) -> list[bool]:
    return [
        gater.dial_peer(peer),
        gater.dial_addr(peer, addr),
        gater.accept(addr),
        gater.secured(Direction.INBOUND, peer, addr),
    ]


def test_default_allows_everything() -> None:
    assert verdicts(Gater(), BAD, ADDR) == [True] * 4
    assert Gater().dial_addr(None, ADDR)


def test_blocked_peer_is_refused_in_both_directions() -> None:
    blocked = BlockList([BAD])
    assert verdicts(blocked, BAD, ADDR) == [False, False, True, False]
    assert verdicts(blocked, GOOD, ADDR) == [True] * 4
    assert blocked.blocks_peer(BAD)
    blocked.unblock_peer(BAD)
    blocked.unblock_peer(BAD)
    assert verdicts(blocked, BAD, ADDR) == [True] * 4
    blocked.block_peer(GOOD)
    assert not blocked.dial_peer(GOOD)


@pytest.mark.parametrize(
    ("addr", "blocked"),
    [
        ("/ip4/9.9.9.9/tcp/1", True),
        ("/ip4/9.9.10.9/tcp/1", False),
        ("/ip6/::ffff:9.9.9.9/tcp/1", True),
        ("/ip6/64:ff9b::909:909/tcp/1", True),
        ("/ip6/2600::1/udp/1/quic-v1", True),
        ("/ip6/2600::2/udp/1/quic-v1", False),
        (f"/ip4/9.9.9.9/tcp/1/p2p/{GOOD}/p2p-circuit", True),
        ("/dns4/example.com/tcp/1", False),
        ("/memory/1", False),
    ],
)
def test_blocked_network(addr: str, blocked: bool) -> None:
    block_list = BlockList(networks=["9.9.9.0/24", "2600::1"])
    assert block_list.blocks_addr(parse(addr)) is blocked
    assert verdicts(block_list, GOOD, parse(addr)) == [True, not blocked, not blocked, not blocked]


def test_networks_of_all_sizes_can_be_blocked_and_unblocked() -> None:
    block_list = BlockList()
    for network in ["9.9.9.9", "8.0.0.0/8", "8.8.0.0/16", "::/0"]:
        block_list.block_network(network)
    assert block_list.blocks_addr(parse("/ip4/8.8.1.1/tcp/1"))
    block_list.unblock_network("8.0.0.0/8")
    assert block_list.blocks_addr(parse("/ip4/8.8.1.1/tcp/1"))
    block_list.unblock_network("8.8.0.0/16")
    assert not block_list.blocks_addr(parse("/ip4/8.8.1.1/tcp/1"))
    assert block_list.blocks_addr(parse("/ip6/2600::1/tcp/1"))
    block_list.unblock_network("7.0.0.0/8")
    block_list.block_network("5.0.0.0/16")
    block_list.block_network("6.0.0.0/16")
    block_list.unblock_network("5.0.0.0/16")
    assert block_list.blocks_addr(parse("/ip4/6.0.1.1/tcp/1"))
    with pytest.raises(ValueError, match="nonsense"):
        block_list.block_network("nonsense")


# --- T9 ---------------------------------------------------------------------------------------------------------------

PUBLIC = [
    "/ip4/9.9.9.9/tcp/1",
    "/ip6/2600::1/udp/1/quic-v1",
    "/ip6/::ffff:9.9.9.9/tcp/1",
    f"/ip4/9.9.9.9/tcp/1/p2p/{GOOD}/p2p-circuit",
    f"/p2p/{GOOD}/p2p-circuit",
    "/p2p-circuit",
    "/memory/1",
]
INSIDE = [
    "/ip4/10.1.2.3/tcp/1",
    "/ip4/192.168.1.1/udp/1/quic-v1",
    "/ip4/172.16.0.1/tcp/1",
    "/ip4/100.64.0.1/tcp/1",
    "/ip4/127.0.0.1/tcp/1",
    "/ip6/::1/tcp/1",
    "/ip6/::ffff:127.0.0.1/tcp/1",
    "/ip6/::ffff:10.0.0.1/tcp/1",
    "/ip6/64:ff9b::a00:1/tcp/1",
    "/ip6/fd00::1/tcp/1",
    "/ip4/203.0.113.1/tcp/1",
    "/ip4/192.0.2.1/tcp/1",
    "/ip6/2001:db8::1/tcp/1",
    f"/ip4/10.1.2.3/tcp/1/p2p/{GOOD}/p2p-circuit",
]
NEVER = [
    "/ip4/169.254.169.254/tcp/80",
    "/ip6/::ffff:169.254.169.254/tcp/80",
    "/ip6/fe80::1/tcp/1",
    "/ip6zone/eth0/ip6/fe80::1/tcp/1",
    "/ip4/0.0.0.0/tcp/1",
    "/ip6/::/tcp/1",
    "/ip4/224.0.0.251/udp/5353/quic-v1",
    "/ip4/255.255.255.255/udp/1/quic-v1",
    "/ip6/ff02::1/udp/1/quic-v1",
    "/dns4/example.com/tcp/1",
    "/dnsaddr/example.com",
    "/unix/run%2Fsocket",
    f"/dns4/example.com/tcp/1/p2p/{GOOD}/p2p-circuit",
    f"/ip4/169.254.169.254/tcp/1/p2p/{GOOD}/p2p-circuit",
    "/tcp/80",
]


@pytest.mark.bar_c
@pytest.mark.parametrize("addr", PUBLIC)
def test_public_addresses_are_dialled(addr: str) -> None:
    assert remote_addr_allowed(parse(addr), allow_private=False)
    assert remote_addr_allowed(parse(addr), allow_private=True)


@pytest.mark.bar_c
@pytest.mark.parametrize("addr", INSIDE)
def test_private_addresses_only_on_request(addr: str) -> None:
    """T9: 0 connects to filtered ranges."""
    assert not remote_addr_allowed(parse(addr), allow_private=False)
    assert remote_addr_allowed(parse(addr), allow_private=True)


@pytest.mark.bar_c
@pytest.mark.parametrize("addr", NEVER)
def test_other_addresses_never(addr: str) -> None:
    assert not remote_addr_allowed(parse(addr), allow_private=False)
    assert not remote_addr_allowed(parse(addr), allow_private=True)
