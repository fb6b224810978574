"""Case X1: cancellation at every scheduling point of everything a host does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from libp2p.abc import Stream
from libp2p.errors import DialError, Libp2pError
from libp2p.events import HolePunchEnded
from libp2p.host import HostConfig, RunningHost
from libp2p.protocols.dcutr import Dcutr
from libp2p.protocols.ping import Ping, ping
from libp2p.protocols.pubsub import Pubsub
from libp2p.protocols.relay import RelayClient, RelayServer
from libp2p.security.noise import Noise
from libp2p.security.plaintext import Plaintext
from libp2p.security.tls import Tls
from libp2p.swarm import SwarmConfig
from libp2p.testing import Hosts, Link, MemoryNetwork, memory_network, open_memory_host
from libp2p.testing.cut import Scenario, cut_everywhere
from tests.protocols.dcutr import walls
from tests.protocols.dcutr.walls import Pair, pair
from tests.protocols.relay.nodes import wall

pytestmark = [pytest.mark.bar_c, pytest.mark.limit(120)]

ECHO = "/echo/1"
BIG = 700_000
PUNCH_EVERY = 41
GONE = 30.0
"""Virtual seconds after which nothing may be left of what was cancelled."""


@dataclass
class _State:
    """Two hosts, and what handlers saw of streams.

    Attributes:
        whole: requests that ended in order.
        broken: requests that ended by a reset or with the connection.
    """

    network: MemoryNetwork
    hosts: Hosts
    nursery: trio.Nursery
    whole: list[bytes] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    live: int = 0

    async def echo(self, stream: Stream) -> None:
        self.live += 1
        try:
            request = b"".join([bytes(chunk) async for chunk in stream])
            self.whole.append(request)
            await stream.send_all(request)
        except (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self.broken.append(type(exc).__name__)
            raise
        finally:
            self.live -= 1


class _TwoHosts(Scenario[_State]):
    """Hosts without background services, so that the points are those of the scenario."""

    connected = True
    every = 1
    link: Link | None = None
    security = (Plaintext,)
    defaults: tuple[type[Ping], ...] = (Ping,)

    @asynccontextmanager
    async def setup(self) -> AsyncIterator[_State]:
        async with (
            memory_network(
                2, defaults=self.defaults, link=self.link, security=self.security,
                config=HostConfig(swarm=SwarmConfig(dial_timeout=10.0)),
                connect="full" if self.connected else "none",
            ) as hosts,
            trio.open_nursery() as nursery,
        ):  # fmt: skip
            state = _State(hosts.network, hosts, nursery)
            hosts[1].handle(ECHO, state.echo)
            yield state
            nursery.cancel_scope.cancel()

    async def check(self, state: _State) -> None:
        """Both sides agree about what connects them, and no stream or dial is left."""
        await trio.sleep(GONE)
        a, b, *_ = state.hosts
        assert len(a.connections(b.local_peer)) == len(b.connections(a.local_peer))
        assert state.live == 0
        for host in state.hosts:
            used = host.swarm.scopes.usage()
            left = {name: count for name, count in used.items() if count and "connections" not in name}
            assert not left, f"{left} still in use"
            for connection in host.connections():
                machine = connection.muxed.machine  # type: ignore[attr-defined]
                assert machine.stream_count == machine.buffered == 0
        # A request that the handler took for whole was whole.
        assert set(state.whole) <= self.requests

    requests: frozenset[bytes] = frozenset()


# --- start, stop ------------------------------------------------------------------------------------------------------


class _StartAndStop(_TwoHosts):
    """A host is opened and closed."""

    connected = False

    async def act(self, state: _State) -> None:
        async with open_memory_host(state.network, defaults=(Ping,), security=(Plaintext,)) as host:
            assert host.listen_addrs()

    async def check(self, state: _State) -> None:
        await trio.sleep(GONE)
        assert len(state.network.listening) == 2, "the two hosts'"
        assert not state.network.connections


class _StopWithConnections(_StartAndStop):
    """A host with connections and streams to others is closed."""

    async def act(self, state: _State) -> None:
        async with open_memory_host(state.network, defaults=(Ping,), security=(Plaintext,)) as host:
            for other in state.hosts:
                await host.connect(other.addrs[0])
            stream = await host.open_stream(state.hosts[1].local_peer, ECHO)
            await stream.send_all(b"unfinished")

    async def check(self, state: _State) -> None:
        await super().check(state)
        assert state.live == 0
        assert not state.whole, "an unfinished request was taken for whole"
        assert not state.hosts[0].connections()


# --- dial, accept, upgrade --------------------------------------------------------------------------------------------


class _Dial(_TwoHosts):
    """Over Noise, with the muxer agreed early."""

    connected = False
    security = (Plaintext,)

    async def act(self, state: _State) -> None:
        a, b = state.hosts
        connection = await a.connect(b.addrs[0])
        assert connection.peer == b.local_peer


class _Accept(_TwoHosts):
    """The host that is dialled goes away at any moment of it; the dialer's error is typed."""

    connected = False
    link = Link(latency=0.01)

    async def act(self, state: _State) -> None:
        done = trio.Event()

        async def dial(target: RunningHost) -> None:
            try:
                connection = await state.hosts[0].connect(target.addrs[0])
                await connection.open_stream("/ipfs/ping/1.0.0")
            except Libp2pError:
                pass
            done.set()

        async with open_memory_host(state.network, defaults=(Ping,), security=(Plaintext,)) as host:
            state.nursery.start_soon(dial, host)
            await done.wait()

    async def check(self, state: _State) -> None:
        await super().check(state)
        assert not state.hosts[0].connections()
        assert not state.network.connections


class _Upgrade(_Dial):
    """Slowly, so that every step has its own points: plaintext, and the muxer by multistream."""

    link = Link(latency=0.05, buffer=2000)


class _UpgradeNoise(_Dial):
    """Noise with real keys."""

    link = Link(latency=0.05)
    security = (Noise,)  # type: ignore[assignment]

    @asynccontextmanager
    async def setup(self) -> AsyncIterator[_State]:
        async with (
            memory_network(2, defaults=(Ping,), link=self.link, security=self.security) as hosts,
            trio.open_nursery() as nursery,
        ):
            yield _State(hosts.network, hosts, nursery)
            nursery.cancel_scope.cancel()


class _UpgradeTls(_UpgradeNoise):
    """TLS with real keys."""

    security = (Tls,)  # type: ignore[assignment]


class _SharedDial(_Dial):
    """Two callers want the same peer, one of them is cancelled: the other gets its connection."""

    link = Link(latency=0.05)

    async def act(self, state: _State) -> None:
        a, b = state.hosts
        results: list[object] = []

        async def other_caller() -> None:
            try:
                results.append(await a.connect(b.addrs[0]))
            except DialError as exc:
                results.append(exc)

        self.results = results
        state.nursery.start_soon(other_caller)
        await a.connect(b.addrs[0])

    async def check(self, state: _State) -> None:
        await super().check(state)
        assert len(self.results) == 1
        assert not isinstance(self.results[0], Exception), self.results
        await state.hosts[0].disconnect(state.hosts[1].local_peer)
        await trio.sleep(1)


# --- open, read, write, close -----------------------------------------------------------------------------------------


class _Open(_TwoHosts):
    """A stream is negotiated and closed."""

    async def act(self, state: _State) -> None:
        a, b = state.hosts
        async with await a.open_stream(b.local_peer, "/nothing/1", ECHO):
            pass

    requests = frozenset((b"",))


class _OpenOptimistic(_Open):
    """The same when the peer is known to serve the protocol."""

    async def act(self, state: _State) -> None:
        a, b = state.hosts
        a.peerstore.set_protocols(b.local_peer, [ECHO])
        async with await a.open_stream(b.local_peer, ECHO) as stream:
            await stream.send_all(b"request")
            await stream.send_eof()
            assert await stream.receive_some() == b"request"

    requests = frozenset((b"request",))


class _Read(_TwoHosts):
    """Request and response; the response takes its time."""

    link = Link(latency=0.01, rate=5e6)
    requests = frozenset((bytes(BIG // 4),))

    async def act(self, state: _State) -> None:
        a, b = state.hosts
        async with await a.open_stream(b.local_peer, ECHO) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, bytes(BIG // 4))
            response = b"".join([bytes(chunk) async for chunk in stream])
            assert len(response) == BIG // 4


class _Write(_TwoHosts):
    """More than the window holds: half of it must never look whole."""

    link = Link(latency=0.005)
    requests = frozenset((bytes(BIG),))

    async def act(self, state: _State) -> None:
        a, b = state.hosts
        async with await a.open_stream(b.local_peer, ECHO) as stream:
            await _send(stream, bytes(BIG))


class _Close(_TwoHosts):
    """A connection with streams is closed, and made anew."""

    async def act(self, state: _State) -> None:
        a, b = state.hosts
        connection = await a.connect(b.addrs[0])
        stream = await connection.open_stream(ECHO)
        await stream.send_all(b"unfinished")
        await connection.aclose()

    async def check(self, state: _State) -> None:
        await trio.sleep(GONE)
        for stream in [stream for conn in state.hosts[0].connections() for stream in conn.muxed.streams]:  # type: ignore[attr-defined]
            stream.reset()  # the scenario's own, when it was cut before the close
        await super().check(state)
        assert not state.whole


class _CloseStream(_Open):
    """A stream's own close and half-close."""

    requests = frozenset((b"x", b""))

    async def act(self, state: _State) -> None:
        a, b = state.hosts
        stream = await a.open_stream(b.local_peer, ECHO)
        try:
            await stream.send_all(b"x")
            await stream.send_eof()
        finally:
            # When cancelled, this closes without waiting; what was sent may then look whole, as it is.
            await stream.aclose()


class _Ping(_TwoHosts):
    """A protocol of the library, session and all."""

    async def act(self, state: _State) -> None:
        await ping(state.hosts[0], state.hosts[1].local_peer, count=2)


# --- publish ----------------------------------------------------------------------------------------------------------


class _Publish(_TwoHosts):
    """Subscribe, publish to a peer, and get its message."""

    @asynccontextmanager
    async def setup(self) -> AsyncIterator[_State]:
        self.pubsubs: list[Pubsub] = []

        def service() -> Pubsub:
            self.pubsubs.append(Pubsub())
            return self.pubsubs[-1]

        async with (
            memory_network(2, services=[service], security=(Plaintext,), connect="full") as hosts,
            trio.open_nursery() as nursery,
        ):
            state = _State(hosts.network, hosts, nursery)
            await trio.sleep(1)
            nursery.start_soon(self._answer)
            await self.pubsubs[0].wait_for_peers("questions")
            yield state
            nursery.cancel_scope.cancel()

    async def _answer(self) -> None:
        async with self.pubsubs[1].subscribe("questions") as questions:
            async for question in questions:
                await self.pubsubs[1].publish("answers", b"answer to " + question.data)

    async def act(self, state: _State) -> None:
        async with self.pubsubs[0].subscribe("answers") as answers:
            await self.pubsubs[1].wait_for_peers("answers")
            await self.pubsubs[0].publish("questions", b"question")
            assert (await answers.receive()).data == b"answer to question"

    async def check(self, state: _State) -> None:
        await trio.sleep(GONE)
        assert not self.pubsubs[0].topics()
        assert not self.pubsubs[1].peers("answers"), "the peer was not told that the subscription ended"
        assert len(state.hosts[0].connections()) == 1


# --- relays, hole punching --------------------------------------------------------------------------------------------


class _Relayed(_TwoHosts):
    """A third host is a relay, and the second listens through it."""

    reserved = True

    @asynccontextmanager
    async def setup(self) -> AsyncIterator[_State]:
        services = [lambda: RelayServer(clock=wall), lambda: RelayClient(clock=wall)]
        async with (
            memory_network(3, defaults=(Ping,), services=services, security=(Plaintext,)) as hosts,
            trio.open_nursery() as nursery,
        ):
            state = _State(hosts.network, hosts, nursery)
            hosts[1].handle(ECHO, state.echo, allow_limited=True)
            self.way = f"{hosts[2].addrs[0]}/p2p-circuit"
            if self.reserved:
                await hosts[1].listen(self.way)
            yield state
            nursery.cancel_scope.cancel()


class _Reserve(_Relayed):
    """A reservation is asked for, and given up with the listener."""

    reserved = False
    every = 2

    async def act(self, state: _State) -> None:
        host = state.hosts[1]
        await host.listen(self.way)
        await host.swarm.stop_listening()


class _Circuit(_Relayed):
    """A circuit is dialled and used."""

    every = 5
    requests = frozenset((b"request",))

    async def act(self, state: _State) -> None:
        a, b, _ = state.hosts
        way = f"{self.way}/p2p/{b.local_peer}"
        async with await a.open_stream(way, ECHO, allow_limited=True) as stream:
            await stream.send_all(b"request")
            await stream.send_eof()
            assert await stream.receive_some() == b"request"

    async def check(self, state: _State) -> None:
        a, b, _ = state.hosts
        await trio.sleep(GONE)  # what is cut may have been complete but for its caller
        await a.disconnect(b.local_peer)
        await super().check(state)


class _Punch(Scenario[Pair]):
    """A host that is connected to by a hole punch goes away at any moment of it."""

    @asynccontextmanager
    async def setup(self) -> AsyncIterator[Pair]:
        self.ips = iter(("5.0.0.2", "5.0.0.3"))
        async with pair(ben=Dcutr, latency=0.02) as net:
            yield net

    async def act(self, net: Pair) -> None:
        ip = next(self.ips)
        async with walls.host(net.network, net.walls, ip, ip, RelayClient(clock=wall), Dcutr()) as cleo:
            net.walls.behind.add(ip)
            with cleo.subscribe(HolePunchEnded) as ended:
                await cleo.connect(net.circuit)
                assert (await ended.receive()).connection is not None

    async def check(self, net: Pair) -> None:
        await trio.sleep(GONE)
        assert [connection.peer for connection in net.ben.connections()] == [net.relay.local_peer]
        assert not net.walls.open


async def _send(stream: Stream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


SCENARIOS: dict[type[_TwoHosts], tuple[int, int]] = {
    _StartAndStop: (2, 30),
    _StopWithConnections: (1, 90),
    _Dial: (2, 40),
    _Accept: (1, 55),
    _Upgrade: (2, 55),
    _UpgradeNoise: (2, 30),
    _UpgradeTls: (2, 40),
    _SharedDial: (1, 28),
    _Open: (3, 25),
    _OpenOptimistic: (3, 25),
    _Read: (1, 45),
    _Write: (1, 28),
    _Close: (3, 40),
    _CloseStream: (3, 20),
    _Ping: (3, 35),
    _Publish: (3, 35),
    _Reserve: (1, 25),
    _Circuit: (1, 28),
}
"""With how many orders of tasks each is run, and how many cuts that must give at least."""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__.strip("_"))
def test_X1_cancelled_at_every_point(scenario, record_property) -> None:
    """No task, file, stream or count is left, the peer sees a reset or an end, and the next try works."""
    seeds, at_least = SCENARIOS[scenario]
    cuts = sum(cut_everywhere(scenario(), seed=seed, every=scenario.every) for seed in range(seeds))
    record_property("cuts", cuts)
    print(scenario.__name__, cuts)
    assert cuts >= at_least


def test_X1_a_hole_punch_is_cut() -> None:
    """At some of its points, of which there are many."""
    assert cut_everywhere(_Punch(), every=PUNCH_EVERY) >= 10


def test_X1_there_are_enough_cuts() -> None:
    """The bar asks for 500 in all."""
    assert sum(at_least for _, at_least in SCENARIOS.values()) >= 500
