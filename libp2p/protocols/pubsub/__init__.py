"""Publish and subscribe: messages go to everybody who wants those of their topic.

:class:`Pubsub` is the service; a router decides which way messages take. Source: libp2p/specs, pubsub.
"""

from ._codec import Message, MessageId, RpcLimits
from ._config import PubsubConfig
from ._discovery import TopicDiscovery, TopicDiscoveryConfig
from ._errors import MessageRefused, MessageTooLarge, NoPeers, PeersTooSlow, PubsubError
from ._events import TopicPeerJoined, TopicPeerLeft
from ._floodsub import FLOODSUB, Floodsub, FloodsubConfig
from ._gossipsub import MESHSUB_10, MESHSUB_11, MESHSUB_12, MESHSUB_13, Gossipsub
from ._gossipsub_config import GossipsubConfig
from ._partial import PartialConfig, PartialMessage, Parts
from ._partial_channel import PartialMessages, PartialUpdate
from ._randomsub import RANDOMSUB, Randomsub
from ._router import Fault, Router, Verdict
from ._score_config import PeerScoreConfig, ScoreThresholds, TopicScore
from ._service import Pubsub
from ._signing import SignaturePolicy
from ._subscriber import Messages
from ._validation import MessageIdFunction, MonotonicSeqno, TopicFilter, Validator

__all__ = [
    "FLOODSUB",
    "MESHSUB_10",
    "MESHSUB_11",
    "MESHSUB_12",
    "MESHSUB_13",
    "RANDOMSUB",
    "Fault",
    "Floodsub",
    "FloodsubConfig",
    "Gossipsub",
    "GossipsubConfig",
    "Message",
    "MessageId",
    "MessageIdFunction",
    "MessageRefused",
    "MessageTooLarge",
    "Messages",
    "MonotonicSeqno",
    "NoPeers",
    "PartialConfig",
    "PartialMessage",
    "PartialMessages",
    "PartialUpdate",
    "Parts",
    "PeerScoreConfig",
    "PeersTooSlow",
    "Pubsub",
    "PubsubConfig",
    "PubsubError",
    "Randomsub",
    "Router",
    "RpcLimits",
    "ScoreThresholds",
    "SignaturePolicy",
    "TopicDiscovery",
    "TopicDiscoveryConfig",
    "TopicFilter",
    "TopicPeerJoined",
    "TopicPeerLeft",
    "TopicScore",
    "Validator",
    "Verdict",
]
