"""Asking the application about messages.

Validators are the user's code: what they raise stops at the host's containment, and the message is ignored. Synchronous
ones run at once and must be quick, because nothing else runs meanwhile. Asynchronous ones run in tasks, at most so many
at a time, each within a time that includes waiting for its turn; when the time is up, the message is ignored.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

import trio

from ..._util.bounded import LruMap
from ...abc import Host
from ...peer_id import PeerId
from ._codec import MAX_ID_SIZE, Message, MessageId
from ._router import Verdict

Validator: TypeAlias = Callable[[Message], "Verdict | Awaitable[Verdict]"]
"""Says what to think of a message: a function, or an async function."""
MessageIdFunction: TypeAlias = Callable[[Message], MessageId]
"""Computes what tells a message apart, in at most 256 bytes. Called with the default id in ``message.id``."""
TopicFilter: TypeAlias = Callable[[str], bool]
"""Says whether a topic is one of those that this host has to do with. Called for each subscription of a peer: quick."""

TIMEOUT = 1.0
"""Seconds an asynchronous validator has (case G10)."""
CONCURRENCY = 64
"""Runs of one asynchronous validator at a time. (go: 1024; theirs run in threads, ours share one.)"""


@dataclass(eq=False, slots=True)
class Check:
    """One validator, and its limits.

    Attributes:
        validator: the user's function.
        timeout: seconds it has, if it is asynchronous.
        concurrency: runs at a time, if it is asynchronous.
        is_async: whether it is.
    """

    validator: Validator
    timeout: float = TIMEOUT
    concurrency: int = CONCURRENCY
    is_async: bool = field(init=False)
    _slots: trio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.concurrency < 1:
            raise ValueError("a validator needs time and at least one run")
        function = self.validator
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - not whether it can be called, but how
        )
        self._slots = trio.Semaphore(self.concurrency)

    def ask(self, host: Host, message: Message) -> Verdict:
        """The verdict of a synchronous validator; IGNORE when it fails."""
        verdict = Verdict.IGNORE
        with host.contain("validator for a message from", message.received_from):
            verdict = _checked(self.validator(message))
        return verdict

    async def ask_async(self, host: Host, message: Message) -> Verdict | None:
        """The verdict of an asynchronous validator; IGNORE when it fails, None when its time is up."""
        verdict = Verdict.IGNORE
        with trio.move_on_after(self.timeout) as scope:
            with host.contain("validator for a message from", message.received_from):
                async with self._slots:
                    verdict = _checked(await cast("Awaitable[Verdict]", self.validator(message)))
        return None if scope.cancelled_caught else verdict


def _checked(verdict: object) -> Verdict:
    if not isinstance(verdict, Verdict):
        raise TypeError(f"a validator must return a Verdict, not {verdict!r}")
    return verdict


class Application:
    """What the user of pubsub has to say about topics and their messages: validators and message ids, and a filter.

    Args:
        validators: asked about all topics, before the topic's own.
        message_id: for topics without a function of their own; None for the default ids.
        topic_filter: which topics there are; None for all.
    """

    def __init__(
        self, validators: Sequence[Validator], message_id: MessageIdFunction | None, topic_filter: TopicFilter | None
    ) -> None:
        self._common = tuple([Check(validator) for validator in validators])
        self._by_topic: dict[str, Check] = {}
        self._message_id = message_id
        self._message_ids: dict[str, MessageIdFunction] = {}
        self._topic_filter = topic_filter

    def set_check(self, topic: str, check: Check) -> None:
        """Ask ``check`` about messages of ``topic``."""
        self._by_topic[topic] = check

    def set_message_id(self, topic: str, function: MessageIdFunction) -> None:
        """Tell messages of ``topic`` apart by ``function``."""
        self._message_ids[topic] = function

    def checks(self, topic: str) -> Sequence[Check]:
        """Whom to ask about messages of ``topic``, in order."""
        check = self._by_topic.get(topic)
        return self._common if check is None else (*self._common, check)

    def heeds(self, host: Host, topic: str) -> bool:
        """Whether ``topic`` is one that this host has to do with; not when the filter fails."""
        if self._topic_filter is None:
            return True
        heeded = False
        with host.contain("topic filter for", topic):
            heeded = bool(self._topic_filter(topic))
        return heeded

    def identify(self, host: Host, message: Message) -> Message | None:
        """``message`` with its id; None when the function for it fails."""
        function = self._message_ids.get(message.topic, self._message_id)
        if function is None:
            return message
        identified: Message | None = None
        with host.contain("message id function for a message from", message.received_from):
            message_id = bytes(function(message))
            if len(message_id) > MAX_ID_SIZE:
                raise ValueError(f"a message id of {len(message_id)} bytes is above the limit of {MAX_ID_SIZE}")
            identified = replace(message, id=message_id)
        return identified


class MonotonicSeqno:
    """A validator that ignores messages whose sequence number is not above all that came from their author before.

    It keeps out replays that are older than what the router remembers. Of messages that overtake each other on their
    way only the newest gets through: for topics where that is wanted, or where authors publish rarely.

    Args:
        authors: authors remembered; when there are more, the one not heard of for longest is forgotten.
    """

    def __init__(self, *, authors: int = 10_000) -> None:
        self._highest: LruMap[PeerId, int] = LruMap(authors)

    def __call__(self, message: Message) -> Verdict:
        """See :data:`Validator`."""
        if message.author is None or message.seqno is None:
            return Verdict.IGNORE
        seqno = int.from_bytes(message.seqno, "big")
        highest = self._highest.get(message.author)
        if highest is not None and seqno <= highest:
            return Verdict.IGNORE
        self._highest[message.author] = seqno
        return Verdict.ACCEPT
