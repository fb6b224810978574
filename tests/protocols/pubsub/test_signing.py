"""Signature policies: requirements PS4 to PS8, PS12, case G7."""

from __future__ import annotations

import itertools
from typing import cast

import pytest

from libp2p.crypto.keys import KeyType, PrivateKey, generate
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import Fault, SignaturePolicy
from libp2p.protocols.pubsub._codec import Message, decode_message, encode_message, signed_bytes
from libp2p.protocols.pubsub._signing import Signer
from libp2p.testing.keys import seeded_key

STRICT_SIGN, STRICT_NO_SIGN, LAX_SIGN, LAX_NO_SIGN = SignaturePolicy

OURS, THEIRS, STRANGER = seeded_key("ours"), seeded_key("theirs"), seeded_key("stranger")
PEER = PeerId.from_key(seeded_key("peer").public_key)
RSA, OTHER_RSA = generate(KeyType.RSA), generate(KeyType.RSA)


def peer_of(key: PrivateKey) -> PeerId:
    return PeerId.from_key(key.public_key)


def checker(policy: SignaturePolicy = STRICT_SIGN) -> Signer:
    return Signer(policy, OURS, seqno=0)


def made_by(key: PrivateKey, policy: SignaturePolicy = STRICT_SIGN) -> Message:
    return decode_message(Signer(policy, key, seqno=99).sign("t", b"data").raw, PEER)


def forged(key: PrivateKey = THEIRS, /, **changes: bytes | None) -> Message:
    """A message signed properly by ``key`` over fields of our choice, some of which are then changed once more."""
    fields: dict[str, bytes | None] = {"author": bytes(peer_of(THEIRS)), "seqno": (1).to_bytes(8, "big")}
    late = {name: changes.pop(name) for name in ("signature", "key") if name in changes}
    fields.update(changes)
    unsigned = encode_message(topic="t", data=b"data", **fields)
    signed = {"signature": key.sign(signed_bytes(unsigned)), **late}
    return decode_message(encode_message(topic="t", data=b"data", **fields, **signed), PEER)


# --- making -----------------------------------------------------------------------------------------------------------


def test_ps8_author_and_number() -> None:
    signer = Signer(STRICT_SIGN, THEIRS, seqno=1_700_000_000 * 10**9)
    numbers = []
    for _ in range(3):
        message = decode_message(signer.sign("t", b"").raw, PEER)
        assert message.author == peer_of(THEIRS)
        assert message.seqno is not None
        assert len(message.seqno) == 8
        numbers.append(int.from_bytes(message.seqno, "big"))
    assert numbers == [1_700_000_000 * 10**9 + step for step in (1, 2, 3)]


@pytest.mark.parametrize("policy", SignaturePolicy)
@pytest.mark.parametrize("key", [THEIRS, RSA], ids=["ed25519", "rsa"])
def test_a_message_of_ours_is_what_its_bytes_say(policy: SignaturePolicy, key: PrivateKey) -> None:
    data = bytearray(b"data")
    message = Signer(policy, key, seqno=99).sign("t", cast("bytes", data))
    data[0] = 0  # the caller may use its buffer again
    assert message == decode_message(message.raw, peer_of(key))
    assert message.data == b"data"
    assert checker(policy).check(message) is None


def test_ps8_a_restart_with_a_later_time_continues() -> None:
    first, second = 1_700_000_000 * 10**9, 1_700_000_001 * 10**9
    earlier, later = [Signer(STRICT_SIGN, THEIRS, seqno=start).sign("t", b"").seqno for start in (first, second)]
    assert earlier is not None
    assert later is not None
    assert earlier < later


def test_ps8_a_sequence_number_has_no_zeros_in_front() -> None:
    """js leaves them out, and then the signature is over something else."""
    message = decode_message(Signer(STRICT_SIGN, THEIRS, seqno=0).sign("t", b"").raw, PEER)
    assert message.seqno == bytes.fromhex("0100000000000001")


@pytest.mark.parametrize("key_type", list(KeyType))
def test_ps7_the_key_is_attached_where_the_id_does_not_hold_it(key_type: KeyType) -> None:
    key = RSA if key_type is KeyType.RSA else generate(key_type)
    message = made_by(key)
    embedded = key_type in (KeyType.ED25519, KeyType.SECP256K1)
    assert message.key == (None if embedded else key.public_key.marshal())
    assert checker().check(message) is None


def test_ps4_an_author_that_is_not_the_host() -> None:
    """Several hosts may have one, so only what says to be of the host itself is not taken."""
    signer = Signer(STRICT_SIGN, THEIRS, seqno=0, host=peer_of(OURS))
    message = signer.sign("t", b"")
    assert (message.author, message.received_from) == (peer_of(THEIRS), peer_of(OURS))
    assert signer.check(message) is None
    assert signer.check(made_by(OURS)) is Fault.SELF_ORIGIN


def test_ps4_no_sign_says_nothing_about_the_author() -> None:
    for policy in (STRICT_NO_SIGN, LAX_NO_SIGN):
        message = made_by(THEIRS, policy)
        assert (message.author, message.seqno, message.signature, message.key) == (None, None, None, None)
        assert not policy.signs


# --- checking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "signed", "fault"),
    [
        (STRICT_SIGN, True, None),
        (STRICT_SIGN, False, Fault.MISSING_SIGNATURE),
        (STRICT_NO_SIGN, True, Fault.UNEXPECTED_SIGNATURE),
        (STRICT_NO_SIGN, False, None),
        (LAX_SIGN, True, None),
        (LAX_SIGN, False, None),
        (LAX_NO_SIGN, True, None),
        (LAX_NO_SIGN, False, None),
    ],
)
def test_ps4_ps5_policies(policy: SignaturePolicy, signed: bool, fault: Fault | None) -> None:
    assert checker(policy).check(made_by(THEIRS, STRICT_SIGN if signed else STRICT_NO_SIGN)) is fault


@pytest.mark.parametrize("policy", [LAX_SIGN, LAX_NO_SIGN])
def test_g1_a_number_is_short_signed_or_not(policy: SignaturePolicy) -> None:
    assert checker(policy).check(forged(signature=None, seqno=b"x" * 8)) is None
    assert checker(policy).check(forged(signature=None, seqno=b"x" * 9)) is Fault.BAD_SEQNO


@pytest.mark.parametrize("policy", [STRICT_SIGN, LAX_SIGN, LAX_NO_SIGN])
def test_ps5_a_signature_that_is_there_must_be_valid(policy: SignaturePolicy) -> None:
    assert checker(policy).check(forged(STRANGER)) is Fault.BAD_SIGNATURE
    assert checker(policy).check(forged()) is None


def test_g7_no_byte_of_a_message_can_be_changed() -> None:
    signer, message = checker(), made_by(THEIRS)
    key_positions = range(2, 2 + len(bytes(peer_of(THEIRS))))
    for position, bit in itertools.product(range(len(message.raw)), (0, 7)):
        raw = bytearray(message.raw)
        raw[position] ^= 1 << bit
        try:
            changed = decode_message(bytes(raw), PEER)
        except ValueError:
            continue
        assert signer.check(changed) is not None, (position, position in key_positions)


SEQNO = (1).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (forged(), None),
        (forged(key=THEIRS.public_key.marshal()), None),
        (forged(STRANGER), Fault.BAD_SIGNATURE),
        (forged(signature=b"x" * 64), Fault.BAD_SIGNATURE),
        (forged(signature=b"short"), Fault.BAD_SIGNATURE),
        (forged(signature=None), Fault.MISSING_SIGNATURE),
        (forged(signature=b""), Fault.MISSING_SIGNATURE),
        (forged(author=None), Fault.MISSING_AUTHOR),
        (forged(seqno=None), Fault.BAD_SEQNO),
        (forged(seqno=b""), Fault.BAD_SEQNO),
        (forged(seqno=b"1234567"), None),
        (forged(seqno=b"123456789"), Fault.BAD_SEQNO),
        (forged(STRANGER, key=STRANGER.public_key.marshal()), Fault.BAD_KEY),
        (forged(key=b"malformed"), Fault.BAD_KEY),
        (forged(key=b""), Fault.BAD_KEY),
        (forged(RSA, author=bytes(peer_of(RSA)), key=RSA.public_key.marshal()), None),
        (forged(RSA, author=bytes(peer_of(RSA))), Fault.BAD_KEY),
        (forged(RSA, author=bytes(peer_of(RSA)), key=b"malformed"), Fault.BAD_KEY),
        (forged(OTHER_RSA, author=bytes(peer_of(RSA)), key=OTHER_RSA.public_key.marshal()), Fault.BAD_KEY),
        (forged(OTHER_RSA, author=bytes(peer_of(RSA)), key=RSA.public_key.marshal()), Fault.BAD_SIGNATURE),
        (forged(author=b"\x00\x04junk"), Fault.BAD_KEY),
        (forged(OURS, author=bytes(peer_of(OURS))), Fault.SELF_ORIGIN),
        (forged(STRANGER, author=bytes(peer_of(OURS))), Fault.SELF_ORIGIN),
    ],
)
def test_g7_matrix(message: Message, fault: Fault | None) -> None:
    signer = checker()
    assert signer.check(message) is fault
    assert signer.check(message) is fault  # what is remembered of authors changes nothing


def test_g7_what_is_remembered_of_an_author_is_compared_with_what_is_attached() -> None:
    signer = checker()
    assert signer.check(made_by(RSA)) is None
    other = forged(RSA, author=bytes(peer_of(RSA)), key=OTHER_RSA.public_key.marshal())
    assert signer.check(other) is Fault.BAD_KEY


@pytest.mark.parametrize("field", ["author", "seqno", "signature", "key"])
def test_g7_no_sign_takes_nothing(field: str) -> None:
    value = bytes(peer_of(THEIRS)) if field == "author" else b"x"
    message = decode_message(encode_message(topic="t", data=b"d", **{field: value}), PEER)
    assert checker(STRICT_NO_SIGN).check(message) is Fault.UNEXPECTED_SIGNATURE


@pytest.mark.parametrize("policy", list(SignaturePolicy))
def test_ps12_our_own_messages_do_not_come_back(policy: SignaturePolicy) -> None:
    assert checker(policy).check(made_by(OURS)) is Fault.SELF_ORIGIN
