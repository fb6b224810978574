"""Our program for the gossipsub suite of libp2p/test-plans: scripts, parameters, keys, lines."""

from __future__ import annotations

import io
import json
import random
from datetime import datetime

import pytest
import trio

from interop.gossipsub.local import expected, received
from interop.gossipsub.node import Log, LoggingGossipsub, Node
from interop.gossipsub.scenarios import Plan, simple_fanout, subnet_blob
from interop.gossipsub.script import (
    Instruction,
    UnknownInstruction,
    gossipsub_config,
    message,
    message_number,
    node_key,
    of_node,
)
from libp2p.abc import Host
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import GossipsubConfig, Pubsub, SignaturePolicy
from libp2p.testing import memory_network


def only(node: int, instruction: Instruction) -> Instruction:
    return {"type": "ifNodeIDEquals", "nodeID": node, "instruction": instruction}


CONNECT: Instruction = {"type": "connect", "connectTo": [1]}
SUBSCRIBE: Instruction = {"type": "subscribeToTopic", "topicID": "t"}


def test_each_node_has_its_part() -> None:
    script = [only(0, CONNECT), SUBSCRIBE, only(1, only(0, CONNECT)), only(1, only(1, CONNECT))]
    assert of_node(script, 0) == [CONNECT, SUBSCRIBE]
    assert of_node(script, 1) == [SUBSCRIBE, CONNECT]


@pytest.mark.parametrize("instruction", [{"type": "publishPartial"}, {**SUBSCRIBE, "partial": True}])
def test_what_is_not_supported_is_refused(instruction: Instruction) -> None:
    with pytest.raises(UnknownInstruction):
        of_node([only(3, instruction)], 3)
    assert of_node([only(3, instruction)], 4) == []


def test_parameters() -> None:
    """go's names, and its nanoseconds; what is not said is as by default."""
    given = {"D": 8, "Dlazy": 0, "GossipFactor": 0.5, "HeartbeatInterval": 5e8, "Connectors": 9, "Dhi": None}
    config = gossipsub_config([{"type": "initGossipSub", "gossipSubParams": given}])
    assert config == GossipsubConfig(degree=8, degree_lazy=0, gossip_factor=0.5, heartbeat=0.5)
    assert gossipsub_config([SUBSCRIBE]) == GossipsubConfig()


def test_keys_and_ids() -> None:
    """Of node 1 in go's program, which puts the number into the first bytes of an Ed25519 seed."""
    assert str(PeerId.from_key(node_key(1).public_key)).startswith("12D3KooW")
    assert node_key(1).public_key == node_key(1).public_key != node_key(2).public_key
    assert (message(258, 10), message_number(message(258, 10))) == (b"\0\0\0\0\0\0\x01\x02\0\0", "258")


@pytest.mark.parametrize("scenario", [subnet_blob, simple_fanout])
@pytest.mark.parametrize("gossip", [True, False])
def test_scenarios(scenario: type, gossip: bool) -> None:
    """Everybody is connected, and every message has somebody who waits for it."""
    script = scenario(Plan(nodes=6, connections=3, messages=4, gossip=gossip), random.Random(0))
    parts = [of_node(script, node) for node in range(6)]
    assert all(sum(said["type"] == "connect" for said in part) <= 1 for part in parts)
    assert all(part[0]["type"] == "initGossipSub" for part in parts)
    assert gossipsub_config(parts[0]).degree_lazy == (6 if gossip else 0)
    assert set().union(*expected(script, 6)) == {"0", "1", "2", "3"}
    assert parts[0][-1] == {"type": "waitUntil", "elapsedSeconds": 120 + 3 * 12 + 30}


async def test_nodes_play_their_parts() -> None:
    """Two in memory: both subscribe, one publishes, the other's line is as the suite reads it."""
    script: list[Instruction] = [
        only(0, CONNECT),
        {"type": "setTopicValidationDelay", "topicID": "t", "delaySeconds": 0.005},
        SUBSCRIBE,
        {"type": "waitUntil", "elapsedSeconds": 3},
        only(0, {"type": "publish", "topicID": "t", "messageID": 7, "messageSizeBytes": 100}),
        {"type": "waitUntil", "elapsedSeconds": 5},
    ]
    texts = [io.StringIO(), io.StringIO()]
    pubsubs: list[Pubsub] = []

    def make() -> Pubsub:
        router = LoggingGossipsub(GossipsubConfig(), Log(texts[len(pubsubs)]))
        pubsubs.append(Pubsub(router, signature_policy=SignaturePolicy.STRICT_NO_SIGN))
        return pubsubs[-1]

    async with memory_network(2, services=[make]) as hosts:

        async def connect(host: Host, node: int) -> None:
            await host.connect(hosts[node].addrs[0])

        async with trio.open_nursery() as nursery:
            for number in range(2):
                node = Node(hosts[number], pubsubs[number], connect, trio.current_time())
                nursery.start_soon(node.play, of_node(script, number))
        sender = str(hosts[0].local_peer)
    lines = [json.loads(line) for line in texts[1].getvalue().splitlines()]
    assert received(lines) == ["7"]
    assert (lines[0]["from"], lines[0]["topic"], lines[0]["level"]) == (sender, "t", "INFO")
    assert datetime.fromisoformat(lines[0]["time"]).tzinfo is not None
    assert expected(script, 2) == [set(), {"7"}]
