"""Streams that fail on purpose fail as they should, once, and tell the other side."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import memory_stream_pair

from libp2p.addressing import parse
from libp2p.testing import Memory, MemoryNetwork
from libp2p.testing.flaky import Dribble, Fault, Flaky, Plain, Plan, WrappingTransport


@pytest.mark.parametrize(
    ("fault", "error", "number"),
    [
        (Fault.RESET, trio.BrokenResourceError, errno.ECONNRESET),
        (Fault.TIMEOUT, trio.BrokenResourceError, errno.ETIMEDOUT),
        (Fault.OS_ERROR, OSError, errno.EIO),
        (Fault.MEMORY, MemoryError, None),
    ],
)
async def test_the_nth_operation_fails(fault, error, number) -> None:
    one, other = memory_stream_pair()
    flaky = Flaky(one, plan := Plan(fault, at=3))
    await flaky.send_all(b"one")
    await flaky.send_all(b"two")
    assert not plan.fired
    for _ in range(2):
        with pytest.raises(error) as caught:
            await flaky.send_all(b"three")
        found = caught.value.__cause__ if fault in (Fault.RESET, Fault.TIMEOUT) else caught.value
        assert getattr(found, "errno", None) == number
    assert plan.fired
    assert plan.count == 3
    assert await other.receive_some() == b"onetwo"
    assert await other.receive_some() == b""
    await flaky.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await flaky.receive_some()


async def test_an_end_is_an_end_to_readers_and_a_break_to_writers() -> None:
    one, other = memory_stream_pair()
    flaky = Flaky(one, Plan(Fault.EOF, at=1))
    await other.send_all(b"never seen")
    assert await flaky.receive_some() == b""
    assert await flaky.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await flaky.send_all(b"x")


async def test_a_plan_may_only_count() -> None:
    one, other = memory_stream_pair()
    flaky = Flaky(one, plan := Plan(Fault.RESET, at=0))
    for _ in range(5):
        await flaky.send_all(b"x")
    await flaky.wait_send_all_might_not_block()
    assert (plan.count, plan.fired) == (5, False)
    assert await other.receive_some() == b"xxxxx"


async def test_dribble_hands_over_little() -> None:
    one, other = memory_stream_pair()
    await one.send_all(b"abcdef")
    dribble = Dribble(other, 2)
    assert [await dribble.receive_some(), await dribble.receive_some(1), await dribble.receive_some(100)] == [
        b"ab", b"c", b"de",
    ]  # fmt: skip
    assert dribble.below is other


async def test_a_transport_whose_streams_are_wrapped() -> None:
    network = MemoryNetwork()
    transport = WrappingTransport(Memory(network), Plain)
    assert transport.can_dial(parse("/memory/1"))
    assert transport.can_listen(parse("/memory/1"))
    listener = await transport.listen(parse("/memory/0"))
    ours = await transport.dial(listener.addresses[0], peer=None)
    theirs = await listener.accept()
    assert isinstance(ours.stream, Plain)  # type: ignore[union-attr]
    assert isinstance(theirs.stream, Plain)  # type: ignore[union-attr]
    await listener.aclose()
