"""What is read of packets without keys, and what strangers get for an answer."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qh3.quic.packet import get_retry_integrity_tag

from libp2p.transports.quic._admission import (
    BURST,
    HANDSHAKES_PER_GROUP,
    MAX_HANDSHAKES,
    RATE,
    RETRY_ABOVE,
    YOUNG,
    Admission,
    Answer,
    Begin,
)
from libp2p.transports.quic._engine import Start
from libp2p.transports.quic._packets import (
    CID_SIZE,
    MIN_INITIAL,
    TOKEN_LIFE,
    VERSION_1,
    Header,
    PacketKind,
    Tokens,
    destination,
    read_header,
    read_retry,
    version_negotiation,
)
from tests.transports.quic.pairs import make_client

CID = bytes(range(8))
INITIAL = Header(PacketKind.INITIAL, CID, b"source", 1200)
ALICE, BOB = ("192.0.2.1", 4001), ("192.0.2.2", 4001)


def hello() -> bytes:
    """The first datagram of a client."""
    return make_client().transmit(1.0)[0][0]


def test_an_initial() -> None:
    data = hello()
    header = read_header(data)
    assert header is not None and header.kind is PacketKind.INITIAL
    assert destination(data) == header.destination_cid and len(header.destination_cid) == CID_SIZE
    assert (len(header.source_cid), header.token, header.end) == (CID_SIZE, b"", len(data))


def test_other_kinds() -> None:
    short = b"\x40" + CID + b"rest"
    assert destination(short) == CID
    assert read_header(short) == Header(PacketKind.ONE_RTT, CID, b"", len(short))
    assert read_header(b"xx" + short, 2) == Header(PacketKind.ONE_RTT, CID, b"", len(short) + 2)
    handshake = b"\xe0\x00\x00\x00\x01\x08" + CID + b"\x00\x44\x00" + bytes(1024)
    assert read_header(handshake) == Header(PacketKind.HANDSHAKE, CID, b"", len(handshake))
    other = b"\xc0\x6b\x33\x43\xcf\x08" + CID + b"\x02ab" + bytes(100)
    assert read_header(other) == Header(PacketKind.UNKNOWN_VERSION, CID, b"ab", len(other))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" + bytes(30),  # random bytes, as hole punching sends them
        b"\x40" + CID[:7],
        b"\xc0\x00\x00\x00\x01",
        b"\xc0\x00\x00\x00\x01\x15" + bytes(40),
        b"\x80\x00\x00\x00\x01\x08" + CID + b"\x00\x00\x10" + bytes(100),
        b"\xc0\x00\x00\x00\x01\x08" + CID + b"\x00\x00\x47\xd0" + bytes(100),  # longer than its datagram
        b"\xc0\x00\x00\x00\x01\x08" + CID + b"\x15" + bytes(100),
    ],
)
def test_what_is_no_packet(data: bytes) -> None:
    assert read_header(data) is None


def test_destinations_that_are_too_long() -> None:
    assert destination(b"\xc0\x00\x00\x00\x01\x15" + bytes(40)) is None
    assert destination(b"\xc0\x00\x00\x00\x01\x08" + bytes(4)) is None
    assert destination(b"\xc0\x00\x00") is None
    assert destination(b"") is None and destination(b"\x40short") is None and destination(bytes(30)) is None


@given(st.binary(max_size=100), st.integers(0, 120))
def test_any_bytes(data: bytes, offset: int) -> None:
    """Give a header within the datagram, or none."""
    header = read_header(data, offset)
    assert header is None or offset < header.end <= len(data)
    read_retry(data)
    destination(data)


@given(st.binary(max_size=60))
def test_any_long_header(rest: bytes) -> None:
    for first in (0xC0, 0xD0, 0xE0, 0xF0):
        data = bytes([first]) + VERSION_1.to_bytes(4, "big") + rest
        header = read_header(data)
        assert header is None or 0 < header.end <= len(data)
        read_retry(data)


def test_version_negotiation() -> None:
    """Q1: goes back to where it came from, and offers version 1."""
    answer = version_negotiation(Header(PacketKind.UNKNOWN_VERSION, CID, b"source", 1200))
    header = read_header(answer)
    assert header is not None and header.kind is PacketKind.VERSION_NEGOTIATION
    assert (header.destination_cid, header.source_cid, header.versions) == (b"source", CID, (VERSION_1,))
    assert len(answer) < MIN_INITIAL


# --- tokens


def test_a_token_works_once_it_is_sent_back() -> None:
    """T3: from the same address, for the same connection, for a while."""
    tokens = Tokens(bytes(32))
    packet = tokens.retry(INITIAL, ALICE, b"chosen!!", 100.0)
    retry = read_retry(packet)
    assert retry is not None
    assert (retry.destination_cid, retry.source_cid) == (b"source", b"chosen!!")
    assert retry.tag == get_retry_integrity_tag(packet[:-16], CID, version=VERSION_1)
    again = Header(PacketKind.INITIAL, b"chosen!!", b"source", 1200, token=retry.token)
    assert tokens.check(again, ALICE, 100.0 + TOKEN_LIFE) == CID
    assert tokens.check(again, ALICE, 100.1 + TOKEN_LIFE) is None
    assert tokens.check(again, ALICE, 90.0) is None
    assert tokens.check(again, BOB, 101.0) is None
    assert tokens.check(replace(again, destination_cid=b"another!"), ALICE, 101.0) is None
    assert Tokens(b"x" * 32).check(again, ALICE, 101.0) is None
    for at in range(len(retry.token)):
        altered = bytearray(retry.token)
        altered[at] ^= 1
        assert tokens.check(replace(again, token=bytes(altered)), ALICE, 101.0) is None
        assert tokens.check(replace(again, token=retry.token[:at]), ALICE, 101.0) is None


def test_retries_that_are_none() -> None:
    packet = Tokens(bytes(32)).retry(INITIAL, ALICE, b"chosen!!", 100.0)
    assert read_retry(hello()) is None
    assert read_retry(packet[:37]) is None
    nameless = Tokens(bytes(32)).retry(INITIAL, ALICE, b"", 100.0)
    assert read_retry(nameless) is None


# --- admission


def judge(admission: Admission, header: Header, number: int, *, now: float = 1.0) -> Begin | Answer | None:
    return admission.judge(header, MIN_INITIAL, (f"192.0.{number % 250}.{number // 250}", 4001), b"chosen!!", now)


def test_who_may_begin() -> None:
    admission = Admission(bytes(32))
    verdict = judge(admission, INITIAL, 1)
    assert isinstance(verdict, Begin) and verdict.start == Start(CID, CID, False)
    assert admission.count == 1
    admission.finished(verdict.ticket)
    assert admission.count == 0


def test_who_is_not_heard() -> None:
    """Small datagrams, packets of no connection, short connection ids."""
    admission = Admission(bytes(32))
    assert admission.judge(INITIAL, MIN_INITIAL - 1, ALICE, b"chosen!!", 1.0) is None
    unknown = Header(PacketKind.UNKNOWN_VERSION, CID, b"", 1200)
    assert admission.judge(unknown, MIN_INITIAL - 1, ALICE, b"chosen!!", 1.0) is None
    for kind in (PacketKind.HANDSHAKE, PacketKind.ZERO_RTT, PacketKind.RETRY):
        assert judge(admission, Header(kind, CID, b"", 1200), 1) is None
    assert judge(admission, Header(PacketKind.INITIAL, CID[:7], b"", 1200), 1) is None
    assert isinstance(judge(admission, unknown, 1), Answer)
    assert admission.count == 0


def test_many_strangers_must_show_where_they_are() -> None:
    """T3: Retry above 50, silence above 64 young ones; and nothing is kept for those who get a Retry."""
    admission = Admission(bytes(32))
    tickets = []
    for number in range(RETRY_ABOVE):
        verdict = judge(admission, INITIAL, number)
        assert isinstance(verdict, Begin)
        tickets.append(verdict.ticket)
    for number in range(5000):
        assert isinstance(judge(admission, INITIAL, number % 1000 + 100), Answer)
    assert admission.count == RETRY_ABOVE
    for number in range(100, 100 + MAX_HANDSHAKES - RETRY_ABOVE):
        again = _with_token(admission, number)
        assert isinstance(judge(admission, again, number + 1), Answer)  # from another address
        verdict = judge(admission, again, number)
        assert isinstance(verdict, Begin) and verdict.start == Start(b"chosen!!", CID, True)
        assert verdict.victim is None
        tickets.append(verdict.ticket)
    assert isinstance(judge(admission, INITIAL, 999), Answer)
    assert judge(admission, _with_token(admission, 999), 999) is None, "all are young"
    for ticket in tickets:
        admission.finished(ticket)
    assert admission.count == 0 and not admission._shares


def _with_token(admission: Admission, number: int) -> Header:
    """An Initial of somebody who was told to Retry."""
    answer = judge(admission, INITIAL, number)
    assert isinstance(answer, Answer)
    retry = read_retry(answer.packet)
    assert retry is not None
    return Header(PacketKind.INITIAL, retry.source_cid, b"source", 1200, token=retry.token)


def test_old_handshakes_make_room_for_who_shows_where_he_is() -> None:
    """T3: the oldest first, each once; who has shown nothing moves nobody."""
    admission = Admission(bytes(32))
    tickets = []
    for number in range(MAX_HANDSHAKES):
        header = INITIAL if number < RETRY_ABOVE else _with_token(admission, number)
        verdict = judge(admission, header, number, now=1.0 + number / 1000)
        assert isinstance(verdict, Begin)
        tickets.append(verdict.ticket)
    for victim in tickets[:3]:
        number = 1000 + len(tickets)
        later = victim.began + YOUNG
        assert isinstance(judge(admission, INITIAL, number, now=later), Answer)
        header = _with_token(admission, number)
        assert judge(admission, header, number, now=later - 0.001) is None
        verdict = judge(admission, header, number, now=later)
        assert isinstance(verdict, Begin) and verdict.victim is victim
        admission.finished(victim)
        tickets.append(verdict.ticket)
        assert admission.count == MAX_HANDSHAKES


def test_one_neighbourhood_cannot_take_all() -> None:
    admission = Admission(bytes(32))
    verdicts = [judge(admission, INITIAL, 7) for _ in range(HANDSHAKES_PER_GROUP + 5)]
    assert sum(isinstance(verdict, Begin) for verdict in verdicts) == HANDSHAKES_PER_GROUP
    assert isinstance(judge(admission, INITIAL, 8), Begin)
    assert isinstance(verdicts[-1], Answer)
    again = _with_token(admission, 7)
    assert isinstance(judge(admission, again, 7), Begin), "who can be forged is not kept out"
    verdicts = [judge(admission, again, 7) for _ in range(HANDSHAKES_PER_GROUP)]
    assert verdicts[-1] is None
    first = verdicts[0]
    assert isinstance(first, Begin)
    admission.finished(first.ticket)
    assert isinstance(judge(admission, again, 7), Begin)


def test_one_neighbourhood_has_so_many_a_second() -> None:
    """T2: they are over soon, and each has cost its time: first an address must be shown, then that does not help."""
    admission = Admission(bytes(32))

    def begun(header: Header, now: float, host: str = "192.0.2.7") -> int:
        count = 0
        for _ in range(2 * BURST):
            verdict = admission.judge(header, MIN_INITIAL, (host, 4001), b"chosen!!", now)
            if isinstance(verdict, Begin):
                count += 1
                admission.finished(verdict.ticket)
        return count

    assert begun(INITIAL, 1.0) == BURST
    answer = admission.judge(INITIAL, MIN_INITIAL, ("192.0.2.7", 4001), b"chosen!!", 1.0)
    assert isinstance(answer, Answer)
    retry = read_retry(answer.packet)
    assert retry is not None
    shown = Header(PacketKind.INITIAL, retry.source_cid, b"source", 1200, token=retry.token)
    assert begun(shown, 1.0) == BURST
    assert begun(shown, 3.0) == begun(INITIAL, 3.0) == 2 * RATE
    assert begun(INITIAL, 3.0, "192.0.2.8") == BURST
    assert begun(INITIAL, 3.0, "127.0.0.1") == begun(INITIAL, 3.0, "::1") == 2 * BURST


def test_a_token_that_is_none_counts_as_none() -> None:
    admission = Admission(bytes(32))
    header = Header(PacketKind.INITIAL, CID, b"source", 1200, token=random.Random(1).randbytes(60))
    verdict = judge(admission, header, 1)
    assert isinstance(verdict, Begin) and verdict.start == Start(CID, CID, False)
