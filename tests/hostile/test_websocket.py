"""Case T7, its WebSocket part, and T1 through the opening handshake: raw clients, exact times."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from libp2p.abc import Buffer, DirectStream, Transport
from libp2p.addressing import parse
from libp2p.errors import Libp2pError
from libp2p.host import HostConfig, RunningHost, open_host
from libp2p.muxers.yamux import Yamux
from libp2p.peerstore import MemoryPeerstore
from libp2p.protocols.identify import Identify
from libp2p.protocols.ping import Ping, ping
from libp2p.security.noise import Noise
from libp2p.swarm import BackoffConfig, Gater, SwarmConfig
from libp2p.testing import Memory, MemoryNetwork, seeded_key
from libp2p.testing.cut import Scenario, cut_everywhere
from libp2p.testing.flaky import Fault, Flaky, Plan, WrappingTransport
from libp2p.testing.rig import Budget, open_rig
from libp2p.transports.dns import DnsResolver
from libp2p.transports.websocket import HANDSHAKE_TIMEOUT, WebSocket

pytestmark = pytest.mark.bar_c

PENDING = 64
HEAD = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@asynccontextmanager
async def open_ws_host(
    network: MemoryNetwork, ip: str, wrap: Callable[[Any], Any] | None = None
) -> AsyncIterator[RunningHost]:
    """A host that speaks WebSocket only; ``wrap`` is put around the streams below it."""
    below: Transport = Memory(network, ip=ip)
    if wrap is not None:
        below = WrappingTransport(below, wrap)
    async with open_host(
        key=seeded_key(ip),
        listen=[f"/ip4/{ip}/tcp/80/ws"],
        services=[Identify(), Ping()],
        transports=[WebSocket(below=below)],
        security=[Noise],
        muxers=[Yamux()],
        peerstore=MemoryPeerstore(),
        resolver=DnsResolver(),
        gater=Gater(),
        config=HostConfig(swarm=SwarmConfig(backoff=BackoffConfig(base=0, coefficient=0)), strict=True),
    ) as host:
        yield host


class Attack:
    """Raw clients of one host."""

    def __init__(self, network: MemoryNetwork, victim: RunningHost) -> None:
        self.network = network
        self.victim = victim
        self._count = 0

    async def dial(self) -> Any:
        """A connection from an address of its own, on which nothing was said."""
        self._count += 1
        node = Memory(self.network, ip=f"100.{self._count // 200}.{self._count % 200}.7")
        return (await node.dial(parse("/ip4/10.0.0.1/tcp/80"), peer=None)).stream

    async def open(self) -> Any:
        """One whose opening handshake is over."""
        stream = await self.dial()
        await stream.send_all(HEAD)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await stream.receive_some(1)
        return stream


@asynccontextmanager
async def under_attack(budget: Budget | None = None) -> AsyncIterator[Attack]:
    """A victim and three canaries over WebSocket; the verdict comes when the block is left in order."""
    network = MemoryNetwork(1)
    async with (
        open_ws_host(network, "10.0.0.1") as victim,
        open_ws_host(network, "10.1.0.1") as one,
        open_ws_host(network, "10.2.0.1") as two,
        open_ws_host(network, "10.3.0.1") as three,
        open_rig(victim, [one, two, three]) as rig,
    ):
        async with rig.attack():
            yield Attack(network, victim)
        await trio.sleep(20)
        rig.verdict(budget or Budget(memory=8e6, kept=8e6))


async def _rest(stream: Any) -> bytes:
    """What the victim says until it ends the connection."""
    said = b""
    try:
        while data := await stream.receive_some():
            said += data
    except trio.BrokenResourceError:
        pass
    return said


async def test_T7_a_header_a_byte_a_second() -> None:
    """T7: dead at 10 s, absolute."""
    async with under_attack() as attack:
        stream, began = await attack.dial(), trio.current_time()
        try:
            for byte in HEAD:
                await stream.send_all(bytes((byte,)))
                await trio.sleep(1)
        except trio.BrokenResourceError:
            pass
        assert trio.current_time() - began == pytest.approx(HANDSHAKE_TIMEOUT, abs=1.1)
        await stream.aclose()


async def test_T1_a_thousand_silent_websockets() -> None:
    """T1: unfinished handshakes count as unfinished connections: 64 stay, until their time is up."""
    async with under_attack(Budget(memory=40e6, kept=30e6)) as attack:  # a thousand nodes in memory are part of it
        lives: list[float] = []

        async def be_silent() -> None:
            stream, began = await attack.dial(), trio.current_time()
            await _rest(stream)
            lives.append(trio.current_time() - began)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(be_silent)
            await trio.sleep(0.1)
            assert attack.victim.swarm.scopes.usage()["pending_inbound"] <= PENDING
            assert len(lives) >= 1000 - PENDING
        assert sorted(lives)[-PENDING:] == pytest.approx([HANDSHAKE_TIMEOUT] * PENDING, abs=0.2)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n" + b"X-Filler: " + b"x" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 20_000,
        HEAD.replace(b"Host:", b"Content-Length: 2147483648\r\nHost:"),
        b"\x16\x03\x01" + bytes(200) + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["long", "many", "body", "tls", "http2"],
)
async def test_T7_requests_that_are_no_handshake(request_bytes) -> None:
    """T7: at most 8 KiB are read, a body is never waited for, and the connection ends at once."""
    async with under_attack() as attack:
        stream, began = await attack.dial(), trio.current_time()
        try:
            await stream.send_all(request_bytes)
        except trio.BrokenResourceError:
            pass
        said = await _rest(stream)
        assert said == b"" or said.startswith(b"HTTP/1.1 400 ")
        assert trio.current_time() - began < 1
        await stream.aclose()


@pytest.mark.parametrize(
    "frames",
    [
        b"\x82\xff" + (2**63).to_bytes(8, "big") + bytes(4),
        b"\x82\xff" + (2**21).to_bytes(8, "big") + bytes(4) + bytes(2**21),
        b"\x89\x80\0\0\0\0" * 10_000,
        b"\x00\x80\0\0\0\0",
        b"\x02\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 10_000,
        b"\x81\x81\0\0\0\0x",
        b"\x82\x01x",
    ],
    ids=["2^63", "2MiB", "pings", "orphan", "fragments", "text", "unmasked"],
)
async def test_T7_frames(frames) -> None:
    """T7: each ends the connection at once, with a close frame at most; nothing is collected.

    While a protocol is negotiated reads are small, so a flood there is no flood in one read. It earns an answer a read,
    and the end of the time there is to come to terms.
    """
    async with under_attack() as attack:
        stream, began = await attack.open(), trio.current_time()
        try:
            await stream.send_all(frames)
        except trio.BrokenResourceError:
            pass
        said = await _rest(stream)
        flood = len(frames) == 60_000 or frames.startswith(b"\x02\x80")
        assert len(said) < (1000 if flood else 10)
        assert trio.current_time() - began < (16 if flood else 1)
        await stream.aclose()


async def test_T7_pings_without_end_and_without_reading() -> None:
    """T7: slow enough to be no flood, and nobody reads the answers: they do not pile up, and 15 s end it."""
    async with under_attack() as attack:
        stream, began = await attack.open(), trio.current_time()
        try:
            while True:
                await stream.send_all(b"\x89\xfd\0\0\0\0" + bytes(125))
                await trio.sleep(0.01)
        except trio.BrokenResourceError:
            pass
        assert trio.current_time() - began <= 16
        await stream.aclose()


# --- X2 ---------------------------------------------------------------------------------------------------------------


class DirectFlaky(Flaky, DirectStream):
    """Fails once in either way of using it, when its plan says so, and is broken from then on."""

    @property
    def kernel(self) -> bool:
        return False

    def __init__(self, below: DirectStream, plan: Plan) -> None:
        super().__init__(below, plan)
        self._direct = below

    def _fails_now(self) -> bool:
        self._dead = self._dead or self._plan.step()
        return self._dead

    def receive_into_nowait(self, buffer: memoryview) -> int:
        if self._fails_now():
            if self._plan.fault is Fault.EOF:
                return 0
            raise self._plan.error()
        return self._direct.receive_into_nowait(buffer)

    def send_nowait(self, data: Buffer) -> int:
        if self._fails_now():
            raise self._plan.error()
        return self._direct.send_nowait(data)

    async def wait_readable(self) -> None:
        await self._direct.wait_readable()

    async def wait_writable(self) -> None:
        await self._direct.wait_writable()


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.EOF, Fault.TIMEOUT], ids=lambda fault: fault.value)
@pytest.mark.parametrize("who", ["dialer", "listener"])
async def test_X2_every_operation_fails_once(fault, who) -> None:
    """X2: each read and write below the WebSocket; the error is typed, both hosts live, and the next try works."""
    at, fired = 0, True
    while fired:
        at += 1
        plan, network = Plan(fault, at), MemoryNetwork(1)

        def flaky(stream: Any, plan: Plan = plan) -> Any:
            return DirectFlaky(stream, plan)

        wraps = (flaky, None) if who == "dialer" else (None, flaky)
        async with (
            open_ws_host(network, "10.0.0.1", wraps[0]) as one,
            open_ws_host(network, "10.1.0.1", wraps[1]) as other,
        ):
            try:
                await one.connect(other.addrs[0])
                await ping(one, other.local_peer)
            except Libp2pError:
                assert plan.fired
            plan.disarm()
            await trio.sleep(30)
            await one.connect(other.addrs[0])
            await ping(one, other.local_peer)
        fired = plan.fired
    assert at > 10


# --- X1 ---------------------------------------------------------------------------------------------------------------


class _Dialling(Scenario[tuple[RunningHost, RunningHost]]):
    """A connection over WebSocket, from the first byte to a ping."""

    @asynccontextmanager
    async def setup(self) -> AsyncIterator[tuple[RunningHost, RunningHost]]:
        network = MemoryNetwork(1)
        async with open_ws_host(network, "10.0.0.1") as one, open_ws_host(network, "10.1.0.1") as other:
            yield one, other
            await trio.sleep(30)
            assert one.swarm.scopes.usage()["pending_inbound"] == 0
            assert one.swarm.scopes.usage().get("dials", 0) == 0

    async def act(self, state: tuple[RunningHost, RunningHost]) -> None:
        one, other = state
        await one.connect(other.addrs[0])
        await ping(one, other.local_peer)
        await one.disconnect(other.local_peer)


@pytest.mark.limit(120)
def test_X1_cancelled_everywhere() -> None:
    """X1: at every scheduling point; nothing is left, and the same works afterwards."""
    assert cut_everywhere(_Dialling()) > 30
