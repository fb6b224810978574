"""What the application sends and receives of messages in parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import trio
from trio.abc import ReceiveChannel

from ..._util.bounded import BoundedReceiver, BoundedSender, open_bounded_channel
from ...errors import DecodeError
from ...peer_id import PeerId
from ._gossipsub import Gossipsub
from ._partial import PartialMessage, Parts
from ._router import Action, Verdict

MAX_UPDATES = 64
"""Updates that wait to be received; each is as long as an RPC may be at most."""


@dataclass(frozen=True, slots=True)
class PartialUpdate:
    """What a peer sent about a message in parts. Nothing of it is proved.

    Attributes:
        peer: who sent it.
        group: which message it is about.
        parts: parts of it, encoded; empty when none came.
        metadata: what the peer has and wants, encoded; empty when it did not say.
    """

    peer: PeerId
    group: bytes
    parts: bytes = field(repr=False)
    metadata: bytes = field(repr=False)


def _crowding(waiting: Sequence[PartialUpdate]) -> int:
    """Which of ``waiting`` to lose: the oldest of the peer that has most of them, so that no peer shuts out others."""
    peers = [update.peer for update in waiting]
    (most, _), *_ = Counter(peers).most_common(1)
    return peers.index(most)


class Contained:
    """A message in parts whose code may fail at what peers say: it then has nothing for them, and the host logs a bug.

    Args:
        message: the application's object.
        contain: the host's.
    """

    def __init__(self, message: PartialMessage, contain: Callable[[str], AbstractContextManager[None]]) -> None:
        self.group = message.group
        self._message = message
        self._contain = contain

    def metadata(self) -> bytes:
        """See :class:`PartialMessage`."""
        metadata = b""
        with self._contain("metadata of a message in parts"):
            metadata = self._message.metadata()
        return metadata

    def parts_for(self, metadata: bytes | None) -> Parts | None:
        """See :class:`PartialMessage`."""
        parts: Parts | DecodeError | None = None
        with self._contain("a message in parts"):
            try:
                parts = self._message.parts_for(metadata)
            except DecodeError as exc:
                parts = exc  # for the router: the peer is to blame
        if isinstance(parts, DecodeError):
            raise parts
        return parts


class PartialMessages(ReceiveChannel[PartialUpdate]):
    """The messages in parts of a topic: updates of peers come out, what this host has goes in.

    Attributes:
        topic: the topic.
    """

    def __init__(
        self,
        topic: str,
        router: Gossipsub,
        perform: Callable[[Iterable[Action]], object],
        contain: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self.topic = topic
        self._router = router
        self._perform = perform
        self._contain = contain
        channel: tuple[BoundedSender[PartialUpdate], BoundedReceiver[PartialUpdate]] = open_bounded_channel(MAX_UPDATES)
        self._sender, self._updates = channel
        self._open = True

    @property
    def lost(self) -> int:
        """How many updates were dropped, first those of who sent most, because they were not received in time."""
        return self._updates.lost

    def publish(self, message: PartialMessage) -> None:
        """Tell the peers of the topic that do parts what this host has of ``message``, and send them what they lack.

        To be called again whenever the host has got more of it. From then on peers that tell what they have are
        answered by the object at once, until it was not published for :attr:`PartialConfig.group_beats` heartbeats.
        Peers that do not ask for parts get nothing: publish the whole message for them, too.

        Never waits; what finds no room in the queue of a peer is dropped and counted.

        Raises:
            trio.ClosedResourceError: the channel was left, or the pubsub service has ended.
        """
        self._check_open()
        contained = Contained(message, self._contain)
        self._perform(self._router.publish_partial(self.topic, contained, trio.current_time()))

    def judge(self, update: PartialUpdate, verdict: Verdict) -> None:
        """Say what the parts in ``update`` were worth: good ones count for the peer, bad ones against it.

        Raises:
            trio.ClosedResourceError: the channel was left, or the pubsub service has ended.
        """
        self._check_open()
        self._router.judge_partial(update.peer, self.topic, verdict)

    def _check_open(self) -> None:
        if not self._open:
            raise trio.ClosedResourceError("this channel was left, or pubsub has ended")

    def receive_nowait(self) -> PartialUpdate:
        """As :meth:`receive`; raises ``trio.WouldBlock`` instead of waiting."""
        return self._updates.receive_nowait()

    async def receive(self) -> PartialUpdate:
        """Wait for the next update. Cancelling loses none.

        Raises:
            trio.EndOfChannel: the pubsub service has ended, and everything was received.
            trio.ClosedResourceError: the channel was left.
        """
        return await self._updates.receive()

    async def aclose(self) -> None:
        """Drop what is held and receive nothing more."""
        await self._updates.aclose()

    # --- called by the service

    def put(self, update: PartialUpdate) -> None:
        """Hold ``update``; of too many, another one is lost."""
        self._sender.send_nowait(update, victim=_crowding)

    def end(self) -> None:
        """Nothing more will come, and nobody can be told anything."""
        self._open = False
        self._sender.close()

    def close(self) -> None:
        """Nobody will receive any more."""
        self._open = False
        self._updates.close()
