"""The receiving end of a subscription."""

from __future__ import annotations

from collections import deque

import trio
from trio.abc import ReceiveChannel
from trio.lowlevel import ParkingLot

from ._codec import Message


class Messages(ReceiveChannel[Message]):
    """The messages of a topic, as they arrive: ``async for message in messages``.

    They are held until they are received, up to a number and a number of bytes; beyond that the oldest are lost, so
    that a slow subscriber holds up nobody else.

    Attributes:
        topic: the topic.
        own: whether it gets what this host publishes, too.
        lost: how many messages were dropped because they were not received in time.
    """

    def __init__(self, topic: str, *, own: bool, max_messages: int, max_bytes: int) -> None:
        self.topic = topic
        self.own = own
        self.lost = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._lot = ParkingLot()
        self._ended = False
        self._closed = False

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
