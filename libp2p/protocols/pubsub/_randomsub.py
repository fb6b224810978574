"""Randomsub: every new message goes to some of those who are subscribed, other ones each time. Pure.

As many as the square root of the size of the network, and at least six: enough that almost everybody gets it from
somebody. Nobody is told of what did not reach them, so unlike gossipsub it may lose messages on the way. Peers that
only speak floodsub get all of them.

Source: go-libp2p-pubsub; there is no specification.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...abc import ProtocolId
from ...peer_id import PeerId
from ._codec import Message
from ._floodsub import FLOODSUB, Floodsub, FloodsubConfig
from ._mesh import Random, sample
from ._router import Action

RANDOMSUB: ProtocolId = "/randomsub/1.0.0"
"""The protocol id of randomsub."""
_DEGREE = 6
"""Peers that get a message, at least (go)."""


class Randomsub(Floodsub):
    """The router of ``/randomsub/1.0.0``.

    Args:
        rng: chooses peers; one that nobody can predict, unless a run is to be repeated.
        size: peers in the whole network, roughly.
        config: bounds.
    """

    def __init__(self, rng: Random, *, size: int, config: FloodsubConfig | None = None) -> None:
        if size < 1:
            raise ValueError("a network has at least one peer")
        super().__init__(config)
        self._rng = rng
        self._degree = max(_DEGREE, math.ceil(math.sqrt(size)))
        # Those that only know floodsub.
        self._simple: dict[PeerId, None] = {}

    @property
    def protocols(self) -> Sequence[ProtocolId]:
        """Randomsub and floodsub."""
        return (RANDOMSUB, FLOODSUB)

    def peer_joined(
        self, peer: PeerId, protocol: ProtocolId, now: float, *, outbound: bool = False, addresses: Sequence[str] = ()
    ) -> list[Action]:
        """See :class:`Router`."""
        self._simple.pop(peer, None)
        if protocol == FLOODSUB:
            self._simple[peer] = None
        return super().peer_joined(peer, protocol, now, outbound=outbound, addresses=addresses)

    def peer_left(self, peer: PeerId, now: float) -> list[Action]:
        """See :class:`Router`."""
        self._simple.pop(peer, None)
        return super().peer_left(peer, now)

    def _targets(self, message: Message, holders: dict[PeerId, None]) -> list[PeerId]:
        found = super()._targets(message, holders)
        some = sample([peer for peer in found if peer not in self._simple], self._degree, self._rng)
        return [*(peer for peer in found if peer in self._simple), *some]
