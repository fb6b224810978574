"""Circuit relay version 1: requirements R1.1 to R1.4."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from libp2p.abc import Host, Service, Stream
from libp2p.errors import ConnectionClosed, DecodeError, DialError, StreamReset, TransportError
from libp2p.host import RunningHost
from libp2p.peer_id import PeerId
from libp2p.protocols.identify import identify
from libp2p.protocols.ping import ping
from libp2p.protocols.relay import (
    HOP,
    RELAY_V1,
    CircuitRefused,
    RelayClient,
    RelayLimits,
    RelayServer,
    RelayV1,
    StatusV1,
)
from libp2p.protocols.relay._exchange import receive_message, send_message
from libp2p.protocols.relay._v1 import End, Kind, MessageV1, decode, encode, hop
from libp2p.testing.keys import seeded_key
from tests.protocols.relay.nodes import ECHO, Net, client, echo, net, through, wall
from tests.protocols.waiting import settled, until

A, B = (PeerId.from_key(seeded_key(name).public_key) for name in ("a", "b"))
LIMIT = 128 * 1024
CUT = (StreamReset, ConnectionClosed)


class Old:
    """A relay of version 1, a host that listens through it, and one that dials."""

    def __init__(self, found: Net, relay: RunningHost, server: RelayV1) -> None:
        self.net = found
        self.relay = relay
        self.server = server

    async def user(self, name: str, *, relays: tuple[str, ...] = ()) -> tuple[RunningHost, RelayClient]:
        """A host that uses relays of both versions."""
        service = client(relays=relays)
        return await self.net.open(name, service, RelayV1(service)), service


@asynccontextmanager
async def old(limits: RelayLimits | None = RelayLimits(), *others: Service) -> AsyncIterator[Old]:  # noqa: B008
    async with net() as found:
        server = RelayV1(limits=limits)
        yield Old(found, await found.open("relay", server, *others), server)


async def ask(host: Host, relay: Host, request: MessageV1 | bytes) -> int | None:
    """What is answered to a request, which may be no message at all."""
    async with await host.open_stream(relay.addrs[0], RELAY_V1) as stream:
        await send_message(stream, request if isinstance(request, bytes) else encode(request))
        answer = decode(await receive_message(stream))
        assert answer.kind is Kind.STATUS
        return answer.status


async def refused(host: Host, addr: str) -> int | None:
    """The status with which a dial is refused."""
    with pytest.raises(DialError) as caught:
        await host.connect(addr)
    [(_, found)] = [attempt for attempt in caught.value.attempts if isinstance(attempt[1], CircuitRefused)]
    assert isinstance(found, CircuitRefused)
    return found.status


# --- messages ---------------------------------------------------------------------------------------------------------


def test_r1_1_bytes() -> None:
    ends = b"\x0a\x02\x01\x02" + b"\x12\x01\x04"
    message = MessageV1(kind=Kind.HOP, source=End(b"\x01\x02", (b"\x04",)), destination=End(b"\x03"))
    assert encode(message) == b"\x08\x01\x12\x07" + ends + b"\x1a\x03\x0a\x01\x03"
    assert encode(MessageV1(kind=Kind.STATUS, status=100)) == b"\x08\x03\x20\x64"
    assert [encode(MessageV1(kind=kind)) for kind in Kind] == [bytes((8, number)) for number in (1, 2, 3, 4)]
    for sample in (message, MessageV1(kind=Kind.STATUS, status=999), MessageV1(kind=Kind.CAN_HOP)):
        assert decode(encode(sample)) == sample


def test_r1_2_statuses() -> None:
    assert [status.value for status in StatusV1] == [
        100, 220, 221, 250, 251, 260, 261, 262, 270, 280, 290, 320, 321, 350, 351, 390, 400,
    ]  # fmt: skip


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except DecodeError:
        pass


# --- circuits ---------------------------------------------------------------------------------------------------------


async def test_r1_3_two_nodes_through_a_relay() -> None:
    async with old() as found:
        listener, listening = await found.user("listener")
        dialer, _ = await found.user("dialer")
        await listener.listen(f"{found.relay.addrs[0]}/p2p-circuit")
        assert list(listening.reservations) == [found.relay.local_peer]
        assert any(str(addr).endswith(f"/p2p-circuit/p2p/{listener.local_peer}") for addr in listener.addrs)
        listener.handle(ECHO, echo)
        connection = await dialer.connect(through(found.relay, listener))
        assert not connection.limited  # the version has no word for it
        assert len(await ping(dialer, listener.local_peer, count=3)) == 3
        assert (await identify(listener, dialer.local_peer)).protocols
        async with await dialer.open_stream(listener.local_peer, ECHO) as stream:
            await stream.send_all(b"as it is")
            assert await stream.receive_some() == b"as it is"
        assert found.server.circuits == 1
        await connection.aclose()
        await settled()
        assert found.server.circuits == 0 and found.server.counts() == {"SUCCESS": 2, "closed": 1}


async def test_version_2_is_better() -> None:
    async with old(RelayLimits(), RelayServer(clock=wall)) as found:
        listener, listening = await found.user("listener")
        dialer, _ = await found.user("dialer")
        await listener.listen(f"{found.relay.addrs[0]}/p2p-circuit")
        [held] = listening.reservations.values()
        assert held.voucher is not None
        assert (await dialer.connect(through(found.relay, listener))).limited
        assert not found.server.counts()


async def test_r1_4_only_for_those_who_want_it() -> None:
    async with old() as found:
        plain = await found.net.open("plain", client())
        with pytest.raises(TransportError, match=HOP):
            await plain.listen(f"{found.relay.addrs[0]}/p2p-circuit")
        with pytest.raises(DialError, match=HOP):
            await plain.connect(f"{found.relay.addrs[0]}/p2p-circuit/p2p/{A}")


async def test_relays_are_found_kept_and_replaced() -> None:
    async with old() as found:
        second = await found.net.open("second", RelayV1(limits=RelayLimits()))
        host, service = await found.user("host", relays=(str(found.relay.addrs[0]), str(second.addrs[0])))
        await host.listen("/p2p-circuit")
        await until(lambda: len(service.reservations) == 2)
        await trio.sleep(2 * 3600)
        assert len(service.reservations) == 2 and found.server.counts()["SUCCESS"] == pytest.approx(3, abs=1)
        await found.relay.disconnect(host.local_peer)
        await settled()
        assert list(service.reservations) == [second.local_peer]
        third = await found.net.open("third", RelayV1(limits=RelayLimits()))
        await host.connect(third.addrs[0])
        await until(lambda: set(service.reservations) == {second.local_peer, third.local_peer})


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_r1_4_serving_is_off_by_default() -> None:
    async with old(None) as found:
        host, _ = await found.user("host")
        for request in (MessageV1(kind=Kind.CAN_HOP), hop(host.local_peer, A)):
            assert await ask(host, found.relay, request) == StatusV1.HOP_CANT_SPEAK_RELAY
        with pytest.raises(CircuitRefused, match="HOP_CANT_SPEAK_RELAY"):
            await host.listen(f"{found.relay.addrs[0]}/p2p-circuit")


GOOD, LONG, BAD = End(bytes(A)), End(bytes(A), (bytes(1025),)), End(bytes(A), (b"\xff\xff",))
ME = End(b"me")


@pytest.mark.parametrize("kind", [Kind.HOP, Kind.STOP])
@pytest.mark.parametrize(
    ("source", "destination", "status"),
    [
        (End(b"me", LONG.addrs), GOOD, 220),
        (ME, LONG, 221),
        (End(b"me", BAD.addrs), GOOD, 250),
        (End(), GOOD, 250),
        (ME, BAD, 251),
        (ME, End(), 251),
        (ME, End(b"nobody"), 251),
    ],
)
async def test_r1_2_ends_that_are_none(kind: Kind, source: End, destination: End, status: int) -> None:
    async with old() as found:
        host, _ = await found.user("host")
        source = End(bytes(host.local_peer), source.addrs) if source.peer else source
        answer = await ask(host, found.relay, MessageV1(kind=kind, source=source, destination=destination))
        assert answer == (status if kind is Kind.HOP else status + 100)


@pytest.mark.parametrize("request_", [b"\xff", b"\x08\x07", b"", b"\x08\x03", bytes(5000)], ids=len)
async def test_r1_2_no_request(request_: bytes) -> None:
    async with old() as found:
        host, _ = await found.user("host")
        assert await ask(host, found.relay, request_) == StatusV1.MALFORMED_MESSAGE


async def test_r1_2_what_a_relay_refuses() -> None:
    async with old() as found:
        host, _ = await found.user("host")
        me, relay = host.local_peer, found.relay
        assert await ask(host, relay, MessageV1(kind=Kind.CAN_HOP)) == StatusV1.SUCCESS
        assert await ask(host, relay, hop(A, B)) == StatusV1.HOP_SRC_MULTIADDR_INVALID  # in another's name
        assert await ask(host, relay, hop(me, relay.local_peer)) == StatusV1.HOP_CANT_RELAY_TO_SELF
        assert await ask(host, relay, hop(me, me)) == StatusV1.HOP_CANT_RELAY_TO_SELF
        assert await refused(host, f"{relay.addrs[0]}/p2p-circuit/p2p/{A}") == StatusV1.HOP_NO_CONN_TO_DST
        without = await found.net.open("without")
        await without.connect(relay.addrs[0])
        assert await refused(host, through(relay, without)) == StatusV1.HOP_CANT_SPEAK_RELAY
        # Connected, and listening through nobody.
        deaf, _ = await found.user("deaf")
        await deaf.connect(relay.addrs[0])
        assert await refused(host, through(relay, deaf)) == StatusV1.STOP_RELAY_REFUSED
        assert found.server.circuits == 0


@pytest.mark.parametrize(
    "answer", [b"\xff", encode(MessageV1(kind=Kind.STATUS, status=999)), encode(MessageV1(kind=Kind.CAN_HOP)), None]
)
async def test_r1_2_a_destination_that_answers_nonsense(answer: bytes | None) -> None:
    async with old() as found:
        host, _ = await found.user("host")
        odd = await found.net.open("odd")

        async def stop(stream: Stream) -> None:
            if answer is None:
                await trio.sleep_forever()
            else:
                await receive_message(stream)
                await send_message(stream, answer)

        odd.handle(RELAY_V1, stop)
        await odd.connect(found.relay.addrs[0])
        assert await ask(host, found.relay, hop(host.local_peer, odd.local_peer)) == StatusV1.HOP_CANT_OPEN_DST_STREAM
        assert found.server.circuits == 0


async def test_a_relay_that_answers_nonsense() -> None:
    async with net() as found:
        service = client()
        host, relay = await found.open("host", service, RelayV1(service)), await found.open("relay")

        async def nonsense(stream: Stream) -> None:
            await receive_message(stream)
            await send_message(stream, encode(MessageV1(kind=Kind.STOP)))

        relay.handle(RELAY_V1, nonsense)
        with pytest.raises(TransportError, match="answered with a STOP"):
            await host.listen(f"{relay.addrs[0]}/p2p-circuit")


async def test_a_request_that_does_not_come_ends() -> None:
    async with old() as found:
        host, _ = await found.user("host")
        started = trio.current_time()
        async with await host.open_stream(found.relay.addrs[0], RELAY_V1) as stream:
            await stream.send_all(b"\x02")
            with pytest.raises(StreamReset):
                await stream.receive_some()
        assert trio.current_time() - started == pytest.approx(15, abs=1)


# --- what is bounded --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def circuit(found: Old) -> AsyncIterator[tuple[RunningHost, RunningHost]]:
    """A dialer and a listener that echoes, connected."""
    listener, _ = await found.user("listener")
    dialer, _ = await found.user("dialer")
    await listener.listen(f"{found.relay.addrs[0]}/p2p-circuit")
    listener.handle(ECHO, echo)
    await dialer.connect(through(found.relay, listener))
    yield dialer, listener


async def test_r1_4_data_is_cut() -> None:
    async with old() as found, circuit(found) as (dialer, listener):
        async with await dialer.open_stream(listener.local_peer, ECHO) as stream:
            with pytest.raises(CUT):
                for _ in range(2 * LIMIT // 1024):
                    await stream.send_all(bytes(1024))
                    await stream.receive_some()
        await until(lambda: not listener.connections(dialer.local_peer))
        assert found.server.circuits == 0 and found.server.counts()["data limit"] == 1


async def test_r1_4_time_is_cut() -> None:
    async with old() as found, circuit(found) as (dialer, listener):
        await trio.sleep(118)
        assert dialer.connections(listener.local_peer)
        await trio.sleep(3)
        assert not dialer.connections(listener.local_peer) and not listener.connections(dialer.local_peer)
        assert found.server.circuits == 0 and found.server.counts()["duration limit"] == 1


async def test_r1_4_circuits_are_bounded() -> None:
    async with old(RelayLimits(circuits=1)) as found, circuit(found) as (dialer, listener):
        other, _ = await found.user("other")
        assert await refused(other, through(found.relay, listener)) == StatusV1.HOP_BACKOFF
        await dialer.disconnect(listener.local_peer)
        await until(lambda: found.server.circuits == 0)
        await other.connect(through(found.relay, listener))


async def test_a_relay_is_not_asked_through_a_relay() -> None:
    async with old() as found:
        service = client()
        second = await found.net.open("second", service, RelayV1(service, limits=RelayLimits()))
        await second.listen(f"{found.relay.addrs[0]}/p2p-circuit")
        host, _ = await found.user("host")
        await host.connect(through(found.relay, second))
        async with await host.open_stream(second.local_peer, RELAY_V1) as stream:
            await send_message(stream, encode(MessageV1(kind=Kind.CAN_HOP)))
            assert decode(await receive_message(stream)).status == StatusV1.HOP_CANT_SPEAK_RELAY


async def test_without_the_service_version_1_is_spoken_no_more() -> None:
    async with old() as found:
        service = client()
        host = await found.net.open("host", service)
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: RelayV1(service).run(host, task_status=task_status))
            await host.listen(f"{found.relay.addrs[0]}/p2p-circuit")
            nursery.cancel_scope.cancel()
        with pytest.raises(TransportError, match=HOP):
            await host.listen(f"{found.relay.addrs[0]}/p2p-circuit")
