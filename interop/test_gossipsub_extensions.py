"""What gossipsub 1.3 adds, and pubsub's other policies, with real peers. Time here is real."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from libp2p.protocols.pubsub import (
    MESHSUB_13,
    Gossipsub,
    GossipsubConfig,
    Message,
    Messages,
    Pubsub,
    Randomsub,
    SignaturePolicy,
)
from tests.protocols.pubsub.parts import WHOLE, Eight, eight

from .ours import Ours, first_bytes, open_ours
from .peer import Peer, start_peer

TOPIC = "interop"
GROUP = b"group"

pytestmark = pytest.mark.real_clock


@pytest.fixture
def name(request: pytest.FixtureRequest, cell: tuple[str, str, str], built: dict[str, dict[str, Any]]) -> str:
    """The peer, once each, if it has what the test needs."""
    if cell[1] != "yamux":
        pytest.skip("unsupported by suite: one muxer is enough")
    marker = request.node.get_closest_marker("needs")
    assert marker is not None
    kind, what = marker.args
    if what not in built[cell[0]].get(kind, ()):
        pytest.skip(f"unsupported by peer: its program does not offer {kind}: {what}")
    return cell[0]


@asynccontextmanager
async def connected(
    name: str, ours_pubsub: Pubsub, *, partial: bool = False, **flags: str
) -> AsyncIterator[tuple[Ours, Peer, Messages]]:
    """Our host and a peer, both subscribed; we dial."""
    async with (
        open_ours(stack="yamux", pubsub=ours_pubsub) as ours,
        start_peer(name, **{"pubsub": "gossipsub", **flags}) as peer,
        ours_pubsub.subscribe(TOPIC) as messages,
    ):
        await peer("subscribe", topic=TOPIC, **({"partial": True} if partial else {}))
        await ours.host.connect(peer.addr)
        await ours_pubsub.wait_for_peers(TOPIC)
        while ours.peer_id not in (await peer("topic_peers", topic=TOPIC))["peers"]:
            await trio.sleep(0.05)
        yield ours, peer, messages


def gossipsub(**config: Any) -> Pubsub:
    return Pubsub(Gossipsub(random.Random(), GossipsubConfig(**config)))


async def both_ways(peer: Peer, pubsub: Pubsub, messages: Messages, number: int) -> Message:
    """A message in each direction; what came from the peer."""
    ours, theirs = b"%d from us" % number, b"%d from them" % number
    await pubsub.publish(TOPIC, ours)
    await peer.event("message", topic=TOPIC, data=base64.b64encode(ours).decode())
    await peer("publish", topic=TOPIC, data=base64.b64encode(theirs).decode())
    while (message := await messages.receive()).data != theirs:
        pass
    return message


@pytest.mark.needs("extensions", "test")
async def test_extensions(name: str) -> None:
    """Version 1.3 is what both agree on, and each gets the message of the test extension."""
    pubsub = gossipsub(test_extension=True)
    with trio.fail_after(60):
        async with connected(name, pubsub) as (ours, peer, messages):
            (connection,) = ours.host.connections()
            assert MESHSUB_13 in ours.host.peerstore.protocols(connection.peer)
            for number in range(5):
                await both_ways(peer, pubsub, messages, number)
            assert pubsub.metrics()["test_extension"] == 1
            await peer.event("test_extension", peer=ours.peer_id)
            assert not {"malformed", "extensions_repeated"} & pubsub.metrics().keys()


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours-first", "theirs-first"])
@pytest.mark.needs("extensions", "partial")
async def test_partial_messages(name: str, ours_first: bool) -> None:
    """Two halves of a message become one on both sides."""
    pubsub, has = gossipsub(), eight(GROUP, 0, 1, 2, 3)
    others = bytes(value for number in range(4, 8) for value in (number, 100 + number))
    whole = bytes(value for number in range(8) for value in (number, 100 + number))
    group = base64.b64encode(GROUP).decode()
    with trio.fail_after(90):
        async with (
            connected(name, pubsub, partial=True) as (_, peer, messages),
            pubsub.partial(TOPIC) as partial,
            trio.open_nursery() as nursery,
        ):
            while not pubsub.mesh(TOPIC):
                await trio.sleep(0.05)
            await trio.sleep(2)  # the mesh is there on their side, too
            if ours_first:
                partial.publish(has)
            await peer("publish_partial", topic=TOPIC, group=group, data=base64.b64encode(others).decode())
            if not ours_first:
                partial.publish(has)
            async for update in partial:
                assert update.group == GROUP
                if has.add(update.parts):
                    partial.publish(has)
                if has.bits == WHOLE:
                    break
            await peer.event("partial", topic=TOPIC, group=group, data=base64.b64encode(whole).decode())
            await _no_whole_messages(pubsub, peer, messages)
            nursery.cancel_scope.cancel()


async def _no_whole_messages(pubsub: Pubsub, peer: Peer, messages: Messages) -> None:
    """Who asks for parts gets no whole messages."""
    await pubsub.publish(TOPIC, b"whole")
    await peer("publish", topic=TOPIC, data=base64.b64encode(b"whole").decode())
    await trio.sleep(3)
    assert not [event for event in peer.events if event["event"] == "message"]
    assert messages.waiting == 0
    assert not {"malformed", "partial_malformed", "extensions_repeated"} & pubsub.metrics().keys()


@pytest.mark.needs("extensions", "partial")
async def test_parts_for_who_was_not_there(name: str) -> None:
    """A peer that asks for a message it has nothing of is answered by the object that was published."""
    pubsub = gossipsub()
    group = base64.b64encode(GROUP).decode()
    with trio.fail_after(90):
        async with (
            connected(name, pubsub, partial=True) as (_, peer, _),
            pubsub.partial(TOPIC, requests=False) as partial,
        ):
            has = Eight(GROUP, {number: number for number in range(8)})
            while not any(event["event"] == "partial" and event["group"] == group for event in peer.events):
                partial.publish(has)
                await trio.sleep(0.5)
            event = await peer.event("partial", group=group)
            assert base64.b64decode(event["data"])[::2] == bytes(range(8))


@pytest.mark.parametrize(
    ("policy", "signatures"),
    [
        (SignaturePolicy.STRICT_SIGN, "strict"),
        (SignaturePolicy.LAX_SIGN, "strict"),
        (SignaturePolicy.STRICT_NO_SIGN, "none"),
        (SignaturePolicy.LAX_NO_SIGN, "none"),
    ],
    ids=lambda value: getattr(value, "value", value),
)
@pytest.mark.needs("signatures", "none")
async def test_signature_policies_and_message_ids(name: str, policy: SignaturePolicy, signatures: str) -> None:
    """With ids that are made from the data; without a signature there is no author either."""
    pubsub = Pubsub(signature_policy=policy)
    pubsub.set_message_id(TOPIC, first_bytes)
    with trio.fail_after(60):
        async with connected(name, pubsub, signatures=signatures, message_id="first8") as (_, peer, messages):
            for number in range(5):
                message = await both_ways(peer, pubsub, messages, number)
                assert (message.author is None) == (signatures == "none")
                assert message.id == message.data[:8]
            assert pubsub.metrics()["accept"] == 5
            assert not {"malformed", "bad_signature", "unexpected_signature"} & pubsub.metrics().keys()


@pytest.mark.needs("signatures", "none")
async def test_policies_that_differ(name: str) -> None:
    """Nothing gets through, in either direction."""
    pubsub = gossipsub()
    with trio.fail_after(60):
        async with connected(name, pubsub, signatures="none", message_id="first8") as (_, peer, messages):
            await pubsub.publish(TOPIC, b"signed")
            await peer("publish", topic=TOPIC, data=base64.b64encode(b"not signed").decode())
            while "missing_signature" not in pubsub.metrics():
                await trio.sleep(0.05)
            await trio.sleep(1)
            assert messages.waiting == 0
            assert not [event for event in peer.events if event["event"] == "message"]


@pytest.mark.needs("pubsub", "randomsub")
async def test_randomsub(name: str) -> None:
    pubsub = Pubsub(Randomsub(random.Random(), size=10))
    with trio.fail_after(60):
        async with connected(name, pubsub, pubsub="randomsub") as (ours, peer, messages):
            (connection,) = ours.host.connections()
            assert "/randomsub/1.0.0" in ours.host.peerstore.protocols(connection.peer)
            for number in range(5):
                await both_ways(peer, pubsub, messages, number)
