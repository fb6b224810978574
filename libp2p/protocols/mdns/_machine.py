"""What a peer says on the local network, and what it hears. Pure.

Theory of operation. The machine asks who is there, a few times at the start and then once in a while; answers the
questions of others, its own included, so that those who only listen hear of it (specification); and keeps a table of
whom it has heard of, so that only news are reported. All interfaces of the machine are one network to it: what it sends
goes to all of them.

An answer waits for a random moment, so that a hundred peers do not all speak at once, and at least a second after the
last one, whoever asks how often (RFC 6762, 6 and 6.3). It is one packet, with as many addresses as fit.

What is heard is believed by nobody: a peer's addresses are candidates to dial, no more. New peers are counted, a minute
at a time, and the table has a bound; what is above is dropped (case R7).

Source: libp2p/specs discovery/mdns; RFC 6762.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from multiaddr import Multiaddr

from ..._util.bounded import ExpiringMap
from ...addressing import Scope, host_port, names, parse, parts, scope, split_peer, to_text, with_peer
from ...errors import DecodeError
from ...peer_id import PeerId
from ._codec import (
    AAAA,
    ANY,
    MAX_SENT,
    MAX_STRING,
    PTR,
    SRV,
    TXT,
    A,
    Address,
    Name,
    Packet,
    Ptr,
    Question,
    Record,
    Srv,
    Txt,
    decode,
    encode_query,
    encode_response,
    name,
)

if TYPE_CHECKING:
    import random

META: Name = name("_services._dns-sd._udp.local")
"""Asked by those who want to know which services there are (RFC 6763, 9)."""
PREFIX = b"dnsaddr="
_ALPHABET = string.ascii_lowercase + string.digits
_NAME_LENGTH = 40
_PORT = 4001
"""In SRV records, which nobody in libp2p reads (go says the same)."""
_UNSUITABLE = frozenset(("p2p-circuit", "webtransport", "webrtc", "webrtc-direct", "ws", "wss"))
"""Not for a local network: by way of others, or for browsers, which have no mDNS (go)."""
_MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MdnsConfig:
    """How often it speaks, and how much it listens. Times are in seconds."""

    interval: float = 60.0
    """Between two questions, once started (js: 10, rust: 300)."""
    first_questions: tuple[float, ...] = (0.0, 1.0, 3.0)
    """When the first ones are asked, and again after the machine's network has changed (RFC 6762, 5.2)."""
    ttl: int = 360
    """How long others may believe what we say (rust)."""
    max_ttl: float = 3600.0
    """How long we believe others at most (ours)."""
    min_delay: float = 0.02
    max_delay: float = 0.12
    """The random moment an answer waits (RFC 6762, 6)."""
    min_pause: float = 1.0
    """Between two answers (RFC 6762, 6)."""
    new_peers_per_minute: int = 100
    """Peers not heard of before (case R7)."""
    peers: int = 1000
    """Peers remembered as heard of (ours)."""
    addrs_per_peer: int = 32
    """Addresses taken of one peer (ours)."""
    packets_per_second: float = 20.0
    """Packets read of one address, on the average (ours)."""
    packets_burst: int = 100
    """Packets read of an address that was quiet (ours)."""
    packets_of_all: float = 500.0
    """Packets read a second, whoever they say they come from (ours; case R7)."""
    interfaces: tuple[str, ...] | None = None
    """Names of the network interfaces to use; None for all but loopback."""
    interface_check: float = 5.0
    """Between two looks at which interfaces there are (go, for addresses)."""

    def __post_init__(self) -> None:
        rates = (self.packets_per_second, self.packets_of_all)
        if min(self.interval, self.ttl, self.max_ttl, self.interface_check, *rates) <= 0:
            raise ValueError("times and rates must be positive")
        if not 0 <= self.min_delay <= self.max_delay or self.min_pause < 0:
            raise ValueError("delays must not be negative, and max_delay the largest")
        if min(self.new_peers_per_minute, self.peers, self.addrs_per_peer, self.packets_burst) < 1:
            raise ValueError("limits must be positive")


@dataclass(slots=True)
class Heard:
    """A peer says where it is.

    Attributes:
        addrs: addresses, without ``/p2p``.
        ttl: seconds to believe it.
        news: whether it had not said so before.
    """

    peer: PeerId
    addrs: tuple[Multiaddr, ...]
    ttl: float
    news: bool


class MdnsMachine:
    """One peer on the local network.

    Args:
        peer: who it is.
        service: the service's name, ``_p2p._udp.local`` unless the network is a private one.
        config: see there.
        rng: makes the peer's name, and the moments of answers.
        now: the time.

    Attributes:
        dropped: peers that were not taken, because there were too many.
    """

    def __init__(self, peer: PeerId, *, service: Name, config: MdnsConfig, rng: random.Random, now: float) -> None:
        self._peer = peer
        self._service = service
        self._config = config
        self._rng = rng
        label = "".join(rng.choices(_ALPHABET, k=_NAME_LENGTH)).encode()
        self._name: Name = (label, *service)
        self._host: Name = (label, b"local")
        self._addrs: tuple[Multiaddr, ...] = ()
        self._questions: list[float] = []
        self._answer_at: float | None = None
        self._answered = -config.min_pause
        self._meta = False
        self._to_send: list[bytes] = []
        self._heard: ExpiringMap[PeerId, tuple[Multiaddr, ...]] = ExpiringMap(config.peers)
        self._minute = now
        self._new = 0
        self.dropped = 0
        self.ask_again(now)

    # --- commands

    def set_addrs(self, addrs: Iterable[Multiaddr], now: float) -> None:
        """Say from now on, and soon without being asked, that the peer is at ``addrs``, as far as they suit."""
        told = tuple([addr for addr in suitable(addrs) if len(self._string(addr)) <= MAX_STRING])
        if told != self._addrs:
            self._addrs = told
            self._answer_soon(now)

    def ask_again(self, now: float) -> None:
        """Begin anew to ask who is there, because the network has changed."""
        self._questions = [now + after for after in self._config.first_questions] or [now]

    def say_farewell(self) -> None:
        """Take back what was said."""
        if self._addrs:
            self._to_send.append(self._description(0))

    # --- inputs

    def receive_packet(self, data: bytes, now: float) -> list[Heard]:
        """Take a packet from the network; returns what it says about other peers. Garbage says nothing."""
        try:
            packet = decode(data)
        except DecodeError:
            return []
        if packet.response:
            return list(self._take(packet, now))
        for question in packet.questions:
            if self._concerns(question):
                self._answer_soon(now)
            elif question.name == META and question.type in (PTR, ANY):
                self._meta = True
                self._answer_soon(now)
        return []

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        self._heard.expire(now)
        if self._questions[0] <= now:
            self._to_send.append(encode_query([Question(self._service, PTR)]))
            self._questions.pop(0)
            if not self._questions:
                self._questions.append(now + self._config.interval * self._rng.uniform(0.8, 1.2))
        if self._answer_at is not None and self._answer_at <= now:
            self._answer_at = None
            self._answered = now
            if self._meta:
                self._to_send.append(encode_response([Ptr(META, self._service, self._config.ttl)]))
            if self._addrs:
                self._to_send.append(self._description(self._config.ttl))
            self._meta = False

    # --- outputs

    def next_timeout(self) -> float:
        """When :meth:`handle_timeout` wants to be called."""
        return self._questions[0] if self._answer_at is None else min(self._questions[0], self._answer_at)

    def data_to_send(self) -> list[bytes]:
        """Packets for all interfaces; drains."""
        packets, self._to_send = self._to_send, []
        return packets

    # --- answering

    def _concerns(self, question: Question) -> bool:
        wanted = {self._service: (PTR,), self._name: (SRV, TXT), self._host: (A, AAAA)}.get(question.name, ())
        return question.type in wanted or (question.type == ANY and bool(wanted))

    def _answer_soon(self, now: float) -> None:
        if self._answer_at is None:
            config = self._config
            moment = now + self._rng.uniform(config.min_delay, config.max_delay)
            self._answer_at = max(moment, self._answered + config.min_pause)

    def _description(self, ttl: int) -> bytes:
        """The answer that tells all, with as many addresses as fit into it."""
        kept: list[Multiaddr] = []
        packet = b""
        for addr in self._addrs:
            longer = self._described((*kept, addr), ttl)
            if len(longer) <= MAX_SENT:
                kept.append(addr)
                packet = longer
        return packet

    def _described(self, addrs: Sequence[Multiaddr], ttl: int) -> bytes:
        strings = tuple([self._string(addr) for addr in addrs])
        additional: list[Record] = [
            Txt(self._name, strings, ttl),
            Srv(self._name, self._host, _PORT, ttl),
        ]
        # One address of each version, as go does: routers want to see some.
        additional += [Address(self._host, ip, ttl) for ip in {ip.version: ip for ip in _ips(addrs)}.values()]
        return encode_response([Ptr(self._service, self._name, ttl)], additional)

    def _string(self, addr: Multiaddr) -> bytes:
        return PREFIX + to_text(with_peer(addr, self._peer)).encode()

    # --- hearing

    def _take(self, packet: Packet, now: float) -> Iterator[Heard]:
        said: dict[PeerId, dict[Multiaddr, None]] = {}
        ttl = self._config.max_ttl
        # rust's peers have names that do not end in the service's; that they belong to it, only the answer says.
        pointed_to = {
            record.target for record in packet.records if isinstance(record, Ptr) and record.name == self._service
        }
        for record in packet.records:
            if not isinstance(record, Txt) or record.name == self._name:
                continue
            if record.name[1:] != self._service and record.name not in pointed_to:
                continue
            ttl = min(ttl, record.ttl)
            for text in record.strings:
                for peer, addr in _addr(text):
                    if peer != self._peer and len(said.setdefault(peer, {})) < self._config.addrs_per_peer:
                        said[peer][addr] = None
        for peer, found in said.items():
            if ttl <= 0:
                self._heard.pop(peer)  # a farewell: should it come back, that is news
            elif (heard := self._hear(peer, tuple(found), ttl, now)) is not None:
                yield heard

    def _hear(self, peer: PeerId, addrs: tuple[Multiaddr, ...], ttl: float, now: float) -> Heard | None:
        known = self._heard.get(peer, now)
        if known is None and not self._admit(now):
            self.dropped += 1
            return None
        self._heard.put(peer, addrs, expires=now + ttl)
        return Heard(peer, addrs, ttl, known is None or set(known) != set(addrs))

    def _admit(self, now: float) -> bool:
        if now - self._minute >= _MINUTE:
            self._minute, self._new = now, 0
        self._new += 1
        return self._new <= self._config.new_peers_per_minute


def suitable(addrs: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Those of ``addrs`` that peers on this network can use, best first; loopback only when there are no others."""
    found = [addr for addr in (split_peer(addr)[0] for addr in addrs) if _suits(addr)]
    elsewhere = [addr for addr in found if scope(addr) is not Scope.LOOPBACK]
    # What only a local network knows comes first: of the others there are other ways to learn.
    elsewhere.sort(key=lambda addr: scope(addr) is not Scope.PRIVATE)
    return tuple(elsewhere or found)


def _suits(addr: Multiaddr) -> bool:
    if not _UNSUITABLE.isdisjoint(names(addr)):
        return False
    first = parts(addr)[0]
    if first.name in ("ip4", "ip6"):
        ip = ip_address(first.value)
        # Of link-local addresses of IPv6, nobody could tell on which link they are. Whatever else can be dialled may be
        # what a network uses, documentation and reserved ranges, too.
        return not (ip.is_multicast or ip.is_unspecified or (ip.version == 6 and ip.is_link_local))
    return scope(addr) is Scope.NAME and first.text.lower().endswith(".local")


def _addr(text: bytes) -> Iterator[tuple[PeerId, Multiaddr]]:
    """The peer and address that a string of a TXT record tells; nothing when it tells none that suits."""
    if not text.startswith(PREFIX):
        return
    try:
        addr, peer = split_peer(parse(text[len(PREFIX) :].decode()))
    except (DecodeError, UnicodeDecodeError):
        return
    if peer is not None and addr.to_bytes() and _suits(addr):
        yield peer, addr


def _ips(addrs: Iterable[Multiaddr]) -> Iterator[IPv4Address | IPv6Address]:
    for addr in addrs:
        found = host_port(addr)
        if found is not None and names(addr)[0] in ("ip4", "ip6"):
            yield ip_address(found[0])
