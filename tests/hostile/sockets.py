"""Hosts and attackers on real sockets, each attacker with an address of 127/8 of its own."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from libp2p.host import HostConfig, RunningHost, open_host
from libp2p.muxers.yamux import Yamux
from libp2p.peerstore import MemoryPeerstore
from libp2p.protocols.identify import Identify
from libp2p.protocols.ping import Ping
from libp2p.security.noise import Noise
from libp2p.swarm import Gater
from libp2p.testing import seeded_key
from libp2p.testing.raw import Identity, RawPeer
from libp2p.testing.rig import Budget, Rig, open_rig
from libp2p.transports.dns import DnsResolver
from libp2p.transports.tcp import Tcp, TcpStream


@asynccontextmanager
async def open_tcp_host(name: str, config: HostConfig | None = None) -> AsyncIterator[RunningHost]:
    """A host on 127.0.0.1."""
    async with open_host(
        key=seeded_key(name),
        listen=["/ip4/127.0.0.1/tcp/0"],
        services=[Identify(), Ping()],
        transports=[Tcp()],
        security=[Noise],
        muxers=[Yamux()],
        peerstore=MemoryPeerstore(),
        resolver=DnsResolver(),
        gater=Gater(),
        config=config or HostConfig(strict=True),
    ) as host:
        yield host


class SocketAttack:
    """Attackers of one host; see :func:`sockets_under_attack`."""

    def __init__(self, victim: RunningHost, rig: Rig) -> None:
        self.victim = victim
        self.rig = rig
        self.streams: list[TcpStream] = []

    async def dial(self, ip: str, *, identity: Identity | None = None) -> RawPeer:
        """A raw connection to the victim from ``ip``."""
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            await sock.bind((ip, 0))
            port = int(str(self.victim.listen_addrs()[0]).rpartition("/")[2])
            await sock.connect(("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        stream = TcpStream(socket.socket(fileno=sock.detach()))
        self.streams.append(stream)
        return RawPeer(stream, identity=identity or Identity(ip))


@asynccontextmanager
async def sockets_under_attack(config: HostConfig, budget: Budget) -> AsyncIterator[SocketAttack]:
    """A victim and three canaries on sockets; the verdict comes when the block is left in order."""
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(open_tcp_host("victim", config))
        canaries = [await stack.enter_async_context(open_tcp_host(f"canary-{number}")) for number in range(3)]
        rig = await stack.enter_async_context(open_rig(victim, canaries, quiet=0.5))
        attack = SocketAttack(victim, rig)
        async with rig.attack():
            try:
                yield attack
            finally:
                with trio.CancelScope(shield=True):
                    for stream in attack.streams:
                        await trio.aclose_forcefully(stream)
        while victim.swarm.scopes.usage()["connections_inbound"] > 3:
            await trio.testing.wait_all_tasks_blocked(0.01)
        rig.verdict(budget)
