"""Dials of whole swarms: shared, ranked, bounded, and with an error that says what was tried. Cases T9, T10, X2."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from multiaddr import Multiaddr

from libp2p.abc import Listener, RawConnection, SecureMuxedConnection, Transport
from libp2p.addressing import parse, with_peer
from libp2p.errors import (
    ConnectionDenied,
    DialError,
    DialTimeout,
    DialToSelf,
    LimitExceeded,
    NegotiationError,
    NoAddresses,
    PeerIdMismatch,
    ResolveError,
    TransportError,
    UpgradeError,
)
from libp2p.host import HostConfig, RunningHost
from libp2p.muxers.mplex import Mplex
from libp2p.peer_id import PeerId
from libp2p.security.noise import Noise
from libp2p.security.plaintext import Plaintext
from libp2p.swarm import BackoffConfig, BlackHoleConfig, Gater, LimitsConfig, RankConfig, SwarmConfig
from libp2p.swarm._connection import SwarmConnection
from libp2p.testing import Hosts, Link, Memory, MemoryNetwork, memory_network, open_memory_host, seeded_key
from libp2p.testing.flaky import Fault, Flaky, Plan, WrappingTransport
from libp2p.testing.raw import HEADER, RawPeer, Wants, line, read_line
from tests.protocols.waiting import settled, until
from tests.swarm.nodes import Answers, Below, checkpoints, open_node

NOWHERE = parse("/memory/999999")
STRANGER = PeerId.from_key(seeded_key("stranger").public_key)


async def attempts(connecting: Callable[[], Awaitable[object]]) -> dict[str, Exception]:
    """What a dial that fails has tried, by address; each at most once."""
    with pytest.raises(DialError) as caught:
        await connecting()
    found = {str(addr): exc for addr, exc in caught.value.attempts}
    assert len(found) == len(caught.value.attempts), str(caught.value)
    for addr in found:
        assert addr in str(caught.value)
    return found


def dials_of(hosts: Hosts, index: int) -> int:
    """Raw connections that a host has made and that are open."""
    return sum(conn.dialer == hosts.node(index) for conn in hosts.network.connections)


# --- one dial for everybody -------------------------------------------------------------------------------------------


async def test_concurrent_connects_share_one_dial() -> None:
    async with memory_network(2, defaults=(), link=Link(latency=0.1)) as hosts:
        a, b = hosts
        found = []

        async def connect() -> None:
            found.append(await a.connect(b.addrs[0]))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(connect)
        await until(b.connections)
        assert len(set(map(id, found))) == 1
        assert len(a.connections()) == len(b.connections()) == dials_of(hosts, 0) == 1


async def test_whoever_gives_up_does_not_cancel_the_others() -> None:
    async with memory_network(2, defaults=(), link=Link(latency=0.1)) as hosts:
        a, b = hosts
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.connect, b.addrs[0])
            await settled()
            with trio.move_on_after(0.15) as scope:
                await a.connect(b.addrs[0])
            assert scope.cancelled_caught
        assert len(a.connections()) == 1


@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.25, 0.35])
async def test_when_nobody_waits_any_more_the_dial_ends_and_leaves_nothing(after) -> None:
    async with memory_network(2, defaults=(), link=Link(latency=0.1)) as hosts:
        a, b = hosts
        with trio.move_on_after(after):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(a.connect, b.addrs[0])
        await trio.sleep(1)
        assert not any(a.swarm.scopes.usage().values())
        assert not a.connections() and not b.connections() and not hosts.network.connections
        # And the next caller is not tied to what has ended.
        await a.connect(b.addrs[0])


async def test_a_new_caller_does_not_join_a_dial_that_was_given_up() -> None:
    async with memory_network(2, defaults=(), link=Link(latency=0.1)) as (a, b):
        with trio.move_on_after(0.05):
            await a.connect(b.addrs[0])
        await a.connect(b.addrs[0])
        assert len(a.connections()) == 1


async def test_a_second_caller_adds_its_addresses() -> None:
    async with memory_network(2, defaults=()) as hosts:
        a, b = hosts
        hosts.network.cut(a.swarm._transports[0].name, "", hard=False)  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.connect, b.local_peer, [NOWHERE])
            await settled()
            await a.connect(b.local_peer, b.listen_addrs())
        assert len(a.connections()) == 1


async def test_an_address_that_comes_in_the_moment_of_failure_is_tried() -> None:
    """At whatever step of the first caller's dial the second one arrives."""
    async with memory_network(2, defaults=()) as (a, b):

        async def first() -> None:
            try:
                await a.connect(b.local_peer, [NOWHERE])
            except DialError:
                pass

        for steps in list(range(20)) * 4:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                await checkpoints(steps)()
                await a.connect(b.local_peer, b.listen_addrs())
            await a.disconnect(b.local_peer)
            a.peerstore.forget(b.local_peer)


async def test_two_callers_without_a_peer_id_share_nothing() -> None:
    async with memory_network(3, defaults=()) as (a, b, c):
        found = []

        async def connect(host: RunningHost) -> None:
            found.append((await a.connect(host.listen_addrs()[0])).peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, b)
            nursery.start_soon(connect, c)
        assert set(found) == {b.local_peer, c.local_peer}


# --- errors name every address and how far it came --------------------------------------------------------------------


async def test_refused_mismatched_and_unknown_in_one_error() -> None:
    async with memory_network(2, defaults=(), ips=("10.0.0.1", "10.0.0.2")) as (a, b):
        here = b.listen_addrs()[0]
        found = await attempts(partial(a.connect, STRANGER, [NOWHERE, here, "/ip4/10.0.0.9/tcp/1"]))
        assert set(found) == {str(NOWHERE), str(here), "/ip4/10.0.0.9/tcp/1"}
        mismatch = found[str(here)]
        assert isinstance(mismatch, PeerIdMismatch)
        assert (mismatch.expected, mismatch.actual) == (STRANGER, b.local_peer)
        assert mismatch.stage == "security handshake"
        refused = found[str(NOWHERE)]
        assert isinstance(refused, TransportError) and refused.reason == "connection refused"
        await settled()
        assert not a.connections() and not b.connections()


async def _listener(network: MemoryNetwork) -> Listener:
    return await Memory(network, "silent").listen(parse("/memory/0"))


async def _answers_security(stream: trio.abc.Stream) -> None:
    await RawPeer(stream, dialer=False).answer("/noise")


async def _answers_noise(stream: trio.abc.Stream) -> None:
    peer = RawPeer(stream, dialer=False)
    await peer.answer("/noise")
    await peer.handshake()


async def _says_nothing(stream: trio.abc.Stream) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("script", "stage"),
    [
        (None, "transport"),
        (_says_nothing, "security negotiation"),
        (_answers_security, "security handshake"),
        (_answers_noise, "muxer negotiation"),
    ],
)
async def test_a_timeout_says_where(script, stage) -> None:
    config = HostConfig(swarm=SwarmConfig(dial_timeout=7))
    network = MemoryNetwork()
    async with open_memory_host(network, name="a", config=config, defaults=()) as a:
        listener = await _listener(network)
        if script is None:
            network.cut("a", "silent")
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                raw = await listener.accept()
                assert isinstance(raw, RawConnection)
                async with raw.stream:
                    await script(raw.stream)
                    await trio.sleep_forever()

            if script is not None:
                nursery.start_soon(serve)
            started = trio.current_time()
            addr = listener.addresses[0]
            [failure] = (await attempts(partial(a.connect, addr))).values()
            assert isinstance(failure, DialTimeout)
            assert (failure.stage, failure.seconds) == (stage, 7)
            assert trio.current_time() - started == pytest.approx(7, abs=0.01)
            nursery.cancel_scope.cancel()
        await listener.aclose()
        await settled()
        assert not any(a.swarm.scopes.usage().values())


async def test_no_security_protocol_in_common() -> None:
    network = MemoryNetwork()
    async with open_memory_host(network, name="a", defaults=()) as a, trio.open_nursery() as nursery:
        listener = await _listener(network)

        async def serve() -> None:
            raw = await listener.accept()
            assert isinstance(raw, RawConnection)
            async with raw.stream:
                assert await read_line(raw.stream) == "/multistream/1.0.0"
                await raw.stream.send_all(HEADER + line("na"))
                await trio.sleep_forever()

        nursery.start_soon(serve)
        [failure] = (await attempts(partial(a.connect, listener.addresses[0]))).values()
        assert isinstance(failure, NegotiationError)
        assert failure.stage == "security negotiation" and failure.offered == ("/noise",)
        nursery.cancel_scope.cancel()
        await listener.aclose()


async def test_the_handshake_begins_with_the_proposal() -> None:
    """Dialled to secured in three flights: what there is to agree on travels with the handshake."""
    latency = 1.0
    async with memory_network(2, defaults=(), link=Link(latency=latency)) as (a, b):
        started = trio.current_time()
        await a.connect(b.addrs[0])
        # TCP's there and back, then proposal with message 1, answer with message 2; message 3 needs no answer.
        assert trio.current_time() - started == pytest.approx(4 * latency)


async def test_a_peer_that_speaks_only_the_second_choice_is_dialled_again() -> None:
    network, dialled = MemoryNetwork(), list[Multiaddr]()

    class Spy(Below):
        async def dial(self, addr, *, peer):
            dialled.append(addr)
            return await super().dial(addr, peer=peer)

    async with (
        open_node(network, "a", wrap=Spy, security=(Noise, Plaintext)) as a,
        open_node(network, "b", security=(Plaintext,)) as b,
        open_node(network, "c", security=(Plaintext, Noise)) as c,
    ):
        conn = await a.connect(b.addrs[0])
        assert isinstance(conn, SwarmConnection) and conn.security == "/plaintext/2.0.0"
        assert len(dialled) == 2
        # Its own order does not matter: the dialer's first choice is there.
        conn = await a.connect(c.addrs[0])
        assert isinstance(conn, SwarmConnection) and conn.security == "/noise"
        assert len(dialled) == 3
        # A handshake that fails is no refusal.
        wrong = with_peer(c.listen_addrs()[0], STRANGER)
        [failure] = (await attempts(partial(a.connect, wrong))).values()
        assert isinstance(failure, PeerIdMismatch)
        assert len(dialled) == 4


async def test_a_listener_that_hangs_up_may_have_meant_a_refusal() -> None:
    """Some kernels drop the refusal that came before the end. It is asked once more, and not for ever."""
    network = MemoryNetwork()
    async with open_node(network, "a", security=(Noise, Plaintext)) as a, trio.open_nursery() as nursery:
        listener = await _listener(network)
        accepted: list[int] = []

        async def serve() -> None:
            while True:
                raw = await listener.accept()
                assert isinstance(raw, RawConnection)
                accepted.append(1)
                await raw.stream.aclose()

        nursery.start_soon(serve)
        [failure] = (await attempts(partial(a.connect, listener.addresses[0]))).values()
        assert isinstance(failure, UpgradeError) and failure.stage == "security negotiation"
        assert len(accepted) == 2
        nursery.cancel_scope.cancel()
        await listener.aclose()


async def test_no_muxer_in_common() -> None:
    network = MemoryNetwork()
    async with (
        open_memory_host(network, name="a", defaults=()) as a,
        open_memory_host(network, name="b", defaults=(), muxers=(Mplex,)) as b,
    ):
        [failure] = (await attempts(partial(a.connect, b.addrs[0]))).values()
        assert isinstance(failure, UpgradeError)
        assert failure.stage in ("muxer negotiation", "security handshake")
        await settled()
        assert not b.connections()


async def test_a_connection_that_is_lost_half_way() -> None:
    network = MemoryNetwork()
    async with open_memory_host(network, name="a", defaults=()) as a, trio.open_nursery() as nursery:
        listener = await _listener(network)

        async def serve() -> None:
            raw = await listener.accept()
            assert isinstance(raw, RawConnection)
            await _answers_security(raw.stream)
            await trio.sleep(1)
            network.kill("a")
            await raw.stream.aclose()

        nursery.start_soon(serve)
        [failure] = (await attempts(partial(a.connect, listener.addresses[0]))).values()
        assert isinstance(failure, UpgradeError)
        assert failure.stage == "security handshake" and "reset" in str(failure)
        await listener.aclose()


# --- what is not dialled ----------------------------------------------------------------------------------------------


async def test_no_addresses() -> None:
    async with memory_network(1, defaults=()) as (a,):
        with pytest.raises(NoAddresses, match="pass one, or add it to the peerstore") as caught:
            await a.connect(STRANGER)
        assert caught.value.peer == STRANGER and not caught.value.attempts
        # Those that nobody here dials are named, each with what to do about it.
        elsewhere = with_peer(NOWHERE, a.local_peer)
        with pytest.raises(NoAddresses, match="can be dialled from this host") as caught:
            await a.connect(STRANGER, ["/ip4/10.0.0.1/udp/1/quic-v1/webtransport", elsewhere])
        assert str(caught.value).splitlines()[1:] == [
            "  /ip4/10.0.0.1/udp/1/quic-v1/webtransport: transport: WebTransport is not spoken here",
            f"  {elsewhere}: transport: leads to another peer",
        ]


async def test_dialling_oneself() -> None:
    async with memory_network(1, defaults=()) as hosts:
        [a] = hosts
        for target in (a.local_peer, a.addrs[0]):
            with pytest.raises(DialToSelf, match="this is the host itself"):
                await a.connect(target)
        # Without the peer id it turns out only when somebody answers.
        with pytest.raises(DialError, match=": this is the host itself"):
            await a.connect(a.listen_addrs()[0])
        await settled()
        assert not a.connections() and not hosts.network.connections


class Refusing(Gater):
    """Says no at one of the hooks."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, lambda *args: False)


class Broken(Gater):
    """Fails at one of the hooks."""

    def __init__(self, hook: str) -> None:
        def fail(*args: object) -> bool:
            raise RuntimeError("a bug of the application's")

        setattr(self, hook, fail)


@pytest.mark.parametrize("gater", [Refusing, Broken])
@pytest.mark.parametrize("hook", ["dial_peer", "dial_addr", "secured"])
async def test_the_gater_of_the_dialler(gater, hook, expected_bugs) -> None:
    network = MemoryNetwork()
    async with open_node(network, "a", gater=gater(hook)) as a, open_node(network, "b") as b:
        if hook == "dial_peer":
            with pytest.raises(ConnectionDenied):
                await a.connect(b.addrs[0])
        else:
            [failure] = (await attempts(partial(a.connect, b.addrs[0]))).values()
            assert isinstance(failure, ConnectionDenied)
        await trio.sleep(1)
        assert not a.connections() and not b.connections() and not network.connections
        assert bool(expected_bugs) is (gater is Broken)


async def test_a_refused_address_is_not_dialled_and_the_next_one_is() -> None:
    class Picky(Gater):
        def dial_addr(self, peer: PeerId | None, addr: Multiaddr) -> bool:
            return bool(addr != NOWHERE)

    network = MemoryNetwork()
    async with open_node(network, "a", gater=Picky()) as a, open_node(network, "b") as b:
        await a.connect(b.local_peer, [NOWHERE, *b.listen_addrs()])


# --- back-off ---------------------------------------------------------------------------------------------------------


async def test_known_addresses_that_failed_are_left_alone_and_given_ones_are_not() -> None:
    async with memory_network(2, defaults=(), config=HostConfig(swarm=SwarmConfig())) as (a, b):
        a.peerstore.add_addrs(b.local_peer, [NOWHERE], ttl=1000)
        [first] = (await attempts(partial(a.connect, b.local_peer))).values()
        assert "refused" in str(first)
        [second] = (await attempts(partial(a.connect, b.local_peer))).values()
        assert "left alone for 5 s more" in str(second)
        # Given by the caller it is tried, and listed once.
        [third] = (await attempts(partial(a.connect, b.local_peer, [NOWHERE]))).values()
        assert "refused" in str(third)
        await trio.sleep(7)
        [fourth] = (await attempts(partial(a.connect, b.local_peer))).values()
        assert "refused" in str(fourth)


async def test_an_inbound_connection_ends_the_back_off() -> None:
    async with memory_network(2, defaults=()) as (a, b):
        a.peerstore.add_addrs(b.local_peer, [NOWHERE], ttl=1000)
        await attempts(partial(a.connect, b.local_peer))
        await b.connect(a.addrs[0])
        await settled()
        await b.disconnect(a.local_peer)
        await settled()
        [failure] = (await attempts(partial(a.connect, b.local_peer))).values()
        assert "refused" in str(failure)


# --- happy eyeballs ---------------------------------------------------------------------------------------------------


async def test_a_dead_first_address_costs_no_fixed_delay() -> None:
    async with memory_network(2, defaults=(), ips=("10.0.0.1", "10.0.0.2")) as (a, b):
        started = trio.current_time()
        await a.connect(b.local_peer, ["/ip6/fc00::1/tcp/1", "/ip4/10.0.0.3/tcp/1", *b.listen_addrs()])
        assert trio.current_time() == started


async def test_a_silent_first_address_costs_its_step_only() -> None:
    async with memory_network(2, defaults=(), ips=("10.0.0.1", "10.0.0.2")) as hosts:
        a, b = hosts
        Memory(hosts.network, "hole", ip="fc00::1")
        listener = await hosts.network._nodes["hole"].listen(parse("/ip6/fc00::1/tcp/1"))
        hosts.network.cut(hosts.node(a), "hole")
        started = trio.current_time()
        await a.connect(b.local_peer, ["/ip6/fc00::1/tcp/1", *b.listen_addrs()])
        assert trio.current_time() - started == pytest.approx(0.03)
        await listener.aclose()


async def test_t10_a_dial_storm_stays_within_its_limits() -> None:
    limits = LimitsConfig(dials=20, dials_per_peer=3, dial_queue=30)
    peak: dict[str, int] = {}
    network = MemoryNetwork(latency=1.0)

    class Watching(Below):
        async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection:
            for name, count in a.swarm.scopes.usage().items():
                peak[name] = max(peak.get(name, 0), count)
            raw = await super().dial(addr, peer=peer)
            assert isinstance(raw, RawConnection)
            return raw

    refused = []
    at_once = RankConfig(public_step=0, private_step=0, public_further=0, private_further=0, relay=0, unknown=0)
    config = HostConfig(swarm=SwarmConfig(limits=limits, rank=at_once))
    async with open_node(network, "a", wrap=Watching, config=config) as a:

        async def dial(number: int) -> None:
            peer = PeerId.from_key(seeded_key(number).public_key)
            try:
                await a.connect(peer, [f"/memory/{1000 * number + extra}" for extra in range(1, 8)])
            except LimitExceeded as exc:
                refused.append(exc.scope)
            except DialError as exc:
                assert len(exc.attempts) == 7
                assert all("refused" in str(error) for _, error in exc.attempts)

        async with trio.open_nursery() as nursery:
            for number in range(1, 41):
                nursery.start_soon(dial, number)
        assert refused == ["dial_queue"] * 10
        assert peak["dials"] == 20
        assert peak["dials_per_peer"] <= 3
        await settled()
        assert not any(a.swarm.scopes.usage().values())


async def test_no_more_addresses_are_tried_than_the_limit_says() -> None:
    async with memory_network(1, defaults=()) as (a,):
        found = await attempts(partial(a.connect, STRANGER, [f"/memory/{number}" for number in range(1000, 1100)]))
        assert len(found) == 25


async def test_a_failed_attempt_at_a_limit_of_ours_names_it() -> None:
    config = HostConfig(swarm=SwarmConfig(limits=LimitsConfig(connections=1, connections_inbound=1)))
    async with memory_network(3, defaults=(), config=config) as (a, b, c):
        await a.connect(b.addrs[0])
        [failure] = (await attempts(partial(a.connect, c.addrs[0]))).values()
        assert isinstance(failure, LimitExceeded)
        assert (failure.scope, failure.limit) == ("connections", 1)
        await settled()
        assert not c.connections()


# --- names ------------------------------------------------------------------------------------------------------------


async def test_names_go_through_the_resolver() -> None:
    network = MemoryNetwork()
    async with open_node(network, "b", ip="10.0.0.2", listen=["/ip4/10.0.0.2/tcp/4001"]) as b:
        resolver = Answers(**{"b.example": [parse("/ip4/10.0.0.2/tcp/4001")], "none.example": []})
        async with open_node(network, "a", ip="10.0.0.1", resolver=resolver) as a:
            name = parse("/dns4/b.example/tcp/4001")
            conn = await a.connect(with_peer(name, b.local_peer))
            assert str(conn.remote_addr) == "/ip4/10.0.0.2/tcp/4001"
            assert a.peerstore.addrs(b.local_peer) == [parse("/ip4/10.0.0.2/tcp/4001")]
            assert resolver.asked == [name]


async def test_a_name_that_does_not_resolve_is_an_attempt() -> None:
    class Failing(Answers):
        async def resolve(self, addr: Multiaddr) -> list[Multiaddr]:
            raise ResolveError(addr, "no such name")

    async with open_node(MemoryNetwork(), "a", ip="10.0.0.1", resolver=Failing()) as a:
        found = await attempts(partial(a.connect, STRANGER, ["/dns4/x.example/tcp/1"]))
        assert [str(exc) for exc in found.values()] == ["/dns4/x.example/tcp/1: no such name"]


@pytest.mark.parametrize(
    "host", ["10.0.0.9", "169.254.169.254", "127.0.0.1", "0.0.0.0", "224.0.0.1", "192.168.1.1", "100.64.0.1"]
)
async def test_t9_private_addresses_behind_names_of_strangers_are_not_dialled(host) -> None:
    dialled = []

    class Spy(Below):
        async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection:
            dialled.append(addr)
            raise TransportError(addr, "nobody there")

    resolver = Answers(**{"evil.example": [parse(f"/ip4/{host}/tcp/4001")]})
    async with open_node(MemoryNetwork(), "a", ip="10.0.0.1", wrap=Spy, resolver=resolver) as a:
        a.peerstore.add_addrs(STRANGER, [parse("/dns4/evil.example/tcp/4001")], ttl=100)
        [failure] = (await attempts(partial(a.connect, STRANGER))).values()
        assert "leads inside and was only heard of" in str(failure)
        assert not dialled
        # The caller may name it himself.
        await attempts(partial(a.connect, STRANGER, ["/dns4/evil.example/tcp/4001"]))
        assert len(dialled) == 1


async def test_an_answer_for_another_peer_is_ignored() -> None:
    resolver = Answers(**{"x.example": [with_peer(parse("/ip4/10.0.0.2/tcp/1"), STRANGER)]})
    async with open_node(MemoryNetwork(), "a", ip="10.0.0.1", resolver=resolver) as a:
        peer = PeerId.from_key(seeded_key("other").public_key)
        with pytest.raises(NoAddresses):
            await a.connect(peer, ["/dnsaddr/x.example"])


# --- addresses that were only heard of --------------------------------------------------------------------------------


class _Dialled(Below):
    """Refuses everything, and remembers what."""

    def __init__(self, below: Transport) -> None:
        super().__init__(below)
        self.dialled: list[str] = []

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection | SecureMuxedConnection:
        self.dialled.append(str(addr))
        raise TransportError(addr, "nobody there")


INSIDE = ["/ip4/10.0.0.9/tcp/1", "/ip6/::1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1"]
NEVER = ["/ip4/169.254.169.254/tcp/80", "/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/tcp/1"]


@pytest.mark.bar_c
@pytest.mark.parametrize("allow_private", [False, True])
async def test_t9_private_addresses_in_a_record_are_not_dialled(allow_private) -> None:
    """T9, whoever put them into the peerstore; the switch is for networks of one's own."""
    spies: list[_Dialled] = []

    def spy(below: Transport) -> Transport:
        spies.append(_Dialled(below))
        return spies[0]

    config = HostConfig(swarm=SwarmConfig(allow_private=allow_private))
    async with open_node(MemoryNetwork(), "a", ip="10.0.0.1", wrap=spy, config=config) as a:
        a.peerstore.add_addrs(STRANGER, map(parse, ["/ip4/1.2.3.4/tcp/1", *INSIDE, *NEVER]), ttl=100)
        found = await attempts(partial(a.connect, STRANGER))
        expected = {"/ip4/1.2.3.4/tcp/1", *(INSIDE if allow_private else ())}
        assert set(spies[0].dialled) == expected
        refused = {addr for addr, failure in found.items() if "leads inside" in str(failure)}
        assert refused == {"/ip4/1.2.3.4/tcp/1", *INSIDE, *NEVER} - expected
        # What the caller names is his own business.
        await attempts(partial(a.connect, STRANGER, INSIDE))
        assert set(INSIDE) <= set(spies[0].dialled)


async def test_a_peer_is_dialled_again_on_the_machine_where_it_was() -> None:
    """At another port, even: but not on other machines of the same network."""
    network = MemoryNetwork()
    async with (
        open_node(network, "a", ip="10.0.0.1", listen=["/ip4/10.0.0.1/tcp/1"]) as a,
        open_node(network, "b", ip="10.0.0.2", listen=["/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.2/tcp/2"]) as b,
    ):
        await b.connect(with_peer(a.listen_addrs()[0], a.local_peer))
        await b.disconnect(a.local_peer)
        await until(lambda: not a.connections())
        a.peerstore.set_addrs(
            b.local_peer, map(parse, ["/ip4/10.0.0.2/tcp/2", "/ip4/10.0.0.3/tcp/1"]), ttl=100
        )  # it was heard of from the inbound connection alone
        connection = await a.connect(b.local_peer)
        assert str(connection.remote_addr) == "/ip4/10.0.0.2/tcp/2"


# --- black holes ------------------------------------------------------------------------------------------------------

UDP, TCP = parse("/ip4/1.2.3.4/udp/1/quic-v1"), parse("/ip4/1.2.3.4/tcp/1")


class _Swallowing(_Dialled):
    """A way out that swallows UDP: only TCP arrives, at ``target``."""

    target: Multiaddr
    swallows = True

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection | SecureMuxedConnection:
        self.dialled.append("udp" if addr == UDP else "tcp")
        if addr == UDP and self.swallows:
            await trio.sleep_forever()
        return await self.below.dial(self.target, peer=peer)

    def can_dial(self, addr: Multiaddr) -> bool:
        return addr in (UDP, TCP)


@asynccontextmanager
async def behind_a_black_hole() -> AsyncIterator[tuple[RunningHost, RunningHost, _Swallowing]]:
    network = MemoryNetwork()
    spies: list[_Swallowing] = []

    def wrap(below: Transport) -> Transport:
        spies.append(_Swallowing(below))
        return spies[0]

    config = HostConfig(swarm=SwarmConfig(black_holes=BlackHoleConfig(window=4, min_successes=1)))
    async with open_node(network, "b") as b, open_node(network, "a", wrap=wrap, config=config) as a:
        spies[0].target = b.listen_addrs()[0]
        yield a, b, spies[0]


async def test_a_way_that_swallows_everything_is_left_out() -> None:
    async with behind_a_black_hole() as (a, b, way):

        async def connect(*addrs: Multiaddr) -> float:
            way.dialled.clear()
            started = trio.current_time()
            await a.connect(b.local_peer, addrs)
            taken = trio.current_time() - started
            await a.disconnect(b.local_peer)
            a.peerstore.forget(b.local_peer)
            return taken

        for _ in range(4):
            assert await connect(UDP, TCP) == pytest.approx(0.25)  # TCP's turn comes after a step
            assert way.dialled == ["udp", "tcp"]
        for _ in range(3):
            assert await connect(UDP, TCP) == 0
            assert way.dialled == ["tcp"]
        # One in so many tries it nevertheless, and so does who has nothing else.
        assert await connect(UDP, TCP) == pytest.approx(0.25)
        way.swallows = False
        assert await connect(UDP) == 0
        assert await connect(UDP, TCP) == 0
        assert way.dialled == ["udp"]


async def test_what_was_left_out_stands_in_the_error() -> None:
    async with behind_a_black_hole() as (a, b, way):
        for _ in range(4):
            await attempts(partial(a.connect, b.local_peer, [UDP]))
        way.target = NOWHERE
        found = await attempts(partial(a.connect, b.local_peer, [UDP, TCP]))
        assert str(found[str(UDP)]) == f"{UDP}: left out: UDP seems to be blocked here, 0 of the last 4 dials worked"
        assert way.dialled[-1] == "tcp"


async def test_impatience_is_no_black_hole() -> None:
    """A caller that gives up says nothing about the way; a peer that answers wrongly says that it leads somewhere."""
    async with behind_a_black_hole() as (a, b, way):
        for _ in range(8):
            with trio.move_on_after(0.01):
                await a.connect(b.local_peer, [UDP])
        way.swallows = False
        for _ in range(4):
            found = await attempts(partial(a.connect, STRANGER, [UDP]))
            assert isinstance(found[str(UDP)], PeerIdMismatch)
        way.dialled.clear()
        await a.connect(b.local_peer, [UDP, TCP])
        assert way.dialled == ["udp"]


# --- faults and bugs stay with their dial -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("at", range(1, 7))
async def test_x2_a_fault_while_dialling(fault, at, expected_bugs) -> None:
    network = MemoryNetwork()
    plan = Plan(fault, at)

    def wrap(transport):
        return WrappingTransport(transport, lambda stream: Flaky(stream, plan))

    async with open_node(network, "a", wrap=wrap) as a, open_node(network, "b") as b:
        try:
            await a.connect(b.addrs[0])
        except DialError as exc:
            assert isinstance(exc.attempts[0][1], UpgradeError)
        await a.disconnect(b.local_peer)
        plan.disarm()  # the last of these steps may not have come
        await a.connect(b.addrs[0])  # the next dial is not harmed
        await until(lambda: len(b.connections()) == 1)


async def test_a_bug_in_a_resolver_fails_the_dial_only(expected_bugs) -> None:
    class Buggy(Answers):
        async def resolve(self, addr: Multiaddr) -> list[Multiaddr]:
            raise KeyError("a bug")

    network = MemoryNetwork()
    async with open_node(network, "a", ip="10.0.0.1", resolver=Buggy()) as a, open_node(network, "b") as b:
        with pytest.raises(DialError) as caught:
            await a.connect(STRANGER, ["/dns4/x.example/tcp/1"])
        assert not isinstance(caught.value, NoAddresses)
        assert expected_bugs
        await a.connect(b.addrs[0])


async def test_whoever_waits_while_the_host_ends_hears_of_it() -> None:
    network = MemoryNetwork()
    heard = []
    async with trio.open_nursery() as nursery, open_node(network, "a") as a:
        network.cut("a", "")

        async def connect() -> None:
            with pytest.raises(DialError) as caught:
                await a.connect(STRANGER, [NOWHERE])
            heard.append(caught.value)

        nursery.start_soon(connect)
        await settled()
        a.swarm._running().cancel_scope.cancel()
        await settled()
    assert [type(exc) for exc in heard] == [DialError]


def test_a_back_off_needs_sane_times() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        BackoffConfig(base=-1)


async def test_wants_are_what_the_other_side_hears() -> None:
    """An early list without anything in common is answered by the second negotiation."""
    network = MemoryNetwork()
    async with open_node(network, "b") as b:
        raw = await Memory(network, "raw").dial(b.listen_addrs()[0], peer=None)
        peer = RawPeer(raw.stream)
        await peer.connect(Wants())
        await until(lambda: len(b.connections()) == 1)
        await trio.aclose_forcefully(raw.stream)
