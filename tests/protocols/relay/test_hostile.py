"""What hostile relays, and hostile users of one, must not bring about: requirements R2 and R10."""

from __future__ import annotations

import pytest

from libp2p.protocols.identify import identify
from libp2p.protocols.relay import ReservationRefused, reserve
from tests.protocols.relay.nodes import wall
from tests.protocols.relay.test_client import granted, lying
from tests.protocols.waiting import settled


def long_addr(size: int) -> str:
    """An address of about ``size`` bytes."""
    return "".join(f"/dns4/{'.'.join(['a' * 60] * 4)}/tcp/{number}" for number in range(1, size // 248 + 1))


async def test_r2_an_address_too_long_to_be_announced_is_left_out() -> None:
    """With the relay's id and ours behind it, nobody could read it: neither others nor this host."""
    addrs = (long_addr(1000), "/ip4/1.2.3.4/tcp/7")
    async with lying(granted(1e9 + 100, addrs=addrs)) as (host, relay):
        await host.listen(f"{relay.addrs[0]}/p2p-circuit")
        await settled()
        assert [str(addr) for addr in host.addrs if "p2p-circuit" in str(addr)] == [
            f"/ip4/1.2.3.4/tcp/7/p2p/{relay.local_peer}/p2p-circuit/p2p/{host.local_peer}"
        ]
        assert (await identify(relay, host.addrs[0])).listen_addrs


async def test_r2_addresses_that_are_all_too_long_are_no_reservation() -> None:
    async with lying(granted(1e9 + 100, addrs=(long_addr(1000),))) as (host, relay):
        with pytest.raises(ReservationRefused, match="too long"):
            await reserve(host, relay.addrs[0], clock=wall)


async def test_r2_a_relay_does_not_fill_what_a_host_says_about_itself() -> None:
    addrs = tuple(f"/ip4/1.2.3.4/tcp/{port}" for port in range(1, 33))
    async with lying(granted(1e9 + 100, addrs=addrs)) as (host, relay):
        assert len((await reserve(host, relay.addrs[0], clock=wall)).addrs) == 8
