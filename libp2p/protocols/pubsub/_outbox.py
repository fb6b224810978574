"""What waits to be sent to one peer.

Three lanes: subscriptions, of which only the newest of each topic is kept; control entries; and, after these two,
messages. Whoever fills a lane never waits: a full lane refuses, and the caller counts what it drops. Only who publishes
waits for room, with :meth:`Outbox.wait_for_room`.

A message of this host goes past its lane, straight to the stream, when nothing is before it and the stream takes it at
once: the muxer joins what is written in one tick, and a task that is woken for each message would take longer than all
the rest. One that is forwarded waits until the writer has its turn, in the next tick. Whoever is near the peer sent it
the message as well, and so the peer sends it here, too: by then it may have, and its own is dropped. The writer takes
everything that is there, as one piece.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

import trio
from trio.lowlevel import Abort, ParkingLot, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from ...errors import Libp2pError
from ...wire.framing import frame
from ._codec import MessageId, Subscription, encode_control, encode_subscription, pack

MAX_CONTROL_ENTRIES = 256
"""Control entries that wait for one peer."""
_RPC_SIZE = 16 * 1024
"""Bytes of subscriptions and control entries put into one RPC (what rust takes)."""
_CONTROL_SIZE = _RPC_SIZE - 4
"""Bytes of control entries put into one, without the field around them."""
_RPC_SUBSCRIPTIONS = 100
"""Subscriptions put into one RPC (what rust takes)."""
_BATCH_SIZE = 256 * 1024
"""Bytes of messages handed to one ``send_all``, unless the first alone is longer."""


class Outbox:
    """The queues towards one peer.

    Args:
        max_messages: messages that wait; more are refused.
        max_bytes: bytes of messages, and of control entries, that wait. One message is always taken.

    Attributes:
        finished: whether nothing more will be queued.
        stalled: whether somebody waited for room in vain and nothing was sent since.
        send_nowait: the stream's, while there is one whose writer calls :meth:`next_batch`.
    """

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._hello = b""
        self._subscriptions: dict[str, Subscription] = {}
        self._control: list[bytes] = []
        self._control_bytes = 0
        # Ordered: finding the first of a plain dict after many deletions at the front takes linear time.
        self._messages: OrderedDict[MessageId | int, bytes] = OrderedDict()
        self._serial = 0
        self._message_bytes = 0
        self.finished = False
        self._closed = False
        # Not a parking lot: it would take twice as long, and the writer is woken for each peer in nearly each tick.
        self._writer: Task | None = None
        # Whether the writer sleeps, or was woken and has had no turn yet: then it holds nothing.
        self._writer_waits = False
        self._publishers = ParkingLot()
        self.stalled = False
        self.send_nowait: Callable[[bytes], None] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not (self._hello or self._subscriptions or self._control or self._messages)

    # --- filling

    def greet(self, control: bytes) -> None:
        """Begin the stream, on which nothing was sent so far, with control entries in an RPC of their own."""
        self._hello = control
        self._wake_writer()

    def announce(self, changes: Iterable[Subscription]) -> None:
        """Queue subscriptions. They take no room: there are only as many as topics of this host."""
        for change in changes:
            self._subscriptions[change.topic] = change
        self._wake_writer()

    def add_control(self, control: bytes) -> bool:
        """Queue control entries; False when there is no room."""
        if len(self._control) >= MAX_CONTROL_ENTRIES or self._control_bytes + len(control) > self._max_bytes:
            return False
        self._control.append(control)
        self._control_bytes += len(control)
        self._wake_writer()
        return True

    def has_room(self, size: int) -> bool:
        """Whether a message of ``size`` bytes, framed, would be taken."""
        count = len(self._messages)
        return count < self._max_messages and (not count or self._message_bytes + size <= self._max_bytes)

    def add_extension(self, framed: bytes) -> bool:
        """Queue an RPC of an extension, behind its length; False when there is no room. It counts as a message."""
        self._serial += 1
        return self.add_message(self._serial, framed)

    def add_message(self, message_id: MessageId | int, framed: bytes) -> bool:
        """Send a message, already an RPC behind its length, or queue it; False when there is no room.

        One that is queued already is not queued twice.
        """
        return (self.is_empty and self._send_at_once(framed)) or self.forward(message_id, framed)

    def forward(self, message_id: MessageId | int, framed: bytes) -> bool:
        """As :meth:`add_message`, but in the next tick, unless it is taken back by :meth:`remove_messages`."""
        if message_id in self._messages:
            return True
        if not self.has_room(len(framed)) and not self._make_room(len(framed)):
            return False
        self._messages[message_id] = framed
        self._message_bytes += len(framed)
        self._wake_writer()
        return True

    def _make_room(self, size: int) -> bool:
        """Send the messages that wait, if it is only for the writer's turn; whether there is room then.

        They go ahead of subscriptions and control entries, which may do so, but not of what a stream begins with.
        """
        if self._messages and not self._hello and self._send_at_once(b"".join(self._messages.values())):
            self._messages.clear()
            self._message_bytes = 0
            self._publishers.unpark_all()
        return self.has_room(size)

    def _send_at_once(self, data: bytes) -> bool:
        """Write past the writer, if that is possible."""
        if self.send_nowait is None or not self._writer_waits:
            return False
        try:
            self.send_nowait(data)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError, Libp2pError):
            return False  # the writer waits, or meets the same fate and tries another stream
        self.stalled = False
        return True

    def remove_messages(self, ids: Iterable[MessageId]) -> int:
        """Drop those of ``ids`` that are queued; how many there were."""
        removed = 0
        for message_id in ids:
            framed = self._messages.pop(message_id, None)
            if framed is not None:
                self._message_bytes -= len(framed)
                removed += 1
        if removed:
            self._publishers.unpark_all()
        return removed

    async def wait_for_room(self, size: int) -> bool:
        """Wait until a message of ``size`` bytes would be taken. False when the outbox was closed instead."""
        while not self._closed and not self.has_room(size):
            await self._publishers.park()
        return not self._closed

    # --- emptying

    async def next_batch(self) -> bytes | None:
        """Wait for something to send and take as much as one ``send_all`` should get. None: that was the last."""
        while self.is_empty:
            if self.finished:
                return None
            self._writer, self._writer_waits = current_task(), True
            try:
                await wait_task_rescheduled(self._abort_writer)
            finally:
                self._writer_waits = False
        parts = [frame(rpc) for rpc in self._take_news()]
        size = 0
        messages = self._messages
        while messages and (not size or size + len(next(iter(messages.values()))) <= _BATCH_SIZE):
            _, framed = messages.popitem(last=False)
            size += len(framed)
            parts.append(framed)
        self._message_bytes -= size
        if size:
            self.stalled = False
            self._publishers.unpark_all()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _abort_writer(self, _: RaiseCancelT) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    def _take_news(self) -> Iterator[bytes]:
        """RPCs of subscriptions and control entries, after what the stream has to begin with.

        An RPC has one field of control entries at most: js takes the last of several.
        """
        if self._hello:
            yield encode_control(self._hello)
        fields = list(map(encode_subscription, self._subscriptions.values()))
        # Two of these never fit into one RPC.
        fields += map(encode_control, pack(self._control, size=_CONTROL_SIZE, count=MAX_CONTROL_ENTRIES))
        self._clear_news()
        yield from pack(fields, size=_RPC_SIZE, count=_RPC_SUBSCRIPTIONS)

    def _clear_news(self) -> None:
        self._hello = b""
        self._subscriptions.clear()
        self._control.clear()
        self._control_bytes = 0

    def restart(self, subscriptions: Iterable[Subscription]) -> None:
        """A new stream begins: with all subscriptions, and without what was meant for the last one.

        Messages stay. They are for the peer, not for the stream.
        """
        self._clear_news()
        self.announce(subscriptions)

    def finish(self) -> None:
        """Send what is there, and nothing that comes later matters."""
        self.finished = True
        self._wake_writer()

    def close(self) -> None:
        """Nothing will be sent any more."""
        self._closed = True
        self._publishers.unpark_all()

    def _wake_writer(self) -> None:
        if self._writer is not None:
            reschedule(self._writer)
            self._writer = None
