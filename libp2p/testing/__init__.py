"""Tools for tests of programs and protocols that use this library.

:func:`memory_network` runs whole hosts in memory, under a virtual clock if there is one. Other modules here serve those
who work on the library or implement its interfaces: executable contracts (:mod:`libp2p.testing.conformance`), pairs of
machines (:mod:`~libp2p.testing.machines`), cancellation everywhere (:mod:`~libp2p.testing.cut`), faults
(:mod:`~libp2p.testing.flaky`), canaries (:mod:`~libp2p.testing.rig`), hypothesis strategies
(:mod:`~libp2p.testing.strategies`), and peers that break rules (:mod:`~libp2p.testing.raw`).
"""

from ..transports.memory import Link, Memory, MemoryNetwork
from .deterministic import deterministic_scheduling
from .keys import seeded_key
from .network import Hosts, LeftBehind, memory_network, open_memory_host

__all__ = [
    "Hosts",
    "LeftBehind",
    "Link",
    "Memory",
    "MemoryNetwork",
    "deterministic_scheduling",
    "memory_network",
    "open_memory_host",
    "seeded_key",
]
