"""Cases X2 and T8: every read and every write of a connection fails once, in every way; and every byte is the last."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from libp2p.abc import SecurityFactory, Stream
from libp2p.errors import Libp2pError
from libp2p.host import HostConfig, RunningHost
from libp2p.protocols.ping import ping
from libp2p.security.noise import Noise
from libp2p.security.tls import Tls
from libp2p.swarm import BackoffConfig, SwarmConfig
from libp2p.testing import MemoryNetwork, memory_network, open_memory_host
from libp2p.testing.flaky import Dribble, Fault, Flaky, Plan
from libp2p.transports.memory import Wire

pytestmark = pytest.mark.bar_c

ECHO = "/echo/1"
SIZE = 64 * 1024
IMPATIENT = HostConfig(swarm=SwarmConfig(backoff=BackoffConfig(base=0, coefficient=0)))
"""Dials a peer again at once, so that a test can see that it works."""


async def _echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def _talk(asking: RunningHost, answering: RunningHost, size: int = SIZE) -> int:
    """Connect, ping, and have ``size`` bytes echoed. How many came back."""
    await asking.connect(answering.addrs[0])
    await ping(asking, answering.local_peer)
    async with await asking.open_stream(answering.local_peer, ECHO) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(_send, stream, size)
        return sum([len(chunk) async for chunk in stream])


async def _send(stream: Stream, size: int) -> None:
    await stream.send_all(bytes(size))
    await stream.send_eof()


async def _attempt(asking: RunningHost, answering: RunningHost) -> str:
    """What came of a conversation: everything, or an error of our tree. Never part of it as if it were all."""
    outcome = "success"
    try:
        with trio.fail_after(60):
            assert await _talk(asking, answering) == SIZE, "a short answer that looked whole"
    except* (Libp2pError, trio.BrokenResourceError) as group:
        errors = _leaves(group)
        assert all(isinstance(error, Libp2pError) for error in errors), errors
        outcome = type(errors[0]).__name__
    return outcome


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


# --- X2 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["dialer", "listener"])
@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.value)
async def test_X2_every_operation_fails_once(fault, who, expected_bugs) -> None:
    """The error is one of our tree, both hosts live, and the next try works."""
    at, outcomes = 0, []
    while True:
        at += 1
        plan = Plan(fault, at)
        network = MemoryNetwork(1)
        wrap = [lambda stream, plan=plan: Flaky(stream, plan), None]
        if who == "listener":
            wrap.reverse()
        # A MemoryError is a bug in strict mode; here it has to be contained, as it would be in earnest.
        async with (
            open_memory_host(network, config=IMPATIENT, strict=False, wrap=wrap[0]) as asking,
            open_memory_host(network, config=IMPATIENT, strict=False, wrap=wrap[1]) as answering,
        ):
            answering.handle(ECHO, _echo)
            outcomes.append(await _attempt(asking, answering))
            plan.disarm()
            await trio.sleep(30)
            assert await _attempt(asking, answering) == "success", f"{fault} at {at}: {outcomes[-1]}, and then again"
        if not plan.fired:
            break
    assert outcomes[-1] == "success"
    assert at > 10
    assert fault is Fault.MEMORY or not expected_bugs, expected_bugs


# --- T8 ---------------------------------------------------------------------------------------------------------------


class _AtByte:
    """Does something to a connection when one side has sent so many bytes."""

    def __init__(self, at: int, dialer: bool, what: str) -> None:
        self.at, self.dialer, self.what = at, dialer, what
        self.fired = False

    def __call__(self, wire: Wire, data: bytes) -> bytes | None:
        if wire.dialer is not self.dialer or wire.connection.number != 1 or self.fired:
            return None
        room = self.at - wire.sent
        if len(data) < room:
            return None
        self.fired = True
        connection = wire.connection
        if self.what == "RST":
            trio.lowlevel.current_trio_token().run_sync_soon(connection.kill)
        elif self.what == "FIN":
            connection.end(dialer=self.dialer)
        else:
            trio.lowlevel.current_trio_token().run_sync_soon(connection.stall)
        return data[: max(0, room)]


async def _edges(dialer: bool, around: int, security: SecurityFactory) -> list[int]:
    """The counts of bytes at which that side's writes begin and end in a conversation, and so many ``around``."""
    found: set[int] = set()

    def tap(wire: Wire, data: bytes) -> None:
        if wire.dialer is dialer and wire.connection.number == 1:
            for edge in (wire.sent, wire.sent + len(data)):
                found.update(range(edge - around, edge + around + 1))

    async with memory_network(2, config=IMPATIENT, security=[security]) as hosts:
        hosts[1].handle(ECHO, _echo)
        with hosts.network.tap(tap):
            assert await _attempt(hosts[0], hosts[1]) == "success"
    return sorted(edge for edge in found if edge >= 0)


@pytest.mark.parametrize("what", ["RST", "FIN", "stall"])
@pytest.mark.parametrize("who", ["dialer", "listener"])
@pytest.mark.parametrize("security", [Noise, Tls], ids=["noise", "tls"])
async def test_T8_the_connection_fails_at_every_edge(who, what, security) -> None:
    """An echo is whole or an error, a stalled one ends at its deadline, and the next one works."""
    edges = await _edges(who == "dialer", around=1 if what == "RST" else 0, security=security)
    assert len(edges) > 10
    for at in edges:
        fault = _AtByte(at, who == "dialer", what)
        async with memory_network(2, config=IMPATIENT, seed=at, security=[security]) as hosts:
            asking, answering = hosts
            answering.handle(ECHO, _echo)
            with hosts.network.tap(fault):
                before = trio.current_time()
                outcome = await _attempt_or_too_slow(asking, answering)
                assert trio.current_time() - before <= 61
            await trio.sleep(120)  # keepalive finds out about stalled connections
            again = await _attempt(asking, answering)
            assert again == "success", f"{what} at {at} of {who}: {outcome}, and then {again}"


async def _attempt_or_too_slow(asking: RunningHost, answering: RunningHost) -> str:
    outcome = "too slow"
    try:
        outcome = await _attempt(asking, answering)
    except* trio.TooSlowError:
        pass
    return outcome


@pytest.mark.parametrize("size", [1, 2, 13])
async def test_T8_segments_of_a_byte(size) -> None:
    """A path that hands over a byte at a time changes nothing but time."""
    network = MemoryNetwork()
    wrap = partial(Dribble, size=size)
    async with (
        open_memory_host(network, wrap=wrap) as asking,
        open_memory_host(network, wrap=wrap) as answering,
    ):
        answering.handle(ECHO, _echo)
        assert await _talk(asking, answering, 3000) == 3000
