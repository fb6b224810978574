"""Gossipsub with real peers: meshes, gossip, large messages, and mixed networks. Time here is real."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

import libp2p
from libp2p.abc import ProtocolId
from libp2p.protocols.pubsub import (
    MESHSUB_11,
    MESHSUB_12,
    Gossipsub,
    GossipsubConfig,
    Message,
    MessageId,
    Messages,
    ScoreThresholds,
)
from libp2p.protocols.pubsub.routing import Action, Count

from .conftest import Record
from .ours import Ours, open_ours
from .peer import Peer, start_peer

TOPIC = "interop"
ROLES = pytest.mark.parametrize("role", ["dial", "listen"])
VERSIONS = pytest.mark.parametrize("version", [MESHSUB_12, MESHSUB_11], ids=["1.2", "1.1"])
FLOOD = 1000
"""Messages in each direction, as fast as they go."""
NATIVE = ("go", "js", "rust")
"""Peers whose package has gossipsub as others know it."""

pytestmark = pytest.mark.real_clock


class Old(Gossipsub):
    """Speaks one version only."""

    def __init__(self, version: ProtocolId) -> None:
        super().__init__(random.Random())
        self._version = version

    @property
    def protocols(self) -> Sequence[ProtocolId]:
        return (self._version,)


class Gossiper(Gossipsub):
    """Is in no mesh and pushes nothing: all it says and hears goes by IHAVE and IWANT.

    Attributes:
        pushed: messages that came without being asked for.
    """

    def __init__(self) -> None:
        super().__init__(random.Random())

    def publish(self, message: Message, now: float) -> list[Action]:
        super().publish(message, now)
        return []

    def _may_graft(self, *_: object, **__: object) -> bool:
        return False

    def _graftable(self, *_: object, **__: object) -> list[libp2p.PeerId]:
        return []

    def _take_graft(self, peer: libp2p.PeerId, topic: str, now: float) -> list[Action]:
        return [Count("graft_refused"), self._prune(peer, topic, now)]


class Attentive(Gossipsub):
    """Remembers what it was told not to send.

    Attributes:
        unwanted: the ids.
    """

    def __init__(self) -> None:
        super().__init__(random.Random())
        self.unwanted: list[MessageId] = []

    def _take_idontwant(self, peer: libp2p.PeerId, known: Any, entries: Iterable[Sequence[MessageId]]) -> list[Action]:
        entries = list(entries)
        self.unwanted += [message_id for entry in entries for message_id in entry]
        return super()._take_idontwant(peer, known, entries)


@asynccontextmanager
async def connected(name: str, router: Gossipsub, role: str) -> AsyncIterator[tuple[Ours, Peer, Messages]]:
    """Our host and a peer, connected and both subscribed."""
    async with (
        open_ours(stack="yamux", listen=role == "listen", router=router) as ours,
        start_peer(name, pubsub="gossipsub") as peer,
        ours.pubsub.subscribe(TOPIC) as messages,
    ):
        await peer("subscribe", topic=TOPIC)
        if role == "dial":
            await ours.host.connect(peer.addr)
        else:
            await peer("dial", addr=ours.addr)
        await ours.pubsub.wait_for_peers(TOPIC)
        while ours.peer_id not in (await peer("topic_peers", topic=TOPIC))["peers"]:
            await trio.sleep(0.05)
        yield ours, peer, messages


@pytest.fixture
def name(cell: tuple[str, str, str]) -> str:
    """The peer; once each."""
    if cell[0] not in NATIVE:
        pytest.skip("unsupported by peer: its gossipsub is not tested")
    if cell[1] != "yamux":
        pytest.skip("unsupported by suite: one muxer is enough")
    return cell[0]


async def from_peer(peer: Peer, data: bytes, ours: Sequence[Messages]) -> None:
    """Have ``peer`` publish, and wait until all of ``ours`` have it."""
    await peer("publish", topic=TOPIC, data=base64.b64encode(data).decode())
    for messages in ours:
        while (await messages.receive()).data != data:
            pass


async def from_us(ours: Ours, data: bytes, peers: Sequence[Peer]) -> None:
    """Publish, and wait until all of ``peers`` have it."""
    await ours.pubsub.publish(TOPIC, data)
    for peer in peers:
        await peer.event("message", topic=TOPIC, data=base64.b64encode(data).decode())


@ROLES
@VERSIONS
async def test_gossipsub(name: str, role: str, version: ProtocolId) -> None:
    """A mesh of two, messages in both directions."""
    with trio.fail_after(90):
        async with connected(name, Old(version), role) as (ours, peer, messages):
            while not ours.pubsub.mesh(TOPIC):
                await trio.sleep(0.05)
            (connection,) = ours.host.connections()
            assert version in ours.host.peerstore.protocols(connection.peer)
            for number in range(20):
                await from_us(ours, b"from us %d" % number, [peer])
                await from_peer(peer, b"from them %d" % number, [messages])
            assert all(score >= 0 for score in ours.pubsub.scores().values())
            assert not {"malformed", "bad_signature", "graft_in_backoff"} & ours.pubsub.metrics().keys()


@ROLES
async def test_ihave_iwant(name: str, role: str) -> None:
    """Without a mesh, messages come by gossip alone, in both directions."""
    with trio.fail_after(120):
        async with (
            connected(name, Gossiper(), role) as (lazy, peer, messages),
            open_ours(stack="yamux", router=Gossipsub(random.Random())) as other,
            other.pubsub.subscribe(TOPIC) as others,
        ):
            await other.host.connect(peer.addr)
            await other.pubsub.wait_for_peers(TOPIC)
            await trio.sleep(2)
            await from_us(lazy, b"asked for by them", [peer])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(from_us, other, b"asked for by us", [peer])
                while (await messages.receive()).data != b"asked for by us":
                    pass
            assert (await others.receive()).data == b"asked for by them"
            assert lazy.pubsub.mesh(TOPIC) == ()


@ROLES
async def test_large_messages(name: str, role: str) -> None:
    """Close to the limit of an RPC, with IDONTWANT on the way."""
    with trio.fail_after(120):
        async with connected(name, Gossipsub(random.Random()), role) as (ours, peer, messages):
            for size in (2_000, 60_000, 1_000_000):
                await from_us(ours, random.randbytes(size), [peer])
                await from_peer(peer, random.randbytes(size), [messages])


async def test_floods(name: str) -> None:
    """Both sides publish as fast as they can, at the same time, and nothing is lost."""
    with trio.fail_after(120):
        async with connected(name, Gossipsub(random.Random()), "dial") as (ours, peer, messages):
            while not ours.pubsub.mesh(TOPIC):
                await trio.sleep(0.05)
            missing = {b"from them %d" % number for number in range(FLOOD)}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_flood_of_ours, ours)
                nursery.start_soon(_flood_of_theirs, peer)
                while missing:
                    missing.remove((await messages.receive()).data)  # each once
            sent = sorted([b"from us %d" % number for number in range(FLOOD)])
            while len(received := _received(peer)) < FLOOD:
                await trio.sleep(0.05)
            assert sorted(received) == sent
            assert not {"malformed", "bad_signature", "dropped_outbound", "lost"} & ours.pubsub.metrics().keys()


def _received(peer: Peer) -> list[bytes]:
    return [base64.b64decode(event["data"]) for event in peer.events if event["event"] == "message"]


async def _flood_of_ours(ours: Ours) -> None:
    for number in range(FLOOD):
        await ours.pubsub.publish(TOPIC, b"from us %d" % number)


async def _flood_of_theirs(peer: Peer) -> None:
    for number in range(FLOOD):
        await peer("publish", topic=TOPIC, data=base64.b64encode(b"from them %d" % number).decode())


async def test_idontwant(name: str) -> None:
    """A peer that has a large message tells the others so, before they send it another copy."""
    with trio.fail_after(90):
        attentive = Attentive()
        async with (
            connected(name, Gossipsub(random.Random()), "dial") as (first, peer, _),
            open_ours(stack="yamux", router=attentive) as second,
            second.pubsub.subscribe(TOPIC),
        ):
            await second.host.connect(peer.addr)
            # In the mesh of the peer, too: only those are told.
            while not (first.pubsub.mesh(TOPIC) and second.pubsub.mesh(TOPIC)):
                await trio.sleep(0.05)
            sent: list[MessageId] = []
            while not attentive.unwanted:
                sent.append(await first.pubsub.publish(TOPIC, random.randbytes(60_000)))
                await trio.sleep(0.5)
            assert set(attentive.unwanted) <= set(sent)


@pytest.mark.parametrize("hub", ["theirs", "ours"])
async def test_peer_exchange(name: str, hub: str) -> None:
    """Who leaves a mesh tells those in it of each other, with signed records, and they connect."""
    if name == "rust" or (name == "js" and hub == "ours"):
        pytest.skip(f"unsupported by peer: {NO_EXCHANGE[name]}")
    with trio.fail_after(90):
        await (_exchange_by_peer(name) if hub == "theirs" else _exchange_by_us(name))


NO_EXCHANGE = {
    "rust": "it proposes peers without records, and connects to none",
    "js": "it takes proposals only of peers with a score of ten, which only an application can give",
}


async def _exchange_by_peer(name: str) -> None:
    trusting = GossipsubConfig(thresholds=ScoreThresholds(accept_exchange=0))
    async with (
        start_peer(name, pubsub="gossipsub", exchange=True) as peer,
        open_ours(stack="yamux", listen=True, router=Gossipsub(random.Random(), trusting)) as one,
        open_ours(stack="yamux", listen=True, router=Gossipsub(random.Random(), trusting)) as other,
        one.pubsub.subscribe(TOPIC),
        other.pubsub.subscribe(TOPIC),
    ):
        await peer("subscribe", topic=TOPIC)
        for ours in (one, other):
            await ours.host.connect(peer.addr)
        while not (one.pubsub.mesh(TOPIC) and other.pubsub.mesh(TOPIC)):
            await trio.sleep(0.05)
        await peer("unsubscribe", topic=TOPIC)
        # The peer itself is among them until its word has arrived.
        while one.pubsub.peers(TOPIC) != (other.host.local_peer,):
            await trio.sleep(0.05)


async def _exchange_by_us(name: str) -> None:
    router = Gossipsub(random.Random(), GossipsubConfig(exchange=True))
    async with (
        open_ours(stack="yamux", listen=True, router=router) as ours,
        start_peer(name, pubsub="gossipsub") as one,
        start_peer(name, pubsub="gossipsub") as other,
    ):
        async with ours.pubsub.subscribe(TOPIC):
            for peer in (one, other):
                await peer("subscribe", topic=TOPIC)
                await peer("dial", addr=ours.addr)
            while len(ours.pubsub.mesh(TOPIC)) < 2:
                await trio.sleep(0.05)
            while any(ours.host.peerstore.envelope(peer) is None for peer in ours.pubsub.mesh(TOPIC)):
                await trio.sleep(0.05)
        while other.peer_id not in (await one("connections"))["peers"]:
            await trio.sleep(0.1)


async def test_a_host_that_closes_after_publishing(name: str) -> None:
    """Everything it published has arrived."""
    with trio.fail_after(90):
        async with start_peer(name, pubsub="gossipsub") as peer:
            await peer("subscribe", topic=TOPIC)
            async with open_ours(stack="yamux", router=Gossipsub(random.Random())) as ours:
                await ours.host.connect(peer.addr)
                await ours.pubsub.wait_for_peers(TOPIC)
                for number in range(200):
                    await ours.pubsub.publish(TOPIC, b"%d" % number)
            for number in range(200):
                await peer.event("message", data=base64.b64encode(b"%d" % number).decode())


@pytest.mark.parametrize("policy", ["signed", "anonymous"])
async def test_mixed_mesh(built: dict[str, dict[str, Any]], record: Record, policy: str) -> None:
    """Two of each and four of ours, each connected to some others: everybody gets everything."""
    started = time.monotonic()
    names = [name for name in built if name in NATIVE and "gossipsub" in built[name]["pubsub"]]
    if not names:
        pytest.skip("no peer is built")
    failure = ""
    try:
        with trio.fail_after(240):
            await _mixed_mesh([name for name in names for _ in range(2)], anonymous=policy == "anonymous")
    except Exception as exc:
        failure = repr(exc)[:300]
        raise
    finally:
        for name in names:
            status = "fail" if failure else "pass"
            record(f"mixed_mesh_{policy}", name, "yamux", "", status, failure, time.monotonic() - started)


async def _mixed_mesh(names: Sequence[str], *, anonymous: bool) -> None:
    flags = {"signatures": "none", "message_id": "first8"} if anonymous else {}
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(start_peer(name, pubsub="gossipsub", **flags)) for name in names]
        versions: list[Gossipsub] = [Gossipsub(random.Random()), Gossipsub(random.Random())]
        routers = [*versions, Old(MESHSUB_11), Old(MESHSUB_12)]
        ours = [
            await stack.enter_async_context(open_ours(stack="yamux", listen=True, router=router, anonymous=anonymous))
            for router in routers
        ]
        inboxes = [await stack.enter_async_context(one.pubsub.subscribe(TOPIC)) for one in ours]
        for peer in peers:
            await peer("subscribe", topic=TOPIC)
        # A ring through all kinds, and chords: nobody knows everybody.
        addrs = [peer.addr for peer in peers] + [one.addr for one in ours]
        nodes: list[Peer | Ours] = [*peers, *ours]
        for index, node in enumerate(nodes):
            for step in (1, 3):
                addr = addrs[(index + step) % len(addrs)]
                if isinstance(node, Peer):
                    await node("dial", addr=addr)
                else:
                    await node.host.connect(addr)
        await trio.sleep(3)
        sent: list[bytes] = []
        for number in range(5):
            for index, peer in enumerate(peers):
                sent.append(b"peer %d %d" % (index, number))
                await peer("publish", topic=TOPIC, data=base64.b64encode(sent[-1]).decode())
            for index, one in enumerate(ours):
                sent.append(b"ours %d %d" % (index, number))
                await one.pubsub.publish(TOPIC, sent[-1])
        # Close to what one RPC takes.
        sent.append(b"ours 0 9" + random.randbytes(1_000_000))
        await ours[0].pubsub.publish(TOPIC, sent[-1])
        sent.append(b"peer 0 9" + random.randbytes(1_000_000))
        await peers[0]("publish", topic=TOPIC, data=base64.b64encode(sent[-1]).decode())
        for index, peer in enumerate(peers):
            for data in sent:
                if not data.startswith(b"peer %d " % index):
                    await peer.event("message", data=base64.b64encode(data).decode())
        for index, inbox in enumerate(inboxes):
            missing = {data for data in sent if not data.startswith(b"ours %d " % index)}
            with trio.move_on_after(20):
                while missing:
                    missing.remove((await inbox.receive()).data)  # each once
            assert not missing, f"{missing}, {ours[index].pubsub.metrics()}, {ours[index].pubsub.scores()}"
        for one in ours:
            assert not {"malformed", "bad_signature", "dropped_outbound"} & one.pubsub.metrics().keys()
