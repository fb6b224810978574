"""Opening a way through NATs: requirement D5. On the virtual clock."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from multiaddr import Multiaddr

from libp2p.errors import TransportError
from libp2p.peer_id import PeerId
from libp2p.transports.quic._endpoint import NOISE_SIZE
from libp2p.transports.quic._engine import Address
from libp2p.transports.quic._packets import read_header
from libp2p.transports.quic._transport import PUNCH_PAUSES
from tests.transports.quic.net import Node, open_net


async def test_d5_a_wall_opens_for_whom_it_was_sent_to() -> None:
    async with open_net() as net:
        alice, bob = await net.node(), await net.node()
        hers, his = await net.listener(alice), await net.listener(bob)
        outside = hers.endpoint.address
        noise: list[tuple[float, bytes]] = []

        def wall(data: bytes, source: Address, target: Address) -> bytes | None:
            if source == his.endpoint.address and target == outside and len(data) == NOISE_SIZE:
                noise.append((trio.current_time(), data))
            return data if noise or target != his.endpoint.address else None

        net.udp.filter = wall
        net.nursery.start_soon(_punching, bob, hers.addresses[0], alice)
        with trio.fail_after(5):
            ours = await alice.transport.dial(his.addresses[0], peer=None)
            theirs = await his.accept()
        assert theirs.remote_addr == hers.addresses[0] and ours.remote_addr == his.addresses[0]
        await trio.sleep(2)
        pauses = [later[0] - earlier[0] for earlier, later in pairwise(noise)]
        assert len(pauses) > 10 and all(PUNCH_PAUSES[0] <= pause <= PUNCH_PAUSES[1] + 1e-9 for pause in pauses)
        assert len({data for _, data in noise}) == len(noise)
        assert not any(data[0] & 0xC0 or read_header(data) for _, data in noise)


async def _punching(node: Node, addr: Multiaddr, other: Node) -> None:
    await node.transport.punch(addr, peer=PeerId.from_key(other.key.public_key))


async def test_a_listening_socket_is_needed() -> None:
    async with open_net() as net:
        alice, bob = await net.node(), await net.node()
        hers = await net.listener(alice)
        with pytest.raises(TransportError, match="listening"):
            await _punching(bob, hers.addresses[0], alice)
        his = await net.listener(bob)
        async with trio.open_nursery() as nursery:

            async def punch() -> None:
                with pytest.raises(TransportError, match="gone"):
                    await _punching(bob, hers.addresses[0], alice)

            nursery.start_soon(punch)
            await trio.sleep(1)
            await his.aclose()
