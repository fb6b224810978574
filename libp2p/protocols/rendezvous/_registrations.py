"""Who is registered where: the table of a rendezvous point, and its cookies. Pure.

Theory of operation. Every registration, a renewal included, gets the next number. A cookie is such a number: whoever
brings it back is told of registrations with higher ones only. So nothing is remembered of those who ask (advisory
GHSA-cqfx-gf56-8x59), and a page ends where the next begins. The number comes with a keyed hash of itself and of the
namespace it was given out for, so a cookie that was made up, or belongs to another namespace or another life of this
point, is noticed.

The numbers of a namespace are a sorted list, because new ones are the highest: a page is found by bisection. What has
ended is invisible at once, and removed by :meth:`Registrations.handle_timeout`.

Source: libp2p/specs rendezvous.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from ..._util.bounded import ExpiringMap
from ...errors import DecodeError
from ...peer_id import PeerId
from ._codec import MAX_MESSAGE, MAX_NAMESPACE, MAX_REGISTRATIONS, MAX_REQUEST, Status

_NUMBER = 8
_HASH = 16
MIN_KEY, MAX_KEY = 16, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousConfig:
    """What a rendezvous point takes. Times are in whole seconds, as in the protocol."""

    min_ttl: int = 2 * 3600
    """Shortest life of a registration (specification)."""
    max_ttl: int = 72 * 3600
    """Longest life (specification)."""
    default_ttl: int = 2 * 3600
    """For those that do not say (specification)."""
    registrations_per_peer: int = 32
    """Namespaces that one peer may be in at a time (rust; the specification allows up to 1,000)."""
    registrations: int = 10_000
    """Registrations in all (rust)."""
    record_bytes: int = 16 * 1024 * 1024
    """Bytes of signed records in all (ours): 1.6 KiB for each, five times what a usual one has."""
    page: int = MAX_REGISTRATIONS
    """Most registrations in one answer (specification)."""
    answer_bytes: int = 256 * 1024
    """Most bytes of registrations in one answer (ours); whoever asks goes on with the cookie."""
    streams_at_once: int = 64
    """Requests being served at a time; those above are reset (ours): with the answers, 16 MiB."""
    streams_per_peer: int = 8
    """Of these, of one peer (ours): nobody keeps all of them for himself."""
    timeout: float = 10.0
    """Seconds that a peer has to say what it wants, and again to take the answer (rust)."""

    def __post_init__(self) -> None:
        if not 0 < self.min_ttl <= self.default_ttl <= self.max_ttl:
            raise ValueError("the times of registrations must be positive, and the default between the bounds")
        if not 0 < self.page <= MAX_REGISTRATIONS:
            raise ValueError(f"a page holds one to {MAX_REGISTRATIONS} registrations")
        counts = (self.registrations_per_peer, self.registrations, self.streams_at_once, self.streams_per_peer)
        if min(*counts, self.record_bytes) < 1 or not MAX_REQUEST <= self.answer_bytes <= MAX_MESSAGE // 2:
            raise ValueError("limits of a rendezvous point must be positive, and an answer neither tiny nor huge")
        if self.timeout <= 0:
            raise ValueError("the timeout must be positive")


class Refused(Exception):
    """The point does not do it, and says so to the peer.

    Attributes:
        status: what it says.
        text: the same, for people.
    """

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A peer in a namespace.

    Attributes:
        record: its signed record, as it arrived.
        expires: when the registration ends.
        number: its place in the order of all registrations.
    """

    namespace: str
    peer: PeerId
    record: bytes
    expires: float
    number: int


class Registrations:
    """The table.

    Args:
        config: its bounds.
    """

    __slots__ = ("_by_name", "_bytes", "_config", "_held", "_next", "_order", "_per_peer")

    def __init__(self, config: RendezvousConfig) -> None:
        self._config = config
        self._held: ExpiringMap[tuple[str, PeerId], Registration] = ExpiringMap(config.registrations)
        # Per namespace, and for all of them: numbers, growing, and what they stand for.
        self._by_name: dict[str, _Order] = {}
        self._order = _Order()
        self._per_peer: dict[PeerId, int] = {}
        self._bytes = 0
        self._next = 1

    def __len__(self) -> int:
        """Registrations held, those included that have ended since the last :meth:`handle_timeout`."""
        return len(self._held)

    def life(self, ttl: int | None) -> int:
        """Return the seconds a registration that asks for ``ttl`` stays.

        Raises:
            Refused: that is too short or too long.
        """
        config = self._config
        if ttl is None:
            return config.default_ttl
        if not config.min_ttl <= ttl <= config.max_ttl:
            raise Refused(Status.INVALID_TTL, f"a ttl must be {config.min_ttl} to {config.max_ttl} seconds")
        return ttl

    def register(self, namespace: str, peer: PeerId, record: bytes, *, expires: float, now: float) -> Registration:
        """Put ``peer`` into ``namespace``, in place of its registration there if it has one.

        Raises:
            Refused: the name is empty or too long, or there is no room.
        """
        self.handle_timeout(now)
        check_namespace(namespace)
        key = (namespace, peer)
        old = self._held.get(key, now)
        room = 0 if old is None else 1
        config = self._config
        if self._per_peer.get(peer, 0) - room >= config.registrations_per_peer:
            raise Refused(Status.UNAVAILABLE, f"a peer may be in {config.registrations_per_peer} namespaces at a time")
        if len(self._held) - room >= config.registrations:
            raise Refused(Status.UNAVAILABLE, "there is no room for more registrations")
        freed = 0 if old is None else len(old.record)
        if self._bytes - freed + len(record) > config.record_bytes:
            raise Refused(Status.UNAVAILABLE, "there is no room for more records")
        self.unregister(namespace, peer)
        registration = Registration(namespace=namespace, peer=peer, record=record, expires=expires, number=self._next)
        self._next += 1
        self._held.put(key, registration, expires=expires)
        self._by_name.setdefault(namespace, _Order()).add(registration)
        self._order.add(registration)
        self._per_peer[peer] = self._per_peer.get(peer, 0) + 1
        self._bytes += len(record)
        return registration

    def unregister(self, namespace: str, peer: PeerId) -> bool:
        """Take ``peer`` out of ``namespace``. False when it is not there."""
        held = self._held.pop((namespace, peer))
        if held is None:
            return False
        self._forget(held)
        return True

    def discover(
        self, namespace: str, *, after: int = 0, limit: int | None = None, now: float
    ) -> tuple[Registration, ...]:
        """Registrations with numbers above ``after``, in their order, as many as one answer may have.

        Args:
            namespace: empty for all of them.
            after: a number; 0 for the beginning.
            limit: most that are wanted.
            now: the time.
        """
        self.handle_timeout(now)
        order = self._order if not namespace else self._by_name.get(namespace)
        if order is None:
            return ()
        return order.after(after, min(self._config.page, self._config.page if limit is None else limit))

    def handle_timeout(self, now: float) -> list[Registration]:
        """Remove and return what has ended by ``now``."""
        ended = [registration for _, registration in self._held.expire(now)]
        for registration in ended:
            self._forget(registration)
        return ended

    def next_timeout(self) -> float | None:
        """When the next registration ends; None when there is none."""
        return self._held.next_timeout()

    def _forget(self, registration: Registration) -> None:
        peer, namespace = registration.peer, registration.namespace
        self._order.remove(registration.number)
        self._by_name[namespace].remove(registration.number)
        if not self._by_name[namespace].numbers:
            del self._by_name[namespace]
        self._per_peer[peer] -= 1
        if not self._per_peer[peer]:
            del self._per_peer[peer]
        self._bytes -= len(registration.record)


class _Order:
    """Registrations by their number."""

    __slots__ = ("numbers", "registrations")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.registrations: dict[int, Registration] = {}

    def add(self, registration: Registration) -> None:
        self.numbers.append(registration.number)
        self.registrations[registration.number] = registration

    def remove(self, number: int) -> None:
        del self.numbers[bisect_left(self.numbers, number)]
        del self.registrations[number]

    def after(self, number: int, count: int) -> tuple[Registration, ...]:
        first = bisect_right(self.numbers, number)
        return tuple([self.registrations[found] for found in self.numbers[first : first + count]])


class Cookies:
    """Makes cookies, and knows its own.

    Args:
        key: a secret of 16 to 64 bytes; cookies made with another one are refused.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if not MIN_KEY <= len(key) <= MAX_KEY:
            raise ValueError(f"a key for cookies has {MIN_KEY} to {MAX_KEY} bytes")
        self._key = key

    def bake(self, namespace: str, number: int) -> bytes:
        """Return the cookie for ``namespace`` that stands for ``number``.

        Eight bytes and then text, because rust's clients read cookies: eight bytes, and a namespace.
        """
        counted = number.to_bytes(_NUMBER, "big")
        return counted + base64.urlsafe_b64encode(self._hash(namespace, counted))

    def read(self, namespace: str, cookie: bytes) -> int:
        """Return the number that ``cookie`` stands for.

        Raises:
            DecodeError: it is not one of ours for this namespace.
        """
        number = int.from_bytes(cookie[:_NUMBER], "big")
        if not hmac.compare_digest(cookie, self.bake(namespace, number)):
            raise DecodeError("not a cookie of this rendezvous point for this namespace")
        return number

    def _hash(self, namespace: str, counted: bytes) -> bytes:
        return hashlib.blake2b(counted + namespace.encode(), key=self._key, digest_size=_HASH).digest()


def check_namespace(namespace: str) -> None:
    """Refuse a name that nobody can be registered under.

    Raises:
        Refused: it is empty or too long.
    """
    if not 0 < len(namespace.encode("utf-8", "surrogatepass")) <= MAX_NAMESPACE:
        raise Refused(Status.INVALID_NAMESPACE, f"a namespace must have 1 to {MAX_NAMESPACE} bytes")
