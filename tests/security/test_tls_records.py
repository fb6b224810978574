"""How many records OpenSSL is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.security.tls._stream import MAX_CIPHERTEXT, RecordCounter


def record(length: int, kind: int = 23) -> bytes:
    return bytes([kind, 3, 3, *length.to_bytes(2, "big")]) + bytes(length)


@given(lengths=st.lists(st.integers(1, 40), max_size=20), cuts=st.lists(st.integers(0, 900), max_size=20))
def test_every_record_is_counted_once_however_it_arrives(lengths: list[int], cuts: list[int]) -> None:
    """And not before its last byte."""
    data = b"".join(map(record, lengths))
    ends = [sum(5 + length for length in lengths[: n + 1]) for n in range(len(lengths))]
    counter, so_far, counted = RecordCounter(), 0, 0
    for stop in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        counted += counter.feed(memoryview(data)[so_far:stop])
        so_far = stop
        assert counted == sum(end <= stop for end in ends)


@pytest.mark.parametrize(
    "header", [record(60_000)[:5], record(MAX_CIPHERTEXT + 1)[:5], b"GET /", record(9, kind=21)[:5]]
)
def test_what_openssl_will_not_like_is_not_waited_for(header: bytes) -> None:
    assert RecordCounter().feed(memoryview(header)) == 1
