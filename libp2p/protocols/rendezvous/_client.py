"""Asking rendezvous points: one question at a time, and for as long as somebody wants to be found or to find."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio
from multiaddr import Multiaddr

from ..._util.nursery import Block, open_unwrapping_nursery
from ...abc import Host, Service, Target
from ...addressing import Scope, scope, split_peer
from ...errors import DecodeError, Libp2pError, RemoteProtocolError, ServiceError, ServiceTimeout, StreamReset
from ...events import ListenAddrsChanged, PeerDiscovered
from ...peer_id import PeerId
from ...records.peer_record import MAX_ADDRS, OBSOLETE, STANDARD, PeerRecord, RecordForm
from ...wire.framing import frame
from ._codec import (
    MAX_MESSAGE,
    MAX_NAMESPACE,
    Discover,
    DiscoverResponse,
    Message,
    Register,
    RegisterResponse,
    Status,
    Unregister,
    encode,
)
from ._exchange import RENDEZVOUS, Messages, open_record

TIMEOUT = 10.0
"""Seconds for one question and its answer (rust)."""
_MAX_TTL = 72 * 3600
"""No registration lives longer (specification)."""

_INSIDE = (Scope.PRIVATE, Scope.LINK_LOCAL, Scope.LOOPBACK)
"""Scopes of addresses that are nobody's business on the internet."""


class RendezvousRefused(ServiceError):
    """The rendezvous point does not do it.

    Attributes:
        status: why, as a number of the protocol; see :class:`Status`.
        text: why, in the point's own words; empty when it said none.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text

    def __str__(self) -> str:
        known = next((status.name for status in Status if status == self.status), f"status {self.status}")
        return (
            f"the rendezvous point refused: {known.lower().replace('_', ' ')}{f' ({self.text})' if self.text else ''}"
        )


class RendezvousTimeout(ServiceTimeout):
    """No answer of a rendezvous point in time."""

    what = "answer of a rendezvous point"


class NothingToRegister(ServiceError):
    """This host has no address that somebody could dial who comes to the point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPeer:
    """A peer that a rendezvous point knows.

    Attributes:
        addrs: where it says it can be reached, without ``/p2p``: signed by it, tried by nobody.
        ttl: seconds until its registration ends.
        record: what it signed, as it arrived.
        standard: whether the record has the form that everybody uses, and the peerstore takes.
    """

    namespace: str
    peer: PeerId
    addrs: tuple[Multiaddr, ...]
    ttl: float
    record: bytes
    standard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One answer.

    Attributes:
        peers: those whose record is right, at most 1,000.
        cookie: asked with it, the point tells what is newer than this answer.
        complete: whether the answer was empty: there is nothing newer.
    """

    peers: tuple[FoundPeer, ...]
    cookie: bytes
    complete: bool


# --- one question -----------------------------------------------------------------------------------------------------


async def register(
    host: Host,
    point: Target,
    namespace: str,
    *,
    ttl: int | None = None,
    timeout: float = TIMEOUT,
    wall_clock: Callable[[], float] = time.time,
) -> int:
    """Let ``host`` be found in ``namespace`` at ``point``; asking again renews it.

    The record that others get lists :attr:`~libp2p.abc.Host.addrs`, without those of this machine alone if there are
    others, and at a point on the internet without private ones. It is signed in the form that everybody uses; when the
    point does not take it, in the one that rust uses.

    Args:
        host: who registers.
        point: the rendezvous point; dialled when there is no connection.
        namespace: 1 to 255 bytes.
        ttl: seconds to be found; the point decides by default, usually for two hours.
        timeout: seconds for the whole of it.
        wall_clock: seconds since 1970, from which the record's sequence number is made.

    Returns:
        Seconds until it ends.

    Raises:
        NothingToRegister: the host listens nowhere, or nowhere that is of use to those who ask the point.
        RendezvousRefused: the point does not want it: the namespace, the ttl, or there is no room.
        RendezvousTimeout: there was no answer in time.
        RemoteProtocolError, StreamReset, ConnectionClosed: the answer broke the rules or off.
        DialError, NegotiationError, LimitExceeded: no stream could be opened.
        ValueError: the namespace is empty or too long.
    """
    _check(namespace)
    if not host.addrs:
        raise NothingToRegister("this host listens nowhere, so there is nothing to be found at")
    with _in_time(point, timeout):
        addrs = _own_addrs(host, (await host.connect(point)).remote_addr)
        record = PeerRecord(peer=host.local_peer, seq=int(wall_clock() * 1_000_000_000), addrs=addrs)
        try:
            return await _register_as(STANDARD, host, point, namespace, record, ttl)
        except (RendezvousRefused, RemoteProtocolError, StreamReset) as exc:
            # rust's point does not say what is wrong with a record in a form that it does not know: it hangs up.
            if isinstance(exc, RendezvousRefused) and exc.status != Status.INVALID_SIGNED_PEER_RECORD:
                raise
            return await _register_as(OBSOLETE, host, point, namespace, record, ttl)


async def unregister(host: Host, point: Target, namespace: str, *, timeout: float = TIMEOUT) -> None:
    """Let ``host`` no longer be found in ``namespace`` at ``point``, which does not answer.

    Raises:
        RendezvousTimeout, DialError, NegotiationError, LimitExceeded, StreamReset, ConnectionClosed: it could not be
            said.
        ValueError: the namespace is empty or too long.
    """
    _check(namespace)
    with _in_time(point, timeout):
        async with await host.open_stream(point, RENDEZVOUS) as stream:
            await stream.send_all(frame(encode(Unregister(namespace=namespace))))
            await stream.send_eof()
            # Until the point has hung up: then it has read what there was.
            await stream.receive_some()


async def discover(
    host: Host,
    point: Target,
    namespace: str = "",
    *,
    limit: int | None = None,
    cookie: bytes = b"",
    timeout: float = TIMEOUT,
) -> Found:
    """Ask ``point`` who is in ``namespace``. Nothing is remembered of the answer.

    Registrations with a record that is not right are left out. The host itself may be among them.

    Args:
        host: who asks.
        point: the rendezvous point; dialled when there is no connection.
        namespace: at most 255 bytes; empty for all of them.
        limit: most that are wanted; the point may give fewer, even when it has more.
        cookie: of an earlier answer for the same namespace, to be told only what is newer.
        timeout: seconds for the whole of it.

    Raises:
        RendezvousRefused: the point does not answer; with ``Status.INVALID_COOKIE``, ask without the cookie.
        RendezvousTimeout: there was no answer in time.
        RemoteProtocolError, StreamReset, ConnectionClosed: the answer broke the rules or off.
        DialError, NegotiationError, LimitExceeded: no stream could be opened.
        ValueError: the namespace is too long.
    """
    if namespace:
        _check(namespace)
    with _in_time(point, timeout):
        answer = await _ask(host, point, Discover(namespace=namespace, limit=limit, cookie=cookie))
        if not isinstance(answer, DiscoverResponse):
            raise RemoteProtocolError("rendezvous: not an answer to a discovery")
        if answer.status != Status.OK:
            raise RendezvousRefused(answer.status, answer.text)
        peers: list[FoundPeer] = []
        for item in answer.registrations:
            # A thousand signatures, and as many addresses as fit into a mebibyte, take seconds: others have a turn.
            await trio.lowlevel.checkpoint()
            if (found := _found(item, namespace)) is not None:
                peers.append(found)
        return Found(peers=tuple(peers), cookie=answer.cookie, complete=not answer.registrations)


@contextmanager
def _in_time(point: Target, seconds: float) -> Iterator[None]:
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError as exc:
        raise RendezvousTimeout(point, seconds) from exc


async def _ask(host: Host, point: Target, question: Message) -> Message:
    async with await host.open_stream(point, RENDEZVOUS) as stream:
        await stream.send_all(frame(encode(question)))
        await stream.send_eof()
        answer = await Messages(stream, MAX_MESSAGE).receive()
    if answer is None:
        raise RemoteProtocolError("the stream ended before there was an answer")
    return answer


async def _register_as(
    form: RecordForm, host: Host, point: Target, namespace: str, record: PeerRecord, ttl: int | None
) -> int:
    sealed = record.seal(host.private_key, form=form)
    answer = await _ask(host, point, Register(namespace=namespace, record=sealed, ttl=ttl))
    if not isinstance(answer, RegisterResponse):
        raise RemoteProtocolError("rendezvous: not an answer to a registration")
    if answer.status != Status.OK:
        raise RendezvousRefused(answer.status, answer.text)
    return answer.ttl


def _own_addrs(host: Host, point: Multiaddr) -> tuple[Multiaddr, ...]:
    """Where this host is found by those who come to ``point``."""
    own = [split_peer(addr)[0] for addr in host.addrs]
    told = [addr for addr in own if scope(addr) is not Scope.LOOPBACK] or own
    if scope(point) is Scope.PUBLIC:
        told = [addr for addr in told if scope(addr) not in _INSIDE]
        if not told:
            raise NothingToRegister("all addresses of this host are private, and the point is on the internet")
    return tuple(told[:MAX_ADDRS])


def _found(item: Register, namespace: str) -> FoundPeer | None:
    if namespace and item.namespace != namespace:
        return None
    try:
        record, standard = open_record(item.record)
    except DecodeError:
        return None
    return FoundPeer(
        namespace=item.namespace,
        peer=record.peer,
        addrs=record.addrs,
        ttl=float(min(_MAX_TTL, item.ttl or 0)),
        record=item.record,
        standard=standard,
    )


def _check(namespace: str) -> None:
    if not 0 < len(namespace.encode()) <= MAX_NAMESPACE:
        raise ValueError(f"a namespace must have 1 to {MAX_NAMESPACE} bytes")


# --- for as long as somebody wants it ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousClientConfig:
    """How often a :class:`Rendezvous` asks. Times are in seconds."""

    timeout: float = TIMEOUT
    """For one question and its answer."""
    ttl: int | None = None
    """How long a registration is to live; None leaves it to the point."""
    renew_at: float = 0.8
    """The part of its life after which a registration is renewed."""
    min_renewal: float = 60.0
    """The least between two renewals, whatever a point says about lives."""
    first_interval: float = 1.0
    """Between the first two questions for what is new; doubled until it is ``interval``."""
    interval: float = 60.0
    """Between two questions for what is new, in the long run."""
    pages: int = 16
    """Answers read in a row; there may be more the next time. A point that never comes to an end is no loop."""
    first_delay: float = 5.0
    """After the first failure; doubled with each one that follows."""
    max_delay: float = 300.0
    """The longest of these."""
    farewell: float = 2.0
    """For taking registrations back."""
    buffer: int = 64
    """Peers found that wait to be taken; while it is full nobody is asked."""

    def __post_init__(self) -> None:
        if (
            min(self.timeout, self.first_interval, self.interval, self.min_renewal) <= 0
            or not 0 < self.first_delay <= self.max_delay
        ):
            raise ValueError("delays must be positive, and max_delay the largest")
        if not 0 < self.renew_at < 1 or self.farewell < 0 or self.pages < 1 or self.buffer < 0:
            raise ValueError("renew_at is a part of one, and the others must not be negative")


class Rendezvous(Service):
    """Lets others find this host at rendezvous points, and finds others there, for as long as it is wanted.

    What it finds goes into the peerstore and is published as :class:`~libp2p.events.PeerDiscovered`.

    Args:
        points: the rendezvous points: peers, or addresses that end in ``/p2p/<peer>``. All of them are used.
        config: how often.
        rng: the jitter.
        wall_clock: seconds since 1970, for the records.

    Attributes:
        points: those that were given.
    """

    def __init__(
        self,
        points: Iterable[Target],
        *,
        config: RendezvousClientConfig | None = None,
        rng: random.Random | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.points: tuple[Target, ...] = tuple(points)
        self._config = config or RendezvousClientConfig()
        self._rng = rng or random.Random()
        self._wall_clock = wall_clock
        self._host: Host | None = None

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Know the host, until cancelled."""
        self._host = host
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._host = None

    @asynccontextmanager
    async def advertise(self, namespace: str) -> AsyncIterator[None]:
        """Be found in ``namespace`` while the block is open.

        Registrations are made, renewed before they end and when this host's addresses change, and tried again when they
        fail, all in tasks of this block; entering it does not wait for them. They are taken back when it is left.

        Raises:
            RuntimeError: the service is not running.
            ValueError: the namespace is empty or too long.
        """
        host = self._running()
        _check(namespace)
        block = Block()
        async with open_unwrapping_nursery(block) as nursery:
            for point in self.points:
                nursery.start_soon(self._keep_registered, host, point, namespace)
            with block.watch():
                yield
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def find_peers(self, namespace: str) -> AsyncIterator[trio.abc.ReceiveChannel[PeerId]]:
        """Find peers in ``namespace`` while the block is open: first those that are there, then new ones.

        Yields:
            A channel of peers, whose addresses are in the peerstore. A peer comes again when it renews its
            registration, or is known to several points. This host is not among them.

        Raises:
            RuntimeError: the service is not running.
            ValueError: the namespace is empty or too long.
        """
        host = self._running()
        _check(namespace)
        sender, receiver = trio.open_memory_channel[PeerId](self._config.buffer)
        block = Block()
        async with sender, receiver, open_unwrapping_nursery(block) as nursery:
            for point in self.points:
                nursery.start_soon(self._keep_asking, host, point, namespace, sender)
            with block.watch():
                yield receiver
            nursery.cancel_scope.cancel()

    def _running(self) -> Host:
        if self._host is None:
            raise RuntimeError("the rendezvous service is not running: give it to open_host(services=[...])")
        return self._host

    # --- being found

    async def _keep_registered(self, host: Host, point: Target, namespace: str) -> None:
        config = self._config
        delays = _Delays(config, self._rng)
        registered = False
        try:
            with host.subscribe(ListenAddrsChanged) as changes:
                while True:
                    try:
                        ttl = await register(
                            host, point, namespace, ttl=config.ttl, timeout=config.timeout, wall_clock=self._wall_clock
                        )
                    except (Libp2pError, trio.BrokenResourceError):
                        pause = delays.next()
                    else:
                        registered = True
                        delays.reset()
                        pause = max(config.min_renewal, min(ttl, _MAX_TTL) * config.renew_at)
                    with trio.move_on_after(pause):
                        await changes.receive()
                        # Addresses come in groups, and a point is not to be asked for each.
                        await trio.sleep(config.first_delay)
        finally:
            if registered:
                with trio.CancelScope(shield=True), trio.move_on_after(config.farewell):
                    await self._say_farewell(host, point, namespace)

    async def _say_farewell(self, host: Host, point: Target, namespace: str) -> None:
        try:
            await unregister(host, point, namespace, timeout=self._config.timeout)
        except (Libp2pError, trio.BrokenResourceError):
            return  # it ends by itself

    # --- finding

    async def _keep_asking(
        self, host: Host, point: Target, namespace: str, sender: trio.MemorySendChannel[PeerId]
    ) -> None:
        config = self._config
        delays = _Delays(config, self._rng)
        interval = config.first_interval
        cookie = b""
        while True:
            try:
                cookie = await self._ask_for_new(host, point, namespace, cookie, sender)
            except RendezvousRefused as exc:
                # The point has been restarted, and has forgotten what it said.
                pause = 0.0 if exc.status == Status.INVALID_COOKIE and cookie else delays.next()
                cookie = b""
            except (Libp2pError, trio.BrokenResourceError) as exc:
                if isinstance(exc, trio.BrokenResourceError) and not isinstance(exc, Libp2pError):
                    return  # nobody takes what is found any more
                pause = delays.next()
            else:
                delays.reset()
                interval = min(config.interval, interval)
                pause = interval * self._rng.uniform(0.8, 1.2)
                interval *= 2
            await trio.sleep(pause)

    async def _ask_for_new(
        self, host: Host, point: Target, namespace: str, cookie: bytes, sender: trio.MemorySendChannel[PeerId]
    ) -> bytes:
        """Hand on what is newer than ``cookie``; returns the new one."""
        for _ in range(self._config.pages):
            answer = await discover(host, point, namespace, cookie=cookie, timeout=self._config.timeout)
            cookie = answer.cookie
            for found in answer.peers:
                if found.peer != host.local_peer and found.ttl > 0:
                    remember(host, found)
                    await sender.send(found.peer)
            if answer.complete:
                break
        return cookie


class _Delays:
    """How long to wait after a failure, and after the next."""

    def __init__(self, config: RendezvousClientConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._failures = 0

    def next(self) -> float:
        delay = min(self._config.max_delay, self._config.first_delay * 2.0 ** min(self._failures, 64))
        self._failures += 1
        return delay * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        self._failures = 0


def remember(host: Host, found: FoundPeer) -> None:
    """Put the addresses of ``found`` into the host's peerstore until its registration ends, and tell subscribers."""
    if found.standard:
        host.peerstore.add_envelope(found.record, ttl=found.ttl)
    host.peerstore.add_addrs(found.peer, found.addrs, ttl=found.ttl)
    host.publish(PeerDiscovered(peer=found.peer, addrs=found.addrs, source="rendezvous"))
