"""``libp2p.protocols.dcutr`` between whole hosts, on the virtual clock: requirements D2 to D9, case R4."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from multiaddr import Multiaddr

from libp2p.abc import Direction, Host, Stream
from libp2p.addressing import is_relay, parse
from libp2p.errors import ConnectionClosed, NegotiationError, StreamReset
from libp2p.events import HolePunchEnded, PeerIdentified
from libp2p.metrics import render
from libp2p.protocols.dcutr import DCUTR, Dcutr, DcutrConfig
from libp2p.protocols.dcutr._codec import HolePunch, Kind, decode, encode
from libp2p.protocols.ping import ping
from libp2p.protocols.relay import RelayClient
from libp2p.wire.framing import FrameBuffer, frame
from tests.protocols.dcutr.walls import ANN, BEN, RELAY, Pair, host, pair
from tests.protocols.relay.nodes import ECHO, echo, wall
from tests.protocols.waiting import until

ENDED = (StreamReset, ConnectionClosed, NegotiationError)


async def punched(net: Pair) -> HolePunchEnded:
    """Let Ann dial Ben through the relay, and wait for what Ben's side makes of it."""
    with net.ben.subscribe(HolePunchEnded) as ended:
        await net.ann.connect(net.circuit)
        return await ended.receive()


def ways(net: Pair) -> list[bool]:
    """Of Ann's connections to Ben, which go through a relay; best first."""
    return [is_relay(connection.remote_addr) for connection in net.ann.connections(net.ben.local_peer)]


async def test_d3_d5_both_begin_at_the_same_moment() -> None:
    async with pair(ann=Dcutr, ben=Dcutr, latency=0.05) as net:
        # A round trip through the relay takes 0.2 s.
        with net.ann.subscribe(HolePunchEnded) as ended:
            event = await punched(net)
            theirs = await ended.receive()
        assert event.tries == theirs.tries == 1 and not event.reason
        assert event.connection is not None and theirs.connection is not None
        assert (event.connection.direction, theirs.connection.direction) == (Direction.INBOUND, Direction.OUTBOUND)
        assert not is_relay(event.connection.remote_addr) and not event.connection.limited
        (first, how), (second, what) = net.tried(BEN)
        assert (how, what) == ("dial", "punch")
        [(answered, meant)] = net.tried(ANN)
        assert meant == "dial" and abs(answered - second) <= 0.02
        assert second - first >= 1.5
        assert 'side="initiator",num_attempts="1",outcome="success"' in render(net.ben.measure())


async def test_d2_a_plain_dial_is_enough() -> None:
    async with pair(ann=Dcutr, ben=Dcutr, behind=(BEN,)) as net:
        event = await punched(net)
        assert event.tries == 0 and event.connection is not None
        assert event.connection.direction is Direction.OUTBOUND
        assert not net.tried(ANN)


async def test_d6_the_third_try_succeeds() -> None:
    async with pair(ann=Dcutr, ben=Dcutr) as net:
        usual = net.walls.let_in
        net.walls.let_in = (  # type: ignore[method-assign]
            lambda source, target: (len(net.tried(BEN)) == 4 or RELAY in (source, target)) and usual(source, target)
        )
        event = await punched(net)
        assert event.tries == 3 and event.connection is not None
        assert [how for _, how in net.tried(BEN)] == ["dial", "punch", "dial", "punch"]
        assert event.connection.direction is Direction.INBOUND
        assert ways(net) == [False, True]


async def test_d9_the_second_try_is_the_other_way_round() -> None:
    """Only what Ben dials gets through: his packets come from where Ann does not expect them."""
    async with pair(ann=Dcutr, ben=Dcutr) as net:
        walls = net.walls
        walls.let_in = (  # type: ignore[method-assign]
            lambda source, target: target not in walls.behind or (target == ANN and (ANN, BEN) in walls.open)
        )
        event = await punched(net)
        assert event.tries == 2 and event.connection is not None
        assert event.connection.direction is Direction.OUTBOUND


async def test_r4_three_tries_and_the_relay_stays() -> None:
    async with pair(ann=Dcutr, ben=Dcutr) as net:
        net.walls.let_in = lambda source, target: target not in net.walls.behind  # type: ignore[method-assign]
        began = trio.current_time()
        event = await punched(net)
        assert event.connection is None and event.tries == 3 and event.reason == "3 tries failed"
        assert trio.current_time() - began == pytest.approx(1.5 + 3 * 5, abs=0.1)
        assert ways(net) == [True]
        assert len(await ping(net.ann, net.ben.local_peer)) == 1
        # Nothing is tried again on this connection.
        await trio.sleep(60)
        assert len(net.tried(BEN)) == 4 and len(net.tried(ANN)) == 3
        assert 'side="receiver",num_attempts="3",outcome="failed"' in render(net.ann.measure())


async def test_d6_a_refusal_does_not_shorten_a_try() -> None:
    """A NAT may answer for the host behind it. The other side goes on with its try, and would take no other one."""
    async with pair(ann=Dcutr, ben=Dcutr) as net:
        usual = net.walls.let_in
        net.walls.refusing = {ANN}
        net.walls.let_in = (  # type: ignore[method-assign]
            lambda source, target: (len(net.tried(ANN)) == 3 or RELAY in (source, target)) and usual(source, target)
        )
        event = await punched(net)
        assert event.tries == 3 and event.connection is not None, event.reason


async def test_d7_new_streams_move_and_old_ones_stay() -> None:
    async with pair(ann=Dcutr, ben=Dcutr) as net:
        net.ben.handle(ECHO, echo, allow_limited=True)
        with net.ben.subscribe(HolePunchEnded) as ended:
            await net.ann.connect(net.circuit)
            old = await net.ann.open_stream(net.ben.local_peer, ECHO, allow_limited=True)
            await old.send_all(b"before")
            assert await old.receive_some() == b"before"
            assert (await ended.receive()).connection is not None
        await until(lambda: ways(net) == [False, True])
        new = await net.ann.open_stream(net.ben.local_peer, ECHO)
        assert old.connection.limited and not new.connection.limited
        await trio.sleep(60)
        await old.send_all(b"after")
        assert await old.receive_some() == b"after"
        # The relayed connection goes when it carries nothing any more.
        await old.aclose()
        await until(lambda: ways(net) == [False])
        await new.aclose()


async def test_the_relayed_connection_stays_when_the_direct_one_is_lost() -> None:
    async with pair(ann=Dcutr, ben=Dcutr) as net:
        event = await punched(net)
        assert event.connection is not None
        await event.connection.aclose()
        await trio.sleep(30)
        assert ways(net) == [True]


async def test_who_is_connected_directly_is_left_alone() -> None:
    async with pair(ann=Dcutr, ben=Dcutr, behind=()) as net:
        with net.ben.subscribe(PeerIdentified) as identified:
            await net.ann.connect(net.ben.addrs[0])
            assert (await identified.receive()).peer == net.ann.local_peer
        await trio.sleep(10)
        assert not net.tried(BEN)


async def test_d8_nothing_to_tell() -> None:
    """A host that nobody has seen and that listens nowhere asks for nothing, and answers nothing."""
    async with pair(ann=Dcutr, ben=Dcutr, listen=False) as net:
        event = await punched(net)
        assert event.connection is None and "not known where" in event.reason and event.tries == 1
        async with await connected(net) as stream:
            await send(stream, HolePunch(kind=Kind.CONNECT, addrs=(parse(f"/ip4/{BEN}/tcp/4001"),)))
            with pytest.raises(ENDED):
                assert await stream.receive_some()
        assert ways(net) == [True]


# --- hostile peers ----------------------------------------------------------------------------------------------------


async def connected(net: Pair) -> Stream:
    """A stream of Ben's to Ann, through the relay."""
    if not net.ann.connections(net.ben.local_peer):
        await net.ann.connect(net.circuit)
    await until(lambda: net.ben.connections(net.ann.local_peer))
    [relayed] = net.ben.connections(net.ann.local_peer)
    return await relayed.open_stream(DCUTR, allow_limited=True)


async def send(stream: Stream, message: HolePunch) -> None:
    await stream.send_all(frame(encode(message)))


async def receive(stream: Stream) -> HolePunch:
    buffer = FrameBuffer(4096)
    while not (found := buffer.receive_data(await stream.receive_some(), limit=1)):
        continue
    return decode(found[0])


async def test_a_host_that_ends_while_it_punches() -> None:
    async with pair(ann=Dcutr) as net:
        async with await connected(net) as stream:
            await send(stream, HolePunch(kind=Kind.CONNECT, addrs=(parse("/ip4/9.0.0.1/tcp/80"),)))
            await receive(stream)
            await send(stream, HolePunch(kind=Kind.SYNC))
        await until(lambda: net.tried(ANN))


@asynccontextmanager
async def another(net: Pair) -> AsyncIterator[Host]:
    """Somebody else who listens through the relay."""
    async with host(net.network, net.walls, "other", "8.0.0.1", RelayClient(clock=wall)) as opened:
        await opened.listen(f"{net.relay.addrs[0]}/p2p-circuit")
        yield opened


async def ask(net: Pair, addrs: list[Multiaddr]) -> None:
    """Let Ben have Ann punch for ``addrs``."""
    async with await connected(net) as stream:
        await send(stream, HolePunch(kind=Kind.CONNECT, addrs=tuple(addrs)))
        answer = await receive(stream)
        assert answer.kind is Kind.CONNECT and answer.addrs == (parse(f"/ip4/{ANN}/tcp/4001"),)
        await send(stream, HolePunch(kind=Kind.SYNC))


async def test_r4_many_addresses() -> None:
    """Of a thousand, as many as fit are read, sixteen at most are believed, and eight tried."""
    victims = [parse(f"/ip4/9.0.{number}.1/tcp/80") for number in range(200)]
    async with pair(ann=Dcutr) as net:
        with net.ann.subscribe(HolePunchEnded) as ended:
            await ask(net, victims)
            assert (await ended.receive()).connection is None
        assert len(net.tried(ANN)) == 8
        assert ways(net) == [True]


async def test_r4_addresses_that_lead_inside() -> None:
    inside = ["/ip4/10.0.0.1/tcp/80", "/ip4/127.0.0.1/tcp/80", "/ip4/169.254.169.254/tcp/80", "/ip4/192.168.1.1/tcp/80"]
    async with pair(ann=Dcutr) as net:
        with net.ann.subscribe(HolePunchEnded) as ended:
            await ask(net, [parse(addr) for addr in inside])
            assert (await ended.receive()).connection is None
        assert not net.tried(ANN)


async def test_r4_three_tries_whoever_asks() -> None:
    async with pair(ann=Dcutr) as net:
        for _ in range(3):
            with net.ann.subscribe(HolePunchEnded) as ended:
                await ask(net, [parse("/ip4/9.0.0.1/tcp/80")])
                await ended.receive()
        with pytest.raises(ENDED):
            await ask(net, [parse("/ip4/9.0.0.1/tcp/80")])
        assert len(net.tried(ANN)) == 3


async def test_r4_one_at_a_time() -> None:
    async with pair(ann=Dcutr) as net, await connected(net) as first:
        await send(first, HolePunch(kind=Kind.CONNECT, addrs=(parse("/ip4/9.0.0.1/tcp/80"),)))
        await receive(first)
        with pytest.raises(ENDED):
            await ask(net, [parse("/ip4/9.0.0.1/tcp/80")])


async def test_r4_no_sync() -> None:
    async with pair(ann=Dcutr) as net:
        stream = await connected(net)
        await send(stream, HolePunch(kind=Kind.CONNECT, addrs=(parse("/ip4/9.0.0.1/tcp/80"),)))
        await receive(stream)
        with trio.fail_after(15.5), pytest.raises(StreamReset):
            while await stream.receive_some():
                continue
        assert not net.tried(ANN) and ways(net) == [True]


@pytest.mark.parametrize(
    "said",
    [
        b"\xff\xff\xff\x7f",
        frame(b"\xff"),
        frame(b"\x08\x01"),
        frame(encode(HolePunch(kind=Kind.SYNC))),
        frame(encode(HolePunch(kind=Kind.CONNECT))) * 2,
    ],
    ids=["long", "garbage", "kind", "sync first", "no sync"],
)
async def test_r4_nonsense_ends_the_stream_only(said: bytes) -> None:
    async with pair(ann=Dcutr) as net:
        stream = await connected(net)
        await stream.send_all(said)
        with trio.fail_after(1), pytest.raises(StreamReset):
            while await stream.receive_some():
                continue
        stream = await connected(net)
        await stream.send_eof()
        with trio.fail_after(1), pytest.raises(StreamReset):
            await stream.receive_some()
        assert not net.tried(ANN) and ways(net) == [True]


async def test_r4_the_wrong_side_starts() -> None:
    """Ann has dialled: it is Ben who starts; and over a direct connection there is nothing to start."""
    async with pair(ben=lambda: Dcutr(DcutrConfig(direct_timeout=1.0))) as net:
        [relayed] = [await net.ann.connect(net.circuit)]
        for connection in (relayed, await net.ann.connect(net.relay.addrs[0])):
            with pytest.raises(ENDED):
                async with await connection.open_stream(DCUTR, allow_limited=True) as stream:
                    await send(stream, HolePunch(kind=Kind.CONNECT, addrs=(parse("/ip4/9.0.0.1/tcp/80"),)))
                    assert await stream.receive_some()


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (None, 15),
        (b"", 0),
        (frame(b"nonsense"), 0),
        (frame(encode(HolePunch(kind=Kind.SYNC))), 0),
    ],
    ids=["silence", "end", "garbage", "sync"],
)
async def test_r4_the_starter_gives_up(answer: bytes | None, seconds: float) -> None:
    async with pair(ben=Dcutr) as net:

        async def serve(stream: Stream) -> None:
            if answer is None:
                await trio.sleep_forever()
            elif answer:
                await stream.send_all(answer)
                await trio.sleep_forever()

        net.ann.handle(DCUTR, serve, allow_limited=True)
        began = trio.current_time()
        event = await punched(net)
        assert event.connection is None and event.reason and event.tries == 1
        assert trio.current_time() - began == pytest.approx(1.5 + seconds, abs=0.1)
        assert ways(net) == [True]


async def test_r4_a_slow_answer_is_waited_for_no_longer_than_that() -> None:
    """A round trip of a minute."""
    async with pair(ben=Dcutr) as net:

        async def serve(stream: Stream) -> None:
            await trio.sleep(60)

        net.ann.handle(DCUTR, serve, allow_limited=True)
        event = await punched(net)
        assert event.connection is None and "too long" in event.reason


async def test_not_more_peers_at_once_than_configured() -> None:
    """Ann is busy with the one who started first; the other one is told so."""
    async with pair(ann=lambda: Dcutr(DcutrConfig(at_once=1))) as net, await connected(net) as first:
        await send(first, HolePunch(kind=Kind.CONNECT, addrs=(parse("/ip4/9.0.0.1/tcp/80"),)))
        await receive(first)
        async with another(net) as other:
            await net.ann.connect(f"{net.relay.addrs[0]}/p2p-circuit/p2p/{other.local_peer}")
            await until(lambda: other.connections(net.ann.local_peer))
            with pytest.raises(ENDED):
                async with await other.open_stream(net.ann.local_peer, DCUTR, allow_limited=True) as second:
                    await send(second, HolePunch(kind=Kind.CONNECT, addrs=(parse("/ip4/9.0.0.1/tcp/80"),)))
                    await receive(second)


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"at_once": 0}, {"punch_timeout": 0.0}, {"retire_after": -1.0}])
def test_nonsense_in_the_configuration(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        DcutrConfig(**wrong)  # type: ignore[arg-type]
