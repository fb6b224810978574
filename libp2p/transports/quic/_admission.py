"""Who may begin a connection: what an endpoint does with the first packet of a stranger.

A handshake costs milliseconds and memory, and addresses can be forged. So only so many handshakes run at a time, of all
strangers and of one neighbourhood, and of that only so many begin in a while. When many do, a stranger must first show
that it receives at its address (Retry). When there is no room, who has shown it gets the place of the oldest handshake,
unless all are young: who begins many and finishes none must not keep others out. What waits for nothing here are
packets of connections that exist.

Of a neighbourhood, those who have shown their address and those who have not are counted apart: who forges somebody's
address makes him show it, and no more.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..._util.rate import RateLimit
from ...addressing import ip_addr, ip_group
from ._engine import Address, Start
from ._packets import CID_SIZE, MIN_INITIAL, Header, PacketKind, Tokens, version_negotiation

MAX_HANDSHAKES = 64
"""Inbound handshakes at a time."""
RETRY_ABOVE = 50
"""Of those, how many without asking for proof of address."""
HANDSHAKES_PER_GROUP = 16
"""Of those, how many from one IPv4 address or IPv6 /56, that have shown their address and that have not."""
RATE, BURST = 4.0, 64
"""Handshakes that may begin from there, in a second and at once: each takes some ten milliseconds of a processor before
anybody can look at who it is. This machine may do as it likes."""
SOURCES = 4096
"""Neighbourhoods whose rate is remembered."""
YOUNG = 1.0
"""Seconds in which a handshake keeps its place."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A place among the handshakes under way."""

    share: tuple[bytes, bool]
    began: float


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin a connection. Give ``ticket`` back with :meth:`Admission.finished` when its handshake is over.

    Attributes:
        victim: whose handshake must be given up for it, and its ticket given back, first; None when there is room.
    """

    start: Start
    ticket: Ticket
    victim: Ticket | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this packet and forget about it."""

    packet: bytes


Verdict: TypeAlias = "Begin | Answer | None"


class Admission:
    """The handshakes under way at one endpoint.

    Args:
        secret: at least 32 random bytes, for Retry tokens.
    """

    def __init__(self, secret: bytes) -> None:
        self._tokens = Tokens(secret)
        self._shares: dict[tuple[bytes, bool], int] = {}
        self._rates = {shown: RateLimit(rate=RATE, burst=BURST, sources=SOURCES) for shown in (False, True)}
        self._under_way: dict[Ticket, None] = {}  # the oldest first

    @property
    def count(self) -> int:
        """How many handshakes are under way."""
        return len(self._under_way)

    def judge(self, header: Header, size: int, remote: Address, retry_cid: bytes, now: float) -> Verdict:
        """What to do with a packet that belongs to no connection; None to drop it.

        Args:
            size: of the whole datagram.
            retry_cid: random bytes, in case a Retry is the answer.
        """
        if size < MIN_INITIAL:
            return None
        if header.kind is PacketKind.UNKNOWN_VERSION:
            return Answer(version_negotiation(header))
        if header.kind is not PacketKind.INITIAL or len(header.destination_cid) < CID_SIZE:
            return None
        start = Start(header.destination_cid, header.destination_cid, False)
        if header.token:
            original = self._tokens.check(header, (remote[0], remote[1]), now)
            if original is not None:
                start = Start(header.destination_cid, original, True)
        share = ip_group(ip_addr(remote[0], remote[1], "udp"), ip4_bits=32), start.retried
        if not start.retried and (self.count >= RETRY_ABOVE or not self._allows(share, remote, now)):
            return Answer(self._tokens.retry(header, (remote[0], remote[1]), retry_cid, now))
        victim = next(iter(self._under_way)) if self.count >= MAX_HANDSHAKES else None
        if victim is not None and victim.began + YOUNG > now:
            return None
        if start.retried and not self._allows(share, remote, now):
            return None
        ticket = Ticket(share, now)
        self._under_way[ticket] = None
        self._shares[share] = self._shares.get(share, 0) + 1
        return Begin(start, ticket, victim)

    def _allows(self, share: tuple[bytes, bool], remote: Address, now: float) -> bool:
        """Whether one more of a neighbourhood may begin; counts it."""
        if self._shares.get(share, 0) >= HANDSHAKES_PER_GROUP:
            return False
        group, shown = share
        return remote[0].startswith("127.") or remote[0] == "::1" or self._rates[shown].take(group, now)

    def finished(self, ticket: Ticket) -> None:
        """A handshake is over, one way or the other."""
        del self._under_way[ticket]
        left = self._shares.pop(ticket.share) - 1
        if left:
            self._shares[ticket.share] = left
