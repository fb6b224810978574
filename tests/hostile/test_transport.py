"""Cases T1, T2, T5, T9 and T10 in memory, with exact times: floods, and what the dialer may be led to do."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import trio

from libp2p.abc import Stream
from libp2p.addressing import parse, with_peer
from libp2p.errors import DialError, DialTimeout, LimitExceeded, NoAddresses, ResolveError, TransportError
from libp2p.events import ConnectionOpened
from libp2p.host import HostConfig
from libp2p.peer_id import PeerId
from libp2p.protocols.ping import ping
from libp2p.swarm import Gater, LimitsConfig, SwarmConfig
from libp2p.testing import Link, Memory, MemoryNetwork, memory_network, open_memory_host, seeded_key
from libp2p.testing.raw import HEADER, RawPeer, Wants, line
from libp2p.testing.rig import Budget
from libp2p.transports.dns import DnsConfig, DnsResolver
from tests.hostile.cases import CANARIES, Attack, under_attack

pytestmark = pytest.mark.bar_c

PENDING = 64


async def _lives(peer: RawPeer) -> float:
    """How long the victim keeps a connection on which nothing more is said."""
    began = trio.current_time()
    try:
        while await peer.stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass
    return trio.current_time() - began


# --- T1 ---------------------------------------------------------------------------------------------------------------


async def test_T1_a_thousand_silent_connections() -> None:
    """At most 64 wait at once, the surplus is closed within 0.1 s, each that stays is dead at 15 s."""
    async with under_attack(budget=Budget(memory=40e6, kept=30e6)) as attack:
        lives: list[float] = []

        async def be_silent() -> None:
            lives.append(await _lives(await attack.dial()))

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(be_silent)
            await trio.sleep(0.1)
            assert attack.victim.swarm.scopes.usage()["pending_inbound"] <= PENDING
            assert len(lives) >= 1000 - PENDING, "the surplus is still there"
        stayed = sorted(lives)[1000 - PENDING :]
        assert max(sorted(lives)[: 1000 - PENDING]) <= 0.1
        assert stayed == pytest.approx([15.0] * PENDING, abs=0.01)


@pytest.mark.parametrize("stage", ["security negotiation", "security handshake", "muxer negotiation"])
async def test_T1_a_byte_a_second_extends_nothing(stage) -> None:
    """Slow-loris through each step: dead at 15 s absolute, however busy it was."""
    async with under_attack() as attack:
        peer = await attack.dial()
        began = trio.current_time()
        talk = HEADER + line("/noise")
        if stage != "security negotiation":
            await peer.propose("/noise")
            talk = b"\x00\x20" + bytes(32)
        if stage == "muxer negotiation":
            await peer.handshake(Wants())
            talk = peer.noise.seal(HEADER + line("/" + "x" * 300))
        sent = 0
        try:
            for byte in talk * 3:
                await peer.stream.send_all(bytes((byte,)))
                sent += 1
                await trio.sleep(1)
        except trio.BrokenResourceError:
            pass
        assert 10 <= sent <= 17
        assert trio.current_time() - began <= 17


async def _honest(attack: Attack, times: list[float]) -> None:
    began = trio.current_time()
    try:
        with trio.fail_after(20):
            peer = await attack.dial()
            await peer.connect(Wants(muxers=("/yamux/1.0.0",)))
        times.append(trio.current_time() - began)
        await trio.aclose_forcefully(peer.stream)
    except (EOFError, trio.BrokenResourceError, trio.TooSlowError, TransportError):
        times.append(float("inf"))


async def test_T1_honest_dials_during_a_flood() -> None:
    """A hundred of them over a link of 50 ms, while silent ones come at two hundred a second."""
    times: list[float] = []
    async with under_attack(link=Link(latency=0.05), budget=Budget(memory=60e6, kept=30e6, ping_p99=0.3)) as attack:

        async def silent() -> None:
            await _lives(await attack.dial())

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(silent)
                if number >= 400 and number % 6 == 0:
                    nursery.start_soon(_honest, attack, times)
                await trio.sleep(0.005)
    assert len(times) == 100
    good = sorted(time for time in times if time != float("inf"))
    assert len(good) >= 99, f"{100 - len(good)} honest dials failed"
    assert good[94] <= 2.0


# --- T5 ---------------------------------------------------------------------------------------------------------------


async def test_T5_many_connections_end_at_once() -> None:
    """150 silent ones: nobody else notices that they are there, nor that all are cut in the same moment."""
    async with under_attack() as attack:
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(attack.connect)
        assert len(attack.opened) == 150
        await trio.sleep(5)
        assert len(attack.victim.swarm.connections()) == 150 + len(CANARIES)
        await attack.leave()
        await trio.sleep(1)
        assert len(attack.victim.swarm.connections()) == len(CANARIES)


# --- T2 ---------------------------------------------------------------------------------------------------------------


async def _flood(attack: Attack, ips: list[str], *, pause: float) -> int:
    """Full handshakes from ``ips``, one after the other; how many the victim took part in."""
    handshakes = 0

    async def connect(ip: str) -> None:
        nonlocal handshakes
        try:
            peer = await attack.dial(ip)
            await peer.propose("/noise")
            handshakes += 1
            await peer.handshake(Wants(muxers=("/yamux/1.0.0",)))
        except (EOFError, trio.BrokenResourceError, TransportError):
            pass

    async with trio.open_nursery() as nursery:
        for ip in ips:
            nursery.start_soon(connect, ip)
            await trio.sleep(pause)
    return handshakes


async def test_T2_a_flood_from_one_address() -> None:
    """Thousands in ten seconds: eight stay open, and no more than sixteen and a few cost a handshake."""
    async with under_attack(budget=Budget(memory=60e6, kept=30e6)) as attack:
        handshakes = await _flood(attack, ["100.5.5.5"] * 1000, pause=0.01)
        assert handshakes <= 18
        open_now = [conn for conn in attack.victim.connections() if "100.5.5.5" in str(conn.remote_addr)]
        assert len(open_now) <= 8
        refused = attack.victim.swarm.scopes.refusals()
        assert refused["connections_per_ip"] + refused["connection_rate_per_ip"] >= 950


async def test_T2_hopping_through_ipv6() -> None:
    """A /56 counts as one address, a /48 has room for 64."""
    async with under_attack(budget=Budget(memory=40e6, kept=30e6)) as attack:
        same_56 = [f"2001:db8:1:{number:x}::1" for number in range(100)]
        assert await _flood(attack, same_56, pause=0.01) <= 18
        same_48 = [f"2001:db8:2:{number:x}00::1" for number in range(200)]
        await _flood(attack, same_48, pause=0.01)
        found = [str(conn.remote_addr) for conn in attack.victim.connections()]
        assert len([addr for addr in found if addr.startswith("/ip6/2001:db8:1:")]) <= 8
        assert len([addr for addr in found if addr.startswith("/ip6/2001:db8:2:")]) <= 64


# --- T9 ---------------------------------------------------------------------------------------------------------------

PRIVATE = [
    "10.1.2.3", "192.168.1.1", "172.16.5.5", "169.254.169.254", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
    "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "fc00::1", "ff02::1", "64:ff9b::a00:1", "100.64.1.1",
]  # fmt: skip


class _Spy(Gater):
    """Sees every address that is really dialled."""

    def __init__(self) -> None:
        self.dialled: list[str] = []

    def dial_addr(self, peer: PeerId | None, addr) -> bool:
        self.dialled.append(str(addr))
        return True


def _resolver(answers: dict[str, list[str]], asked: list[str] | None = None, **config: int) -> DnsResolver:
    async def lookup_ip(name: str, version: int) -> list[str]:
        await trio.lowlevel.checkpoint()
        found = [ip for ip in answers.get(name, []) if (":" in ip) == (version == 6)]
        if not found:
            raise OSError("no such name")
        return found

    async def lookup_txt(name: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        if asked is not None:
            asked.append(name)
        if name not in answers:
            raise OSError("no such name")
        return answers[name]

    return DnsResolver(DnsConfig(**config), lookup_ip=lookup_ip, lookup_txt=lookup_txt)


STRANGER = PeerId.from_key(seeded_key("T9").public_key)


async def test_T9_names_of_strangers_lead_to_no_private_place() -> None:
    """Judged by the resolved address, which is the one that is dialled: zero attempts."""
    spy, network = _Spy(), MemoryNetwork()
    resolver = _resolver({"evil.example": PRIVATE})
    async with open_memory_host(network, ip="100.1.1.1", gater=spy, resolver=resolver) as host:
        host.peerstore.add_addrs(STRANGER, [parse("/dns/evil.example/tcp/80")], ttl=1000)
        with pytest.raises(DialError) as caught:
            await host.connect(STRANGER)
        assert not spy.dialled
        assert len(caught.value.attempts) >= len(PRIVATE) - 2


async def test_T9_a_name_that_changes_its_answer_is_judged_each_time() -> None:
    """Public the first time, private the second: what is dialled is what was judged."""
    answers = {"flip.example": ["100.2.2.2"]}
    spy, network = _Spy(), MemoryNetwork()
    async with open_memory_host(network, ip="100.1.1.1", gater=spy, resolver=_resolver(answers)) as host:
        host.peerstore.add_addrs(STRANGER, [parse("/dns4/flip.example/tcp/4001")], ttl=1000)
        with pytest.raises(DialError):
            await host.connect(STRANGER)
        assert spy.dialled == ["/ip4/100.2.2.2/tcp/4001"]
        answers["flip.example"] = ["10.0.0.7"]
        await trio.sleep(400)
        with pytest.raises(DialError):
            await host.connect(STRANGER)
        assert spy.dialled == ["/ip4/100.2.2.2/tcp/4001"]


async def test_T9_loops_depth_and_fan_out_of_dnsaddr() -> None:
    """All of them end, within bounds, in a typed error or in few addresses."""
    deep = {f"_dnsaddr.d{n}.example": [f"dnsaddr=/dnsaddr/d{n + 1}.example"] for n in range(40)}
    wide = {"_dnsaddr.wide.example": [f"dnsaddr=/ip4/100.3.{n // 250}.{n % 250}/tcp/1" for n in range(1000)]}
    loop = {"_dnsaddr.loop.example": ["dnsaddr=/dnsaddr/loop.example"]}
    tree = {
        f"_dnsaddr.t{level}-{n}.example": [f"dnsaddr=/dnsaddr/t{level + 1}-{m}.example" for m in range(30)]
        for level in range(6)
        for n in range(30)
    }
    asked: list[str] = []
    resolver = _resolver({**deep, **wide, **loop, **tree}, asked)
    for name in ("d0", "loop", "t0-0"):
        asked.clear()
        with pytest.raises(ResolveError):
            await resolver.resolve(parse(f"/dnsaddr/{name}.example"))
        assert len(asked) <= 64
    assert len(await resolver.resolve(parse("/dnsaddr/wide.example"))) <= 100


async def test_T9_at_most_25_addresses_of_a_peer_are_dialled() -> None:
    """However many it claims."""
    spy, network = _Spy(), MemoryNetwork()
    dead = [parse(f"/ip4/100.4.{number // 250}.{number % 250}/tcp/1") for number in range(1000)]
    async with open_memory_host(network, ip="100.1.1.1", gater=spy) as host:
        attempts = []

        def tap(wire, data: bytes) -> None:
            attempts.append(wire)

        with network.tap(tap), pytest.raises(DialError) as caught:
            await host.connect(STRANGER, dead)
        assert len(caught.value.attempts) <= 25
        assert not attempts


# --- T10 --------------------------------------------------------------------------------------------------------------


async def test_T10_a_storm_of_dials() -> None:
    """500 peers with 20 dead addresses each: 160 at once and 8 for a peer, and all end."""
    network = MemoryNetwork()
    peers = [PeerId.from_key(seeded_key(f"T10-{number}").public_key) for number in range(500)]
    most = {"dials": 0, "dials_per_peer": 0}
    async with open_memory_host(network, ip="100.1.1.1") as host:
        # Dials to a cut-off node never answer: each attempt takes its whole time.
        silent = Memory(network, "silent", ip="100.9.9.9")
        listener = await silent.listen(parse("/ip4/100.9.9.9/tcp/1"))
        network.cut(host.swarm._transports[0].name, silent)  # type: ignore[attr-defined]
        errors: list[Exception] = []

        async def dial(number: int, peer: PeerId) -> None:
            addrs = [parse(f"/ip4/100.{10 + number // 100}.{number % 100}.{n}/tcp/1") for n in range(19)]
            try:
                await host.connect(peer, [*addrs, parse("/ip4/100.9.9.9/tcp/1")])
            except (DialError, LimitExceeded) as exc:
                errors.append(exc)

        async def watch() -> None:
            while True:
                usage = host.swarm.scopes.usage()
                for name in most:
                    most[name] = max(most[name], usage[name])
                await trio.sleep(0.1)

        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            async with trio.open_nursery() as nursery:
                for number, peer in enumerate(peers):
                    nursery.start_soon(dial, number, peer)
            watching.cancel_scope.cancel()
        await listener.aclose()
        assert len(errors) == 500
        assert all(isinstance(error, DialError) for error in errors)
        assert most["dials"] == 160
        assert most["dials_per_peer"] <= 8
        assert not any(host.swarm.scopes.usage().values())


async def test_T10_ten_thousand_callers() -> None:
    """500 may wait; every other is told at once which limit it met."""
    network = MemoryNetwork()
    async with open_memory_host(network, ip="100.1.1.1") as host:
        silent = Memory(network, "silent", ip="100.9.9.9")
        listener = await silent.listen(parse("/ip4/100.9.9.9/tcp/1"))
        network.cut(host.swarm._transports[0].name, silent)  # type: ignore[attr-defined]
        limited, failed = [], []

        async def call(number: int) -> None:
            before = trio.current_time()
            peer = PeerId.from_key(seeded_key(f"T10-{number % 50}").public_key)
            try:
                await host.connect(peer, [parse("/ip4/100.9.9.9/tcp/1")])
            except LimitExceeded as exc:
                limited.append((exc.scope, exc.limit, trio.current_time() - before))
            except DialError as exc:
                failed.append(exc)

        async with trio.open_nursery() as nursery:
            for number in range(10_000):
                nursery.start_soon(call, number)
        await listener.aclose()
    assert len(failed) == 500
    assert len(limited) == 9_500
    assert set(limited) == {("dial_queue", 500, 0.0)}


async def test_T10_attempts_keep_their_distance() -> None:
    """An address that fails is left alone for 5 s, then longer by a square, up to five minutes."""
    network = MemoryNetwork()
    async with open_memory_host(network, ip="100.1.1.1") as host:
        addr = parse("/ip4/100.9.9.9/tcp/1")
        attempts: list[float] = []
        with trio.move_on_after(3000):
            while True:
                host.peerstore.add_addrs(STRANGER, [addr], ttl=10_000)
                try:
                    await host.connect(STRANGER)
                except DialError as exc:
                    if any("left alone" not in str(error) for _, error in exc.attempts):
                        attempts.append(trio.current_time())
                # Often enough to see the moment within two hundredths of the pause.
                await trio.sleep(max(0.05, 0.02 * (trio.current_time() - attempts[-1])))
    gaps = [later - earlier for earlier, later in pairwise(attempts)]
    expected = [min(300.0, 5.0 + number**2) for number in range(len(gaps))]
    assert len(gaps) > 15
    assert gaps == pytest.approx(expected, rel=0.05)


async def test_T10_simultaneous_dials_lose_no_stream() -> None:
    """Both dial at the same moment, in many orders: whatever connections remain, every stream works."""

    async def echo(stream: Stream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    for seed in range(30):
        latency = random.Random(seed).choice((0.0, 0.01, 0.05))
        async with memory_network(2, seed=seed, link=Link(latency=latency)) as (a, b):
            for host in (a, b):
                host.handle("/echo/1", echo)

            async def use(ours, theirs) -> None:
                stream = await ours.open_stream(theirs.addrs[0], "/echo/1")
                async with stream:
                    for number in range(3):
                        await stream.send_all(b"%d" % number)
                        assert await stream.receive_some() == b"%d" % number
                        await trio.sleep(1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(use, a, b)
                nursery.start_soon(use, b, a)
            assert 1 <= len(a.connections(b.local_peer)) <= 2
            assert len(a.connections()) == len(b.connections())
            await ping(a, b.local_peer)


async def test_T10_self_dials_are_refused() -> None:
    """By id and by address, and without a trace."""
    async with memory_network(1) as (host,):
        with host.subscribe(ConnectionOpened) as events:
            for target in (host.local_peer, host.addrs[0], host.listen_addrs()[0]):
                with pytest.raises(DialError):
                    await host.connect(target)
            with trio.move_on_after(5):
                pytest.fail(f"{await events.receive()}")
        assert not host.connections()


async def test_dial_errors_are_typed() -> None:
    """Each way to fail has its own name: nothing to dial, nobody there, no answer."""
    config = HostConfig(swarm=SwarmConfig(limits=LimitsConfig(), dial_timeout=3.0))
    async with memory_network(2, config=config) as hosts:
        a, b = hosts
        with pytest.raises(NoAddresses):
            await a.connect(STRANGER)
        with pytest.raises(DialError) as caught:
            await a.connect(STRANGER, [parse("/memory/987654321")])
        assert isinstance(caught.value.attempts[0][1], TransportError)
        hosts.network.cut(hosts.node(0), hosts.node(1))
        with pytest.raises(DialError) as caught:
            await a.connect(with_peer(b.listen_addrs()[0], b.local_peer))
        assert isinstance(caught.value.attempts[0][1], DialTimeout)
