"""What pubsub tells whoever subscribed to the host's events. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ...events import Event
from ...peer_id import PeerId


@dataclass(slots=True)
class TopicPeerJoined(Event):
    """A peer of this host subscribed to a topic."""

    peer: PeerId
    topic: str


@dataclass(slots=True)
class TopicPeerLeft(Event):
    """A peer of this host unsubscribed from a topic, or is gone."""

    peer: PeerId
    topic: str
