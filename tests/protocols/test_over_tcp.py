"""The protocols of every host over real sockets, through the front door."""

from __future__ import annotations

import pytest
import trio

import libp2p
from libp2p.protocols.echo import Echo, echo
from libp2p.protocols.identify import identify
from libp2p.protocols.keep_connected import KeepConnected
from libp2p.protocols.ping import ping
from libp2p.protocols.pubsub import Pubsub
from libp2p.protocols.request_response import RequestResponse

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]


@pytest.mark.sockets
async def test_all_of_them() -> None:
    async def reverse(peer: libp2p.PeerId, request: bytes) -> bytes:
        return request[::-1]

    one, two = Pubsub(), Pubsub()
    asking = RequestResponse("/reverse/1", reverse)
    async with libp2p.open_host(listen=LOOPBACK, services=[one, Echo(), asking]) as a:
        keeping = KeepConnected([a.addrs[0]])
        async with libp2p.open_host(services=[two, keeping]) as b, one.subscribe("t") as messages:
            with trio.fail_after(30):
                await two.wait_for_peers("t")
                await two.publish("t", b"over tcp", require_peers=True)
                assert (await messages.receive()).author == b.local_peer
                assert len(await ping(b, a.local_peer, count=3)) == 3
                assert (await identify(b, a.local_peer)).public_key == a.private_key.public_key.marshal()
                assert await echo(b, a.local_peer, b"x" * 2_000_000) == b"x" * 2_000_000
                assert await asking.request(b, a.local_peer, b"abc") == b"cba"
                assert keeping.peers()[a.local_peer].connected
