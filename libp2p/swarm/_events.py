"""Events to whoever subscribed. A slow subscriber loses the oldest and can read how many; nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from .._util.bounded import BoundedReceiver, BoundedSender, open_bounded_channel
from ..abc import EventT
from ..events import Event

SUBSCRIBER_QUEUE = 1024
"""Events held for one subscriber; then the oldest is dropped."""


class EventBus:
    """Hands every published event to the subscribers of its kind."""

    def __init__(self) -> None:
        self._subscribers: dict[BoundedSender[Any], tuple[type[Event], ...]] = {}

    def publish(self, event: Event) -> None:
        """Tell everybody. Never waits."""
        for sender, kinds in self._subscribers.items():
            if isinstance(event, kinds):
                sender.send_nowait(event)

    @contextmanager
    def subscribe(self, *kinds: type[EventT]) -> Iterator[trio.abc.ReceiveChannel[EventT]]:
        """See :meth:`libp2p.abc.Network.subscribe`."""
        if not kinds:
            raise ValueError("name the kinds of events to receive; libp2p.events.Event for all")
        pair: tuple[BoundedSender[EventT], BoundedReceiver[EventT]] = open_bounded_channel(SUBSCRIBER_QUEUE)
        sender, receiver = pair
        self._subscribers[sender] = kinds
        try:
            yield receiver
        finally:
            del self._subscribers[sender]
            receiver.close()
