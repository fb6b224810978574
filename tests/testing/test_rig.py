"""The rig notices what it is there to notice."""

from __future__ import annotations

import sys
import time

import pytest
import trio

from libp2p.abc import Stream
from libp2p.testing import memory_network
from libp2p.testing.rig import Budget, StepWatch, open_rig, rss

pytestmark = pytest.mark.usefixtures("expected_bugs")


async def test_a_quiet_host_passes() -> None:
    async with memory_network(4) as (victim, *canaries), open_rig(victim, canaries) as rig:
        async with rig.attack():
            await trio.sleep(10)
        await trio.sleep(5)
        figures = rig.verdict()
        assert figures.pings > 200
        assert figures.echoes > 30
        assert figures.failures == []
        assert figures.as_dict()["longest_step"] == figures.longest_step


async def test_canaries_that_fail_are_counted() -> None:
    async with memory_network(2) as hosts, open_rig(hosts[0], hosts[1:]) as rig:
        async with rig.attack():
            hosts.network.cut(hosts.node(0), hosts.node(1))
            await trio.sleep(20)
            hosts.network.heal()
        await trio.sleep(20)
        with pytest.raises(AssertionError, match="canaries failed"):
            rig.verdict()
        assert rig.verdict(Budget(failures=100, ping_p99=100)).failures


async def test_a_long_step_is_noticed() -> None:
    if sys.gettrace() is not None:
        pytest.skip("steps are not measured while the tests are traced, for coverage or by a debugger")

    async def busy(stream: Stream) -> None:
        until = time.thread_time() + 0.08
        while time.thread_time() < until:
            pass

    async with memory_network(2) as (victim, canary), open_rig(victim, [canary]) as rig:
        async with rig.attack():
            victim.handle("/busy/1", busy)
            async with await canary.open_stream(victim.local_peer, "/busy/1"):
                await trio.sleep(3)
        with pytest.raises(AssertionError, match=r"a step of .* took"):
            rig.verdict()


async def test_left_tasks_and_memory_are_noticed() -> None:
    kept = []
    async with (
        memory_network(2) as (victim, canary),
        open_rig(victim, [canary]) as rig,
        trio.open_nursery() as nursery,
    ):
        async with rig.attack():
            kept.append(bytearray(b"x" * 80_000_000))
            for _ in range(10):
                nursery.start_soon(trio.sleep_forever)
            await trio.sleep(5)
        with pytest.raises(AssertionError) as caught:
            rig.verdict(Budget(step=10))
        nursery.cancel_scope.cancel()
    assert "tasks are left" in str(caught.value)
    assert "memory grew" in str(caught.value)
    assert "not given back" in str(caught.value)


async def test_an_idle_rig_is_no_pass() -> None:
    async with memory_network(1) as (victim,), open_rig(victim, []) as rig:
        with pytest.raises(AssertionError, match="did nothing"):
            rig.verdict()


def test_the_watch_starts_anew() -> None:
    watch = StepWatch()
    watch.longest = 1.0
    watch.forget()
    assert watch.longest == 0.0
    assert rss() > 0
