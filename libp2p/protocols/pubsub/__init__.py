"""Publish and subscribe: messages go to everybody who wants those of their topic.

:class:`Pubsub` is the service; a router decides which way messages take. Source: libp2p/specs, pubsub.
"""

from ._codec import Message, MessageId, RpcLimits
from ._config import PubsubConfig
from ._errors import MessageRefused, MessageTooLarge, NoPeers, PubsubError
from ._events import TopicPeerJoined, TopicPeerLeft
from ._floodsub import FLOODSUB, Floodsub, FloodsubConfig
from ._router import Fault, Router, Verdict
from ._service import Pubsub
from ._signing import SignaturePolicy
from ._subscriber import Messages
from ._validation import MessageIdFunction, MonotonicSeqno, Validator

__all__ = [
    "FLOODSUB",
    "Fault",
    "Floodsub",
    "FloodsubConfig",
    "Message",
    "MessageId",
    "MessageIdFunction",
    "MessageRefused",
    "MessageTooLarge",
    "Messages",
    "MonotonicSeqno",
    "NoPeers",
    "Pubsub",
    "PubsubConfig",
    "PubsubError",
    "Router",
    "RpcLimits",
    "SignaturePolicy",
    "TopicPeerJoined",
    "TopicPeerLeft",
    "Validator",
    "Verdict",
]
