"""Who on this host wants which messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import trio
from trio.abc import ReceiveChannel
from trio.lowlevel import ParkingLot

from ._codec import Message

TURNS = 8
"""Turns of the scheduler that subscribers get, for each message, to catch up in. Several messages are checked in a
turn, but a loop over them takes one in each, or less: without this, part of a burst would be lost by whoever runs."""


class Messages(ReceiveChannel[Message]):
    """The messages of a topic, as they arrive: ``async for message in messages``.

    They are held until they are received, up to a number and a number of bytes; beyond that the oldest are lost, so
    that a slow subscriber holds up nobody else. One that has more than half of that to receive is given a few turns of
    the scheduler for each message that comes, as long as it takes some.

    Attributes:
        topic: the topic.
        own: whether it gets what this host publishes, too.
        lost: how many messages were dropped because they were not received in time.
        runs: whether it has received something since it was last waited for.
    """

    def __init__(self, topic: str, *, own: bool, max_messages: int, max_bytes: int) -> None:
        self.topic = topic
        self.own = own
        self.lost: int = 0
        self.runs: bool = True
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._lot = ParkingLot()
        self._ended = False
        self._closed = False

    @property
    def behind(self) -> bool:
        """Whether it has more than half of what is held for it still to receive."""
        return 2 * len(self._queue) > self._max_messages or 2 * self._bytes > self._max_bytes

    @property
    def waiting(self) -> int:
        """How many messages are held."""
        return len(self._queue)

    def receive_nowait(self) -> Message:
        """Return the next message.

        Raises:
            trio.WouldBlock: there is none now.
            trio.EndOfChannel: there is none, and the pubsub service has ended.
            trio.ClosedResourceError: the subscription was left.
        """
        if self._closed:
            raise trio.ClosedResourceError("this subscription was left")
        if self._queue:
            message = self._queue.popleft()
            self._bytes -= len(message.raw)
            self.runs = True
            return message
        if self._ended:
            raise trio.EndOfChannel
        raise trio.WouldBlock

    async def receive(self) -> Message:
        """Wait for the next message. Cancelling loses none.

        Raises:
            trio.EndOfChannel: the pubsub service has ended, and everything was received.
            trio.ClosedResourceError: the subscription was left, perhaps while waiting.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            message = self.receive_nowait()
        except trio.WouldBlock:
            pass
        else:
            # The message is taken: from here on a cancellation would lose it.
            await trio.lowlevel.cancel_shielded_checkpoint()
            return message
        while True:
            await self._lot.park()
            try:
                return self.receive_nowait()
            except trio.WouldBlock:
                continue  # another task was quicker

    async def aclose(self) -> None:
        """Drop what is held and receive nothing more."""
        self.close()
        await trio.lowlevel.checkpoint()

    # --- called by the service

    def put(self, message: Message) -> int:
        """Hold ``message``; returns how many others had to go for it."""
        self._queue.append(message)
        self._bytes += len(message.raw)
        dropped = 0
        while len(self._queue) > self._max_messages or (self._bytes > self._max_bytes and len(self._queue) > 1):
            self._bytes -= len(self._queue.popleft().raw)
            dropped += 1
        self.lost += dropped
        if self._lot:
            self._lot.unpark()
        return dropped

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._lot.unpark_all()

    def close(self) -> None:
        """Nobody will receive any more."""
        self._closed = True
        self._queue.clear()
        self._bytes = 0
        self._lot.unpark_all()


class Subscribers:
    """All subscriptions of this host, by topic."""

    def __init__(self) -> None:
        self._by_topic: dict[str, list[Messages]] = {}
        self._behind: dict[Messages, None] = {}

    def __contains__(self, topic: object) -> bool:
        return topic in self._by_topic

    def __iter__(self) -> Iterator[str]:
        """The topics that somebody is subscribed to."""
        return iter(self._by_topic)

    def add(self, messages: Messages) -> bool:
        """Take in a subscription; whether it is the first one of its topic."""
        held = self._by_topic.setdefault(messages.topic, [])
        held.append(messages)
        return len(held) == 1

    def remove(self, messages: Messages) -> bool:
        """Close a subscription; whether it was the last one of its topic."""
        messages.close()
        self._behind.pop(messages, None)
        held = self._by_topic[messages.topic]
        held.remove(messages)
        if not held:
            del self._by_topic[messages.topic]
        return not held

    def deliver(self, message: Message, *, own: bool) -> tuple[int, int]:
        """Give ``message`` to those who want it; to how many, and how many older ones had to go."""
        delivered = dropped = 0
        for messages in self._by_topic.get(message.topic, ()):
            if messages.own or not own:
                delivered += 1
                dropped += messages.put(message)
                if messages.behind and messages.runs:
                    self._behind[messages] = None
        return delivered, dropped

    @property
    def behind(self) -> bool:
        """Whether somebody who runs is behind."""
        return bool(self._behind)

    async def let_catch_up(self) -> None:
        """Give those who are behind :data:`TURNS`. Whoever takes nothing meanwhile is not waited for until it does."""
        behind, self._behind = self._behind, {}
        for messages in behind:
            messages.runs = False
        for _ in range(TURNS):
            if not any(messages.behind for messages in behind):
                return
            await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """Nothing more will come, to nobody."""
        for held in self._by_topic.values():
            for messages in held:
                messages.end()
