"""Records of TLS 1.3 against RFC 8446, and against the example of RFC 8448, which is another hand's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.errors import SecurityError
from libp2p.security.tls._records import (
    ALERT,
    APPLICATION_DATA,
    HANDSHAKE,
    MAX_CIPHERTEXT,
    MAX_MESSAGE,
    MAX_MESSAGES,
    MAX_PLAINTEXT,
    MAX_SILENT,
    NEW_KEY,
    SUITES,
    Incoming,
    RecordSplitter,
    SessionSecrets,
    TrafficKey,
)
from tests.security.tls_raw import KEY_UPDATE, Sealer

SECRET = bytes(range(32))
TICKET = b"\x04\0\0\x02xx"

# RFC 8448 section 3.
CLIENT_SECRET = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
SERVER_SECRET = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
CLIENT_RECORD = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a297"
    "7014bd1e3deae63aeebb21694915e4"
)


def client_key(suite: str = "TLS_AES_128_GCM_SHA256", secret: bytes = SECRET) -> TrafficKey:
    return TrafficKey(SUITES[suite], secret)


def incoming(*, from_server: bool = True) -> Incoming:
    return Incoming(client_key(), from_server=from_server)


def read(machine: Incoming, data: bytes, room: int = MAX_CIPHERTEXT) -> tuple[list[bytes], int]:
    return machine.open(memoryview(data), len(data), memoryview(bytearray(room)))


def seal(key: TrafficKey, content: bytes, kind: int = APPLICATION_DATA) -> bytes:
    buffer = memoryview(bytearray(len(content) + 30))
    return bytes(buffer[: key.seal(memoryview(content + bytes((kind,))), buffer, 0)])


def test_the_example_of_RFC_8448() -> None:
    key = client_key(secret=CLIENT_SECRET)
    assert seal(key, bytes(range(50))) == CLIENT_RECORD
    machine = Incoming(client_key(secret=CLIENT_SECRET), from_server=False)
    assert read(machine, CLIENT_RECORD) == ([bytes(range(50))], len(CLIENT_RECORD))


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_opens_what_it_seals_also_under_the_next_keys(suite: str) -> None:
    secret = bytes(48 if suite.endswith("384") else 32)
    ours, machine = client_key(suite, secret), Incoming(client_key(suite, secret), from_server=False)
    for _ in range(3):
        data = seal(ours, b"one") + seal(ours, b"two") + seal(ours, NEW_KEY, HANDSHAKE)
        assert ours.used == 3
        ours.renew()
        assert ours.used == 0
        assert read(machine, data) == ([b"onetwo"], len(data))
        assert not machine.asked


@given(sizes=st.lists(st.integers(1, 400), max_size=20), cuts=st.lists(st.integers(0, 9000), max_size=20))
def test_records_may_arrive_in_any_pieces(sizes: list[int], cuts: list[int]) -> None:
    key, machine, got, left = client_key(), incoming(), bytearray(), b""
    data = b"".join(seal(key, b"%3d" % size * size) for size in sizes)
    so_far = 0
    for stop in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        left = left + data[so_far:stop]
        so_far = stop
        chunks, start = read(machine, left, room=500 * 3)
        left = left[start:]
        got += b"".join(chunks)
    assert bytes(got) == b"".join(b"%3d" % size * size for size in sizes)
    assert not left


def test_what_fits_side_by_side_is_one_chunk() -> None:
    key, machine = client_key(), incoming()
    data = b"".join(seal(key, letter * 100) for letter in (b"a", b"b", b"c"))
    assert read(machine, data, room=202)[0] == [b"a" * 100 + b"b" * 100, b"c" * 100]


def test_padding_is_taken_off_and_counts_as_nothing() -> None:
    sealer, machine = Sealer(SECRET), incoming()
    padded = sealer.seal(b"x\x17\0\0", 0)  # a byte of data, its kind, zeros
    longest = sealer.seal(b"y" * MAX_PLAINTEXT + b"\x17" + bytes(254 - 16), 0)
    assert len(longest) == 5 + MAX_CIPHERTEXT
    chunks, _ = read(machine, padded + longest + sealer.seal(b"z"), room=MAX_CIPHERTEXT)
    assert b"".join(chunks) == b"x" + b"y" * MAX_PLAINTEXT + b"z"


def test_tickets_new_keys_and_a_farewell() -> None:
    sealer, machine = Sealer(SECRET), incoming()
    pieces = (TICKET * 2, TICKET[:1], TICKET[1:5], TICKET[5:])
    data = b"".join(sealer.seal(piece, HANDSHAKE) for piece in pieces)
    data += sealer.seal(b"\x01\x5a", ALERT) + sealer.seal(b"") + sealer.rekey(TICKET)
    data += sealer.seal(b"last words") + sealer.seal(b"\x01\0", ALERT)
    chunks, start = read(machine, data + b"does not count")
    assert (chunks, start) == ([b"last words"], len(data))
    assert machine.asked
    assert machine.ended


@pytest.mark.parametrize("between", [b"", b"x"], ids=["one after the other", "between data"])
def test_M5_what_is_no_data_is_bounded(between: bytes) -> None:
    sealer, machine = Sealer(SECRET), incoming()
    silent = [sealer.seal(b"") for _ in range(MAX_SILENT)]
    read(machine, b"".join(silent))
    if between:
        read(machine, sealer.seal(between))
        read(machine, sealer.seal(b""))
        read(machine, sealer.seal(between + b"\x17", 0))
        read(machine, b"".join(sealer.seal(b"") for _ in range(MAX_SILENT)))
    with pytest.raises(SecurityError, match="without end"):
        read(machine, sealer.seal(b""))


def _key_changes(count: int) -> bytes:
    """As many, each behind a byte of data."""
    key, data = client_key(), bytearray()
    for _ in range(count):
        data += seal(key, b"x") + seal(key, KEY_UPDATE, HANDSHAKE)
        key.renew()
    return bytes(data)


def test_M5_new_keys_between_data_are_bounded_too() -> None:
    """Of those that come at a time: each costs what a dozen records cost, and data between them is no excuse."""
    assert read(incoming(), _key_changes(MAX_MESSAGES))[0] == [b"x" * MAX_MESSAGES]
    with pytest.raises(SecurityError, match="messages without end"):
        read(incoming(), _key_changes(MAX_MESSAGES + 1))


def test_M5_tickets_in_one_record_are_bounded_too() -> None:
    read(incoming(), Sealer(SECRET).seal(b"\x04\0\0\0" * MAX_MESSAGES, HANDSHAKE))
    with pytest.raises(SecurityError, match="messages without end"):
        read(incoming(), Sealer(SECRET).seal(b"\x04\0\0\0" * (MAX_MESSAGES + 1), HANDSHAKE))


FAULTS: dict[str, tuple[list[tuple[bytes, int]], str]] = {
    "a record of zeros": ([(b"\0\0\0", 0)], "of nothing"),
    "too much data": ([(bytes(MAX_PLAINTEXT + 1), 23)], "too much"),
    "a handshake record of nothing": ([(b"", HANDSHAKE)], "kind 22 where"),
    "an unknown kind": ([(b"x", 24)], "kind 24"),
    "a change of cipher": ([(b"\x01", 20)], "kind 20"),
    "data inside a message": ([(TICKET[:3], HANDSHAKE), (b"x", 23)], "kind 23 where"),
    "an alert inside a message": ([(TICKET[:3], HANDSHAKE), (b"\x01\0", ALERT)], "kind 21 where"),
    "a long message": ([(b"\x04" + (MAX_MESSAGE + 1).to_bytes(3, "big"), HANDSHAKE)], "bytes"),
    "another handshake": ([(b"\x01\0\0\x01x", HANDSHAKE)], "kind 1,"),
    "a question nobody knows": ([(b"\x18\0\0\x01\x02", HANDSHAKE)], "kind 24"),
    "a key in the middle": ([(KEY_UPDATE + TICKET, HANDSHAKE)], "kind 24"),
    "half an alert": ([(b"\x02", ALERT)], "an alert"),
    "an alert with a name": ([(b"\x02\x74", ALERT)], "the peer says: certificate required"),
    "an alert without one": ([(b"\x02\xc8", ALERT)], "the peer says: alert 200"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_S6_what_may_not_come(what: str) -> None:
    records, reason = FAULTS[what]
    sealer = Sealer(SECRET)
    with pytest.raises(SecurityError, match=reason) as caught:
        read(incoming(), b"".join(sealer.seal(*record) for record in records), room=2 * MAX_CIPHERTEXT)
    assert caught.value.stage == "record"


def test_S6_a_client_hands_out_no_tickets() -> None:
    with pytest.raises(SecurityError, match="kind 4"):
        read(incoming(from_server=False), Sealer(SECRET).seal(TICKET, HANDSHAKE))


@pytest.mark.parametrize("header", ["1603030030", "1403030001", "474554202f", "1703034101", "1703030010", "1703030000"])
def test_S6_a_header_that_cannot_be_is_not_waited_for(header: str) -> None:
    with pytest.raises(SecurityError, match="a record of kind"):
        read(incoming(), bytes.fromhex(header))


@given(at=st.integers(0, 2000), bit=st.integers(0, 7))
def test_S6_any_changed_bit_is_noticed(at: int, bit: int) -> None:
    """Or makes the record longer, so that its end has yet to come."""
    data = bytearray(Sealer(SECRET).seal(b"content" * 20))
    data[at % len(data)] ^= 1 << bit
    try:
        chunks, start = read(incoming(), bytes(data))
    except SecurityError:
        return
    assert (chunks, start) == ([], 0)
    assert at % len(data) in (3, 4)


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=20))
def test_a_handshake_is_cut_where_records_end(data: bytes, cuts: list[int]) -> None:
    """However it arrives: the same pieces, joined."""
    records = [b"\x16\x03\x03" + bytes((0, byte)) + bytes(byte) for byte in data[:8]]
    stream, splitter, got, record = b"".join(records), RecordSplitter(), list[bytes](), bytearray()
    so_far = 0
    for stop in [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]:
        piece, so_far = stream[so_far:stop], stop
        while piece:
            front, piece = splitter.split(piece)
            record += front
            if len(record) >= 5 and len(record) == 5 + record[4]:
                got.append(bytes(record))
                record.clear()
    assert got == records
    assert splitter.count == len(records)


def test_the_key_log() -> None:
    secrets = SessionSecrets()
    for label, value in ((b"EXPORTER_SECRET", b"e"), (b"CLIENT_TRAFFIC_SECRET_0", CLIENT_SECRET)):
        secrets.note(b" ".join((label, b"00" * 32, value.hex().encode())))
    secrets.note(b" ".join((b"SERVER_TRAFFIC_SECRET_0", b"00" * 32, SERVER_SECRET.hex().encode())))
    client, server = secrets.keys(SUITES["TLS_AES_128_GCM_SHA256"])
    assert seal(client, bytes(range(50))) == CLIENT_RECORD
    assert seal(server, b"") != seal(client, b"")
