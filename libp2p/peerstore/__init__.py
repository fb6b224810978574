"""What is known about peers: addresses, keys, protocols, signed records.

Both stores answer from memory and have the same bounds; :class:`SqlitePeerstore` also remembers across restarts.
"""

from ._entry import PeerstoreConfig
from ._memory import MemoryPeerstore
from ._sqlite import SqlitePeerstore, StoreCorrupt, StoreError, StoreUnwritable, StoreVersionMismatch

__all__ = [
    "MemoryPeerstore",
    "PeerstoreConfig",
    "SqlitePeerstore",
    "StoreCorrupt",
    "StoreError",
    "StoreUnwritable",
    "StoreVersionMismatch",
]
