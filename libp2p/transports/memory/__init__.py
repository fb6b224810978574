"""``/memory/N``: connections inside one process, over links that can be slow, lossy or cut. For tests.

Every host of a :class:`MemoryNetwork` gets a :class:`Memory` transport, which is a *node* of that network. Time is
Trio's, so that under a virtual clock a slow link costs nothing; chance is seeded, so that a run can be repeated.

A node may have an IP address. It then also listens on and dials ``/ip4/…/tcp/…`` on that network, and others see it
come from there: limits per address, observed addresses and the ranking of dials can be tested without a socket.
"""

from ._network import MemoryConnection, MemoryNetwork, Tap, Wire
from ._pipe import Link
from ._stream import MemoryStream
from ._transport import Memory, MemoryListener

__all__ = [
    "Link",
    "Memory",
    "MemoryConnection",
    "MemoryListener",
    "MemoryNetwork",
    "MemoryStream",
    "Tap",
    "Wire",
]
