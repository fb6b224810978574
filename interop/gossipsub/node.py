"""One node of an experiment: plays its part of the script, and prints what it receives as JSON lines."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, TextIO

import trio

import libp2p
from libp2p.protocols.pubsub import (
    Gossipsub,
    GossipsubConfig,
    Message,
    Messages,
    Pubsub,
    PubsubConfig,
    RpcLimits,
    SignaturePolicy,
    Verdict,
)
from libp2p.protocols.pubsub.routing import Action, Rpc

from .script import Instruction, gossipsub_config, message, message_number, node_key

MAX_MESSAGE = 10 * 1024 * 1024
QUEUE = 600
"""As in the programs of go and rust."""
Connect = Callable[[libp2p.Host, int], Awaitable[object]]
"""Connects a host to a node of the experiment."""


class Log:
    """Standard output, which belongs to the suite."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out

    def line(self, msg: str, **fields: object) -> None:
        """Write one event."""
        record = {"time": datetime.now(UTC).isoformat(), "level": "INFO", "msg": msg, "service": "gossipsub", **fields}
        print(json.dumps(record), file=self._out, flush=True)


class LoggingGossipsub(Gossipsub):
    """Logs every message that arrives, copies as well."""

    def __init__(self, config: GossipsubConfig, log: Log) -> None:
        super().__init__(random.Random(), config)
        self._log = log

    def receive_rpc(self, peer: libp2p.PeerId, rpc: Rpc, messages: Sequence[Message], now: float) -> list[Action]:
        for received in messages:
            number = message_number(received.data)
            self._log.line("Received Message", **{"from": str(peer), "topic": received.topic, "id": number})
        return super().receive_rpc(peer, rpc, messages, now)


class Node:
    """A node while its host runs."""

    def __init__(self, host: libp2p.Host, pubsub: Pubsub, connect: Connect, started: float) -> None:
        self._host = host
        self._pubsub = pubsub
        self._connect = connect
        self._started = started

    async def play(self, instructions: Sequence[Instruction]) -> None:
        """Do all of it."""
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            for instruction in instructions:
                await self._do(instruction, stack, nursery)
            nursery.cancel_scope.cancel()

    async def _do(self, instruction: Instruction, stack: AsyncExitStack, nursery: trio.Nursery) -> None:
        match instruction:
            case {"type": "connect", "connectTo": nodes}:
                for node in nodes:
                    await self._connect(self._host, node)
            case {"type": "waitUntil", "elapsedSeconds": seconds}:
                await trio.sleep_until(self._started + seconds)
            case {"type": "subscribeToTopic", "topicID": topic}:
                messages = await stack.enter_async_context(self._pubsub.subscribe(topic))
                nursery.start_soon(_take, messages)
            case {"type": "publish", "topicID": topic, "messageID": number, "messageSizeBytes": size}:
                await self._pubsub.publish(topic, message(number, size))
            case {"type": "setTopicValidationDelay", "topicID": topic, "delaySeconds": seconds}:
                self._pubsub.set_validator(topic, _slow(seconds), timeout=seconds + 5, concurrency=QUEUE)
            case _:
                pass  # initGossipSub: done before there was a host


def _slow(seconds: float) -> Callable[[Message], Awaitable[Verdict]]:
    async def accept(_: Message) -> Verdict:
        await trio.sleep(seconds)
        return Verdict.ACCEPT

    return accept


async def _take(messages: Messages) -> None:
    async for received in messages:
        print(f"delivered {message_number(received.data)}", file=sys.stderr)


async def run_node(
    number: int,
    instructions: Sequence[Instruction],
    *,
    listen: str,
    connect: Connect,
    log: Log,
    ready: Callable[[], Awaitable[Any]] = trio.lowlevel.checkpoint,
) -> None:
    """Run a node until its script ends.

    Args:
        ready: called when it listens; time begins when it returns.
    """
    pubsub = Pubsub(
        LoggingGossipsub(gossipsub_config(instructions), log),
        signature_policy=SignaturePolicy.STRICT_NO_SIGN,
        message_id=lambda received: received.data[:8],
        config=PubsubConfig(rpc=RpcLimits(size=MAX_MESSAGE), queue_messages=QUEUE, queue_bytes=8 * MAX_MESSAGE),
    )
    async with libp2p.open_host(key=node_key(number), listen=[listen], services=[pubsub]) as host:
        log.line("PeerID", id=str(host.local_peer), node_id=number)
        await ready()
        await Node(host, pubsub, connect, trio.current_time()).play(instructions)
