"""Control entries by peer: what goes to one peer leaves together. Pure."""

from __future__ import annotations

from ...peer_id import PeerId
from ._codec import pack
from ._control import CONTROL_SIZE
from ._router import Action, SendControl


class Outgoing:
    """Collects the entries of one step."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[PeerId, list[bytes]] = {}

    def add(self, peer: PeerId, entry: bytes) -> None:
        """Have ``entry`` sent to ``peer``."""
        self._entries.setdefault(peer, []).append(entry)

    def actions(self) -> list[Action]:
        """What is to be sent."""
        return [
            SendControl(peer, control)
            for peer, entries in self._entries.items()
            for control in pack(entries, size=CONTROL_SIZE, count=len(entries))
        ]
