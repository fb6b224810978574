"""Reservations that are kept, relays that are found, and relays that lie: requirements R5, R11, R12, case R2."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from libp2p.abc import Stream
from libp2p.addressing import parse
from libp2p.errors import DialError, PeerIdMismatch, RemoteProtocolError, TransportError
from libp2p.host import RunningHost
from libp2p.peer_id import PeerId
from libp2p.protocols.ping import ping
from libp2p.protocols.relay import (
    HOP,
    CircuitRefused,
    RelayClient,
    RelayClientConfig,
    RelayLimits,
    RelayServer,
    ReservationRefused,
    Status,
    Voucher,
    reserve,
)
from libp2p.protocols.relay._codec import (
    HopMessage,
    HopType,
    ReservationMessage,
    encode_hop,
)
from libp2p.protocols.relay._exchange import receive_message, send_message
from libp2p.testing.keys import seeded_key
from tests.protocols.relay.nodes import client, net, three, through, wall
from tests.protocols.waiting import settled, until


async def test_r5_reservations_are_renewed_in_time() -> None:
    async with three(RelayLimits(reservation_ttl=600)) as net:
        [first] = net.client.reservations.values()
        for _ in range(60):
            await trio.sleep(100)
            assert net.server.reservations == 1
            [held] = net.client.reservations.values()
            assert held.expires > trio.current_time() + 100
        assert held.expires > first.expires
        # Renewed two minutes before the end, not all the time.
        assert net.server.counts()["OK"] == pytest.approx(6000 / 480, abs=2)


async def test_a_renewal_that_fails_is_tried_again() -> None:
    async with three(RelayLimits(reservation_ttl=600)) as net:
        net.net.network.cut(net.net.network.nodes[0], net.net.network.nodes[1])
        await trio.sleep(500)
        net.net.network.heal()
        await trio.sleep(300)
        assert net.client.reservations
        assert len(await ping(net.dialer, net.circuit)) == 1


async def test_a_named_relay_is_kept() -> None:
    async with net() as found:
        service = client(config=RelayClientConfig(retry=10))
        relay = await found.open("relay", RelayServer(clock=wall))
        host = await found.open("host", service)
        await host.listen(f"{relay.addrs[0]}/p2p-circuit")
        assert list(service.reservations) == [relay.local_peer]
        await host.disconnect(relay.local_peer)
        await settled()
        assert not service.reservations and not any("p2p-circuit" in str(addr) for addr in host.addrs)
        await trio.sleep(11)
        assert list(service.reservations) == [relay.local_peer]
        assert any("p2p-circuit" in str(addr) for addr in host.addrs)
        found.network.cut("relay", "host", hard=True)
        await trio.sleep(200)
        assert not service.reservations
        found.network.heal()
        await trio.sleep(200)
        assert service.reservations


async def test_a_relay_that_came_through_another_one_is_dialled() -> None:
    async with net() as found:
        other = await found.open("other", RelayServer(clock=wall))
        relay = await found.open("relay", RelayServer(clock=wall), client())
        host, dialer = await found.open("host", service := client()), await found.open("dialer", client())
        for private in (host, dialer):
            await private.listen(f"{other.addrs[0]}/p2p-circuit")
            assert (await relay.connect(through(other, private))).limited
            await until(lambda private=private: private.connections(relay.local_peer))  # type: ignore[misc]
        await host.listen(f"{relay.addrs[0]}/p2p-circuit")
        assert set(service.reservations) == {other.local_peer, relay.local_peer}
        assert (await dialer.connect(through(relay, host))).limited


async def test_a_named_relay_that_says_no() -> None:
    async with net() as found:
        relay = await found.open("relay", RelayServer(RelayLimits(reservations=0), clock=wall))
        plain = await found.open("plain")
        host = await found.open("host", client())
        with pytest.raises(CircuitRefused) as refused:
            await host.listen(f"{relay.addrs[0]}/p2p-circuit")
        assert refused.value.status == Status.RESERVATION_REFUSED
        with pytest.raises(TransportError, match=HOP):
            await host.listen(f"{plain.addrs[0]}/p2p-circuit")
        with pytest.raises(TransportError, match="the relay"):
            await host.listen(f"/memory/4711/p2p/{plain.local_peer}/p2p-circuit")
        assert list(host.swarm.bound_addrs()) == [host.swarm.bound_addrs()[0]]


async def test_two_relays_of_those_given() -> None:
    async with net() as found:
        relays = [await found.open(f"relay {number}", RelayServer(clock=wall)) for number in range(3)]
        service = client(relays=[relay.addrs[0] for relay in relays])
        host = await found.open("host", service)
        assert await host.listen("/p2p-circuit") == ()
        await until(lambda: len(service.reservations) == 2)
        assert set(service.reservations) == {relay.local_peer for relay in relays[:2]}
        dialer = await found.open("dialer", client())
        for relay in relays[:2]:
            await dialer.connect(through(relay, host))
            await dialer.disconnect(host.local_peer)


async def test_a_lost_relay_is_replaced() -> None:
    async with net() as found:
        relays = [await found.open(f"relay {number}", RelayServer(clock=wall)) for number in range(3)]
        service = client(relays=[relay.addrs[0] for relay in relays])
        host = await found.open("host", service)
        await host.listen("/p2p-circuit")
        await until(lambda: len(service.reservations) == 2)
        await relays[0].disconnect(host.local_peer)
        await until(lambda: set(service.reservations) == {relay.local_peer for relay in relays[1:]})


async def test_connected_peers_that_serve_as_relays_are_found() -> None:
    async with net() as found:
        service = client(relays=[f"/memory/4711/p2p/{PeerId.from_key(seeded_key('gone').public_key)}"])
        host = await found.open("host", service)
        await host.listen("/p2p-circuit")
        relay = await found.open("relay", RelayServer(clock=wall))
        plain = await found.open("plain")
        await host.connect(plain.addrs[0])
        await relay.connect(host.addrs[0])
        await until(lambda: list(service.reservations) == [relay.local_peer])
        assert service._failures  # the one that was given could not be reached
        # Others hear of it.
        await until(lambda: any("p2p-circuit" in str(addr) for addr in plain.peerstore.addrs(host.local_peer)))


async def test_a_relay_that_failed_is_tried_again_later_and_later() -> None:
    async with net() as found:
        relay = await found.open("relay", server := RelayServer(RelayLimits(reservations=0), clock=wall))
        service = client(relays=[relay.addrs[0]], config=RelayClientConfig(retry=10, max_retry=40))
        host = await found.open("host", service)
        await host.listen("/p2p-circuit")
        asked = []
        for _ in range(20):
            await trio.sleep(10)
            asked.append(server.counts().get("RESERVATION_REFUSED", 0))
        # At 0, 10, 30, 70, 110, 150, 190 seconds.
        assert asked[-1] == 7


async def test_the_host_itself_is_no_relay_for_itself() -> None:
    async with net() as found:
        service = RelayClient([PeerId.from_key(seeded_key("0/host").public_key)], clock=wall)
        host = await found.open("host", service, RelayServer(clock=wall))
        await host.listen("/p2p-circuit")
        await trio.sleep(100)
        assert not service.reservations


@pytest.mark.parametrize("wrong", [{"wanted": 0}, {"retry": 0.0}, {"retry": 5.0, "max_retry": 1.0}])
def test_config_that_makes_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one relay must be wanted"):
        RelayClientConfig(**wrong)  # type: ignore[arg-type]


def test_relays_are_named_by_peer_id_or_address() -> None:
    peer = PeerId.from_key(seeded_key(1).public_key)
    RelayClient([peer, str(peer), f"/ip4/1.2.3.4/tcp/5/p2p/{peer}", f"/p2p/{peer}"])
    with pytest.raises(ValueError, match="does not say whose"):
        RelayClient(["/ip4/1.2.3.4/tcp/5"])


async def test_a_client_that_does_not_run() -> None:
    transport = client().transports[0]
    addr = parse(f"/p2p/{PeerId.from_key(seeded_key(1).public_key)}/p2p-circuit")
    with pytest.raises(TransportError, match="not running"):
        await transport.listen(addr)
    with pytest.raises(TransportError, match="end in the peer"):
        await transport.dial(addr, peer=None)
    assert not transport.can_dial(parse("/p2p-circuit")) and transport.can_listen(parse("/p2p-circuit"))
    assert not transport.can_dial(parse("/ip4/1.2.3.4/tcp/5"))
    assert not transport.can_dial(parse(f"{addr}{addr}"))


async def test_a_client_that_ends_while_it_waits_for_the_relay() -> None:
    async with net() as found:
        relay, host = await found.open("relay"), await found.open("host", service := client())

        async def hop(stream: Stream) -> None:
            await receive_message(stream)
            assert service._nursery is not None
            service._nursery.cancel_scope.cancel()
            await settled()
            await send_message(stream, encode_hop(granted(wall() + 100)))

        relay.handle(HOP, hop)
        with pytest.raises(TransportError, match="not running"):
            await host.listen(f"{relay.addrs[0]}/p2p-circuit")
        assert not service.reservations


# --- relays that lie --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def lying(answer: HopMessage | bytes) -> AsyncIterator[tuple[RunningHost, RunningHost]]:
    """A host, and one that answers every request like this."""
    async with net() as found:
        relay = await found.open("relay")
        host = await found.open("host", client())

        async def hop(stream: Stream) -> None:
            await receive_message(stream)
            await send_message(stream, answer if isinstance(answer, bytes) else encode_hop(answer))

        relay.handle(HOP, hop)
        yield host, relay


def granted(expire: float, *, voucher: bytes | None = None, addrs: tuple[str, ...] = ()) -> HopMessage:
    reservation = ReservationMessage(expire=int(expire), voucher=voucher, addrs=tuple(parse(addr) for addr in addrs))
    return HopMessage(type=HopType.STATUS, status=Status.OK, reservation=reservation)


@pytest.mark.parametrize("expire", [0, 1, 1e9 - 1, 1e9 + 8 * 24 * 3600, 2**63, 2**64 - 1], ids=str)
async def test_r2_absurd_terms(expire: float) -> None:
    async with lying(granted(expire)) as (host, relay):
        with pytest.raises(ReservationRefused, match="would end"):
            await reserve(host, relay.addrs[0], clock=wall)
        with pytest.raises(TransportError, match="would end"):
            await host.listen(f"{relay.addrs[0]}/p2p-circuit")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\xff", "not a relay message"),
        (HopMessage(type=HopType.RESERVE), "answered with a RESERVE"),
        (HopMessage(type=HopType.STATUS, status=Status.OK), "did not say which"),
        (granted(1e9 + 100, voucher=b"nonsense"), "voucher"),
    ],
)
async def test_r2_answers_that_break_the_rules(answer: HopMessage | bytes, reason: str) -> None:
    async with lying(answer) as (host, relay):
        with pytest.raises(RemoteProtocolError, match=reason):
            await reserve(host, relay.addrs[0], clock=wall)
        assert host.connections(relay.local_peer)  # it costs him the stream


async def test_r2_somebody_elses_voucher() -> None:
    key = seeded_key("other")
    other = PeerId.from_key(key.public_key)
    for relay_id, sealed_by in ((other, key), (None, seeded_key("0/relay"))):
        relay_id = relay_id or PeerId.from_key(sealed_by.public_key)
        voucher = Voucher(relay=relay_id, peer=other, expiration=1).seal(sealed_by)
        async with lying(granted(1e9 + 100, voucher=voucher)) as (host, relay):
            with pytest.raises(RemoteProtocolError, match="somebody else"):
                await reserve(host, relay.addrs[0], clock=wall)


async def test_r2_a_stale_voucher() -> None:
    key, us = seeded_key("0/relay"), PeerId.from_key(seeded_key("0/host").public_key)
    for expiration, good in ((1e9 - 1, False), (1e9 + 100, True)):
        voucher = Voucher(relay=PeerId.from_key(key.public_key), peer=us, expiration=int(expiration)).seal(key)
        async with lying(granted(1e9 + 100, voucher=voucher)) as (host, relay):
            if good:
                assert (await reserve(host, relay.addrs[0], clock=wall)).voucher == voucher
            else:
                with pytest.raises(RemoteProtocolError, match="has ended"):
                    await reserve(host, relay.addrs[0], clock=wall)


async def test_r11_without_a_voucher_or_addresses() -> None:
    async with lying(granted(1e9 + 100)) as (host, relay):
        held = await reserve(host, relay.addrs[0], clock=wall)
        [connection] = host.connections(relay.local_peer)
        # Where it was found.
        assert [str(addr) for addr in held.addrs] == [f"{connection.remote_addr}/p2p/{relay.local_peer}/p2p-circuit"]
        assert held.voucher is None and held.limit is None


async def test_addresses_of_other_peers_and_relayed_ones_are_left_out() -> None:
    other = PeerId.from_key(seeded_key("other").public_key)
    addrs = (f"/ip4/1.2.3.4/tcp/5/p2p/{other}", f"/ip4/1.2.3.4/tcp/6/p2p/{other}/p2p-circuit", "/ip4/1.2.3.4/tcp/7")
    async with lying(granted(1e9 + 100, addrs=addrs)) as (host, relay):
        held = await reserve(host, relay.addrs[0], clock=wall)
        assert [str(addr) for addr in held.addrs] == [f"/ip4/1.2.3.4/tcp/7/p2p/{relay.local_peer}/p2p-circuit"]


async def test_a_relay_that_does_not_answer() -> None:
    async with net() as found:
        relay, host = await found.open("relay"), await found.open("host", client())

        async def silent(_: Stream) -> None:
            await trio.sleep_forever()

        relay.handle(HOP, silent)
        with pytest.raises(ReservationRefused, match="within 30 s"):
            await reserve(host, relay.addrs[0], clock=wall)
        started = trio.current_time()
        with pytest.raises(DialError):
            await host.connect(f"{relay.addrs[0]}/p2p-circuit/p2p/{PeerId.from_key(seeded_key(3).public_key)}")
        assert trio.current_time() - started <= 16


async def test_s1_a_relay_that_connects_to_somebody_else() -> None:
    """Whoever is asked for proves it end to end: a relay can cut, and not impersonate."""
    async with three() as net:
        liar, asked = await net.net.open("liar", client()), PeerId.from_key(seeded_key("asked").public_key)

        async def hop(stream: Stream) -> None:
            await receive_message(stream)
            async with await liar.open_stream(net.relay.addrs[0], HOP) as other, trio.open_nursery() as nursery:
                await send_message(other, encode_hop(HopMessage(type=HopType.CONNECT, peer=net.target)))
                await send_message(stream, await receive_message(other))
                nursery.start_soon(_copy, stream, other)
                await _copy(other, stream)

        liar.handle(HOP, hop)
        with pytest.raises(DialError) as caught:
            await net.dialer.connect(f"{liar.addrs[0]}/p2p-circuit/p2p/{asked}")
        [(_, reason)] = caught.value.attempts
        assert isinstance(reason, PeerIdMismatch) and reason.actual == net.target


async def _copy(source: Stream, target: Stream) -> None:
    async for chunk in source:
        await target.send_all(chunk)


async def test_two_listeners_with_one_relay() -> None:
    async with net() as found:
        relay = await found.open("relay", RelayServer(clock=wall))
        service = client(relays=[relay.addrs[0]], config=RelayClientConfig(retry=10))
        host = await found.open("host", service)
        await host.listen("/p2p-circuit")
        await until(lambda: service.reservations)
        await host.listen(f"{relay.addrs[0]}/p2p-circuit")
        first, second = service._listeners
        await second.aclose()
        await settled()
        assert list(service.reservations) == [relay.local_peer] == list(first.reservations)
        await host.listen("/p2p-circuit")
        await until(lambda: all(listener.reservations for listener in service._listeners))
        await host.disconnect(relay.local_peer)
        await settled()
        assert not service.reservations
        await trio.sleep(30)
        assert all(listener.reservations for listener in service._listeners)
