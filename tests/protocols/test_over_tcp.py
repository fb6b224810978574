"""The protocols of every host over real sockets, through the front door."""

from __future__ import annotations

import pytest
import trio

import libp2p
from libp2p.protocols.echo import Echo, echo
from libp2p.protocols.identify import identify
from libp2p.protocols.keep_connected import KeepConnected
from libp2p.protocols.ping import ping
from libp2p.protocols.pubsub import Pubsub, PubsubConfig
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


@pytest.mark.sockets
async def test_g10_a_tight_loop_of_publishing_loses_nothing() -> None:
    # A hundred times as many: python -m bench.tight. Patient, because the machine may do nothing for a second.
    one, two = (Pubsub(config=PubsubConfig(publish_patience=30)) for _ in range(2))
    numbers = range(1000)
    async with libp2p.open_host(listen=LOOPBACK, services=[one]) as a, libp2p.open_host(services=[two]) as b:
        async with one.subscribe("t") as messages, trio.open_nursery() as nursery:
            await b.connect(a.addrs[0])
            await two.wait_for_peers("t")

            async def publish() -> None:
                for number in numbers:
                    await two.publish("t", number.to_bytes(2, "big").ljust(100), require_peers=True)

            nursery.start_soon(publish)
            with trio.fail_after(50):
                assert [int.from_bytes((await messages.receive()).data[:2], "big") for _ in numbers] == list(numbers)
        assert "dropped_outbound" not in two.metrics()
        assert one.metrics()["delivered"] == len(numbers)
