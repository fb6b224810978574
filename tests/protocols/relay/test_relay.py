"""``libp2p.protocols.relay`` between whole hosts: requirements R5 to R15 and A9, cases R1 to R3."""

from __future__ import annotations

import pytest
import trio

from libp2p.abc import Direction, Stream
from libp2p.addressing import is_relay
from libp2p.errors import ConnectionClosed, DialError, LimitedConnection, StreamReset, TransportError
from libp2p.events import ConnectionEnded, ConnectionOpened, PeerIdentified
from libp2p.metrics import render
from libp2p.protocols.identify import identify
from libp2p.protocols.ping import ping
from libp2p.protocols.relay import (
    HOP,
    STOP,
    CircuitRefused,
    RelayLimits,
    RelayServer,
    Reservation,
    Status,
    Voucher,
    reserve,
)
from libp2p.protocols.relay._codec import HopMessage, HopType, StopMessage, StopType, decode_stop, encode_stop
from libp2p.protocols.relay._exchange import receive_message, send_message
from tests.protocols.relay.nodes import ECHO, Three, ask, client, echo, net, three, through, wall
from tests.protocols.waiting import settled, until

RESERVE = HopMessage(type=HopType.RESERVE)
LIMIT = 128 * 1024
CUT = (StreamReset, ConnectionClosed)


async def connected(net: Three) -> None:
    await net.dialer.connect(net.circuit)


def refusal(exc: DialError) -> int | None:
    [(_, found)] = [attempt for attempt in exc.attempts if isinstance(attempt[1], CircuitRefused)]
    assert isinstance(found, CircuitRefused)
    return found.status


# --- circuits ---------------------------------------------------------------------------------------------------------


async def test_r7_r8_a_circuit() -> None:
    async with three() as net:
        with net.listener.subscribe(ConnectionOpened) as opened:
            ours = await net.dialer.connect(net.circuit)
            theirs = (await opened.receive()).connection
            while theirs.peer != net.dialer.local_peer:
                theirs = (await opened.receive()).connection
        assert (ours.direction, theirs.direction) == (Direction.OUTBOUND, Direction.INBOUND)
        assert ours.limited and theirs.limited
        assert len(await ping(net.dialer, net.target, count=3)) == 3
        assert len(await ping(net.listener, net.dialer.local_peer)) == 1
        way = f"/p2p/{net.relay.local_peer}/p2p-circuit"
        assert str(ours.remote_addr).endswith(way) and str(theirs.remote_addr).endswith(way)
        assert net.server.circuits == 1 and net.server.reservations == 1


async def test_the_relay_sees_no_plaintext() -> None:
    secret = b"nobody but us may read this"
    seen = bytearray()
    async with three() as net:
        net.net.network.taps.append(lambda _, piece: seen.extend(piece))
        async with await net.dialer.open_stream(net.circuit, ECHO, allow_limited=True) as stream:
            await stream.send_all(secret)
            assert await stream.receive_some() == secret
    assert len(seen) > 2 * len(secret) and secret not in seen


async def test_a_circuit_ends_with_its_connection() -> None:
    async with three() as net:
        ours = await net.dialer.connect(net.circuit)
        await ours.aclose()
        await settled()
        assert not net.listener.connections(net.dialer.local_peer)
        assert net.server.circuits == 0 and net.server.counts()["closed"] == 1


async def test_a_circuit_is_lost_with_the_relay() -> None:
    async with three() as net:
        await connected(net)
        await net.relay.disconnect(net.dialer.local_peer)
        await until(lambda: not net.listener.connections(net.dialer.local_peer))
        assert not net.dialer.connections(net.target) and net.server.circuits == 0


async def test_i6_nobody_is_observed_through_a_relay() -> None:
    async with three() as net:
        await connected(net)
        assert (await identify(net.dialer, net.target)).observed_addr is None


async def test_addresses_are_announced() -> None:
    async with three() as net:
        circuit = f"/p2p/{net.relay.local_peer}/p2p-circuit/p2p/{net.target}"
        assert any(str(addr).endswith(circuit) for addr in net.listener.addrs)
        # Whoever is connected by another way learns it, too.
        await net.dialer.connect(net.listener.addrs[0])
        await until(lambda: net.dialer.peerstore.protocols(net.target))
        assert any("p2p-circuit" in str(addr) for addr in net.dialer.peerstore.addrs(net.target))


async def test_dialling_by_peer_id_alone() -> None:
    async with three() as net:
        net.dialer.peerstore.add_addrs(net.target, [net.listener.addrs[-1]], ttl=60)
        assert (await net.dialer.connect(net.target)).limited


async def test_a9_a_relay_that_is_connected_needs_no_address() -> None:
    async with three() as net:
        await net.dialer.connect(net.relay.addrs[0])
        conn = await net.dialer.connect(f"/p2p/{net.relay.local_peer}/p2p-circuit/p2p/{net.target}")
        assert conn.limited


async def test_dialling_nonsense() -> None:
    async with three() as net:
        for relay, target in ((net.dialer, net.listener), (net.listener, net.listener)):
            with pytest.raises(DialError, match="through himself"):
                await net.dialer.connect(through(relay, target))
        with pytest.raises(DialError):
            await net.dialer.connect(f"/memory/4711/p2p/{net.relay.local_peer}/p2p-circuit/p2p/{net.target}")


# --- limited connections ----------------------------------------------------------------------------------------------


async def test_r14_protocols_opt_in() -> None:
    async with three() as net:
        net.listener.handle("/test/long", echo)
        conn = await net.dialer.connect(net.circuit)
        for opening in (conn.open_stream(ECHO), net.dialer.open_stream(net.target, ECHO)):
            with pytest.raises(LimitedConnection, match="allow_limited"):
                await opening
        # The other side does not serve over it what it did not say it would.
        with pytest.raises(Exception, match="/test/long"):
            await conn.open_stream("/test/long", allow_limited=True)


@pytest.mark.parametrize("limits", [RelayLimits(), RelayLimits(circuit_duration=None, circuit_data=None)])
async def test_r14_a_direct_connection_is_better(limits: RelayLimits) -> None:
    """Also than one through a relay without limits, however busy that is."""
    async with three(limits) as net:
        await connected(net)
        await settled()
        # As after a hole was punched: the relayed connection is still there.
        direct = await net.listener.swarm._dialing.connect(
            net.dialer.local_peer, list(net.dialer.swarm.bound_addrs()), net.listener.swarm._running()
        )
        assert not direct.limited and len(net.listener.connections(net.dialer.local_peer)) == 2
        await until(lambda: len(net.dialer.connections(net.target)) == 2)
        [relayed] = [conn for conn in net.dialer.connections(net.target) if is_relay(conn.remote_addr)]
        async with (
            await relayed.open_stream(ECHO, allow_limited=True),
            await net.dialer.open_stream(net.target, ECHO) as stream,
        ):
            assert not is_relay(stream.connection.remote_addr)


async def test_r9_no_limit_no_limited_connection() -> None:
    async with three(RelayLimits(circuit_duration=None, circuit_data=None)) as net:
        conn = await net.dialer.connect(net.circuit)
        assert not conn.limited
        async with await net.dialer.open_stream(net.target, ECHO) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(send, stream, 10 * LIMIT)
            assert await count(stream) == 10 * LIMIT
        await trio.sleep(3600)
        assert net.dialer.connections(net.target)


async def test_relayed_connections_do_not_count_for_the_relays_address() -> None:
    async with net() as found:
        relay = await found.open("relay", RelayServer(clock=wall), ip="10.0.0.1")
        listener = await found.open("listener", client(), ip="10.0.0.2")
        await listener.listen(f"{relay.addrs[0]}/p2p-circuit")
        for number in range(12):  # a host takes 8 connections from an address
            dialer = await found.open(f"dialer {number}", client(), ip=f"10.0.1.{number}")
            assert (await dialer.connect(through(relay, listener))).limited


# --- what a relay cuts ------------------------------------------------------------------------------------------------


async def send(stream: Stream, size: int) -> None:
    for _ in range(size // 1024):
        await stream.send_all(bytes(1024))
    await stream.send_eof()


async def count(stream: Stream) -> int:
    return sum([len(chunk) async for chunk in stream])


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("more", [0, 1])
async def test_r9_r3_data_is_cut_to_the_byte(there: bool, more: int) -> None:
    """On the bare circuit, below security, where every byte can be counted."""
    async with three() as net:
        received = []

        async def stop(stream: Stream) -> None:
            await receive_message(stream)
            await send_message(stream, encode_stop(StopMessage(type=StopType.STATUS, status=Status.OK)))
            await exchange(stream, sends=not there)

        async def exchange(stream: Stream, *, sends: bool) -> None:
            if sends:
                await stream.send_all(bytes(LIMIT + more))
                await stream.send_eof()
            got = 0
            try:
                async for chunk in stream:
                    got += len(chunk)
            finally:
                if not sends:
                    received.append(got)
            if not sends:
                await stream.send_eof()

        target = await net.net.open("raw")
        target.handle(STOP, stop)
        await ask(target, net.relay, RESERVE)
        async with await net.dialer.open_stream(net.relay.addrs[0], HOP) as stream:
            await send_message(stream, b"\x08\x01\x12" + bytes((len(bytes(target.local_peer)) + 2, 10, 38))
                               + bytes(target.local_peer))  # fmt: skip
            await receive_message(stream)
            if more:
                with pytest.raises(CUT):
                    await exchange(stream, sends=there)
                    await stream.receive_some()
            else:
                await exchange(stream, sends=there)
        await settled()
        ended = "data limit" if more else "closed"
        assert net.server.counts()[ended] == 1 and net.server.circuits == 0
        if more:
            assert received and LIMIT - 65536 <= received[0] <= LIMIT
        else:
            assert received == [LIMIT]


async def test_r3_data_is_cut_for_both_ends() -> None:
    async with three() as net:
        await connected(net)
        with net.dialer.subscribe(ConnectionEnded) as ended:
            async with await net.dialer.open_stream(net.target, ECHO, allow_limited=True) as stream:
                with pytest.raises(CUT):
                    await send(stream, 2 * LIMIT)
                    await count(stream)
            assert "may have reached a limit" in (await ended.receive()).reason
        await until(lambda: not net.listener.connections(net.dialer.local_peer))
        assert net.server.circuits == 0 and net.server.counts()["data limit"] == 1
        # A new circuit may be had at once.
        assert (await net.dialer.connect(net.circuit)).limited


async def test_r3_time_is_cut_to_the_second() -> None:
    async with three() as net:
        await connected(net)
        started = trio.current_time()
        with net.listener.subscribe(ConnectionEnded) as ended:
            event = await ended.receive()
        assert event.peer == net.dialer.local_peer and 119 <= trio.current_time() - started <= 121
        await settled()
        assert not net.dialer.connections(net.target)
        assert net.server.circuits == 0 and net.server.counts()["duration limit"] == 1


async def test_r3_one_side_that_stalls_keeps_its_place_no_longer_than_others() -> None:
    async with three() as net:

        async def stall(_: Stream) -> None:
            await trio.sleep_forever()

        net.listener.handle("/test/stall", stall, allow_limited=True)
        stream = await net.dialer.open_stream(net.circuit, "/test/stall", allow_limited=True)
        with trio.move_on_after(60):
            await stream.send_all(bytes(LIMIT - 4096))
        await trio.sleep(121)
        assert net.server.circuits == 0
        stream.reset()


async def test_r3_the_seventeenth_circuit() -> None:
    async with three() as net:
        dialers = [await net.net.open(f"dialer {number}", client()) for number in range(17)]
        for dialer in dialers[:16]:
            await dialer.connect(net.circuit)
        with pytest.raises(DialError) as caught:
            await dialers[16].connect(net.circuit)
        assert refusal(caught.value) == Status.RESOURCE_LIMIT_EXCEEDED
        await dialers[3].disconnect(net.target)
        await until(lambda: net.server.circuits == 15)
        await dialers[16].connect(net.circuit)


# --- what a relay refuses ---------------------------------------------------------------------------------------------


async def test_r2_no_reservation() -> None:
    async with three() as net:
        await net.dialer.connect(net.relay.addrs[0])
        stranger = await net.net.open("stranger", client())
        served: list[Stream] = []

        async def never(stream: Stream) -> None:
            served.append(stream)

        other = await net.net.open("other")
        other.handle(STOP, never)
        await other.connect(net.relay.addrs[0])
        for target in (other, stranger):
            with pytest.raises(DialError) as caught:
                await net.dialer.connect(through(net.relay, target))
            assert refusal(caught.value) == Status.NO_RESERVATION
        answer = await ask(net.dialer, net.relay, HopMessage(type=HopType.CONNECT, peer=net.relay.local_peer))
        assert answer.status == Status.NO_RESERVATION and not served


async def test_what_is_counted() -> None:
    async with three() as net:
        await connected(net)
        with pytest.raises(DialError):
            await net.dialer.connect(through(net.relay, await net.net.open("other")))
        told = render(net.relay.measure()).splitlines()
        assert {"libp2p_relay_reservations 1", "libp2p_relay_circuits 1"} <= set(told)
        assert 'libp2p_relay_events_total{event="OK"} 2' in told
        assert 'libp2p_relay_events_total{event="NO_RESERVATION"} 1' in told
        assert "libp2p_relay_held 1" in render(net.listener.measure()).splitlines()


async def test_r2_after_the_end_of_a_reservation() -> None:
    async with three(RelayLimits(reservation_ttl=100)) as net:
        other = await net.net.open("other")
        assert (await ask(other, net.relay, RESERVE)).status == Status.OK
        connect = HopMessage(type=HopType.CONNECT, peer=other.local_peer)
        assert net.server.reservations == 2
        await trio.sleep(99)
        assert (await ask(net.dialer, net.relay, connect)).status == Status.CONNECTION_FAILED  # it serves no stop
        await trio.sleep(2)
        assert (await ask(net.dialer, net.relay, connect)).status == Status.NO_RESERVATION
        assert net.server.reservations == 1  # the other one was renewed


async def test_r10_a_reservation_ends_with_the_connection() -> None:
    async with three() as net:
        other = await net.net.open("other")
        await ask(other, net.relay, RESERVE)
        await other.disconnect(net.relay.local_peer)
        await settled()
        assert net.server.reservations == 1
        await other.connect(net.relay.addrs[0])
        answer = await ask(net.dialer, net.relay, HopMessage(type=HopType.CONNECT, peer=other.local_peer))
        assert answer.status == Status.NO_RESERVATION


async def test_r2_to_oneself() -> None:
    async with three() as net:
        await ask(net.dialer, net.relay, RESERVE)
        answer = await ask(net.dialer, net.relay, HopMessage(type=HopType.CONNECT, peer=net.dialer.local_peer))
        assert answer.status == Status.PERMISSION_DENIED


async def test_r6_nothing_over_a_relayed_connection() -> None:
    """The second relay is itself reached through the first."""
    async with three() as net:
        second = await net.net.open("second", RelayServer(clock=wall), client())
        await second.listen(f"{net.relay.addrs[0]}/p2p-circuit")
        await net.dialer.connect(through(net.relay, second))
        for request in (RESERVE, HopMessage(type=HopType.CONNECT, peer=net.target)):
            async with await net.dialer.open_stream(second.local_peer, HOP, allow_limited=True) as stream:
                assert stream.connection.limited
            answer = await ask_over(net, second.local_peer, request)
            assert answer == Status.PERMISSION_DENIED
        with pytest.raises(DialError, match="through another relay"):
            await net.dialer.connect(f"/p2p/{second.local_peer}/p2p-circuit/p2p/{net.target}")


async def ask_over(net: Three, peer: object, request: HopMessage) -> int | None:
    from libp2p.protocols.relay._codec import decode_hop, encode_hop

    async with await net.dialer.open_stream(str(peer), HOP, allow_limited=True) as stream:
        await send_message(stream, encode_hop(request))
        return decode_hop(await receive_message(stream)).status


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\xff", Status.MALFORMED_MESSAGE),
        (b"\x08\x07", Status.MALFORMED_MESSAGE),
        (b"\x08\x01", Status.MALFORMED_MESSAGE),
        (b"\x08\x01\x12\x00", Status.MALFORMED_MESSAGE),
        (b"\x08\x02", Status.UNEXPECTED_MESSAGE),
        (bytes(5000), Status.MALFORMED_MESSAGE),
    ],
)
async def test_r4_requests_that_are_none(request_: bytes, status: Status) -> None:
    async with three() as net:
        assert (await ask(net.dialer, net.relay, request_)).status == status
        assert net.server.counts()[status.name] == 1


async def test_r1_silent_requests_end() -> None:
    async with three() as net:
        started = trio.current_time()
        async with await net.dialer.open_stream(net.relay.addrs[0], HOP) as stream:
            await stream.send_all(b"\x02")  # the length, and nothing more
            with pytest.raises(StreamReset):
                await stream.receive_some()
        assert trio.current_time() - started == pytest.approx(15, abs=1)


async def test_r1_reservations_are_bounded() -> None:
    async with three(RelayLimits(reservations=3)) as net:
        others = [await net.net.open(f"other {number}") for number in range(5)]
        answers = [(await ask(other, net.relay, RESERVE)).status for other in others]
        refused = Status.RESERVATION_REFUSED
        assert answers == [Status.OK, Status.OK, refused, refused, refused]
        assert (await ask(others[0], net.relay, RESERVE)).status == Status.OK
        with pytest.raises(TransportError, match="RESERVATION_REFUSED"):
            await net.dialer.listen(f"{net.relay.addrs[0]}/p2p-circuit")


async def test_r1_a_storm_of_renewals_gets_one_signature() -> None:
    async with three() as net:
        answers = [await ask(net.dialer, net.relay, RESERVE) for _ in range(20)]
        assert len({answer.reservation for answer in answers}) == 1


# --- reservations as the client sees them -----------------------------------------------------------------------------


async def test_r11_r12_a_reservation() -> None:
    async with three() as net:
        held = await reserve(net.dialer, net.relay.addrs[0], clock=wall)
        assert isinstance(held, Reservation) and held.voucher is not None
        voucher = Voucher.open(held.voucher)
        assert (voucher.relay, voucher.peer) == (net.relay.local_peer, net.dialer.local_peer)
        assert voucher.expiration == pytest.approx(wall() + 3600, abs=2)
        assert held.addrs and all(f"/p2p/{net.relay.local_peer}/p2p-circuit" in str(addr) for addr in held.addrs)
        assert held.limit is not None and (held.limit.duration, held.limit.data) == (120, LIMIT)
        # It is the listening, not the reservation, that lets circuits in.
        listener = await net.net.open("other", client())
        await reserve(listener, net.relay.addrs[0], clock=wall)
        with pytest.raises(DialError) as caught:
            await net.dialer.connect(through(net.relay, listener))
        assert refusal(caught.value) == Status.CONNECTION_FAILED


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\xff", Status.MALFORMED_MESSAGE),
        (b"\x08\x00", Status.MALFORMED_MESSAGE),
        (b"\x08\x01", Status.UNEXPECTED_MESSAGE),
        (None, Status.PERMISSION_DENIED),
    ],
)
async def test_r2_stop_without_being_asked(request_: bytes | None, status: Status) -> None:
    """From somebody who is not the relay that was asked."""
    async with three() as net:
        if request_ is None:
            request_ = encode_stop(StopMessage(type=StopType.CONNECT, peer=net.relay.local_peer))
        async with await net.dialer.open_stream(net.listener.addrs[0], STOP) as stream:
            await send_message(stream, request_)
            assert decode_stop(await receive_message(stream)).status == status


async def test_listening_ends() -> None:
    async with three() as net:
        [listener] = net.client._listeners
        await listener.aclose()
        assert not any("p2p-circuit" in str(addr) for addr in net.listener.addrs)
        await settled()
        assert not net.client.reservations
        with pytest.raises(DialError) as caught:
            await net.dialer.connect(net.circuit)
        assert refusal(caught.value) == Status.CONNECTION_FAILED


async def test_a_relay_address_without_the_service() -> None:
    async with net() as found:
        plain = await found.open("plain")
        with pytest.raises(TransportError, match="need a RelayClient"):
            await plain.listen("/p2p-circuit")
        with pytest.raises(DialError):
            await plain.connect(f"/memory/1/p2p/{plain.local_peer}/p2p-circuit/p2p/{plain.local_peer}")


async def test_identify_goes_through() -> None:
    async with three() as net:
        with net.dialer.subscribe(PeerIdentified) as identified:
            await connected(net)
            async for event in identified:
                if event.peer == net.target:
                    assert ECHO in event.protocols
                    break


# --- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.limit(120)
async def test_many_reservations_and_busy_circuits() -> None:
    """A small version of ``python -m bench.relay``: nothing is lost, mixed up or left behind."""
    async with net() as found:
        server = RelayServer(clock=wall)
        relay = await found.open("relay", server)
        targets = [await found.open(f"listener {number}", client()) for number in range(24)]
        async with trio.open_nursery() as nursery:
            for target in targets:
                target.handle(ECHO, echo, allow_limited=True)
                nursery.start_soon(target.listen, f"{relay.addrs[0]}/p2p-circuit")
        assert server.reservations == len(targets)
        dialers = [await found.open(f"dialer {number}", client()) for number in range(12)]
        most = 0

        async def talk(number: int) -> None:
            nonlocal most
            target = targets[number]
            async with await dialers[number].open_stream(through(relay, target), ECHO, allow_limited=True) as stream:
                for turn in range(10):
                    payload = bytes((number, turn)) * 500
                    await stream.send_all(payload)
                    answer = bytearray()
                    while len(answer) < len(payload):
                        answer += await stream.receive_some(len(payload) - len(answer))
                    assert answer == payload
                    await trio.sleep(1)
                    most = max(most, server.circuits)
            await dialers[number].disconnect(target.local_peer)

        async with trio.open_nursery() as nursery:
            for number in range(len(dialers)):
                nursery.start_soon(talk, number)
        await settled()
        assert most == len(dialers) and server.circuits == 0 and server.reservations == len(targets)
