"""Peers that abuse the DHT: cases K1 to K5 and K8."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from libp2p.abc import ProtocolId, Service, Stream, StreamHandler
from libp2p.addressing import parse, split_peer
from libp2p.errors import StreamReset
from libp2p.peer_id import PeerId
from libp2p.protocols.kad import KAD, Mode, NotFound, Reach
from libp2p.protocols.kad._codec import MAX_ANSWER, Message, MessageType, PeerInfo, Record, decode, encode
from libp2p.testing.network import open_memory_host
from libp2p.transports.memory import Link, MemoryNetwork
from libp2p.wire import proto, varint
from libp2p.wire.framing import FrameBuffer, frame
from tests.protocols.kad.networks import Node, open_node

PING = frame(encode(Message(type=MessageType.PING)))
ADDR = parse("/ip4/6.6.6.6/tcp/1").to_bytes()


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big"))


async def answers(stream: Stream, count: int) -> list[Message]:
    frames, found = FrameBuffer(MAX_ANSWER), list[Message]()
    while len(found) < count:
        chunk = await stream.receive_some()
        if not chunk:
            break
        found += [decode(message) for message in frames.receive_data(chunk)]
    return found


@asynccontextmanager
async def attacked(**given: Any) -> AsyncIterator[tuple[Node, Callable[[], Awaitable[Stream]]]]:
    """A server, and how its attacker opens a stream to it."""
    network = MemoryNetwork(0)
    async with open_node(network, "server", **given) as server, open_memory_host(network, name="evil") as evil:
        await evil.connect(server.host.addrs[0])
        yield server, lambda: evil.open_stream(server.peer, KAD)


# --- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        varint.encode(2**62),
        varint.encode(4 * 1024 * 1024 + 1),
        varint.encode(72 * 1024 + 1),
        frame(b"\x08\x63"),
        frame(b"\xff" * 20),
        frame(encode(Message(type=MessageType.FIND_NODE, key=bytes(65 * 1024)))),
        frame(b"\x08\x04" + proto.write_bytes(8, b"") * 20_000),
    ],
    ids=["2**62", "4 MiB", "72 KiB", "type 99", "garbage", "65 KiB key", "20,000 peers"],
)
async def test_k1_bombs_cost_the_stream(data: bytes) -> None:
    """K1."""
    async with attacked() as (_, open_stream):
        stream = await open_stream()
        await stream.send_all(data)
        with pytest.raises(StreamReset), trio.fail_after(1):
            await stream.receive_some()
        async with await open_stream() as stream:  # the connection and the server go on
            await stream.send_all(PING)
            assert [message.type for message in await answers(stream, 1)] == [MessageType.PING]


async def test_k1_a_drip_has_an_absolute_deadline() -> None:
    """K1: 10 s from the first byte of a message, however many follow."""
    async with attacked() as (_, open_stream):
        stream = await open_stream()
        began = trio.current_time()
        message = frame(encode(Message(type=MessageType.FIND_NODE, key=bytes(1000))))
        with pytest.raises(StreamReset):
            for byte in message:
                await stream.send_all(bytes((byte,)))
                await trio.sleep(1)
        assert trio.current_time() - began < 13


async def test_k1_silence_ends_after_a_minute() -> None:
    """K1."""
    async with attacked() as (_, open_stream):
        stream = await open_stream()
        await stream.send_all(PING)
        await answers(stream, 1)
        began = trio.current_time()
        with pytest.raises(StreamReset):
            await stream.receive_some()
        assert 59 < trio.current_time() - began < 62


async def test_k1_a_stream_carries_a_thousand_messages() -> None:
    """K1, KD3: several requests on one stream, but not without end."""
    async with attacked(messages_per_stream=5) as (_, open_stream):
        stream = await open_stream()
        await stream.send_all(PING * 3)
        assert len(await answers(stream, 3)) == 3
        await stream.send_all(PING * 7)
        assert len(await answers(stream, 7)) == 2
        await stream.aclose()


async def test_kd9_add_provider_is_not_answered_and_third_parties_are_refused() -> None:
    """KD9, K3, K4."""
    async with attacked() as (server, open_stream):
        async with await open_stream() as stream:
            for infos in (
                (PeerInfo(peer(1), (ADDR,)),),  # somebody else
                (PeerInfo(_attacker(server), ()),),  # no address
            ):
                message = Message(type=MessageType.ADD_PROVIDER, key=b"content", providers=infos)
                await stream.send_all(frame(encode(message)))
            await stream.send_all(PING)
            assert [message.type for message in await answers(stream, 1)] == [MessageType.PING]
        assert server.kad._node().store.providers(b"content", trio.current_time()) == []
        counters = server.kad.metrics()
        assert counters["refused: provider is not sender"] == 1
        assert counters["refused: provider without address"] == 1


async def test_k3_one_announcement_is_one_change_and_its_addresses_are_few() -> None:
    """K3: what is kept of a provider is no more than what is told of it."""
    async with attacked() as (server, open_stream):
        name = ".".join(["x" * 50] * 4)
        long = [parse("/" + "/".join([f"dns4/{number}{name}"] * 2)).to_bytes() for number in range(20)]
        short = [parse(f"/ip4/6.6.6.6/tcp/{number}").to_bytes() for number in range(1, 21)]
        async with await open_stream() as stream:
            info = _provider(_attacker(server), (*long, *short))
            announcement = b"\x08\x02" + proto.write_bytes(2, b"content") + info * 3
            await stream.send_all(frame(announcement) + PING)
            await answers(stream, 1)
        node = server.kad._node()
        changes = list[bytes]()
        (held,) = node.store.providers(b"content", trio.current_time())
        assert held.addrs == (long[0], *short[:7])
        node.store.add_provider = lambda key, *_, **__: changes.append(key)  # type: ignore[method-assign, assignment]
        async with await open_stream() as stream:
            await stream.send_all(frame(announcement) + PING)
            await answers(stream, 1)
        assert changes == [b"content"]


async def test_k3_of_a_provider_only_addresses_of_the_network_are_kept() -> None:
    """K3: as go does; whoever has none is none."""
    home, public = parse("/ip4/192.168.1.7/tcp/1").to_bytes(), parse("/ip4/7.7.7.7/tcp/1").to_bytes()
    async with attacked(reach=Reach.PUBLIC, mode=Mode.SERVER) as (server, open_stream):
        async with await open_stream() as stream:
            for key, addrs in ((b"one", (home, public)), (b"two", (home,))):
                announcement = b"\x08\x02" + proto.write_bytes(2, key) + _provider(_attacker(server), addrs)
                await stream.send_all(frame(announcement))
            await stream.send_all(PING)
            await answers(stream, 1)
        store = server.kad._node().store
        assert [held.addrs for held in store.providers(b"one", trio.current_time())] == [(public,)]
        assert not store.providers(b"two", trio.current_time())


def _provider(info: PeerId, addrs: tuple[bytes, ...]) -> bytes:
    """A provider in a message, with more addresses than we would send."""
    inner = proto.write_bytes(1, bytes(info)) + b"".join([proto.write_bytes(2, addr) for addr in addrs])
    return proto.write_bytes(9, inner)


def _attacker(server: Node) -> PeerId:
    (inbound,) = server.host.connections()
    return inbound.peer


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(type=MessageType.PUT_VALUE, key=b"/v/a"), "record of another key"),
        (
            Message(type=MessageType.PUT_VALUE, key=b"/v/a", record=Record(key=b"/v/b", value=b"x")),
            "record of another key",
        ),
        (
            Message(type=MessageType.PUT_VALUE, key=b"/no/a", record=Record(key=b"/no/a", value=b"x")),
            "invalid record",
        ),
        (Message(type=MessageType.PUT_VALUE, key=b"a", record=Record(key=b"a", value=b"x")), "invalid record"),
        (
            Message(type=MessageType.PUT_VALUE, key=b"/v/a", record=Record(key=b"/v/a", value=bytes(65 * 1024))),
            "invalid record",
        ),
        (
            Message(type=MessageType.PUT_VALUE, key=b"/v/held", record=Record(key=b"/v/held", value=b"x")),
            "older record",
        ),
        (Message(type=MessageType.GET_VALUE, key=b"/no/a"), "namespace"),
        (Message(type=MessageType.GET_PROVIDERS, key=b""), "key length"),
        (Message(type=MessageType.GET_PROVIDERS, key=bytes(81)), "key length"),
        (Message(type=MessageType.ADD_PROVIDER, key=bytes(81)), "key length"),
    ],
)
async def test_k2_what_is_not_stored(message: Message, reason: str) -> None:
    """K2, KD6, KD7: nothing that was not checked gets in."""
    async with attacked() as (server, open_stream):
        store = server.kad._node().store
        store.put_value(b"/v/held", b"longer", now=0.0, expires=1e9)
        stream = await open_stream()
        await stream.send_all(frame(encode(message)))
        with pytest.raises(StreamReset):
            await stream.receive_some()
        assert server.kad.metrics()[f"refused: {reason}"] == 1
        assert store.value(message.key, trio.current_time()) is None or message.key == b"/v/held"


async def test_kd7_a_put_is_echoed_and_a_get_returns_it() -> None:
    """KD6, KD7."""
    async with attacked() as (_, open_stream):
        record = Record(key=b"/v/a", value=b"value")
        async with await open_stream() as stream:
            put = Message(type=MessageType.PUT_VALUE, key=b"/v/a", record=record)
            await stream.send_all(frame(encode(put)))
            assert await answers(stream, 1) == [put]
            await stream.send_all(frame(encode(Message(type=MessageType.GET_VALUE, key=b"/v/a"))))
            (answer,) = await answers(stream, 1)
        assert answer.record is not None
        assert (answer.record.key, answer.record.value) == (b"/v/a", b"value")
        assert answer.record.received.endswith("Z")


async def test_kd16_it_names_itself_when_asked_for_itself() -> None:
    """KD16: go takes nobody into its table who does not; KD5: who asks is not named."""
    async with attacked() as (server, open_stream):
        async with await open_stream() as stream:
            await stream.send_all(frame(encode(Message(type=MessageType.FIND_NODE, key=bytes(server.peer)))))
            (answer,) = await answers(stream, 1)
        assert [info.peer for info in answer.closer] == [server.peer]
        assert answer.closer[0].addrs


# --- clients ----------------------------------------------------------------------------------------------------------


class Liar(Service):
    """Says it serves the DHT, and answers what it is told to."""

    def __init__(self, answer: Callable[[Message], bytes | None]) -> None:
        self._answer = answer
        self.asked = 0

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        return {KAD: self._serve}

    async def _serve(self, stream: Stream) -> None:
        frames = FrameBuffer(MAX_ANSWER)
        async for chunk in stream:
            for request in frames.receive_data(chunk):
                self.asked += 1
                answer = self._answer(decode(request))
                if answer is None:
                    await trio.sleep_forever()
                else:
                    await stream.send_all(answer)


@asynccontextmanager
async def lied_to(answer: Callable[[Message], bytes | None], liars: int = 1) -> AsyncIterator[tuple[Node, list[Liar]]]:
    """A node that knows liars, and an honest server."""
    network = MemoryNetwork(0)
    async with AsyncExitStack() as stack:
        services = [Liar(answer) for _ in range(liars)]
        addrs = []
        for number, service in enumerate(services):
            make: Callable[[], Service] = lambda service=service: service  # type: ignore[misc]  # noqa: E731
            host = await stack.enter_async_context(open_memory_host(network, name=f"liar {number}", services=[make]))
            addrs.append(host.addrs[0])
        honest = await stack.enter_async_context(open_node(network, "honest"))
        node = await stack.enter_async_context(open_node(network, "node", bootstrap=[*addrs, honest.host.addrs[0]]))
        await trio.sleep(20)
        yield node, services


def encoded(request: Message, **fields: object) -> bytes:
    return frame(encode(Message(type=request.type, **fields)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: varint.encode(2**62),
        lambda request: varint.encode(MAX_ANSWER + 1),
        lambda request: frame(b"\x08\x63"),
        lambda request: encoded(request, record=Record(key=b"/v/other", value=b"wrong")),
        lambda request: encoded(request, record=Record(key=request.key, value=bytes(65 * 1024))),
        lambda request: frame(encode(Message(type=MessageType.PING))),
        lambda request: frame(b"\x08\x01" + proto.write_bytes(8, b"") * 20_000),
        lambda request: b"",
    ],
    ids=["2**62", "4 MiB", "type 99", "other key", "65 KiB", "another type", "20,000 peers", "nothing"],
)
async def test_k1_k4_wrong_answers_are_no_values(answer: Callable[[Message], bytes | None]) -> None:
    """K1, K4: 0 wrong values are returned, and the honest are heard all the same."""
    async with lied_to(answer) as (node, _):
        with pytest.raises(NotFound), trio.fail_after(20):
            await node.kad.get_value(b"/v/key")


async def test_k4_addresses_of_this_host_and_of_others() -> None:
    """K4: nobody's word changes what we know of ourselves, and nobody is found at a forged address."""
    lies = list[PeerInfo]()

    def answer(request: Message) -> bytes:
        return encoded(request, closer=tuple(lies), providers=tuple(lies))

    async with lied_to(answer) as (node, _):
        own = node.host.addrs
        lies += [PeerInfo(node.peer, (ADDR,)), PeerInfo(peer(7), (b"nonsense", ADDR))]
        assert node.peer not in await node.kad.closest_peers(b"key")
        await node.kad.find_peer(peer(7))
        async with node.kad.find_providers(b"content") as providers:
            await providers.receive()
        assert node.host.addrs == own
        assert not node.host.peerstore.addrs(node.peer)
        assert not node.host.connections(node.peer)
        assert not node.host.connections(peer(7))
        assert peer(7) not in node.kad.table


@pytest.mark.parametrize("silent", [False, True])
async def test_k4_whoever_names_a_peer_first_does_not_hide_it(silent: bool) -> None:
    """K4: a liar says that the honest are where nobody is; who knows better is heard later, or while the dial waits."""
    network = MemoryNetwork(0)
    named = list[PeerInfo]()
    liar = Liar(lambda request: encoded(request, closer=tuple(named)))
    async with (
        open_memory_host(network, name="hole") as hole,
        open_memory_host(network, name="liar", services=[lambda: liar]) as lying,
        open_node(network, "far", mode=Mode.SERVER) as far,
        open_node(network, "honest", bootstrap=far.host.addrs[:1]) as honest,
    ):
        await trio.sleep(20)
        wrong = split_peer(hole.addrs[0])[0].to_bytes() if silent else ADDR
        named += [
            PeerInfo(far.peer, (wrong,)),
            PeerInfo(honest.peer, tuple([split_peer(addr)[0].to_bytes() for addr in honest.host.addrs])),
        ]
        network.set_link("node", "honest", Link(latency=0.2))  # the liar is quicker
        network.cut("node", "hole")
        async with open_node(network, "node", mode=Mode.CLIENT, bootstrap=lying.addrs[:1]) as node:
            await trio.sleep(0.05)
            assert far.peer in await node.kad.closest_peers(b"key")
            assert await node.kad.find_peer(far.peer)


async def test_k5_invented_peers_do_not_enter_the_table() -> None:
    """K5."""

    def answer(request: Message) -> bytes:
        return encoded(request, closer=tuple([PeerInfo(peer(number), (ADDR,)) for number in range(20)]))

    async with lied_to(answer) as (node, _):
        await node.kad.closest_peers(b"key")
        assert len(node.kad.table) == 2  # the liar, which answers, and the honest one


async def test_k8_tarpits_hold_nobody_up() -> None:
    """K8."""
    async with lied_to(lambda request: None, liars=3) as (node, liars):
        began = trio.current_time()
        with pytest.raises(NotFound):
            await node.kad.get_value(b"/v/key")
        assert trio.current_time() - began < 15
        assert all(liar.asked for liar in liars)


async def test_k8_endless_nearer_peers_end() -> None:
    """K8: at most 200 questions and 60 s."""
    serial = [100]

    def answer(request: Message) -> bytes:
        serial[0] += 20
        numbers = range(serial[0], serial[0] + 20)
        return encoded(request, closer=tuple([PeerInfo(peer(number), (ADDR,)) for number in numbers]))

    async with lied_to(answer) as (node, _):
        began = trio.current_time()
        await node.kad.closest_peers(b"key")
        assert trio.current_time() - began <= 60


async def test_kd9_an_answer_to_add_provider_spoils_nothing() -> None:
    """KD9: py-libp2p and others answer; the next question on a new stream gets its own answer."""
    async with lied_to(lambda request: encoded(request)) as (node, liars):
        await node.kad.provide(b"content")
        with trio.fail_after(20), pytest.raises(NotFound):
            await node.kad.get_value(b"/v/key")
        assert liars[0].asked >= 3
