"""multistream-select without a stream (requirements M1 to M8, reliability cases M1 and M2)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.errors import LocalProtocolError, NegotiationError, RemoteProtocolError
from libp2p.multistream import MULTISTREAM, Agreed, Dialer, Listener
from libp2p.testing.machines import Pair, Side, bytewise, chunkings, in_chunks, outcome, whole
from libp2p.testing.raw import HEADER, NA, line, read_lines, uvarint
from libp2p.testing.strategies import multistream_wire, pieces, protocol_ids

SERVED = {"/a/1", "/b/1"}


def _listener() -> Listener:
    return Listener(SERVED.__contains__)


# --- the bytes --------------------------------------------------------------------------------------------------------


def test_M1_the_header_is_twenty_bytes() -> None:
    assert bytes.fromhex("132f6d756c746973747265616d2f312e302e300a") == HEADER
    assert Dialer(["/a/1"]).data_to_send() == HEADER + b"\x05/a/1\n"


def test_M2_the_dialer_sends_header_and_proposal_at_once_and_drains() -> None:
    dialer = Dialer(["/a/1"])
    assert read_lines(dialer.data_to_send()) == [MULTISTREAM, "/a/1"]
    assert dialer.data_to_send() == b""


def test_M2_the_listener_is_silent_until_it_has_read_a_header() -> None:
    listener = _listener()
    assert listener.data_to_send() == b""
    assert listener.receive_data(HEADER) is None
    assert listener.data_to_send() == HEADER


@pytest.mark.parametrize("cut", [whole, bytewise, in_chunks(random.Random(3), 5)])
def test_M3_the_third_proposal_is_accepted(cut) -> None:
    dialer = Dialer(["/x/1", "/y/1", "/b/1"])
    pair = Pair(Side("dialer", dialer), Side("listener", _listener()), cut=cut)
    pair.run()
    pair.expect("dialer", [Agreed("/b/1", b"")])
    pair.expect("listener", [Agreed("/b/1", b"")])
    said = {
        name: read_lines(b"".join(item.data for item in pair.dialogue if item.speaker == name and item.data))
        for name in ("dialer", "listener")
    }
    assert said["dialer"] == [MULTISTREAM, "/x/1", "/y/1", "/b/1"]
    assert said["listener"] == [MULTISTREAM, "na", "na", "/b/1"]


def test_M3_the_dialer_knows_what_it_proposes() -> None:
    dialer = Dialer(["/x/1", "/b/1"])
    assert dialer.proposal == "/x/1"
    dialer.receive_data(HEADER + NA)
    assert dialer.proposal == "/b/1"


def test_M4_nothing_in_common_lists_what_was_offered() -> None:
    dialer, listener = Dialer(["/x/1", "/y/1"]), _listener()
    with pytest.raises(NegotiationError) as caught:
        Pair(Side("dialer", dialer), Side("listener", listener)).run()
    assert caught.value.offered == ("/x/1", "/y/1")
    assert listener.offered == ("/x/1", "/y/1")
    assert dialer.proposal == "/y/1"


def test_M5_a_listing_is_refused_and_the_negotiation_goes_on() -> None:
    listener = _listener()
    assert listener.receive_data(HEADER + line("ls")) is None
    assert listener.data_to_send() == HEADER + NA
    assert listener.receive_data(line("/a/1")) == Agreed("/a/1", b"")


def test_M6_lines_of_1024_bytes_and_no_more() -> None:
    longest = "/" + "x" * 1022
    assert Listener({longest}.__contains__).receive_data(HEADER + line(longest)) == Agreed(longest, b"")
    with pytest.raises(RemoteProtocolError, match="1025"):
        _listener().receive_data(HEADER + line("/" + "x" * 1023))
    Dialer([longest])
    for bad in ("/" + "x" * 1023, "/a\n/b"):
        with pytest.raises(LocalProtocolError):
            Dialer([bad])
    with pytest.raises(LocalProtocolError):
        Dialer([])


@pytest.mark.parametrize("payload", [b"x", HEADER, NA, line("/a/1"), b"\xff" * 300, line("ls") * 3])
def test_M7_what_follows_the_proposal_belongs_to_the_protocol(payload) -> None:
    """Even when it looks like a token (case M2)."""
    assert _listener().receive_data(HEADER + line("/a/1") + payload) == Agreed("/a/1", payload)
    dialer = Dialer(["/a/1"])
    assert dialer.receive_data(HEADER + line("/a/1") + payload) == Agreed("/a/1", payload)


@given(st.binary(max_size=300), st.data())
def test_M7_however_it_is_cut(payload, data) -> None:
    wire = HEADER + line("/no/1") + line("/a/1") + payload
    listener, rest = _listener(), bytearray()
    agreed: Agreed | None = None
    for piece in data.draw(pieces(wire)):
        if agreed is None:
            agreed = listener.receive_data(piece)
            rest += agreed.leftover if agreed else b""
        else:
            rest += piece
    assert agreed is not None
    assert (agreed.protocol, bytes(rest)) == ("/a/1", payload)


# --- every chunking ---------------------------------------------------------------------------------------------------

CONVERSATIONS = [
    HEADER + line("/a/1"),
    HEADER + line("/x/1") + line("ls") + line("/b/1"),
    HEADER + line("/x/1") * 40,
    line("/a/1"),
    HEADER + HEADER,
    HEADER + b"\x00",
    HEADER + b"\x03abc",
    HEADER + b"\xff\xff\xff",
    HEADER + line(b"\xff\xfe"),
    HEADER + uvarint(2000) + b"x" * 2000,
]


@pytest.mark.parametrize("wire", CONVERSATIONS)
def test_how_bytes_are_cut_does_not_matter_to_a_listener(wire) -> None:
    rng = random.Random(len(wire))
    expected = outcome(_listener(), [wire])
    for cut in chunkings(wire, rng):
        events, output, error = outcome(_listener(), cut)
        assert ([type(event) for event in events], error) == ([type(event) for event in expected[0]], expected[2])
        assert output == expected[1]


@pytest.mark.parametrize(
    "wire",
    [
        HEADER + NA + line("/b/1"),
        HEADER + NA + NA,
        line("/a/1"),
        HEADER + line("/b/1"),
        HEADER + b"\x05/a/1x",
        b"\x80\x80",
    ],
)
def test_how_bytes_are_cut_does_not_matter_to_a_dialer(wire) -> None:
    rng = random.Random(len(wire))
    expected = outcome(Dialer(["/a/1", "/b/1"]), [wire])
    for cut in chunkings(wire, rng):
        assert outcome(Dialer(["/a/1", "/b/1"]), cut) == expected


# --- garbage ----------------------------------------------------------------------------------------------------------


@given(multistream_wire())
def test_M2_garbage_gives_a_typed_error_or_nothing(wire) -> None:
    outcome(_listener(), [wire])
    outcome(Dialer(["/a/1", "/b/1"]), [wire])


@given(st.lists(protocol_ids(), min_size=1, max_size=10), st.sets(protocol_ids(), max_size=10), st.integers(0, 100))
def test_the_first_common_proposal_wins(proposals, served, seed) -> None:
    dialer, listener = Dialer(proposals), Listener(served.__contains__)
    pair = Pair(Side("dialer", dialer), Side("listener", listener), cut=in_chunks(random.Random(seed)))
    common = next((protocol for protocol in proposals if protocol in served), None)
    if common is None:
        with pytest.raises(NegotiationError):
            pair.run()
    else:
        pair.run()
        pair.expect("dialer", [Agreed(common, b"")])
        pair.expect("listener", [Agreed(common, b"")])


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"\x00", "0 bytes"),
        (b"\x80\x00", "bad length"),
        (b"\xff" * 10, "bad length"),
        (b"\x81\x80\x01", "bad length"),
        (uvarint(1025), "1025 bytes"),
        (uvarint(1024 * 1024), "bad length"),
        (b"\x03abc", "newline"),
        (line(b"\xff\xfe"), "not text"),
        (line("/multistream/2.0.0"), "header"),
        (line("na"), "header"),
        (line("/a/1"), "header"),
    ],
)
def test_M2_bad_lines_are_refused_by_both(wire, why) -> None:
    for machine in (_listener(), Dialer(["/a/1"])):
        with pytest.raises(RemoteProtocolError, match=why):
            machine.receive_data(wire)


@pytest.mark.parametrize("answer", ["/b/1", "ls", "", MULTISTREAM, "NA", "na "])
def test_a_dialer_takes_no_other_answer(answer) -> None:
    with pytest.raises(RemoteProtocolError, match="answered"):
        Dialer(["/a/1"]).receive_data(HEADER + line(answer))


def test_M1_a_listener_answers_so_many_proposals() -> None:
    listener = _listener()
    listener.receive_data(HEADER)
    for _ in range(31):
        assert listener.receive_data(line("/x/1")) is None
    with pytest.raises(NegotiationError, match="32 proposals") as caught:
        listener.receive_data(line("/x/1"))
    assert len(caught.value.offered) == 32
    assert read_lines(listener.data_to_send()) == [MULTISTREAM] + ["na"] * 32


def test_M1_a_flood_in_one_piece_costs_no_more() -> None:
    listener = _listener()
    with pytest.raises(NegotiationError):
        listener.receive_data(HEADER + line("/x/1") * 1_000_000)
    assert len(listener.data_to_send()) < 200


def test_M2_an_incomplete_line_is_held_within_bounds() -> None:
    listener = _listener()
    listener.receive_data(HEADER + uvarint(1024) + b"x" * 1023)
    assert listener._lines is not None and len(listener._lines._buffer) <= 2048
