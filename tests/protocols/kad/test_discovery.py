"""``DhtDiscovery``: names in the DHT."""

from __future__ import annotations

import trio

from libp2p.protocols.kad import DhtDiscovery, Mode
from libp2p.transports.memory import MemoryNetwork
from libp2p.wire import multihash
from tests.protocols.kad.networks import open_node


async def test_who_advertises_is_found_as_long_as_he_does() -> None:
    network = MemoryNetwork(0)
    async with open_node(network, "a", mode=Mode.SERVER) as one, open_node(network, "b", mode=Mode.SERVER) as other:
        async with DhtDiscovery(one.kad).advertise("a name"):
            await trio.sleep(1)
            await one.host.connect(other.host.addrs[0])
            await trio.sleep(70)  # nobody took it at first
            async with DhtDiscovery(other.kad).find_peers("a name") as peers:
                assert [peer async for peer in peers] == [one.peer]
            # Where go and js look, too.
            async with other.kad.find_providers(multihash.sha2_256(b"a name")) as providers:
                assert [peer async for peer in providers] == [one.peer]
            assert one.kad.provided
        assert not one.kad.provided
