"""Scripts: what each node does, and when. Pure.

The same JSON goes to every node; an instruction for one of them is wrapped in ``ifNodeIDEquals``.

Source: libp2p/test-plans, gossipsub-interop/test-specs/implementation.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.protocols.pubsub import GossipsubConfig

Instruction: TypeAlias = Mapping[str, Any]
SUPPORTED = frozenset(
    ("initGossipSub", "connect", "waitUntil", "publish", "subscribeToTopic", "setTopicValidationDelay")
)

_NANOSECONDS = 1e9
_COUNTS = {
    "D": "degree",
    "Dlo": "degree_low",
    "Dhi": "degree_high",
    "Dscore": "degree_score",
    "Dout": "degree_outbound",
    "Dlazy": "degree_lazy",
    "GossipFactor": "gossip_factor",
    "HistoryLength": "history",
    "HistoryGossip": "history_gossip",
    "GossipRetransmission": "retransmissions",
    "PrunePeers": "exchange_peers",
    "DirectConnectTicks": "direct_beats",
    "OpportunisticGraftTicks": "opportunistic_beats",
    "OpportunisticGraftPeers": "opportunistic_peers",
    "MaxIHaveLength": "ihave_ids",
    "MaxIHaveMessages": "ihave_messages",
    "MaxIDontWantLength": "idontwant_ids",
    "MaxIDontWantMessages": "idontwant_messages",
    "IDontWantMessageThreshold": "idontwant_size",
    "IDontWantMessageTTL": "idontwant_beats",
}
_TIMES = {
    "HeartbeatInitialDelay": "first_heartbeat",
    "HeartbeatInterval": "heartbeat",
    "FanoutTTL": "fanout_ttl",
    "PruneBackoff": "prune_backoff",
    "UnsubscribeBackoff": "unsubscribe_backoff",
    "GraftFloodThreshold": "graft_flood",
    "IWantFollowupTime": "promise",
}
"""go's names to ours; its times are in nanoseconds. Those that are not here are about how go works inside."""


class UnknownInstruction(ValueError):
    """The script asks for something that this program does not do; the text says what."""


def of_node(script: Iterable[Instruction], node: int) -> list[Instruction]:
    """What ``node`` has to do, in order.

    Raises:
        UnknownInstruction: it is not among :data:`SUPPORTED`.
    """
    found: list[Instruction] = []
    for instruction in script:
        while instruction["type"] == "ifNodeIDEquals" and instruction["nodeID"] == node:
            instruction = instruction["instruction"]
        if instruction["type"] == "ifNodeIDEquals":
            continue
        if instruction["type"] not in SUPPORTED or instruction.get("partial"):
            raise UnknownInstruction(
                f"{instruction['type']}{' of partial messages' * bool(instruction.get('partial'))}"
            )
        found.append(instruction)
    return found


def gossipsub_config(instructions: Sequence[Instruction]) -> GossipsubConfig:
    """The parameters in the ``initGossipSub`` among ``instructions``; our defaults for what it does not say."""
    said = [found["gossipSubParams"] for found in instructions if found["type"] == "initGossipSub"]
    given = {name: value for params in said for name, value in params.items() if value is not None}
    counts = {_COUNTS[name]: value for name, value in given.items() if name in _COUNTS}
    times = {_TIMES[name]: value / _NANOSECONDS for name, value in given.items() if name in _TIMES}
    return GossipsubConfig(**counts, **times)


def node_key(node: int) -> Ed25519PrivateKey:
    """The key of ``node``, which all implementations agree on: its number, little-endian."""
    return Ed25519PrivateKey(node.to_bytes(32, "little"))


def message(number: int, size: int) -> bytes:
    """The message of this number: its id in eight bytes, and nothing behind."""
    return number.to_bytes(8, "big").ljust(size, b"\0")


def message_number(data: bytes) -> str:
    """The id of a message, as the log has it."""
    return str(int.from_bytes(data[:8], "big"))
