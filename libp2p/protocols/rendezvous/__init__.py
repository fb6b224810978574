"""``/rendezvous/1.0.0``: peers register under a name at a point everybody knows, and find each other there.

A :class:`RendezvousPoint` is the point; with :class:`libp2p.protocols.rendezvous.sqlite.SqliteRegistrations` it
remembers across restarts. :class:`Rendezvous` keeps a host registered and finds others; :func:`register`,
:func:`unregister` and :func:`discover` ask one question.

Source: libp2p/specs rendezvous.
"""

from ._client import (
    Found,
    FoundPeer,
    NothingToRegister,
    Rendezvous,
    RendezvousClientConfig,
    RendezvousRefused,
    RendezvousTimeout,
    discover,
    register,
    remember,
    unregister,
)
from ._codec import Status
from ._exchange import RENDEZVOUS
from ._point import RendezvousPoint
from ._registrations import RendezvousConfig
from ._store import RegistrationStore, StoredRegistration

__all__ = [
    "RENDEZVOUS",
    "Found",
    "FoundPeer",
    "NothingToRegister",
    "RegistrationStore",
    "Rendezvous",
    "RendezvousClientConfig",
    "RendezvousConfig",
    "RendezvousPoint",
    "RendezvousRefused",
    "RendezvousTimeout",
    "Status",
    "StoredRegistration",
    "discover",
    "register",
    "remember",
    "unregister",
]
