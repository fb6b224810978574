"""The client: finds out which of this host's addresses others can dial.

Theory of operation. What may be an address of ours (:attr:`Host.candidate_addrs`) is tried by connected peers that
serve AutoNAT, one at a time: ``_schedule`` says who tries what, ``_reachability`` what follows from the answers, and
:meth:`Host.judge` has the host announce accordingly. Servers of version 2 dial one address and bring our nonce to it,
which is proof; those of version 1 are asked only about all addresses at once, and are believed when many agree.

Source: libp2p/specs autonat/autonat-v1, autonat/autonat-v2.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import trio
from multiaddr import Multiaddr
from trio.lowlevel import ParkingLot

from ...abc import Connection, Direction, Host, ProtocolId, Service, Stream, StreamHandler
from ...addressing import Scope, ip_group, is_relay, scope, split_peer
from ...errors import Libp2pError, RemoteProtocolError
from ...events import (
    ConnectionEnded,
    ListenAddrsChanged,
    PeerIdentified,
    Reachability,
    ReachabilityChanged,
)
from ...metrics import Kind, LabelValues, Metric, Tally, Value, gauge
from ...peer_id import PeerId
from ._codec import (
    DATA_CHUNK,
    DIAL_BACK_OK,
    Dial,
    DialData,
    DialDataRequest,
    DialRequest,
    DialResponse,
    DialResult,
    DialStatus,
    ResponseStatus,
    Status1,
    decode,
    decode_dial_back,
    decode_result,
    encode,
    encode_dial,
)
from ._errors import AutoNatRefused
from ._exchange import AUTONAT, DIAL_BACK, DIAL_REQUEST, Messages
from ._reachability import ReachabilityConfig, Verdict, Verdicts, Voice
from ._schedule import Ask, Schedule, ScheduleConfig, Server
from ._shape import ip_version, same_listener, transport_name

ANSWER_TIMEOUT = 30.0
"""Seconds for an answer: servers tell a failure when the time for the dial is over (go ``requestTimeout``)."""
DIAL_BACK_TIMEOUT = 5.0
"""Seconds for the message of a dial back, and to wait for one that the server says it has made (go)."""
MAX_DATA = 100_000
"""Most bytes paid for one dial (specs autonat-v2)."""
MAX_DIALS_AT_ONCE = 16
"""Addresses in one request of version 1 (go)."""
_SETTLE = 1.0
"""Seconds for more news of a kind: a crowd that connects at once is looked at once (ours)."""
_LOST = (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
_NUMBERS = {Reachability.UNKNOWN: 0, Reachability.PUBLIC: 1, Reachability.PRIVATE: 2}
"""go's numbers of them, in metrics."""
_NAMES = {
    Reachability.PUBLIC: "reachable",
    Reachability.PRIVATE: "unreachable",
    Reachability.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoNatConfig:
    """How a host finds out what can be reached.

    Attributes:
        reachability: how many must agree.
        schedule: how often to ask.
        allow_private: also try private and loopback addresses, and ask peers there; for a laboratory.
    """

    reachability: ReachabilityConfig = field(default_factory=ReachabilityConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one request.

    Attributes:
        addr: the address that was tried; None when the server did not say.
        voice: what the server says of it.
    """

    addr: Multiaddr | None
    voice: Voice


@dataclass(eq=False, slots=True)
class _Expected:
    """A dial back that was asked for."""

    addr: Multiaddr
    came: trio.Event = field(default_factory=trio.Event)


class AutoNat(Service):
    """Finds out whether this host can be dialled, by asking connected peers to try.

    What it finds shows in :attr:`reachability`, as :class:`~libp2p.events.ReachabilityChanged`, and in what the host
    announces: addresses that work come first, those that do not are left out.

    Args:
        config: how many must agree, and how often to ask.
        nonces: makes numbers of 64 bits that nobody can guess.
    """

    def __init__(
        self, config: AutoNatConfig | None = None, *, nonces: Callable[[], int] = lambda: secrets.randbits(64)
    ) -> None:
        self._config = config or AutoNatConfig()
        self._nonces = nonces
        self._verdicts = Verdicts(self._config.reachability)
        self._schedule = Schedule(self._config.schedule)
        self._expected: dict[int, _Expected] = {}
        self._news = ParkingLot()
        self._host: Host | None = None
        self._current = Verdict()
        self._addrs: dict[Multiaddr, Reachability] = {}
        self._answers_1 = Tally()
        self._asked_2 = Tally()
        self._answers_2 = Tally()

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """Dial back."""
        return {DIAL_BACK: self._take_dial_back}

    @property
    def reachability(self) -> Reachability:
        """Whether this host can be dialled."""
        return self._current.reachability

    @property
    def confidence(self) -> int:
        """How many neighbourhoods of the network say so; 0 while it is unknown."""
        return self._current.confidence

    @property
    def addrs(self) -> Mapping[Multiaddr, Reachability]:
        """What is known of each address that is being tried."""
        return dict(self._addrs)

    # --- life

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask, again and again, until cancelled."""
        self._host = host
        try:
            with host.subscribe(PeerIdentified, ConnectionEnded, ListenAddrsChanged) as events:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ask_around, host)
                    task_status.started()
                    async for _ in events:
                        self._news.unpark_all()
        finally:
            self._host = None
            self._expected.clear()

    async def _ask_around(self, host: Host) -> None:
        while True:
            self._conclude(host)
            now = trio.current_time()
            ask, again = self._next(host, now)
            if ask is None:
                # Now and then without news: voices end, and conclusions that were held back become due.
                with trio.CancelScope(deadline=min(again, now + self._config.schedule.retry)):
                    await self._news.park()
                await trio.sleep(_SETTLE)
                continue
            tried = await self._ask(host, ask)
            now = trio.current_time()
            if tried is None:
                self._schedule.refused(ask, now)
                continue
            self._schedule.answered(ask, now, worked=any(found.voice is not Voice.DENIAL for found in tried))
            for found in tried:
                server = ask.server
                self._verdicts.add(found.addr, found.voice, server=server.peer, group=server.group, now=now)

    def _conclude(self, host: Host) -> None:
        now = trio.current_time()
        addrs = self._candidates(host)
        found = {addr: self._verdicts.of(addr, now).reachability for addr in addrs}
        current = self._verdicts.overall(addrs, now)
        changed = (found, current.reachability) != (self._addrs, self._current.reachability)
        self._addrs, self._current = found, current
        if changed:
            host.judge(found)
            host.publish(ReachabilityChanged(current.reachability, dict(found)))

    def _candidates(self, host: Host) -> list[Multiaddr]:
        wanted = [addr for addr in host.candidate_addrs if self._is_asked_about(addr)]
        return wanted[: self._config.reachability.addrs]

    def _is_asked_about(self, addr: Multiaddr) -> bool:
        return scope(addr) is Scope.PUBLIC or (self._config.allow_private and scope(addr) is not Scope.UNSPECIFIED)

    def _next(self, host: Host, now: float) -> tuple[Ask | None, float]:
        """Version 2 before version 1, which cannot prove anything."""
        proving, claiming = self._servers(host)
        ask, again = self._schedule.next({**self._addrs}, proving, now)
        if ask is None:
            ask, again_1 = self._schedule.next({None: self._current.reachability}, claiming, now)
            again = min(again, again_1)
        return ask, again

    def _servers(self, host: Host) -> tuple[list[Server], list[Server]]:
        """Peers to prove something by version 2, and those who can but claim something by version 1.

        While there is no address to try, only the latter can help: the asker's is the one that they see.
        """
        proving: dict[PeerId, Server] = {}
        claiming: dict[PeerId, Server] = {}
        for connection in host.connections():
            peer, seen = connection.peer, connection.remote_addr
            protocols = host.peerstore.protocols(peer)
            # Who is not outside cannot tell how it looks from there.
            if is_relay(seen) or not (self._config.allow_private or scope(seen) is Scope.PUBLIC):
                continue
            server = Server(peer, ip_group(seen) if scope(seen) is Scope.PUBLIC else bytes(peer))
            if DIAL_REQUEST in protocols and self._addrs:
                proving.setdefault(peer, server)
            elif AUTONAT in protocols:
                claiming.setdefault(peer, server)
        return list(proving.values()), list(claiming.values())

    # --- asking

    async def _ask(self, host: Host, ask: Ask) -> Sequence[Tried] | None:
        """What the server says; None when it does not serve us now."""
        connection = next((conn for conn in host.connections(ask.server.peer) if not is_relay(conn.remote_addr)), None)
        if connection is None:
            return None
        try:
            with trio.fail_after(ANSWER_TIMEOUT):
                if ask.addr is not None:
                    tried = await self._ask_2(connection, ask.addr)
                    return () if tried is None else (tried,)
                return await self._ask_1(host, connection)
        except _LOST:
            return None

    async def check(self, host: Host, server: PeerId, addr: Multiaddr) -> Tried | None:
        """Have ``server`` try one address now, by version 2.

        Returns:
            What it says; None when it says something that means nothing.

        Raises:
            AutoNatRefused: it does not try.
            RemoteProtocolError: its answer breaks the rules.
            trio.TooSlowError: there is none within :data:`ANSWER_TIMEOUT` seconds.
            DialError, NegotiationError, LimitExceeded: no stream could be opened.
            StreamReset, ConnectionClosed: the stream ended before the answer was complete.
        """
        with trio.fail_after(ANSWER_TIMEOUT):
            return await self._ask_2(await host.connect(server), addr)

    async def _ask_2(self, connection: Connection, addr: Multiaddr) -> Tried | None:
        nonce = self._nonces()
        expected = self._expected[nonce] = _Expected(addr)
        outcome = "failure"
        try:
            async with await connection.open_stream(DIAL_REQUEST) as stream:
                messages = Messages(stream)
                await messages.send(encode(DialRequest(addrs=(addr,), nonce=nonce)))
                answer = await messages.read(decode)
                if isinstance(answer, DialDataRequest):
                    await _pay(messages, answer)
                    answer = await messages.read(decode)
            if not isinstance(answer, DialResponse):
                raise RemoteProtocolError("an AutoNAT server answered with something else")
            outcome = "success"
            return await self._verdict_of(connection.peer, answer, expected)
        finally:
            del self._expected[nonce]
            self._asked_2.add(outcome)

    async def _verdict_of(self, server: PeerId, answer: DialResponse, expected: _Expected) -> Tried | None:
        refused = answer.status == ResponseStatus.E_DIAL_REFUSED
        if answer.status != ResponseStatus.OK:
            self._count_2(expected.addr, refused, Reachability.UNKNOWN)
            raise AutoNatRefused(server, answer.status)
        if answer.index != 0:
            raise RemoteProtocolError("an AutoNAT server speaks of an address that was not in the request")
        if answer.dial == DialStatus.OK:
            # It may be on its way: it came by another connection.
            with trio.move_on_after(DIAL_BACK_TIMEOUT):
                await expected.came.wait()
        voice = None
        if expected.came.is_set():
            voice = Voice.PROOF  # whatever the server says of it
        elif answer.dial == DialStatus.E_DIAL_ERROR:
            voice = Voice.DENIAL
        found = {Voice.PROOF: Reachability.PUBLIC, Voice.DENIAL: Reachability.PRIVATE}
        self._count_2(expected.addr, refused, Reachability.UNKNOWN if voice is None else found[voice])
        return None if voice is None else Tried(expected.addr, voice)

    def _count_2(self, addr: Multiaddr, refused: bool, found: Reachability) -> None:
        self._answers_2.add(ip_version(addr), transport_name(addr), "1", str(refused).lower(), found.value)

    async def _ask_1(self, host: Host, connection: Connection) -> Sequence[Tried]:
        family = ip_version(connection.remote_addr)
        own = [addr for addr in host.candidate_addrs if ip_version(addr) == family]
        tested = [addr for addr in own if self._is_asked_about(addr)]
        async with await connection.open_stream(AUTONAT) as stream:
            messages = Messages(stream)
            # Where only the port is ours, the server knows the rest: it is where it sees us.
            dial = Dial(peer=host.local_peer, addrs=tuple((tested or own)[:MAX_DIALS_AT_ONCE]))
            await messages.send(encode_dial(dial))
            result = await messages.read(decode_result)
        self._answers_1.add(_status_name(result.status))
        return _voices_1(connection.peer, result, tested)

    # --- being dialled

    async def _take_dial_back(self, stream: Stream) -> None:
        messages, connection = Messages(stream), stream.connection
        with trio.fail_after(DIAL_BACK_TIMEOUT):
            expected = self._expected.get(await messages.read(decode_dial_back))
            if expected is None or not _is_dialled(connection, expected.addr):
                return stream.reset()
            expected.came.set()
            await messages.send(DIAL_BACK_OK)

    # ---

    def measure(self) -> Iterable[Metric]:
        """What was asked and found, under the names of go-libp2p's dashboards."""
        yield gauge("libp2p_autonat_reachability_status", "0 unknown, 1 public, 2 private", _NUMBERS[self.reachability])
        yield gauge("libp2p_autonat_reachability_status_confidence", "How many say so", self.confidence)
        yield self._answers_1.metric(
            "libp2p_autonat_received_dial_response_total", "Answers by AutoNAT 1", "response_status"
        )
        yield self._asked_2.metric("libp2p_autonatv2_client_requests_total", "Requests by AutoNAT 2", "outcome")
        yield self._answers_2.metric(
            "libp2p_autonatv2_client_requests_completed_total",
            "Answers by AutoNAT 2",
            "ip_or_dns_version",
            "transport",
            "addr_count",
            "dial_refused",
            "reachability",
        )
        for kind, name in _NAMES.items():
            counts: Counter[LabelValues] = Counter(
                (ip_version(addr), transport_name(addr)) for addr, found in self._addrs.items() if found is kind
            )
            help_text = f"Addresses of this host that are {name}"
            yield Metric(
                f"libp2p_host_addrs_{name}",
                help_text,
                Kind.GAUGE,
                dict[LabelValues, Value](counts),
                ("ipv", "transport"),
            )


async def _pay(messages: Messages, wanted: DialDataRequest) -> None:
    if wanted.index != 0 or wanted.size > MAX_DATA:
        raise RemoteProtocolError(f"an AutoNAT server wants {wanted.size} bytes for address {wanted.index}")
    for sent in range(0, wanted.size, DATA_CHUNK):
        await messages.send(encode(DialData(size=min(DATA_CHUNK, wanted.size - sent))))


def _voices_1(server: PeerId, result: DialResult, tested: Sequence[Multiaddr]) -> Sequence[Tried]:
    """What an answer of version 1 says of which address."""
    if result.status == Status1.E_DIAL_ERROR:
        return [Tried(addr, Voice.DENIAL) for addr in tested] or [Tried(None, Voice.DENIAL)]
    if result.status == Status1.OK:
        if not tested:
            return [Tried(None, Voice.CLAIM)]
        # rust has our id behind it.
        addr = None if result.addr is None else split_peer(result.addr)[0]
        return [Tried(addr, Voice.CLAIM)] if addr in tested else ()
    raise AutoNatRefused(server, result.status)


def _is_dialled(connection: Connection, addr: Multiaddr) -> bool:
    """Whether ``connection`` may be what somebody made who was asked to dial ``addr`` from outside.

    Somebody on our own network who learnt the nonce from the server could dial us there, and prove nothing.
    """
    seen = connection.remote_addr
    return (
        connection.direction is Direction.INBOUND
        and not is_relay(seen)
        and (scope(addr) is not Scope.PUBLIC or scope(seen) is Scope.PUBLIC)
        and same_listener(connection.local_addr, addr)
    )


def _status_name(status: int) -> str:
    try:
        return Status1(status).name
    except ValueError:
        return "unknown"
