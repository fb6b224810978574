"""Who knows which extensions of gossipsub 1.3. Pure.

Each side says so in the first RPC of its stream and nowhere else (G13.1). An extension is active with a peer when both
know it (G13.2).

Source: libp2p/specs gossipsub v1.3, test extension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...peer_id import PeerId
from ._extensions import TEST_RPC, Extensions, decode_extensions, decode_messages, encode_extensions
from ._partial import Partials
from ._router import Action, Count, SendExtension, SendHello


class Hellos:
    """What this host and its peers have said of themselves.

    Args:
        ours: the extensions that this host knows.
        partials: what parts of messages are handed to.
        penalize: called with a peer that broke a rule.
    """

    __slots__ = ("_ours", "_partials", "_penalize", "_said")

    def __init__(self, ours: Extensions, partials: Partials, penalize: Callable[[PeerId], None]) -> None:
        self._ours = ours
        self._partials = partials
        self._penalize = penalize
        # By peer, from the first RPC on its stream on.
        self._said: dict[PeerId, Extensions] = {}

    def opened(self, peer: PeerId) -> list[Action]:
        """A stream to ``peer`` was opened; what was sent on another one before may be lost."""
        self._partials.lost(peer)
        return [SendHello(peer, encode_extensions(self._ours)), *self._test(peer)]

    def began(self, peer: PeerId) -> None:
        """``peer`` opened a stream."""
        self._said.pop(peer, None)

    def left(self, peer: PeerId) -> None:
        """``peer`` is gone."""
        self._said.pop(peer, None)
        self._partials.left(peer)

    def receive(self, peer: PeerId, said: Sequence[bytes]) -> list[Action]:
        """An RPC came, and ``said`` this about its sender, which may be nothing.

        Raises:
            DecodeError: it is malformed.
        """
        if peer in self._said:
            if not said:
                return []
            self._penalize(peer)
            return [Count("extensions_repeated")]
        found = self._said[peer] = decode_extensions(b"".join(said))
        if found.partial:
            self._partials.joined(peer)
        return self._test(peer)

    def take(self, peer: PeerId, fields: bytes, *, heed: bool) -> list[Action]:
        """Messages of extensions came; parts of messages are left alone unless ``heed``.

        Raises:
            DecodeError: they are malformed.
        """
        partial, test = decode_messages(fields)
        actions: list[Action] = [Count("test_extension")] if test and self._ours.test else []
        if partial is None:
            return actions
        return [*actions, *(self._partials.receive(peer, partial) if heed else [Count("partial_ignored")])]

    def _test(self, peer: PeerId) -> list[Action]:
        """G13.3: its message is sent once on each stream, if both know the extension."""
        said = self._said.get(peer)
        return [SendExtension(peer, TEST_RPC)] if said is not None and said.test and self._ours.test else []
