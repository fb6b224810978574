"""Kademlia: a distributed hash table that finds peers, providers of content, and values.

Source: libp2p/specs kad-dht.
"""

from ._addrs import Reach
from ._config import KAD, LAN_KAD, KadConfig, Mode, amino, lan
from ._discovery import DhtDiscovery
from ._errors import NotFound, NotStored, StoreBusy
from ._events import LookupStep, Step
from ._query import QueryConfig
from ._records import AnyValue, InvalidRecord, IpnsValidator, PublicKeyValidator, Validator, public_validators
from ._routing_table import Entry, RoutingTable, TableConfig
from ._server import MAX_CONTENT_KEY
from ._service import MAX_FOUND, Kademlia, StoreFactory
from ._store import MemoryStore, Store, StoreConfig, StoredProvider, StoredValue

__all__ = [
    "KAD",
    "LAN_KAD",
    "MAX_CONTENT_KEY",
    "MAX_FOUND",
    "AnyValue",
    "DhtDiscovery",
    "Entry",
    "InvalidRecord",
    "IpnsValidator",
    "KadConfig",
    "Kademlia",
    "LookupStep",
    "MemoryStore",
    "Mode",
    "NotFound",
    "NotStored",
    "PublicKeyValidator",
    "QueryConfig",
    "Reach",
    "RoutingTable",
    "Step",
    "Store",
    "StoreBusy",
    "StoreConfig",
    "StoreFactory",
    "StoredProvider",
    "StoredValue",
    "TableConfig",
    "Validator",
    "amino",
    "lan",
    "public_validators",
]
