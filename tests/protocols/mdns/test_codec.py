"""DNS packets, friendly and hostile (checklist MD6; reliability case R7; fuzz target 20)."""

from __future__ import annotations

import struct
import time
from ipaddress import ip_address

import dns.message
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.protocols.mdns._codec import (
    ANY,
    MAX_PACKET,
    MAX_QUESTIONS,
    MAX_RECORDS,
    PTR,
    TXT,
    Address,
    Packet,
    Ptr,
    Question,
    Srv,
    Txt,
    decode,
    encode_query,
    encode_response,
    name,
)

SERVICE = name("_p2p._udp.local")
PEER = (b"abc", *SERVICE)

labels = st.binary(min_size=1, max_size=20).map(bytes.lower)
all_names = st.lists(labels, max_size=6).map(tuple)
ttls = st.integers(0, 2**32 - 1)
txts = st.builds(Txt, all_names, st.lists(st.binary(min_size=1, max_size=255), max_size=5).map(tuple), ttls)
ptrs = st.builds(Ptr, all_names, all_names, ttls)


def test_names() -> None:
    assert name("_P2P._udp.local.") == (b"_p2p", b"_udp", b"local")


@given(st.lists(st.builds(Question, all_names, st.sampled_from([PTR, TXT, ANY])), max_size=5))
def test_queries_come_back(questions) -> None:
    assert decode(encode_query(questions)) == Packet(response=False, questions=tuple(questions))


@given(st.lists(ptrs, max_size=3), st.lists(txts, max_size=3))
def test_answers_come_back(answers, additional) -> None:
    assert decode(encode_response(answers, additional)) == Packet(response=True, records=(*answers, *additional))


def test_dnspython_reads_what_we_write() -> None:
    data = encode_response(
        [Ptr(SERVICE, PEER, 120)],
        [
            Txt(PEER, (b"dnsaddr=/ip4/1.2.3.4/tcp/1", b"x" * 255), 120),
            Srv(PEER, (b"abc", b"local"), 4001, 120),
            Address((b"abc", b"local"), ip_address("1.2.3.4"), 120),
            Address((b"abc", b"local"), ip_address("2001:db8::1"), 120),
        ],
    )
    flush, plain = (struct.pack("!HI", group, 120) for group in (0x8001, 1))  # dnspython does not know the bit
    assert data.count(flush) == 4
    message = dns.message.from_wire(data.replace(flush, plain))
    assert [rrset.to_text() for rrset in message.answer] == ["_p2p._udp.local. 120 IN PTR abc._p2p._udp.local."]
    assert message.additional[0].to_text() == (
        f'abc._p2p._udp.local. 120 IN TXT "dnsaddr=/ip4/1.2.3.4/tcp/1" "{"x" * 255}"'
    )
    assert [rrset.to_text().split(" ", 3)[3] for rrset in message.additional[1:]] == [
        "SRV 0 0 4001 abc.local.",
        "A 1.2.3.4",
        "AAAA 2001:db8::1",
    ]


def test_we_read_what_dnspython_writes_compressed() -> None:
    text = """id 7
opcode QUERY
flags QR AA
;QUESTION
_P2P._udp.local. IN PTR
;ANSWER
_p2p._udp.local. 10 IN PTR ABC._p2p._udp.local.
;AUTHORITY
other.local. 10 IN A 1.2.3.4
;ADDITIONAL
abc._p2p._udp.local. 20 IN TXT "one" "" "two"
abc.local. 20 IN AAAA ::1
"""
    data = dns.message.from_text(text).to_wire()
    assert b"\xc0" in data
    assert decode(data) == Packet(
        response=True,
        questions=(Question(SERVICE, PTR),),
        records=(Ptr(SERVICE, PEER, 10), Txt(PEER, (b"one", b"two"), 20)),
    )


def test_other_classes_are_skipped() -> None:
    data = bytearray(encode_response([Ptr(SERVICE, PEER, 1)]))
    index = data.index(struct.pack("!HH", PTR, 1))
    data[index + 3] = 3  # CHAOS
    assert decode(bytes(data)).records == ()
    data = bytearray(encode_response([Txt(SERVICE, (b"x",), 1)]))
    index = data.index(struct.pack("!HH", TXT, 0x8001))
    data[index + 3] = 3
    assert decode(bytes(data)).records == ()


def header(questions: int = 0, answers: int = 0, flags: int = 0x8400) -> bytes:
    return struct.pack("!6H", 0, flags, questions, answers, 0, 0)


def record(owner: bytes, kind: int, data: bytes, size: int | None = None) -> bytes:
    return owner + struct.pack("!2HIH", kind, 1, 60, len(data) if size is None else size) + data


POINTER_TO_ITSELF = b"\xc0\x0c"
HOSTILE = {
    "empty": b"",
    "half a header": header()[:-1],
    "a name that points to itself": header(answers=1) + record(POINTER_TO_ITSELF, PTR, b"\0"),
    "a name that points forwards": header(answers=1) + record(b"\xc0\x20", PTR, bytes(40)),
    "two names in a circle": header(1) + b"\x01a\xc0\x10" + b"\x01b\xc0\x0c" + b"\0\x0c\0\1",
    "a pointer into the record before": header(answers=1) + record(b"\0", PTR, b"\xc0\x17"),
    "half a pointer": header(1) + b"\xc0",
    "a label of a reserved kind": header(1) + b"\x80a\0\0\x0c\0\1",
    "a label without an end": header(1) + b"\x3fabc",
    "a name without an end": header(1) + b"\x01a",
    "a name that is too long": header(1) + b"\x3f" + bytes(63) + (b"\x3f" + bytes(63)) * 4 + b"\0\0\x0c\0\1",
    "no question at all": header(1),
    "more answers than there are": header(answers=2) + record(b"\0", PTR, b"\0"),
    "a huge count of questions": header(0xFFFF) + b"\0\0\x0c\0\1" * 10,
    "a huge count of answers": header(answers=0xFFFF) + record(b"\0", 99, b"") * 300,
    "a record longer than the packet": header(answers=1) + record(b"\0", TXT, b"\x01a", 0xFFFF),
    "half a record": header(answers=1) + b"\0\0\x0c\0\1",
    "a string longer than its record": header(answers=1) + record(b"\0", TXT, b"\x05abc"),
    "a name longer than its record": header(answers=1) + record(b"\0", PTR, b"\x03abc\0", 2) + b"\x03abc\0",
    "a name shorter than its record": header(answers=1) + record(b"\0", PTR, b"\0\0\0"),
    "another operation": header(flags=0x2800),
    "an error": header(flags=0x8403),
    "too long": header() + bytes(MAX_PACKET),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_r7_hostile_packets_are_decode_errors(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


@given(st.binary(max_size=300))
def test_garbage_is_a_packet_or_a_decode_error(data: bytes) -> None:
    for head in (b"", header(2, 3), header(answers=5)):
        try:
            decode(head + data)
        except DecodeError:
            pass


def test_as_many_as_there_may_be() -> None:
    assert len(decode(encode_query([Question(SERVICE, PTR)] * MAX_QUESTIONS)).questions) == MAX_QUESTIONS
    answers = [Ptr((b"a",), (), 1)] * MAX_RECORDS
    assert len(decode(encode_response(answers)).records) == MAX_RECORDS


def test_r7_the_most_expensive_packet_is_cheap() -> None:
    """Every record's names go through the longest chain of pointers there can be."""
    chain = bytearray(header(1, MAX_RECORDS))
    chain += b"\x01a\0\0\x0c\0\1"
    body = b"".join(
        record(struct.pack("!H", 0xC000 | 12), PTR, struct.pack("!H", 0xC000 | 12)) for _ in range(MAX_RECORDS)
    )
    data = bytes(chain) + body
    assert len(decode(data).records) == MAX_RECORDS
    began = time.process_time()
    for _ in range(5):
        decode(data)
    assert (time.process_time() - began) / 5 < 0.1  # real time; about 2 ms on a quiet core


def names_in_a_chain(length: int) -> bytes:
    """A packet of questions, the name of each one label in front of the one before it."""
    questions = [b"\x01a\0\0\x0c\0\1"]
    offset = 12
    for _ in range(length - 1):
        questions.append(b"\x01a" + struct.pack("!H", 0xC000 | offset) + b"\0\x0c\0\1")
        offset += 7 if offset == 12 else 8
    return header(length) + b"".join(questions)


def test_labels_behind_pointers_come_to_an_end() -> None:
    data = names_in_a_chain(MAX_QUESTIONS - 1)
    assert [len(question.name) for question in decode(data).questions] == list(range(1, MAX_QUESTIONS))


def test_r7_names_that_all_lead_through_the_same_bytes() -> None:
    """Each name is one that may be; together they are more labels than a packet may have."""
    chain = names_in_a_chain(MAX_QUESTIONS)
    last = struct.pack("!H", 0xC000 | len(chain) - 8)
    data = chain[:6] + struct.pack("!H", MAX_RECORDS) + chain[8:] + record(last, TXT, b"") * MAX_RECORDS
    with pytest.raises(DecodeError, match="too many labels"):
        decode(data)


@pytest.mark.parametrize("labels", [(b"",), (b"x" * 64,), (b"x" * 63,) * 4])
def test_names_that_cannot_be_written(labels: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError):
        encode_query([Question(labels, PTR)])
