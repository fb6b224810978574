"""What a router is told, and what it asks for: for those who write one, or run one without a network. Pure.

A :class:`~libp2p.protocols.pubsub.Router` is a plain object. Its inputs return lists of the actions here; whoever runs
it carries them out. :class:`~libp2p.protocols.pubsub.Pubsub` does so with streams, and
:mod:`libp2p.testing.simulation` with a heap of events.
"""

from ._codec import Rpc, Subscription, encode_message
from ._control import Exchanged, Prune, encode_graft, encode_prune
from ._extensions import PartialRpc
from ._router import (
    Action,
    Authenticate,
    Connect,
    Count,
    Deliver,
    DeliverPartial,
    PeerSubscribed,
    PeerUnsubscribed,
    SendControl,
    SendExtension,
    SendHello,
    SendMessage,
    SendPrune,
    Unqueue,
    Validate,
)

__all__ = [
    "Action",
    "Authenticate",
    "Connect",
    "Count",
    "Deliver",
    "DeliverPartial",
    "Exchanged",
    "PartialRpc",
    "PeerSubscribed",
    "PeerUnsubscribed",
    "Prune",
    "Rpc",
    "SendControl",
    "SendExtension",
    "SendHello",
    "SendMessage",
    "SendPrune",
    "Subscription",
    "Unqueue",
    "Validate",
    "encode_graft",
    "encode_message",
    "encode_prune",
]
