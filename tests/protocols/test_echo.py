"""``libp2p.protocols.echo``."""

from __future__ import annotations

import pytest

from libp2p.errors import NegotiationError
from libp2p.protocols.echo import Echo, echo
from libp2p.testing import memory_network


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_echo(size: int) -> None:
    async with memory_network(2, services=[Echo]) as (a, b):
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        assert await echo(a, b.addrs[0], data) == data


async def test_a_peer_without_it() -> None:
    async with memory_network(2) as (a, b):
        with pytest.raises(NegotiationError):
            await echo(a, b.addrs[0], b"x")
