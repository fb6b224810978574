"""What publishing may raise."""

from __future__ import annotations

from ...errors import ServiceError
from ._codec import MessageId
from ._router import Verdict


class PubsubError(ServiceError):
    """A message could not be published. Always one of its subclasses."""


class MessageTooLarge(PubsubError):
    """The message does not fit into one RPC.

    Attributes:
        size: bytes it would take.
        limit: bytes there are.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a message of {self.size} bytes does not fit into an RPC of {self.limit}; split it, or send a reference"


class NoPeers(PubsubError):
    """Nobody else is subscribed to the topic, as far as this host knows: the message would reach nobody.

    Attributes:
        topic: the topic.
    """

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic

    def __str__(self) -> str:
        return f"no peer of this host is subscribed to {self.topic!r}"


class PeersTooSlow(PubsubError):
    """Every peer that was to get the message has its queue full, and took nothing for as long as was waited.

    The message was not sent to anybody. It is kept for some heartbeats, and peers that ask for it will get it.

    Attributes:
        topic: the topic.
        message_id: the id of the message.
        peers: how many there were.
    """

    def __init__(self, topic: str, message_id: MessageId, peers: int) -> None:
        super().__init__(topic, message_id, peers)
        self.topic = topic
        self.message_id = message_id
        self.peers = peers

    def __str__(self) -> str:
        return f"none of {self.peers} peers takes messages of {self.topic!r}: publish slower, or raise publish_patience"


class MessageRefused(PubsubError):
    """This host's own validators do not want the message, so other hosts' would not either.

    Attributes:
        topic: the topic.
        verdict: what they said.
    """

    def __init__(self, topic: str, verdict: Verdict) -> None:
        super().__init__(topic, verdict)
        self.topic = topic
        self.verdict = verdict

    def __str__(self) -> str:
        return f"the validators of {self.topic!r} said {self.verdict.value}"
