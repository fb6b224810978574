"""The bounds of the pubsub service. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ._codec import RpcLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class PubsubConfig:
    """Bounds of the pubsub service. Each says what happens when it is reached."""

    rpc: RpcLimits = field(default_factory=RpcLimits)
    """Beyond these, the stream of the peer is reset; our own messages raise ``MessageTooLarge``."""
    queue_messages: int = 32
    """Messages that wait for one peer (go; case G10). A forwarded one that finds no room is dropped and counted; one
    that is published here waits for ``publish_patience``."""
    queue_bytes: int = 4 * 1024 * 1024
    """The same in bytes (case G10)."""
    publish_patience: float = 1.0
    """Seconds that ``publish`` waits for peers whose queue is full; then they miss the message, and until they have
    taken something nobody waits for them (ours)."""
    subscriber_messages: int = 1024
    """Messages that wait for one subscriber on this host; then the oldest is lost and counted (ours)."""
    subscriber_bytes: int = 16 * 1024 * 1024
    """The same in bytes (ours)."""
    validations_per_peer: int = 32
    """Asynchronous validations of one peer's messages at a time (case G6); its stream is not read meanwhile."""

    def __post_init__(self) -> None:
        counts = (self.queue_messages, self.queue_bytes, self.subscriber_messages, self.subscriber_bytes)
        if min(*counts, self.validations_per_peer) < 1 or self.publish_patience < 0:
            raise ValueError("bounds of pubsub must be positive")
