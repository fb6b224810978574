"""Pairs of machines, ways to cut bytes, and what is said when an expectation fails."""

from __future__ import annotations

import random

import pytest

from libp2p.errors import RemoteProtocolError
from libp2p.multistream import Agreed, Dialer, Listener
from libp2p.testing.machines import Pair, Side, bytewise, chunkings, in_chunks, outcome, whole


def _pair(cut=whole) -> Pair:
    return Pair(
        Side("dialer", Dialer(["/no/1", "/yes/1"])), Side("listener", Listener({"/yes/1"}.__contains__)), cut=cut
    )


@pytest.mark.parametrize("cut", [whole, bytewise, in_chunks(random.Random(1))])
def test_a_pair_talks_until_nobody_has_anything_to_say(cut) -> None:
    pair = _pair(cut)
    pair.run()
    pair.expect("dialer", [Agreed("/yes/1", b"")])
    pair.expect("listener", [Agreed("/yes/1", b"")])
    pair.expect("listener", [])


def test_a_failed_expectation_shows_the_dialogue() -> None:
    pair = _pair()
    pair.run()
    with pytest.raises(AssertionError) as caught:
        pair.expect("listener", [])
    text = str(caught.value)
    assert "dialer --> listener: \\x13/multistream/1.0.0" in text
    assert "dialer <-- listener: " in text
    assert "* Agreed(protocol='/yes/1', leftover=b'')" in text


class _Parrot:
    """Never stops."""

    def __init__(self, first: bytes) -> None:
        self.output = [first]

    def receive_data(self, data: bytes) -> list[object]:
        self.output.append(data)
        return []

    def data_to_send(self) -> list[bytes]:
        output, self.output = self.output, []
        return output


def test_a_pair_that_never_ends_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no end"):
        Pair(Side("a", _Parrot(b"x")), Side("b", _Parrot(b""))).run()


@pytest.mark.parametrize("size", [0, 1, 7, 300])
def test_chunkings_lose_nothing(size) -> None:
    data = random.Random(size).randbytes(size)
    found = list(chunkings(data, random.Random(0)))
    assert all(b"".join(pieces) == data for pieces in found)
    assert all(piece for pieces in found for piece in pieces)
    assert size < 2 or len({tuple(pieces) for pieces in found}) > size // 10


def test_outcome_tells_events_output_and_error() -> None:
    good = b"".join(Dialer(["/yes/1"]).data_to_send() for _ in range(1)) + b"rest"
    events, output, error = outcome(Listener({"/yes/1"}.__contains__), [good])
    assert events == [Agreed("/yes/1", b"rest")]
    assert output.endswith(b"/yes/1\n")
    assert error is None
    assert outcome(Listener(bool), [b"\x00"])[2] == RemoteProtocolError.__name__
