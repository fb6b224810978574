"""Queues towards peers and subscribers: requirement PS10, case G10."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from libp2p.errors import ConnectionClosed, StreamReset
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import Message, Messages, RpcLimits
from libp2p.protocols.pubsub._codec import Rpc, Subscription, decode_message, decode_rpc, encode_message
from libp2p.protocols.pubsub._outbox import MAX_CONTROL_ENTRIES, Outbox
from libp2p.protocols.pubsub._subscriber import Subscribers
from libp2p.testing.keys import seeded_key
from libp2p.wire import proto
from libp2p.wire.framing import FrameBuffer, frame

PEER = PeerId.from_key(seeded_key("peer").public_key)


def outbox(max_messages: int = 32, max_bytes: int = 4 * 1024 * 1024) -> Outbox:
    return Outbox(max_messages=max_messages, max_bytes=max_bytes)


_ids = itertools.count()


def put(box: Outbox, framed: bytes) -> bool:
    return box.add_message(b"%d" % next(_ids), framed)


async def taken(box: Outbox) -> bytes:
    data = await box.next_batch()
    assert data is not None
    return data


async def batch(box: Outbox) -> list[Rpc]:
    limits = RpcLimits(control_size=10**6)
    data = await taken(box)
    return [decode_rpc(rpc, limits) for rpc in FrameBuffer(10**7).receive_data(data)]


# --- towards peers ----------------------------------------------------------------------------------------------------


async def test_the_writer_waits_for_something_to_do() -> None:
    box = outbox()
    assert box.is_empty
    async with trio.open_nursery() as nursery:
        got = []

        async def write() -> None:
            got.append(await taken(box))

        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        assert not got
        put(box, b"\x01x")
    assert got == [b"\x01x"]


class Stream:
    """Takes messages, or does not."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.failure: Exception | None = None

    def send_nowait(self, data: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append(data)


@asynccontextmanager
async def writing(box: Outbox) -> AsyncIterator[tuple[Stream, list[bytes]]]:
    """A stream, and a writer and what it got."""
    stream, batches = Stream(), list[bytes]()
    box.send_nowait = stream.send_nowait

    async def write() -> None:
        while True:
            batches.append(await taken(box))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        yield stream, batches
        nursery.cancel_scope.cancel()


async def test_a_message_goes_straight_to_the_stream() -> None:
    box = outbox(max_messages=1)
    assert put(box, b"early")  # there is no writer yet
    async with writing(box) as (stream, batches):
        box.stalled = True
        assert put(box, b"one")
        assert put(box, b"two")
        assert stream.sent == [b"one", b"two"]
        assert box.is_empty
        assert not box.stalled
        await wait_all_tasks_blocked()
        assert batches == [b"early"]


@pytest.mark.parametrize(
    "failure",
    [
        trio.WouldBlock(),
        trio.BrokenResourceError(),
        trio.ClosedResourceError(),
        StreamReset(code=0),
        ConnectionClosed("gone"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_what_the_stream_does_not_take_waits(failure: Exception) -> None:
    box = outbox(max_messages=1)
    async with writing(box) as (stream, batches):
        stream.failure = failure
        assert put(box, b"one")
        assert not put(box, b"two")  # as many as may wait do so
        stream.failure = None
        await wait_all_tasks_blocked()
        assert put(box, b"three")
        assert (batches, stream.sent) == ([b"one"], [b"three"])


async def test_what_is_forwarded_waits_for_the_writer() -> None:
    box = outbox()
    async with writing(box) as (stream, batches):
        for data in (b"1", b"2", b"3"):
            assert box.forward(data, data)
        assert box.remove_messages([b"2"]) == 1  # the peer has sent it meanwhile
        await wait_all_tasks_blocked()
        assert (batches, stream.sent) == ([b"13"], [])


async def test_a_burst_does_not_wait_for_the_writer() -> None:
    box = outbox(max_messages=2)
    async with writing(box) as (stream, batches):
        assert box.add_control(b"\x1a\x00")
        for data in (b"1", b"2", b"3", b"4", b"5"):
            assert box.forward(data, data)
        assert stream.sent == [b"12", b"34"]
        await wait_all_tasks_blocked()
        assert [batch[-1:] for batch in batches] == [b"5"]
        box.greet(b"\x32\x00")  # which nothing may overtake
        assert [box.forward(data, data) for data in (b"6", b"7", b"8")] == [True, True, False]
        assert stream.sent == [b"12", b"34"]


async def test_no_message_overtakes_what_waits() -> None:
    box = outbox()
    async with writing(box) as (stream, batches):
        box.announce([Subscription("t", True)])
        assert put(box, b"one")
        assert stream.sent == []
        await wait_all_tasks_blocked()
        assert [batch[-3:] for batch in batches] == [b"one"]


async def test_g10_control_goes_first() -> None:
    box = outbox()
    put(box, b"\x03\x12\x01m")
    box.announce([Subscription("t", True)])
    assert box.add_control(b"\x1a\x00")
    assert box.add_control(b"\x22\x00")
    news, message = await batch(box)
    assert news == Rpc(subscriptions=(Subscription("t", True),), control=b"\x1a\x00\x22\x00")
    assert message.publish == (b"m",)
    assert box.is_empty


async def test_only_the_newest_subscription_of_a_topic_counts() -> None:
    box = outbox()
    for wanted in (True, False, True, False):
        box.announce([Subscription("t", wanted)])
    box.announce([Subscription("u", True)])
    (rpc,) = await batch(box)
    assert rpc.subscriptions == (Subscription("t", False), Subscription("u", True))


async def test_ps10_long_lists_are_cut() -> None:
    box = outbox()
    box.announce([Subscription(f"topic {number}", True) for number in range(250)])
    assert [len(rpc.subscriptions) for rpc in await batch(box)] == [100, 100, 50]
    box.announce([Subscription("x" * 9000 + str(number), True) for number in range(3)])
    assert [len(rpc.subscriptions) for rpc in await batch(box)] == [1, 1, 1]


async def test_g10_messages_are_bounded_in_number() -> None:
    box = outbox(max_messages=3)
    assert [put(box, b"\x00") for _ in range(5)] == [True, True, True, False, False]
    assert len(await taken(box)) == 3
    assert put(box, b"\x00")


async def test_g10_messages_are_bounded_in_bytes() -> None:
    box = outbox(max_bytes=100)
    assert put(box, bytes(1000))  # one is always taken, or a long one would never leave
    assert not put(box, b"\x00")
    assert len(await taken(box)) == 1000
    assert [put(box, bytes(40)) for _ in range(3)] == [True, True, False]


async def test_control_is_bounded() -> None:
    box = outbox(max_bytes=100)
    assert [box.add_control(bytes(40)) for _ in range(3)] == [True, True, False]
    box = outbox()
    assert all(box.add_control(b"\x1a\x00") for _ in range(MAX_CONTROL_ENTRIES))
    assert not box.add_control(b"\x1a\x00")
    assert sum(len(rpc.control) for rpc in await batch(box)) == 2 * MAX_CONTROL_ENTRIES


async def test_batches_are_bounded() -> None:
    box = outbox(max_messages=100)
    for _ in range(10):
        put(box, bytes(100_000))
    assert [len(await taken(box)) for _ in range(5)] == [200_000] * 5


async def test_an_rpc_has_one_field_of_control_entries() -> None:
    """js takes the last of several."""
    box = outbox()
    for number in range(3):
        box.add_control(proto.write_bytes(3, bytes(9000 + number)))
    box.add_control(b"\x1a\x00")
    data = await taken(box)
    fields = [[item.number for item in proto.read(rpc, 10)] for rpc in FrameBuffer(10**7).receive_data(data)]
    assert fields == [[3], [3], [3]]
    assert max(map(len, FrameBuffer(10**7).receive_data(data))) <= 16 * 1024


async def test_a_message_is_queued_once() -> None:
    box = outbox()
    assert box.add_message(b"a", b"\x00")
    assert box.add_message(b"a", b"\x00")
    assert await taken(box) == b"\x00"


async def test_what_is_not_wanted_any_more_leaves_room() -> None:
    box = outbox(max_messages=2)
    assert box.add_message(b"a", b"1")
    assert box.add_message(b"b", b"2")
    assert box.remove_messages([b"c"]) == 0
    assert not box.has_room(1)
    assert box.remove_messages([b"a", b"a", b"c"]) == 1
    assert box.add_message(b"d", b"3")
    assert await taken(box) == b"23"


async def test_a_farewell_sends_what_is_queued() -> None:
    box = outbox()
    box.add_message(b"a", b"1")
    box.finish()
    assert await box.next_batch() == b"1"
    assert await box.next_batch() is None


async def test_a_farewell_wakes_a_writer_with_nothing_to_do() -> None:
    box = outbox()
    async with trio.open_nursery() as nursery:
        got: list[bytes | None] = []

        async def write() -> None:
            got.append(await box.next_batch())

        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        box.finish()
    assert got == [None]


async def test_who_publishes_waits_for_room() -> None:
    box = outbox(max_messages=1)
    put(box, b"\x00")
    box.stalled = True
    async with trio.open_nursery() as nursery:
        got: list[bool] = []

        async def wait() -> None:
            got.append(await box.wait_for_room(1))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not got
        await box.next_batch()
    assert got == [True]
    assert not box.stalled


async def test_closing_wakes_who_waits() -> None:
    box = outbox(max_messages=1)
    put(box, b"\x00")
    async with trio.open_nursery() as nursery:
        got: list[bool] = []

        async def wait() -> None:
            got.append(await box.wait_for_room(1))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        box.close()
    assert got == [False]


async def test_a_new_stream_starts_with_all_topics_and_keeps_messages() -> None:
    box = outbox()
    box.greet(b"\x32\x00")
    box.announce([Subscription("gone", True)])
    box.add_control(b"\x1a\x00")
    put(box, b"\x03\x12\x01m")
    box.restart([Subscription("t", True), Subscription("u", True)])
    news, message = await batch(box)
    assert news == Rpc(subscriptions=(Subscription("t", True), Subscription("u", True)))
    assert message.publish == (b"m",)
    box.restart([])
    assert box.is_empty


async def test_g13_1_a_greeting_is_an_rpc_of_its_own_and_the_first() -> None:
    box = outbox()
    put(box, b"\x03\x12\x01m")
    box.announce([Subscription(f"topic {number}", True) for number in range(250)])
    box.add_control(b"\x1a\x00")
    box.greet(b"\x32\x02\x50\x01")
    first, *rest = await batch(box)
    assert first == Rpc(control=b"\x32\x02\x50\x01")
    assert sum(len(rpc.subscriptions) for rpc in rest) == 250
    box.greet(b"\x32\x00")
    assert await batch(box) == [Rpc(control=b"\x32\x00")]


async def test_extensions_are_queued_as_messages_each_alone() -> None:
    """An RPC may hold one of them; and parts of messages must not push out control entries."""
    box = outbox(max_messages=2)
    assert box.add_extension(frame(b"\x52\x00"))
    assert box.add_extension(frame(b"\x52\x00"))
    assert not box.add_extension(frame(b"\x52\x00"))
    box.add_control(b"\x1a\x00")
    assert await batch(box) == [Rpc(control=b"\x1a\x00"), Rpc(extensions=b"\x52\x00"), Rpc(extensions=b"\x52\x00")]


# --- towards subscribers ----------------------------------------------------------------------------------------------


def message(number: int, size: int = 0) -> Message:
    return decode_message(encode_message(topic="t", data=bytes((number,)) + bytes(size)), PEER)


def subscription(*, own: bool = False, max_messages: int = 3, max_bytes: int = 10_000) -> Messages:
    return Messages("t", own=own, max_messages=max_messages, max_bytes=max_bytes)


async def test_messages_in_order() -> None:
    messages = subscription()
    for number in range(3):
        assert messages.put(message(number)) == 0
    messages.end()
    assert [item.data[0] async for item in messages] == [0, 1, 2]


async def test_g10_a_slow_subscriber_loses_the_oldest() -> None:
    messages = subscription()
    assert sum(messages.put(message(number)) for number in range(10)) == 7
    assert messages.lost == 7
    assert (await messages.receive()).data == b"\x07"


async def test_g10_bytes_count_too() -> None:
    messages = subscription()
    assert messages.put(message(0, 6000)) == 0
    assert messages.put(message(1, 6000)) == 1
    assert messages.put(message(2, 20_000)) == 1  # one is always held
    assert (await messages.receive()).data[0] == 2
    assert messages.put(message(3, 6000)) == 0


async def test_waiting() -> None:
    messages = subscription()
    with pytest.raises(trio.WouldBlock):
        messages.receive_nowait()
    async with trio.open_nursery() as nursery:
        got: list[Message] = []

        async def receive() -> None:
            got.append(await messages.receive())

        nursery.start_soon(receive)
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        messages.put(message(1))
        await wait_all_tasks_blocked()
        assert len(got) == 1
        messages.put(message(2))
    assert [item.data[0] for item in got] == [1, 2]


async def test_another_task_may_be_quicker() -> None:
    messages = subscription()
    async with trio.open_nursery() as nursery:
        got: list[Message] = []

        async def receive() -> None:
            got.append(await messages.receive())

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        messages.put(message(1))
        assert messages.receive_nowait().data == b"\x01"
        await wait_all_tasks_blocked()
        assert not got
        messages.put(message(2))
    assert got[0].data == b"\x02"


async def test_cancelling_loses_nothing() -> None:
    messages = subscription()
    messages.put(message(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await messages.receive()
    assert scope.cancelled_caught
    assert (await messages.receive()).data == b"\x01"


async def test_the_end() -> None:
    messages = subscription()
    messages.end()
    with pytest.raises(trio.EndOfChannel):
        await messages.receive()
    await messages.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await messages.receive()


async def test_closing_while_somebody_waits() -> None:
    messages = subscription()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await messages.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        messages.close()


def test_all_subscriptions_of_a_topic() -> None:
    subscribers = Subscribers()
    plain, own = subscription(), subscription(own=True)
    assert "t" not in subscribers
    assert subscribers.add(plain)
    assert not subscribers.add(own)
    assert list(subscribers) == ["t"]
    assert subscribers.deliver(message(1), own=False) == (2, 0)
    assert subscribers.deliver(message(2), own=True) == (1, 0)
    assert own.receive_nowait().data == b"\x01"
    assert plain.receive_nowait().data == b"\x01"
    assert own.receive_nowait().data == b"\x02"
    assert not subscribers.remove(plain)
    subscribers.end()
    with pytest.raises(trio.EndOfChannel):
        own.receive_nowait()
    assert subscribers.remove(own)
    assert subscribers.deliver(message(1), own=False) == (0, 0)
