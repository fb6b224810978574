"""Validators: requirement PS11, cases G6, G7, G10."""

from __future__ import annotations

import pytest
import trio

from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import Message, MessageRefused, MonotonicSeqno, Pubsub, PubsubConfig, Verdict
from libp2p.protocols.pubsub._codec import decode_message, encode_message
from libp2p.protocols.pubsub._validation import Check
from libp2p.testing.keys import seeded_key
from tests.protocols.pubsub.networks import raw_peers, subscribed
from tests.protocols.waiting import settled, until


def by_data(message: Message) -> Verdict:
    return Verdict(message.data.decode())


async def by_data_later(message: Message) -> Verdict:
    await trio.sleep(0.1)
    return by_data(message)


class Callable:
    async def __call__(self, message: Message) -> Verdict:
        return await by_data_later(message)


@pytest.mark.parametrize("validator", [by_data, by_data_later, Callable()], ids=["sync", "async", "object"])
async def test_ps11_outcomes(validator) -> None:
    async with raw_peers(2) as (_, pubsub, messages, (source, other)):
        assert messages is not None
        await other.subscribe("t")
        pubsub.set_validator("t", validator)
        for verdict in (b"reject", b"ignore", b"accept"):
            await source.publish(source.signed(verdict))
        assert (await messages.receive()).data == b"accept"
        await until(lambda: len(other.published) == 1)
        assert pubsub.metrics() == {"accept": 1, "reject": 1, "ignore": 1, "delivered": 1}


async def test_ps11_by_topic_and_for_all_topics() -> None:
    asked: list[tuple[str, bytes]] = []

    def common(message: Message) -> Verdict:
        asked.append(("common", message.data))
        return Verdict.REJECT if message.data == b"common rejects" else Verdict.ACCEPT

    async def own(message: Message) -> Verdict:
        asked.append(("own", message.data))
        return Verdict.ACCEPT

    async with raw_peers(1, lambda: Pubsub(validators=[common])) as (_, pubsub, messages, (peer,)):
        assert messages is not None
        async with pubsub.subscribe("u") as others:
            pubsub.set_validator("u", own)
            await peer.publish(peer.signed(b"common rejects", "u"))
            await peer.publish(peer.signed(b"x", "u"), peer.signed(b"y", "t"))
            assert (await others.receive()).data == b"x"
            assert (await messages.receive()).data == b"y"
            assert sorted(asked) == [("common", b"common rejects"), ("common", b"x"), ("common", b"y"), ("own", b"x")]


async def test_the_newest_validator_counts() -> None:
    async with raw_peers() as (_, pubsub, messages, (peer,)):
        assert messages is not None
        pubsub.set_validator("t", lambda message: Verdict.REJECT)
        pubsub.set_validator("t", lambda message: Verdict.ACCEPT)
        await peer.publish(peer.signed(b"x"))
        assert (await messages.receive()).data == b"x"


async def test_g10_a_validator_that_hangs() -> None:
    async def hangs(message: Message) -> Verdict:
        if message.data == b"bad":
            await trio.sleep_forever()
        return Verdict.ACCEPT

    async with raw_peers() as (_, pubsub, messages, (peer,)):
        assert messages is not None
        pubsub.set_validator("t", hangs)
        started = trio.current_time()
        await peer.publish(peer.signed(b"bad"), peer.signed(b"good"))
        assert (await messages.receive()).data == b"good"
        assert trio.current_time() - started < 0.5
        await until(lambda: pubsub.metrics().get("validator_timeouts") == 1)
        assert trio.current_time() - started == pytest.approx(1.0, abs=0.2)
        assert pubsub.metrics()["ignore"] == 1


class Broken(Exception):
    pass


def raises(message: Message) -> Verdict:
    raise Broken


async def raises_later(message: Message) -> Verdict:
    await trio.sleep(0.1)
    raise Broken


def answers_nonsense(message: Message) -> Verdict:
    return True  # type: ignore[return-value]


@pytest.mark.parametrize("validator", [raises, raises_later, answers_nonsense])
async def test_g10_a_validator_that_fails(validator, expected_bugs: list[BaseException]) -> None:
    async with raw_peers() as (victim, pubsub, messages, (peer,)):
        assert messages is not None
        victim.containment._strict = False  # type: ignore[attr-defined]
        pubsub.set_validator("t", validator)
        await peer.publish(peer.signed(b"bad"))
        await until(lambda: pubsub.metrics().get("ignore") == 1)
        pubsub.set_validator("t", lambda message: Verdict.ACCEPT)
        await peer.publish(peer.signed(b"good"))
        assert (await messages.receive()).data == b"good"
        assert [type(bug) for bug in expected_bugs] == [TypeError if validator is answers_nonsense else Broken]


async def test_an_id_function_that_fails(expected_bugs: list[BaseException]) -> None:
    def only_for_good(message: Message) -> bytes:
        if message.data == b"bad":
            raise Broken
        return message.data

    async with raw_peers() as (victim, pubsub, messages, (peer,)):
        assert messages is not None
        victim.containment._strict = False  # type: ignore[attr-defined]
        pubsub.set_message_id("t", only_for_good)
        await peer.publish(peer.signed(b"bad"), peer.signed(b"good"))
        assert (await messages.receive()).id == b"good"
        with pytest.raises(MessageRefused):
            await pubsub.publish("t", b"bad")
        await peer.publish(peer.signed(b"x" * 257), peer.signed(b"x" * 256))  # what is remembered is short
        assert (await messages.receive()).id == b"x" * 256
        assert len(expected_bugs) == 3


async def test_a_topic_filter_that_fails(expected_bugs: list[BaseException]) -> None:
    def all_but_bad(topic: str) -> bool:
        if topic == "bad":
            raise Broken
        return True

    async with raw_peers(make=lambda: Pubsub(topic_filter=all_but_bad)) as (victim, pubsub, _, (peer,)):
        victim.containment._strict = False  # type: ignore[attr-defined]
        await peer.subscribe("bad", "good")
        await pubsub.wait_for_peers("good")
        assert pubsub.peers("bad") == ()
        assert len(expected_bugs) == 1


async def test_only_so_many_runs_at_once() -> None:
    running = most = 0

    async def counts(message: Message) -> Verdict:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(0.1)
        running -= 1
        return Verdict.ACCEPT

    async with raw_peers(2) as (_, pubsub, messages, peers):
        assert messages is not None
        pubsub.set_validator("t", counts, concurrency=5, timeout=100)
        for peer in peers:
            await peer.publish(*[peer.signed(b"%d" % number) for number in range(10)])
        for _ in range(20):
            await messages.receive()
        assert most == 5


async def test_the_time_includes_waiting_for_a_turn() -> None:
    async def slow(message: Message) -> Verdict:
        await trio.sleep(0.4)
        return Verdict.ACCEPT

    async with raw_peers() as (_, pubsub, messages, (peer,)):
        assert messages is not None
        pubsub.set_validator("t", slow, concurrency=1)
        await peer.publish(*[peer.signed(b"%d" % number) for number in range(10)])
        await until(lambda: pubsub.metrics().get("accept", 0) + pubsub.metrics().get("ignore", 0) == 10)
        assert pubsub.metrics()["accept"] == pubsub.metrics()["delivered"] == 2
        assert pubsub.metrics()["validator_timeouts"] == 8


async def test_g6_a_peer_whose_messages_are_being_validated_is_held_back() -> None:
    may_end = trio.Event()
    running = 0

    async def waits(message: Message) -> Verdict:
        nonlocal running
        if message.data.startswith(b"flood"):
            running += 1
            await may_end.wait()
        return Verdict.ACCEPT

    config = PubsubConfig(validations_per_peer=4)
    async with raw_peers(2, lambda: Pubsub(config=config)) as (_, pubsub, messages, (flooder, honest)):
        assert messages is not None
        pubsub.set_validator("t", waits, timeout=10_000, concurrency=1000)
        await flooder.publish(*[flooder.signed(b"flood %d" % number) for number in range(50)])
        await settled()
        assert running == 4
        await honest.publish(honest.signed(b"honest"))
        assert (await messages.receive()).data == b"honest"
        may_end.set()
        for _ in range(50):
            await messages.receive()


async def test_own_messages_are_validated_as_well() -> None:
    async with subscribed([(0, 1)]) as net:
        a, _ = net.pubsubs
        for validator in (by_data, by_data_later):
            a.set_validator("t", validator)
            with pytest.raises(MessageRefused, match="the validators of 't' said reject") as caught:
                await a.publish("t", b"reject")
            assert caught.value.verdict is Verdict.REJECT
            await a.publish("t", b"accept")
            assert (await net.messages[1].receive()).data == b"accept"


async def test_the_host_ends_while_validators_run() -> None:
    started = trio.Event()

    async def hangs(message: Message) -> Verdict:
        started.set()
        await trio.sleep_forever()
        raise AssertionError

    async with raw_peers() as (_, pubsub, _, (peer,)):
        pubsub.set_validator("t", hangs, timeout=1000)
        await peer.publish(*[peer.signed(b"%d" % number) for number in range(100)])
        await started.wait()


def test_a_validator_needs_time() -> None:
    with pytest.raises(ValueError, match="needs time"):
        Check(by_data, timeout=0)
    with pytest.raises(ValueError, match="at least one run"):
        Check(by_data, concurrency=0)


# --- the one that comes with it ---------------------------------------------------------------------------------------

PEER, OTHER = (PeerId.from_key(seeded_key(name).public_key) for name in ("peer", "other"))


def numbered(seqno: int | None, author: PeerId | None = PEER) -> Message:
    raw = encode_message(
        topic="t",
        data=b"",
        author=None if author is None else bytes(author),
        seqno=None if seqno is None else seqno.to_bytes(8, "big"),
    )
    return decode_message(raw, PEER)


def test_g7_numbers_that_do_not_grow() -> None:
    check = MonotonicSeqno(authors=2)
    assert [check(numbered(seqno)) is Verdict.ACCEPT for seqno in (5, 6, 6, 5, 7, 100, 8)] == [
        True,
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    assert check(numbered(1, OTHER)) is Verdict.ACCEPT
    assert check(numbered(None)) is Verdict.IGNORE
    assert check(numbered(1, None)) is Verdict.IGNORE


async def test_g7_replays_after_the_router_has_forgotten() -> None:
    async with raw_peers(1, lambda: Pubsub(validators=[MonotonicSeqno()])) as (_, pubsub, messages, (peer,)):
        assert messages is not None
        raw = peer.signed(b"x")
        for _ in range(2):
            await peer.publish(raw)
            await trio.sleep(500)
        assert pubsub.metrics() == {"accept": 1, "delivered": 1, "ignore": 1}
