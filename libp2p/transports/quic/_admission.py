"""Who may begin a connection: what an endpoint does with the first packet of a stranger.

A handshake costs milliseconds and memory, and addresses can be forged. So only so many handshakes run at a time, of
all strangers and of one neighbourhood; when many run, a stranger must first show that it receives at its address
(Retry); and when there is no room, who has shown it gets the place of the oldest handshake, unless all are young: who
begins many and finishes none must not keep others out. What waits for nothing here are packets of connections that
exist.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ...addressing import ip_addr, ip_group
from ._engine import Address, Start
from ._packets import CID_SIZE, MIN_INITIAL, Header, PacketKind, Tokens, version_negotiation

MAX_HANDSHAKES = 64
"""Inbound handshakes at a time."""
RETRY_ABOVE = 50
"""Of those, how many without asking for proof of address."""
HANDSHAKES_PER_GROUP = 16
"""Of those, how many from one IPv4 address or IPv6 /56."""
YOUNG = 1.0
"""Seconds in which a handshake keeps its place."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A place among the handshakes under way."""

    group: bytes
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
        self._groups: dict[bytes, int] = {}
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
        group = ip_group(ip_addr(remote[0], remote[1], "udp"), ip4_bits=32)
        if self._groups.get(group, 0) >= HANDSHAKES_PER_GROUP:
            return None
        start = Start(header.destination_cid, header.destination_cid, False)
        if header.token:
            original = self._tokens.check(header, (remote[0], remote[1]), now)
            if original is not None:
                start = Start(header.destination_cid, original, True)
        if self.count >= RETRY_ABOVE and not start.retried:
            return Answer(self._tokens.retry(header, (remote[0], remote[1]), retry_cid, now))
        victim = next(iter(self._under_way)) if self.count >= MAX_HANDSHAKES else None
        if victim is not None and victim.began + YOUNG > now:
            return None
        ticket = Ticket(group, now)
        self._under_way[ticket] = None
        self._groups[group] = self._groups.get(group, 0) + 1
        return Begin(start, ticket, victim)

    def finished(self, ticket: Ticket) -> None:
        """A handshake is over, one way or the other."""
        del self._under_way[ticket]
        left = self._groups.pop(ticket.group) - 1
        if left:
            self._groups[ticket.group] = left
