"""Accept loops: admission, eviction, deadlines, and errors of the operating system. Cases T1, T4, X2."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest
import trio
from multiaddr import Multiaddr

from libp2p.abc import Direction, Listener, RawConnection, SecureMuxedConnection
from libp2p.errors import DialError, TransportError
from libp2p.events import ListenerClosed
from libp2p.host import HostConfig, RunningHost
from libp2p.peer_id import PeerId
from libp2p.swarm import BlockList, Gater, LimitsConfig, SwarmConfig
from libp2p.swarm._listening import EXHAUSTED, EXHAUSTED_PAUSE
from libp2p.testing import Memory, MemoryNetwork, memory_network, open_memory_host
from libp2p.testing.flaky import Fault, Flaky, Plan, WrappingTransport
from libp2p.testing.raw import HEADER, RawPeer, line, yamux
from tests.protocols.waiting import settled, until
from tests.swarm.nodes import Below, open_node


async def dial(host: RunningHost, name: str, *, ip: str | None = None) -> RawConnection:
    """A raw connection to ``host`` from a node of its own."""
    network = host.swarm._transports[0].network  # type: ignore[attr-defined]
    return await Memory(network, name, ip=ip).dial(host.listen_addrs()[0], peer=None)


async def ended(raw: RawConnection) -> bool:
    """Whether the host has ended ``raw``, whatever it said before."""
    with trio.move_on_after(0.001):
        try:
            while await raw.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        return True
    return False


# --- addresses --------------------------------------------------------------------------------------------------------


async def test_listening_where_nobody_can() -> None:
    async with memory_network(2, defaults=()) as (a, b):
        with pytest.raises(TransportError, match="in use"):
            await a.listen(b.listen_addrs()[0])
        with pytest.raises(TransportError, match="Quic is not among"):
            await a.listen("/ip4/127.0.0.1/udp/0/quic-v1")
        assert len(a.listen_addrs()) == 1


async def test_one_more_address() -> None:
    async with memory_network(2, defaults=()) as (a, b):
        [addr] = await a.listen("/memory/0")
        assert addr in a.listen_addrs() and len(a.addrs) == 2
        assert (await b.connect(addr)).peer == a.local_peer


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dribble", [False, True])
async def test_t1_the_deadline_is_absolute(dribble) -> None:
    """No byte extends it."""
    async with memory_network(1, defaults=()) as (a,):
        raw = await dial(a, "slow")
        started = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in HEADER + line("/noise") + bytes(1000):
                    try:
                        await raw.stream.send_all(bytes((byte,)))
                    except trio.BrokenResourceError:
                        return
                    await trio.sleep(0.7)

            if dribble:
                nursery.start_soon(drip)
            with pytest.raises(trio.BrokenResourceError):
                while await raw.stream.receive_some():
                    pass
                raise trio.BrokenResourceError
            assert trio.current_time() - started == pytest.approx(15, abs=0.01)
            nursery.cancel_scope.cancel()
        await settled()
        assert not any(a.swarm.scopes.usage().values())
        await raw.stream.aclose()


# --- admission --------------------------------------------------------------------------------------------------------


async def test_t1_who_has_come_least_far_makes_room() -> None:
    config = HostConfig(swarm=SwarmConfig(limits=LimitsConfig(pending_inbound=3)))
    async with memory_network(2, defaults=(), config=config) as (a, b):
        busy = await dial(a, "busy")
        await busy.stream.send_all(HEADER + line("/noise"))
        silent = [await dial(a, f"silent-{number}") for number in range(2)]
        await trio.sleep(1)
        # Young connections are spared, so somebody who comes now must wait for a moment; an honest dialler succeeds.
        await b.connect(a.addrs[0])
        await until(a.connections)
        assert [await ended(raw) for raw in (busy, *silent)] == [False, True, False]
        assert a.swarm.scopes.refusals()["pending_inbound"]
        for raw in (busy, *silent):
            await trio.aclose_forcefully(raw.stream)


async def test_when_all_pending_ones_are_young_the_newcomer_is_refused() -> None:
    config = HostConfig(swarm=SwarmConfig(limits=LimitsConfig(pending_inbound=2)))
    async with memory_network(1, defaults=(), config=config) as (a,):
        raws = [await dial(a, f"silent-{number}") for number in range(3)]
        await settled()
        assert [await ended(raw) for raw in raws] == [False, False, True]
        for raw in raws:
            await trio.aclose_forcefully(raw.stream)


async def test_connections_per_address() -> None:
    async with memory_network(1, defaults=(), ips=("10.0.0.1",)) as hosts:
        node = Memory(hosts.network, "many", ip="10.0.0.9")
        raws = [await node.dial(hosts[0].listen_addrs()[0], peer=None) for _ in range(9)]
        await settled()
        assert [await ended(raw) for raw in raws] == [False] * 8 + [True]
        for raw in raws:
            await trio.aclose_forcefully(raw.stream)


async def test_connections_per_peer() -> None:
    """The ninth is told why, and the others do not notice."""
    async with memory_network(2, defaults=()) as (a, b):
        for _ in range(8):
            await b.connect(a.listen_addrs()[0])  # no peer id: not shared
        await until(lambda: len(a.connections()) == 8)
        with pytest.raises(DialError, match="connections_per_peer"):
            await b.connect(a.listen_addrs()[0])
        await settled()
        assert len(a.connections()) == len(b.connections()) == 8


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("hook", ["accept", "secured"])
async def test_the_gater_of_the_listener(hook, broken, expected_bugs) -> None:
    class Picky(Gater):
        pass

    def refuse(*args: object) -> bool:
        if broken:
            raise RuntimeError("a bug of the application's")
        return False

    setattr(Picky, hook, staticmethod(refuse))
    network = MemoryNetwork()
    async with open_node(network, "a", gater=Picky()) as a, open_node(network, "b") as b:
        try:
            await b.connect(a.addrs[0])
        except DialError:
            assert hook == "accept"
        await trio.sleep(1)
        assert not a.connections() and not b.connections() and not network.connections
        assert bool(expected_bugs) is broken


async def test_a_block_list_sees_where_a_connection_comes_from() -> None:
    network = MemoryNetwork()
    seen = []

    class List(BlockList):
        def secured(self, direction: Direction, peer: PeerId, addr: Multiaddr) -> bool:
            seen.append((direction, peer))
            return super().secured(direction, peer, addr)

    async with open_memory_host(network, ip="10.0.0.1", defaults=(), gater=List(networks=["10.0.0.9"])) as a:
        async with open_memory_host(network, ip="10.0.0.9", defaults=()) as blocked:
            with pytest.raises(DialError):
                await blocked.connect(a.addrs[0])
        async with open_memory_host(network, ip="10.0.0.8", defaults=()) as other:
            await other.connect(a.addrs[0])
            await until(a.connections)
            assert seen == [(Direction.INBOUND, other.local_peer)]


# --- what strangers send ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", [False, True])
async def test_nonsense_right_behind_the_muxer_agreement(refused) -> None:
    """Of a peer that is refused at that moment too: it must not end the host."""

    class Strict(Gater):
        def secured(self, direction: Direction, peer: PeerId, addr: Multiaddr) -> bool:
            return not refused

    network = MemoryNetwork()
    async with open_node(network, "a", gater=Strict()) as a:
        raw = await dial(a, "raw")
        peer = RawPeer(raw.stream)
        assert await peer.propose("/noise") == "/noise"
        await peer.handshake()
        await peer.send(HEADER + line("/yamux/1.0.0") + b"\xff" * 100)
        await settled()
        assert await ended(raw)
        assert not a.connections()
        assert a.swarm.scopes.usage()["connections"] == 0
        await trio.aclose_forcefully(raw.stream)


async def test_streams_right_behind_the_agreement_of_a_refused_peer() -> None:
    network = MemoryNetwork()
    async with open_node(network, "a", gater=BlockList()) as a:
        assert isinstance(a.swarm._dialing._gater, Gater)
        raw = await dial(a, "raw")
        peer = RawPeer(raw.stream)
        a.swarm._gater.secured = lambda *args: False  # type: ignore[method-assign]
        assert await peer.propose("/noise") == "/noise"
        await peer.handshake()
        await peer.send(HEADER + line("/yamux/1.0.0") + yamux(0, 1, 1, b"hello"))
        await settled()
        assert await ended(raw)
        await trio.aclose_forcefully(raw.stream)


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("at", range(1, 7))
async def test_x2_a_fault_while_accepting(fault, at, expected_bugs) -> None:
    network = MemoryNetwork()
    plan = Plan(fault, at)

    def wrap(transport):
        return WrappingTransport(transport, lambda stream: Flaky(stream, plan))

    async with open_node(network, "a", wrap=wrap) as a, open_node(network, "b") as b:
        try:
            await b.connect(a.addrs[0])
        except DialError:
            pass
        await settled()
        await b.disconnect(a.local_peer)
        plan.disarm()  # the last of these steps may not have come
        await b.connect(a.addrs[0])
        await until(lambda: len(a.connections()) == 1)


# --- what the operating system says -----------------------------------------------------------------------------------


class Troubled(Listener):
    """A listener whose ``accept`` fails when told to."""

    def __init__(self, below: Listener, troubles: list[OSError]) -> None:
        self._below = below
        self._troubles = troubles
        self.tried: list[float] = []

    @property
    def addresses(self) -> Sequence[Multiaddr]:
        return self._below.addresses

    async def accept(self) -> RawConnection | SecureMuxedConnection:
        self.tried.append(trio.current_time())
        if self._troubles:
            await trio.lowlevel.checkpoint()
            raise self._troubles.pop(0)
        return await self._below.accept()

    async def aclose(self) -> None:
        await self._below.aclose()


def troubled(troubles: list[OSError], listeners: list[Troubled]):
    class Transport(Below):
        async def listen(self, addr: Multiaddr) -> Listener:
            listeners.append(Troubled(await super().listen(addr), troubles))
            return listeners[-1]

    return Transport


@pytest.mark.parametrize("number", sorted(EXHAUSTED))
async def test_t4_exhaustion_passes(number) -> None:
    network = MemoryNetwork()
    listeners: list[Troubled] = []
    wrap = troubled([OSError(number, "too much")] * 5, listeners)
    async with open_node(network, "a", wrap=wrap) as a, open_node(network, "b") as b:
        started = trio.current_time()
        await b.connect(a.addrs[0])
        assert trio.current_time() - started <= 5 * EXHAUSTED_PAUSE + 0.01
        assert len(listeners[0].tried) == 7  # not a busy loop


async def test_any_other_error_closes_that_listener_only() -> None:
    network = MemoryNetwork()
    troubles: list[OSError] = []
    async with open_node(network, "a", wrap=troubled(troubles, []), listen=[]) as a, open_node(network, "b") as b:
        with a.subscribe(ListenerClosed) as events:
            [first] = await a.listen("/memory/0")
            await settled()
            troubles.append(OSError(errno.EBADF, "broken"))
            [second] = await a.listen("/memory/0")
            event = await events.receive()
            assert (event.addr, event.reason) == (second, "[Errno 9] broken")
        await settled()
        assert list(a.listen_addrs()) == [first]
        assert (await b.connect(first)).peer == a.local_peer
        assert second not in network.listening


async def test_nothing_can_be_opened_on_a_host_that_has_ended() -> None:
    network = MemoryNetwork()
    async with open_node(network, "a") as a, open_node(network, "b") as b:
        addr, peer = b.addrs[0], b.local_peer
    with pytest.raises(RuntimeError, match="not running"):
        await a.listen("/memory/77")
    with pytest.raises(RuntimeError, match="not running"):
        await a.connect(addr)
    with pytest.raises(RuntimeError, match="not running"):
        await a.open_stream(peer, "/x")
    assert not network.listening and not network.connections
