"""Two machines that talk to each other without a network, and what they said.

A *side* is a machine with a name. A :class:`Pair` carries bytes between two sides, cut as one likes, until neither has
anything to say, and writes down the dialogue::

    pair = Pair(Side("dialer", Dialer(["/a"])), Side("listener", Listener({"/a"}.__contains__)))
    pair.run()
    pair.expect("listener", [Agreed("/a", b"")])

When an expectation fails, the whole dialogue is in the message.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

from ..errors import Libp2pError

__all__ = ["Chunking", "Pair", "Said", "Side", "WireMachine", "bytewise", "chunkings", "in_chunks", "outcome", "whole"]

Chunking: TypeAlias = "Callable[[bytes], Iterable[bytes]]"
"""Cuts bytes into pieces."""

_TURNS = 10_000
"""After so many exchanges a pair does not converge."""


class WireMachine(Protocol):
    """Bytes in, events out; and bytes for the other side."""

    def receive_data(self, data: bytes) -> Any:
        """Take bytes of the other side; returns an event, a list of events, or None."""
        ...

    def data_to_send(self) -> Any:
        """Drain what is for the other side: bytes, or a list of buffers."""
        ...


# --- cutting ----------------------------------------------------------------------------------------------------------


def whole(data: bytes) -> list[bytes]:
    """One piece."""
    return [data] if data else []


def bytewise(data: bytes) -> list[bytes]:
    """Single bytes."""
    return [data[index : index + 1] for index in range(len(data))]


def in_chunks(rng: random.Random, largest: int = 16) -> Chunking:
    """Pieces of 1 to ``largest`` bytes."""

    def cut(data: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(data):
            stop = start + rng.randint(1, largest)
            yield data[start:stop]
            start = stop

    return cut


def chunkings(data: bytes, rng: random.Random, count: int = 20) -> Iterator[list[bytes]]:
    """Ways to cut ``data``: whole, bytewise, in two at every place (or at ``count`` places of long data), at random."""
    yield whole(data)
    yield bytewise(data)
    places = range(1, len(data)) if len(data) <= 200 else sorted(rng.sample(range(1, len(data)), count))
    for place in places:
        yield [data[:place], data[place:]]
    for _ in range(count):
        yield list(in_chunks(rng, 1 + rng.randrange(40))(data))


def outcome(machine: WireMachine, pieces: Iterable[bytes]) -> tuple[list[object], bytes, str | None]:
    """What a fresh machine makes of ``pieces``: its events, its output, and the name of the error that ended it.

    Only errors of this library's tree count as an outcome; anything else is a bug and comes out.
    """
    events: list[object] = []
    error: str | None = None
    try:
        for piece in pieces:
            events += _events(machine.receive_data(piece))
    except Libp2pError as exc:
        error = type(exc).__name__
    return events, _joined(machine.data_to_send()), error


# --- talking ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that happened.

    Attributes:
        speaker: who sent ``data``, or to whom ``event`` happened.
        data: bytes that were sent; empty for an event.
        event: what the receiving side made of them.
    """

    speaker: str
    data: bytes = b""
    event: object = None


class Side:
    """A machine with a name.

    Args:
        name: for the dialogue.
        machine: the machine.
        receive: how it takes bytes, when that is not ``machine.receive_data(data)``.
        show: how bytes that it sends are printed.

    Attributes:
        events: what it reported so far.
    """

    def __init__(
        self,
        name: str,
        machine: Any,
        *,
        receive: Callable[[bytes], Any] | None = None,
        show: Callable[[bytes], str] | None = None,
    ) -> None:
        self.name = name
        self.machine = machine
        self.events: list[object] = []
        self.show: Callable[[bytes], str] = show or _shown
        self._receive: Callable[[bytes], Any] = receive or machine.receive_data

    def receive(self, data: bytes) -> list[object]:
        """Give it bytes; returns its events."""
        events = _events(self._receive(data))
        self.events += events
        return events

    def drain(self) -> bytes:
        """What it has to send."""
        return _joined(self.machine.data_to_send())


class Pair:
    """Two sides and the bytes between them.

    Args:
        left: one side.
        right: the other.
        cut: how bytes are cut on their way; whole by default.

    Attributes:
        dialogue: all that was said so far.
    """

    def __init__(self, left: Side, right: Side, *, cut: Chunking = whole) -> None:
        self.left = left
        self.right = right
        self.dialogue: list[Said] = []
        self._cut = cut

    def run(self) -> None:
        """Carry bytes to and fro until neither side has anything to say.

        Raises:
            AssertionError: that never happens.
        """
        for _ in range(_TURNS):
            if not self.step():
                return
        raise AssertionError(f"no end after {_TURNS} turns\n{self}")

    def step(self) -> bool:
        """Let each side speak once. Whether one of them had something to say."""
        spoke = False
        for speaker, hearer in ((self.left, self.right), (self.right, self.left)):
            if data := speaker.drain():
                spoke = True
                self.dialogue.append(Said(speaker.name, data))
                for piece in self._cut(data):
                    self.dialogue += [Said(hearer.name, event=event) for event in hearer.receive(piece)]
        return spoke

    def expect(self, name: str, events: Sequence[object]) -> None:
        """Assert that the side called ``name`` reported just ``events`` since the last expectation."""
        side = self.left if name == self.left.name else self.right
        found, side.events = side.events, []
        if found != list(events):
            raise AssertionError(f"{name} reported {found}, expected {list(events)}\n{self}")

    def __str__(self) -> str:
        """The dialogue, with arrows."""
        width = max(len(self.left.name), len(self.right.name))
        return "\n".join(self._line(said, width) for said in self.dialogue)

    def _line(self, said: Said, width: int) -> str:
        left = said.speaker == self.left.name
        if said.event is not None:
            return f"{said.speaker:>{width}}   * {said.event}"
        side, arrow = (self.left, "-->") if left else (self.right, "<--")
        return f"{self.left.name:>{width}} {arrow} {self.right.name}: {side.show(said.data)}"


def _events(result: Any) -> list[object]:
    if result is None:
        return []
    return list(cast("list[object]", result)) if isinstance(result, list) else [result]


def _joined(output: Any) -> bytes:
    return bytes(output) if isinstance(output, bytes | bytearray) else b"".join(output)


def _shown(data: bytes) -> str:
    text = "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in data[:60])
    return f"{text}{'…' if len(data) > 60 else ''} ({len(data)} bytes)"
