"""Two engines that talk to each other in memory, without sockets, tasks or clocks."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from libp2p.crypto.keys import PrivateKey, generate
from libp2p.peer_id import PeerId
from libp2p.transports.quic._engine import Address, Engine, EngineConfig, Start
from libp2p.transports.quic._machine import CanOpen, MachineEvent, QuicMachine
from libp2p.transports.quic._tls import Outside, TlsIdentity

CLIENT: Address = ("127.0.0.1", 4001)
SERVER: Address = ("127.0.0.1", 4002)
WALL = 1_800_000_000.0
"""What the wall clock of these tests shows."""

Change = Callable[[bytes, bool], "bytes | None"]
"""Gets a datagram and whether the client has sent it; gives what arrives."""


def outside(seed: int = 1) -> Outside:
    """The world, repeatable as far as the engine lets it be."""
    rng = random.Random(seed)
    return Outside(lambda: WALL, rng.randbytes, lambda: 0.0, lambda: 0.0)


@cache
def identity(number: int) -> tuple[PrivateKey, TlsIdentity]:
    """A key and its certificate, made once."""
    key = generate()
    return key, TlsIdentity.make(key, WALL)


def peer(number: int) -> PeerId:
    return PeerId.from_key(identity(number)[0].public_key)


@dataclass
class Pair:
    """A client and a server; ``now`` moves a millisecond with each exchange."""

    client: Engine
    server: Engine
    now: float = 1.0
    change: Change = field(default=lambda data, from_client: data)

    def exchange(self, rounds: int = 10) -> None:
        """Carry datagrams both ways until ``rounds`` are over."""
        for _ in range(rounds):
            for source, target, address in ((self.client, self.server, CLIENT), (self.server, self.client, SERVER)):
                source.handle_timeout(self.now)
                for data, _ in source.transmit(self.now):
                    arriving = self.change(data, source is self.client)
                    if arriving is not None:
                        target.receive([arriving], address, self.now)
            self.now += 0.001


def make_client(*, expected: PeerId | None = None, config: EngineConfig | None = None, seed: int = 2) -> Engine:
    world = outside(seed)
    return Engine(
        identity(1)[1],
        config or EngineConfig(),
        world,
        remote=SERVER,
        cid=world.entropy(8),
        start=None,
        expected=expected,
        now=1.0,
    )


def make_server(start: Start, *, config: EngineConfig | None = None) -> Engine:
    world = outside(3)
    return Engine(
        identity(2)[1],
        config or EngineConfig(),
        world,
        remote=CLIENT,
        cid=world.entropy(8),
        start=start,
        expected=None,
        now=1.0,
    )


def make_pair(*, expected: PeerId | None = None, config: EngineConfig | None = None) -> Pair:
    """Two ends that have not spoken yet."""
    client = make_client(expected=expected, config=config)
    cid = client.initial_cid
    return Pair(client, make_server(Start(cid, cid, False), config=config))


def events(engine: Engine) -> list[tuple[object, ...]]:
    """All events that wait."""
    found = []
    while (event := engine.next_event()) is not None:
        found.append(event)
    return found


def named(engine: Engine) -> dict[str, tuple[object, ...]]:
    """All events that wait, by name."""
    return {str(event[0]): event for event in events(engine)}


@dataclass
class Machines:
    """Two machines whose handshake is complete."""

    client: QuicMachine
    server: QuicMachine
    pair: Pair

    @property
    def now(self) -> float:
        return self.pair.now

    def exchange(self, rounds: int = 10) -> tuple[list[MachineEvent], list[MachineEvent]]:
        """Carry datagrams; what both ends say has happened to streams, the client first."""
        found: tuple[list[MachineEvent], list[MachineEvent]] = ([], [])
        for _ in range(rounds):
            self.pair.exchange(1)
            for machine, list_of_events in zip((self.client, self.server), found, strict=True):
                list_of_events.extend(event for event in machine.events(self.now) if event != CanOpen())
                machine.credited()
        return found


def make_machines(*, config: EngineConfig | None = None) -> Machines:
    pair = make_pair(config=config)
    machines = Machines(QuicMachine(pair.client, pair.now), QuicMachine(pair.server, pair.now), pair)
    machines.exchange()
    machines.exchange()
    return machines
