"""The suite's scenarios about whole messages, with times of their own, so that they can be played in real time.

Source: libp2p/test-plans, gossipsub-interop/README.md.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .script import Instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How large and how fast. The defaults are the suite's.

    Attributes:
        setup: seconds until the first message.
        interval: seconds between two messages.
        settle: seconds after the last one.
    """

    nodes: int
    connections: int = 20
    messages: int = 16
    setup: int = 120
    interval: int = 12
    settle: int = 30
    gossip: bool = True


def subnet_blob(plan: Plan, rng: random.Random) -> list[Instruction]:
    """Everybody wants messages of 96 KiB, which take a while to validate."""
    script = _start(plan, rng)
    script.append({"type": "setTopicValidationDelay", "topicID": "a-subnet", "delaySeconds": 0.005})
    script += _mesh(plan, rng)
    script.append({"type": "subscribeToTopic", "topicID": "a-subnet"})
    return script + _publish(plan, rng, ["a-subnet"], size=96 * 1024)


def simple_fanout(plan: Plan, rng: random.Random) -> list[Instruction]:
    """Half of the nodes want one topic, half another; anybody publishes to either."""
    script = [*_start(plan, rng), *_mesh(plan, rng)]
    for node in range(plan.nodes):
        topic = "topic-a" if node % 2 == 0 else "topic-b"
        script.append(_only(node, {"type": "subscribeToTopic", "topicID": topic}))
    return script + _publish(plan, rng, ["topic-a", "topic-b"], size=1024)


def _only(node: int, instruction: Instruction) -> Instruction:
    return {"type": "ifNodeIDEquals", "nodeID": node, "instruction": instruction}


def _start(plan: Plan, rng: random.Random) -> list[Instruction]:
    """Heartbeats do not beat together."""
    quiet = {} if plan.gossip else {"Dlazy": 0, "GossipFactor": 0}
    return [
        _only(
            node,
            {
                "type": "initGossipSub",
                "gossipSubParams": {**quiet, "HeartbeatInitialDelay": int((0.1 + rng.uniform(0, 0.1)) * 1e9)},
            },
        )
        for node in range(plan.nodes)
    ]


def _mesh(plan: Plan, rng: random.Random) -> list[Instruction]:
    """Everybody has at least so many connections, to anybody; a ring first, so that nobody is left alone."""
    wanted = min(plan.connections, plan.nodes - 1)
    known: list[set[int]] = [set() for _ in range(plan.nodes)]
    dials: list[list[int]] = [[] for _ in range(plan.nodes)]
    for node in range(plan.nodes):
        others = [other for other in range(plan.nodes) if other != node]
        rng.shuffle(others)
        for other in [(node + 1) % plan.nodes, *others]:
            if other not in known[node] and len(known[node]) < wanted:
                known[node].add(other)
                known[other].add(node)
                dials[node].append(other)
    return [_only(node, {"type": "connect", "connectTo": found}) for node, found in enumerate(dials) if found]


def _publish(plan: Plan, rng: random.Random, topics: Sequence[str], *, size: int) -> list[Instruction]:
    script: list[Instruction] = []
    for number in range(plan.messages):
        script.append({"type": "waitUntil", "elapsedSeconds": plan.setup + number * plan.interval})
        said = {
            "type": "publish",
            "messageID": number,
            "messageSizeBytes": size,
            "topicID": topics[number % len(topics)],
        }
        script.append(_only(rng.randrange(plan.nodes), said))
    last = plan.setup + (plan.messages - 1) * plan.interval
    script.append({"type": "waitUntil", "elapsedSeconds": last + plan.settle})
    return script
