"""What happens in lookups, for whoever watches."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ...events import Event
from ...peer_id import PeerId


class Step(enum.Enum):
    """What has happened between this host and one peer."""

    ASKED = "asked"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(slots=True)
class LookupStep(Event):
    """A lookup of this host's went on.

    Attributes:
        key: what is looked up.
        peer: who is concerned.
        step: what happened.
        closer: how many peers it named.
        asked: how many were asked so far.
        prefix: leading bits that the peer's place shares with the key's.
    """

    key: bytes
    peer: PeerId
    step: Step
    closer: int
    asked: int
    prefix: int
