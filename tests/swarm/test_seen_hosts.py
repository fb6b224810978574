"""Where peers were, so that their private addresses may be dialled. Case T9."""

from __future__ import annotations

import pytest

from libp2p.addressing import parse
from libp2p.peer_id import PeerId
from libp2p.peerstore import MemoryPeerstore
from libp2p.swarm._seen_hosts import HOSTS, note_host, was_seen
from libp2p.testing import seeded_key

X, Y = (PeerId.from_key(seeded_key(name).public_key) for name in "xy")


async def test_a_peer_is_known_on_the_machine_where_it_was() -> None:
    store = MemoryPeerstore()
    note_host(store, X, parse("/ip4/10.0.0.1/tcp/5"))
    note_host(store, X, parse("/ip4/10.0.0.1/tcp/6"))
    assert was_seen(store, X, parse("/ip4/10.0.0.1/udp/9/quic-v1"))
    assert was_seen(store, X, parse("/ip6/::ffff:10.0.0.1/tcp/5"))
    assert not was_seen(store, X, parse("/ip4/10.0.0.2/tcp/5"))
    assert not was_seen(store, Y, parse("/ip4/10.0.0.1/tcp/5"))


@pytest.mark.parametrize("addr", ["/ip4/1.2.3.4/tcp/5", f"/ip4/10.0.0.1/tcp/5/p2p/{Y}/p2p-circuit", "/memory/7"])
async def test_what_needs_no_witness_takes_no_room(addr: str) -> None:
    """Through a relay one sees the relay's machine, not the peer's."""
    store = MemoryPeerstore()
    note_host(store, X, parse(addr))
    assert store.metadata(X) == {}
    note_host(store, X, parse("/ip4/10.0.0.1/tcp/5"))
    assert not was_seen(store, X, parse(addr))


async def test_only_the_last_machines_are_remembered() -> None:
    store = MemoryPeerstore()
    for number in range(HOSTS + 1):
        note_host(store, X, parse(f"/ip4/10.0.0.{number}/tcp/5"))
    assert not was_seen(store, X, parse("/ip4/10.0.0.0/tcp/5"))
    assert was_seen(store, X, parse("/ip4/10.0.0.1/tcp/5"))


async def test_a_store_full_of_facts_is_left_alone() -> None:
    store = MemoryPeerstore()
    for number in range(store.config.metadata_per_peer):
        store.set_metadata(X, str(number), "")
    note_host(store, X, parse("/ip4/10.0.0.1/tcp/5"))
    assert not was_seen(store, X, parse("/ip4/10.0.0.1/tcp/5"))
