"""Nodes of the DHT among each other: requirements KD3 to KD16."""

from __future__ import annotations

import pytest

from libp2p.protocols.kad import NotFound

from .networks import dht


async def test_two_nodes() -> None:
    async with dht(2) as (a, b):
        assert b.peer in a.kad.table
        assert a.peer in b.kad.table
        await a.kad.put_value(b"/v/key", b"value")
        assert await b.kad.get_value(b"/v/key") == b"value"
        await a.kad.provide(b"content")
        async with b.kad.find_providers(b"content") as providers:
            assert [peer async for peer in providers] == [a.peer]


async def test_a_network() -> None:
    async with dht(25, clients=3) as nodes:
        first, other, client = nodes[3], nodes[17], nodes[-1]
        await first.kad.put_value(b"/v/key", b"value")
        assert await client.kad.get_value(b"/v/key") == b"value"
        with pytest.raises(NotFound):
            await client.kad.get_value(b"/v/other")
        await client.kad.provide(b"content")
        async with other.kad.find_providers(b"content", count=1) as providers:
            assert [peer async for peer in providers] == [client.peer]
        await client.host.disconnect(other.peer)
        assert await client.kad.find_peer(other.peer)
        assert client.host.connections(other.peer)
        assert all(client.peer not in node.kad.table for node in nodes)
