"""What is known about peers: addresses, keys, protocols, signed records.

Both stores answer from memory and have the same bounds; :class:`libp2p.peerstore.sqlite.SqlitePeerstore` also
remembers across restarts. It has a module of its own, so that who does not want it does not load a database.
"""

from ._entry import PeerstoreConfig
from ._memory import MemoryPeerstore

__all__ = ["MemoryPeerstore", "PeerstoreConfig"]
