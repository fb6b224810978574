"""Messages that peers said they have, and that were asked for: whoever does not send one has lied. Pure.

Of each request one message, chosen at random, is watched: that costs little, and a peer cannot know which (specs,
gossipsub v1.1, "Spam Protection Measures").
"""

from __future__ import annotations

from ...peer_id import PeerId
from ._codec import MessageId


class Promises:
    """What was promised, by whom, and until when.

    Bounded by what is asked for: a few requests of each peer and heartbeat.
    """

    __slots__ = ("_by_message",)

    def __init__(self) -> None:
        self._by_message: dict[MessageId, dict[PeerId, float]] = {}

    def __len__(self) -> int:
        return len(self._by_message)

    def add(self, peer: PeerId, message_id: MessageId, *, until: float) -> None:
        """``peer`` is to send a message until then. Being asked again gives it no more time."""
        self._by_message.setdefault(message_id, {}).setdefault(peer, until)

    def arrived(self, message_id: MessageId) -> None:
        """The message came, from whomever: it is not asked for any more, so nobody can be blamed."""
        self._by_message.pop(message_id, None)

    def peer_left(self, peer: PeerId) -> None:
        """Nothing is expected of ``peer``."""
        for message_id, peers in tuple(self._by_message.items()):
            peers.pop(peer, None)
            if not peers:
                del self._by_message[message_id]

    def broken(self, now: float) -> dict[PeerId, int]:
        """How many promises each peer has broken by now; they are forgotten."""
        broken: dict[PeerId, int] = {}
        for message_id, peers in tuple(self._by_message.items()):
            for peer, until in tuple(peers.items()):
                if until <= now:
                    broken[peer] = broken.get(peer, 0) + 1
                    del peers[peer]
            if not peers:
                del self._by_message[message_id]
        return broken
