"""What a peer has already and so does not want to be sent: its IDONTWANTs. Pure.

Source: libp2p/specs gossipsub v1.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ._codec import MessageId
from ._gossipsub_config import GossipsubConfig


class Unwanted:
    """The messages that one peer does not want.

    Args:
        config: how many are taken, and for how long.

    Attributes:
        until: the messages, and until which heartbeat each of them is not wanted; what ends first is first.
    """

    __slots__ = ("_config", "_taken", "until")

    def __init__(self, config: GossipsubConfig) -> None:
        self._config = config
        # IDONTWANTs since the heartbeat.
        self._taken = 0
        self.until: dict[MessageId, int] = {}

    def take(self, entries: Iterable[Sequence[MessageId]], beat: int) -> tuple[tuple[MessageId, ...], int]:
        """The peer sent IDONTWANTs before heartbeat ``beat``. Returns what they say, and how much was left out."""
        config = self._config
        ids: list[MessageId] = []
        left_out = 0
        for entry in entries:
            self._taken += 1
            if self._taken > config.idontwant_messages:
                left_out += 1
                continue
            left_out += len(entry) > config.idontwant_ids
            for message_id in entry[: config.idontwant_ids]:
                ids.append(message_id)
                self.until.pop(message_id, None)
                self.until[message_id] = beat + config.idontwant_beats
        # What is kept is what one heartbeat may bring.
        room = config.idontwant_messages * config.idontwant_ids
        for message_id in list(self.until)[: max(0, len(self.until) - room)]:
            del self.until[message_id]
        return tuple(ids), left_out

    def expire(self, beat: int) -> None:
        """Forget what ends with this heartbeat."""
        self._taken = 0
        for message_id, until in tuple(self.until.items()):
            if until > beat:
                break
            del self.until[message_id]
