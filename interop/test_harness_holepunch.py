"""The program for libp2p's hole-punch suite, played in network namespaces with the addresses of the suite.

Two routers, a relay and a Redis server are what the suite has five containers for. Its routers let in answers only, and
give a host one port for all it talks to: port-restricted. Its other implementation is rust-libp2p, whose interop peer
takes the listener's place here; it speaks no Redis, which ``redis-cli`` does for it. Needs what
:mod:`libp2p.testing.nat` needs, and ``redis-server``.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address

import pytest
import trio

from libp2p.testing.nat import KINDS, Bed, Nat, Place, nat_bed, why_unavailable

from .conftest import get_features
from .harness.holepunch import LISTENER_ID, RELAY
from .harness.local import latencies, program, result_of, run_program
from .holepunch.__main__ import LISTEN
from .peer import BUILD, run_peer

pytestmark = pytest.mark.real_clock("other processes")

KEY = "a5b50d5e"
NETWORK = "10.197.45."
"""The suite takes the two octets in the middle from the key; the last ones are always these."""
RELAY_IP, REDIS_IP = f"{NETWORK}68", f"{NETWORK}70"
ROUTERS = {"dialer": (f"{NETWORK}99", f"{NETWORK}66"), "listener": (f"{NETWORK}131", f"{NETWORK}67")}
"""The address of each peer, and that of its router on the outside."""
STACKS = {
    "tcp": {"TRANSPORT": "tcp", "SECURE_CHANNEL": "noise", "MUXER": "yamux"},
    "quic": {"TRANSPORT": "quic-v1"},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = get_features(metafunc.config)
    cells = []
    for peer in ("ours", *({"rust"} & found.keys())):
        absent = peer != "ours" and found[peer] is None
        marks = [pytest.mark.skip(reason="absent: not built")] if absent else []
        cells += [pytest.param((peer, stack), id=f"{peer}-{stack}", marks=marks) for stack in STACKS]
    metafunc.parametrize("cell", cells)


@asynccontextmanager
async def suite_bed() -> AsyncIterator[Bed]:
    """The network, with a Redis server."""
    hosts = {name: Place(ip=IPv4Address(ip)) for name, ip in (("relay", RELAY_IP), ("redis", REDIS_IP))}
    for name, (inside, outside) in ROUTERS.items():
        hosts[name] = Place(ip=IPv4Address(inside), nat=Nat(IPv4Address(outside), KINDS["port-restricted"]))
    options = ["--bind", REDIS_IP, "--protected-mode", "no", "--save", "", "--loglevel", "warning"]
    async with nat_bed(hosts, latency=0.01) as bed, run_program(bed.command("redis", "redis-server", *options)):
        yield bed


def environment(cell: tuple[str, str], **role: str) -> dict[str, str]:
    """What the suite sets."""
    common = {"REDIS_ADDR": f"{REDIS_IP}:6379", "TEST_KEY": KEY, "DEBUG": "false"}
    return {**common, **STACKS[cell[1]], **role}


async def redis(bed: Bed, *command: str) -> str:
    """What ``redis-cli`` says, once it says something."""
    while True:
        client = bed.command("redis", "redis-cli", "-h", REDIS_IP, *command)
        done = await trio.run_process(client, capture_stdout=True, capture_stderr=True, check=False)
        if said := done.stdout.decode().strip():
            return said
        await trio.sleep(0.1)


@asynccontextmanager
async def listener(bed: Bed, cell: tuple[str, str]) -> AsyncIterator[None]:
    """Whoever is to be connected to."""
    ip, where = ROUTERS["listener"][0], bed.command("listener")
    if cell[0] == "ours":
        async with program("holepunch", environment(cell, IS_DIALER="false", LISTENER_IP=ip), where=where):
            yield
        return
    flags = ["--relay", "punch", "--pubsub", "none", "--transport", STACKS[cell[1]]["TRANSPORT"]]
    command = [str(BUILD / f"{cell[0]}-peer"), *flags, "--listen", LISTEN[cell[1]].format(ip, 0)]
    async with run_peer(cell[0], [*where, *command]) as peer:
        relay = await redis(bed, "GET", f"{KEY}_{RELAY}")
        await peer("reserve", addr=relay)
        await peer("identify", peer=relay.rpartition("/")[2])
        await redis(bed, "SET", f"{KEY}_{LISTENER_ID}", peer.peer_id)
        yield


async def test_harness_holepunch(cell: tuple[str, str]) -> None:
    """The dialer ends with 0, and with the words that the suite looks for."""
    reason = why_unavailable()
    if reason is None and shutil.which("redis-server") is None:
        reason = "absent: no redis-server on this machine (Debian: apt install redis-server)"
    if reason is not None:
        pytest.skip(reason)
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(60))
        bed = await stack.enter_async_context(suite_bed())
        relay = environment(cell, RELAY_IP=RELAY_IP)
        await stack.enter_async_context(program("holepunch", relay, where=bed.command("relay")))
        await stack.enter_async_context(listener(bed, cell))
        dialer = environment(cell, IS_DIALER="true", DIALER_IP=ROUTERS["dialer"][0])
        taken, ping = latencies(await result_of("holepunch", dialer, where=bed.command("dialer")), legacy=False)
    # No packet takes less than 10 ms, and a circuit takes several round trips.
    assert 20 <= ping < taken
