"""Hosts with pubsub, and peers that speak its wire format by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from libp2p.abc import Host, ProtocolId, Stream, StreamHandler
from libp2p.protocols.pubsub import FLOODSUB, Messages, Pubsub, RpcLimits
from libp2p.protocols.pubsub._codec import Rpc, Subscription, decode_rpc, encode_message, encode_publish, encode_rpc
from libp2p.protocols.pubsub._control import Control, decode_control
from libp2p.protocols.pubsub._signing import SignaturePolicy, Signer
from libp2p.testing import memory_network
from libp2p.testing.network import Hosts, open_memory_host
from libp2p.transports.memory import MemoryNetwork
from libp2p.wire.framing import FrameBuffer, frame
from tests.protocols.waiting import settled


class Services:
    """Makes the pubsub services of a network and keeps them."""

    def __init__(self, make: Callable[[], Pubsub] = Pubsub) -> None:
        self.make = make
        self.made: list[Pubsub] = []

    def __call__(self) -> Pubsub:
        self.made.append(self.make())
        return self.made[-1]


class Net:
    """Connected hosts, all subscribed to one topic."""

    def __init__(self, hosts: Hosts, pubsubs: list[Pubsub], messages: list[Messages]) -> None:
        self.hosts = hosts
        self.pubsubs = pubsubs
        self.messages = messages


@asynccontextmanager
async def subscribed(
    links: Iterable[tuple[int, int]], make: Callable[[], Pubsub] = Pubsub, topic: str = "t"
) -> AsyncIterator[Net]:
    """Hosts with ``links`` between them, all subscribed to ``topic`` and aware of each other."""
    services, wanted = Services(make), list(links)
    size = max(max(link) for link in wanted) + 1
    async with memory_network(size, services=[services]) as hosts, AsyncExitStack() as stack:
        messages = [await stack.enter_async_context(pubsub.subscribe(topic)) for pubsub in services.made]
        for one, other in wanted:
            await hosts[one].connect(hosts[other].addrs[0])
        for index, pubsub in enumerate(services.made):
            await pubsub.wait_for_peers(topic, sum(index in link for link in wanted))
        yield Net(hosts, services.made, messages)


class RawPeer:
    """A peer that speaks pubsub by hand.

    Attributes:
        network: where it is.
        handler: what is done with streams the other side opens.
        received: the RPCs that came on streams the other side opened.
        inbound: those streams.
        read: whether anything is read from them.
    """

    def __init__(self, host: Host, victim: Host, protocol: ProtocolId = FLOODSUB) -> None:
        self.network: MemoryNetwork | None = None
        self.host = host
        self.victim = victim
        self.protocol = protocol
        self.handler: StreamHandler = self.serve
        self.registration = host.handle(protocol, lambda stream: self.handler(stream))
        self.received: list[Rpc] = []
        self.inbound: list[Stream] = []
        self.read = trio.Event()
        self.read.set()
        self.stream: Stream | None = None
        self.signer = Signer(SignaturePolicy.STRICT_SIGN, host.private_key, seqno=0)

    async def serve(self, stream: Stream) -> None:
        self.inbound.append(stream)
        frames = FrameBuffer(2**20)
        await self.read.wait()
        async for chunk in stream:
            self.received += [decode_rpc(data, RpcLimits()) for data in frames.receive_data(chunk)]
            await self.read.wait()

    async def open(self) -> Stream:
        self.stream = await self.host.open_stream(self.victim.local_peer, self.protocol)
        return self.stream

    async def send(self, rpc: Rpc) -> None:
        await self.send_bytes(frame(encode_rpc(rpc)))

    async def send_bytes(self, data: bytes) -> None:
        stream = self.stream or await self.open()
        await stream.send_all(data)

    async def subscribe(self, *topics: str) -> None:
        await self.send(Rpc(subscriptions=tuple([Subscription(topic, True) for topic in topics])))

    async def publish(self, *raws: bytes) -> None:
        await self.send(Rpc(publish=raws))

    async def say(self, *entries: bytes) -> None:
        """Send control entries."""
        await self.send(Rpc(control=b"".join(entries)))

    def signed(self, data: bytes, topic: str = "t") -> bytes:
        return self.signer.sign(topic, data).raw

    @property
    def published(self) -> list[bytes]:
        """The messages that came, encoded."""
        return [raw for rpc in self.received for raw in rpc.publish]

    @property
    def control(self) -> Control:
        """The control entries that came."""
        return decode_control(b"".join([rpc.control for rpc in self.received]), max_ids=10**6)

    @property
    def announced(self) -> list[tuple[str, bool]]:
        """The subscriptions that came."""
        return [(change.topic, change.subscribe) for rpc in self.received for change in rpc.subscriptions]


@asynccontextmanager
async def raw_peers(
    count: int = 1,
    make: Callable[[], Pubsub] = Pubsub,
    *,
    topic: str | None = "t",
    connect: bool = True,
    protocol: ProtocolId = FLOODSUB,
) -> AsyncIterator[tuple[Host, Pubsub, Messages | None, list[RawPeer]]]:
    """A host with pubsub, subscribed to ``topic``, and connected peers that do as they are told."""
    services = Services(make)
    async with memory_network(1, services=[services]) as hosts, AsyncExitStack() as stack:
        (victim,) = hosts
        messages = None if topic is None else await stack.enter_async_context(services.made[0].subscribe(topic))
        peers = []
        for number in range(count):
            host = await stack.enter_async_context(open_memory_host(hosts.network, name=f"raw-{number}"))
            peer = RawPeer(host, victim, protocol)
            peer.network = hosts.network
            peers.append(peer)
            if connect:
                await host.connect(victim.addrs[0])
        await settled()
        yield victim, services.made[0], messages, peers


def unsigned(data: bytes, topic: str = "t") -> bytes:
    return encode_message(topic=topic, data=data)


def rpc_of(*raws: bytes) -> bytes:
    return frame(b"".join(map(encode_publish, raws)))
