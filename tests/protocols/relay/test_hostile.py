"""What hostile relays, and hostile users of one, must not bring about: requirements R2 and R10."""

from __future__ import annotations

import pytest
import trio

from libp2p.addressing import parse
from libp2p.host import HostConfig, RunningHost
from libp2p.protocols.identify import identify
from libp2p.protocols.relay import RelayServer, ReservationRefused, reserve
from libp2p.protocols.relay._hop import _Refused
from libp2p.swarm import LimitsConfig, SwarmConfig
from tests.protocols.relay.nodes import client, net, three, through, wall
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


async def test_r2_a_reservation_that_would_be_renewed_all_the_time_is_not_taken() -> None:
    """Each renewal may bring other addresses, which all peers of the host are told."""
    async with lying(granted(1e9 + 59)) as (host, relay):
        with pytest.raises(ReservationRefused, match="would end 59 s from now"):
            await reserve(host, relay.addrs[0], clock=wall)


async def test_r1_whoever_has_gone_gets_no_reservation() -> None:
    """Nothing would end it before its time: the end of his connection has been seen already."""
    async with net() as found:
        server = RelayServer(clock=wall)
        relay = await found.open("relay", server)
        peer = await found.open("peer")
        [ours] = [await peer.connect(relay.addrs[0])]
        await settled()
        [theirs] = relay.connections(peer.local_peer)
        await ours.aclose()
        await settled()
        with pytest.raises(_Refused):
            server._reserve(relay, theirs)
        assert server.reservations == 0


async def test_r10_a_relayed_connection_keeps_no_reservation() -> None:
    async with net() as found:
        server = RelayServer(clock=wall)
        relay, other = await found.open("relay", server, client()), await found.open("other", RelayServer(clock=wall))
        host = await found.open("host", service := client())
        await host.listen(f"{other.addrs[0]}/p2p-circuit")
        await relay.connect(through(other, host))
        direct = await host.swarm._dialing.connect(
            relay.local_peer, list(relay.swarm.bound_addrs()), host.swarm._running()
        )
        await host.listen(f"{relay.addrs[0]}/p2p-circuit")
        assert server.reservations == 1 and len(service.reservations) == 2
        await direct.aclose()
        await settled()
        assert relay.connections(host.local_peer)
        assert server.reservations == 0 and list(service.reservations) == [other.local_peer]


async def test_r12_a_relay_with_very_many_addresses_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    own = vars(RunningHost)["addrs"].fget
    async with three() as net:
        me = net.relay.local_peer
        await net.dialer.connect(net.relay.addrs[0])
        many = [parse(f"/dns4/{'a' * 60}.{'b' * 60}.example/tcp/{port}/p2p/{me}") for port in range(1, 33)]
        monkeypatch.setattr(RunningHost, "addrs", property(lambda host: many if host is net.relay else own(host)))
        held = await reserve(net.dialer, me, clock=wall)
        assert len(held.addrs) == 8  # of those that fit


async def test_t10_dials_through_relays_do_not_wait_for_each_other() -> None:
    """As many as there may be dials, and each needs another one to its relay first."""
    async with three() as net:
        config = HostConfig(swarm=SwarmConfig(limits=LimitsConfig(dials=1, dials_per_peer=1)))
        dialer = await net.net.open("small", client(), config=config)
        started = trio.current_time()
        assert (await dialer.connect(net.circuit)).limited
        assert trio.current_time() - started < 1
