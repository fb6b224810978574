"""Whether an address can be reached, by what those say who tried. Pure.

Theory of operation. A server that says it has reached us may lie, and one that says it has not may lie as well. Only a
dial back, with the nonce that we made up, proves anything, and what it proves is that *this* server gets through. So
what servers say are voices, each with a weight of its own, and a neighbourhood of the network has one voice however
many servers it runs (case R6):

* PROOF: the dial back came. Two neighbourhoods make an address public.
* CLAIM: a server of version 1, where nothing can be proved, says that it has reached us. More than three do (AN5).
* DENIAL: a server says that it could not reach us. More than three make an address private, unless somebody has proved
  the contrary, which no number of denials outweighs: a firewall that lets one stranger in is no firewall.

A neighbourhood's latest voice counts, except that a proof is only taken back by the server that gave it. Voices end, so
that old ones do not outlive a change of the network. Nothing changes twice within five minutes, whatever is said.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from multiaddr import Multiaddr

from ..._util.bounded import LruMap
from ...events import Reachability
from ...peer_id import PeerId


class Voice(enum.Enum):
    """What a server says about an address."""

    PROOF = "proof"
    CLAIM = "claim"
    DENIAL = "denial"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachabilityConfig:
    """How many neighbourhoods must agree, and for how long that is believed."""

    proofs: int = 2
    """Dial backs that make an address public (go ``minConfidence``)."""
    claims: int = 4
    """Servers of version 1 that make an address public: more than three (specs autonat-v1)."""
    denials: int = 4
    """Failures that make an address private: more than three (specs autonat-v1, autonat-v2)."""
    expiry: float = 7200.0
    """Seconds that a voice is heard (ours)."""
    hold: float = 300.0
    """Seconds between two changes of mind (case R6)."""
    addrs: int = 64
    """Addresses kept track of (ours); the one nobody spoke of for longest gives way."""
    voices: int = 16
    """Voices kept for an address (ours); the oldest gives way, proofs last."""

    def __post_init__(self) -> None:
        if min(self.proofs, self.claims, self.denials, self.addrs) < 1 or self.expiry <= 0 or self.hold < 0:
            raise ValueError("quorums, bounds and expiry must be positive")
        if self.voices < max(self.proofs, self.claims, self.denials):
            raise ValueError("too few voices are kept for any quorum")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is believed of an address.

    Attributes:
        reachability: the conclusion.
        confidence: neighbourhoods that say so; 0 when it is unknown.
    """

    reachability: Reachability = Reachability.UNKNOWN
    confidence: int = 0


@dataclass(slots=True)
class _Held:
    """A conclusion that changes no more often than it may."""

    reachability: Reachability = Reachability.UNKNOWN
    changed: float = -math.inf

    def follow(self, wanted: Reachability, now: float, hold: float) -> Reachability:
        if wanted is not self.reachability and now >= self.changed + hold:
            self.reachability, self.changed = wanted, now
        return self.reachability


@dataclass(slots=True)
class _Heard:
    voices: dict[bytes, tuple[Voice, PeerId, float]] = field(default_factory=dict[bytes, tuple[Voice, PeerId, float]])
    """Neighbourhood to what it said, who in it, and when; the oldest first."""
    held: _Held = field(default_factory=_Held)


class Verdicts:
    """What servers say of this host's addresses, and what follows from it.

    Args:
        config: how many must agree.
    """

    def __init__(self, config: ReachabilityConfig | None = None) -> None:
        self.config: ReachabilityConfig = config or ReachabilityConfig()
        self._heard: LruMap[Multiaddr | None, _Heard] = LruMap(self.config.addrs)
        self._overall = _Held()

    def add(self, addr: Multiaddr | None, voice: Voice, *, server: PeerId, group: bytes, now: float) -> None:
        """Hear ``server``.

        Args:
            addr: what it speaks of; None for the host, wherever that is.
            voice: what it says.
            server: who speaks.
            group: its neighbourhood.
            now: monotonic seconds.
        """
        heard = self._heard.get(addr)
        if heard is None:
            heard = self._heard[addr] = _Heard()
        self._forget_old(heard, now)
        before = heard.voices.get(group)
        if before is not None and before[0] is Voice.PROOF and voice is not Voice.PROOF and before[1] != server:
            return
        heard.voices.pop(group, None)
        heard.voices[group] = (voice, server, now)
        if len(heard.voices) > self.config.voices:
            # Whoever can send many to deny must not be able to push a proof out.
            oldest_first = sorted(heard.voices, key=lambda found: heard.voices[found][0] is Voice.PROOF)
            del heard.voices[oldest_first[0]]

    def of(self, addr: Multiaddr | None, now: float) -> Verdict:
        """What is believed of ``addr``, or, for None, of the host by those who named no address."""
        heard = self._heard.get(addr)
        if heard is None:
            return Verdict()
        self._forget_old(heard, now)
        found = heard.held.follow(self._conclusion(heard), now, self.config.hold)
        counts = _count(heard)
        if found is Reachability.PUBLIC:
            return Verdict(found, counts[Voice.PROOF] + counts[Voice.CLAIM])
        return Verdict(found, counts[Voice.DENIAL] if found is Reachability.PRIVATE else 0)

    def overall(self, addrs: Iterable[Multiaddr], now: float) -> Verdict:
        """What is believed of the host: of the best of ``addrs``; with no address at all, what was said of none."""
        verdicts = [self.of(addr, now) for addr in addrs] or [self.of(None, now)]
        kinds = [verdict.reachability for verdict in verdicts]
        wanted = Reachability.UNKNOWN
        if Reachability.PUBLIC in kinds:
            wanted = Reachability.PUBLIC
        elif all(kind is Reachability.PRIVATE for kind in kinds):
            wanted = Reachability.PRIVATE
        found = self._overall.follow(wanted, now, self.config.hold)
        return Verdict(
            found, max((verdict.confidence for verdict in verdicts if verdict.reachability is found), default=0)
        )

    def _conclusion(self, heard: _Heard) -> Reachability:
        config, counts = self.config, _count(heard)
        proofs, claims, denials = counts[Voice.PROOF], counts[Voice.CLAIM], counts[Voice.DENIAL]
        if proofs >= config.proofs or (claims >= config.claims and claims > denials):
            return Reachability.PUBLIC
        if denials >= config.denials and not proofs and denials > claims:
            return Reachability.PRIVATE
        # In between nothing new is known: what was concluded stays while anybody still says so.
        supported = {Reachability.PUBLIC: proofs + claims, Reachability.PRIVATE: denials * (not proofs)}
        return heard.held.reachability if supported.get(heard.held.reachability) else Reachability.UNKNOWN

    def _forget_old(self, heard: _Heard, now: float) -> None:
        for group, (_, _, said) in list(heard.voices.items()):
            if said + self.config.expiry <= now:
                del heard.voices[group]


def _count(heard: _Heard) -> dict[Voice, int]:
    counts = dict.fromkeys(Voice, 0)
    for voice, _, _ in heard.voices.values():
        counts[voice] += 1
    return counts
