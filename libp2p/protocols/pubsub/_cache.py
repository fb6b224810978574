"""The messages of the last heartbeats: to tell others about, and to send to whoever asks. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ...peer_id import PeerId
from ._codec import Message, MessageId


@dataclass(slots=True)
class _Entry:
    message: Message
    sent: dict[PeerId, int] = field(default_factory=dict[PeerId, int])


class MessageCache:
    """Messages in windows of one heartbeat each.

    Args:
        windows: how many windows are kept.
        gossip_windows: the ids of how many, the newest ones, are told to others.
        max_messages: messages kept; beyond that the oldest go early.
        max_bytes: the same in bytes of encoded messages; the newest message is always kept.

    Attributes:
        evicted: how many went early.
    """

    __slots__ = ("_bytes", "_entries", "_gossip", "_max_bytes", "_max_messages", "_windows", "evicted")

    def __init__(self, *, windows: int, gossip_windows: int, max_messages: int, max_bytes: int) -> None:
        self._gossip = gossip_windows
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._entries: dict[MessageId, _Entry] = {}
        # The newest window is the first.
        self._windows: deque[deque[MessageId]] = deque(deque[MessageId]() for _ in range(windows))
        self._bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, message_id: MessageId) -> bool:
        return message_id in self._entries

    def put(self, message: Message) -> None:
        """Keep ``message``; nothing happens when it is kept already."""
        if message.id in self._entries:
            return
        self._entries[message.id] = _Entry(message)
        self._windows[0].append(message.id)
        self._bytes += len(message.raw)
        while len(self._entries) > self._max_messages or (self._bytes > self._max_bytes and len(self._entries) > 1):
            self._forget(next(window for window in reversed(self._windows) if window).popleft())
            self.evicted += 1

    def take_for(self, peer: PeerId, message_id: MessageId) -> tuple[Message, int] | None:
        """The message that ``peer`` asks for, and how often it has asked, this time included. None: not here."""
        entry = self._entries.get(message_id)
        if entry is None:
            return None
        entry.sent[peer] = entry.sent.get(peer, 0) + 1
        return entry.message, entry.sent[peer]

    def gossip(self) -> dict[str, list[MessageId]]:
        """The ids to tell others about, by topic, the newest window first."""
        ids: dict[str, list[MessageId]] = {}
        for window in list(self._windows)[: self._gossip]:
            for message_id in window:
                ids.setdefault(self._entries[message_id].message.topic, []).append(message_id)
        return ids

    def shift(self) -> None:
        """A heartbeat has passed: open a new window and forget the oldest."""
        for message_id in self._windows.pop():
            self._forget(message_id)
        self._windows.appendleft(deque())

    def _forget(self, message_id: MessageId) -> None:
        self._bytes -= len(self._entries.pop(message_id).message.raw)
