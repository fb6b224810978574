"""Validators: requirements KD7 and KD8, case K2."""

from __future__ import annotations

import pytest

from libp2p.crypto.keys import generate
from libp2p.peer_id import PeerId
from libp2p.protocols.kad import AnyValue, InvalidRecord, KadConfig, public_validators
from libp2p.protocols.kad._records import MAX_KEY, MAX_VALUE, Namespaces
from libp2p.records.ipns import IpnsRecord, rfc3339

KEY = generate()
PEER = PeerId.from_key(KEY.public_key)
NOW = 1_800_000_000.0
PUBLIC = Namespaces({**public_validators(), "any": AnyValue()})


def name(sequence: int, expires: float = NOW + 100) -> bytes:
    record = IpnsRecord(name=PEER, value=b"/x", sequence=sequence, validity=rfc3339(expires))
    return record.seal(KEY)


@pytest.mark.parametrize(
    "key", [b"", b"/", b"any", b"/any", b"/any/", b"any/x", b"//x", b"/other/x", b"/any" * MAX_KEY]
)
def test_k2_keys_that_are_refused(key: bytes) -> None:
    """K2: a short key skips no rules."""
    with pytest.raises(InvalidRecord):
        PUBLIC.validate(key, b"value", NOW)


def test_k2_size() -> None:
    """K2: 64 KiB and one byte."""
    PUBLIC.validate(b"/any/x", bytes(MAX_VALUE), NOW)
    PUBLIC.validate(b"/any/x/y", b"", NOW)
    with pytest.raises(InvalidRecord, match="limit"):
        PUBLIC.validate(b"/any/x", bytes(MAX_VALUE + 1), NOW)


def test_kd8_public_keys() -> None:
    """KD8, K4: the key of another peer."""
    key, value = b"/pk/" + bytes(PEER), KEY.public_key.marshal()
    PUBLIC.validate(key, value, NOW)
    assert not PUBLIC.better(key, value, value, NOW)
    assert not PUBLIC.better(key, value, b"the same, they are all alike", NOW)
    for bad in (generate().public_key.marshal(), b"nonsense"):
        with pytest.raises(InvalidRecord):
            PUBLIC.validate(key, bad, NOW)
    with pytest.raises(InvalidRecord):
        PUBLIC.validate(b"/pk/nobody", value, NOW)


def test_kd8_names() -> None:
    """KD8: newest first."""
    key = b"/ipns/" + bytes(PEER)
    PUBLIC.validate(key, name(1), NOW)
    with pytest.raises(InvalidRecord, match="ended"):
        PUBLIC.validate(key, name(1), NOW + 100)
    with pytest.raises(InvalidRecord):
        PUBLIC.validate(b"/ipns/" + bytes(PeerId.from_key(generate().public_key)), name(1), NOW)
    assert PUBLIC.better(key, name(2), name(1), NOW)
    assert not PUBLIC.better(key, name(1), name(2), NOW)
    assert PUBLIC.better(key, name(1, NOW + 200), name(1), NOW)


def test_any_value_keeps_the_first() -> None:
    assert not PUBLIC.better(b"/any/x", b"new", b"old", NOW)


@pytest.mark.parametrize("namespace", ["", "a/b"])
def test_namespaces_are_words(namespace: str) -> None:
    with pytest.raises(ValueError, match="slashes"):
        Namespaces({namespace: AnyValue()})


@pytest.mark.parametrize("changes", [{"quorum": -1}, {"request_timeout": 0}, {"checks": 0}])
def test_configurations_are_checked(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        KadConfig(**changes)  # type: ignore[arg-type]
