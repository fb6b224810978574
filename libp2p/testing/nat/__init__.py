"""A small internet with NATs in it, on one Linux machine: for tests of hole punching and the like.

``python -m libp2p.testing.nat relay=public ann=symmetric ben=port-restricted`` makes three network namespaces, two of
them behind NATs of those kinds, and says how to run programs there. In a program::

    async with nat_bed(places({"relay": "public", "ann": "symmetric"})) as bed:
        await trio.run_process(bed.command("ann", "ping", "-c", "1", "7.1.0.1"))

The NATs are in user space: the kernel needs no packet filter. It takes the right to make network namespaces and TUN
devices, which root has; where it is missing :class:`Unavailable` says so. :class:`Nat` by itself is a table without any
network, fit for simulations.
"""

from ._bed import PUBLIC, Bed, Unavailable, nat_bed, places, why_unavailable
from ._internet import Internet, Place
from ._packets import Endpoint, Flow, Protocol, read, rewrite
from ._table import KINDS, Dependence, Nat, NatConfig

__all__ = [
    "KINDS",
    "PUBLIC",
    "Bed",
    "Dependence",
    "Endpoint",
    "Flow",
    "Internet",
    "Nat",
    "NatConfig",
    "Place",
    "Protocol",
    "Unavailable",
    "nat_bed",
    "places",
    "read",
    "rewrite",
    "why_unavailable",
]
