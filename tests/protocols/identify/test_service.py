"""The identify service on whole hosts: requirements I2 to I11, E6, E8, cases I1, I2, S8."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import trio

from libp2p.abc import Host, Stream, StreamHandler
from libp2p.addressing import parse
from libp2p.crypto.keys import PrivateKey
from libp2p.errors import ConnectionClosed, NegotiationError, RemoteProtocolError, StreamReset
from libp2p.events import Event, PeerDisconnected, PeerIdentified
from libp2p.peer_id import PeerId
from libp2p.protocols.identify import (
    IDENTIFY,
    IDENTIFY_PUSH,
    IdentifyFailed,
    IdentifyInfo,
    identify,
)
from libp2p.protocols.identify._codec import MAX_SENT, OBSERVED_ROOM, decode, encode
from libp2p.protocols.identify._self import SelfDescription
from libp2p.records.peer_record import PeerRecord, open_peer_record
from libp2p.testing import memory_network
from libp2p.testing.keys import seeded_key
from libp2p.wire import proto
from libp2p.wire.framing import FrameBuffer, frame
from tests.protocols.identify.raw import (
    PUBLIC_A,
    PUBLIC_B,
    Services,
    garbage,
    own_key,
    push,
    silent,
    with_raw_peer,
)
from tests.protocols.waiting import settled

# --- both sides of a connection ---------------------------------------------------------------------------------------


async def test_i11_both_sides_once_per_connection() -> None:
    services = Services(agent_version="test/1", protocol_version="test")
    async with memory_network(2, defaults=(services,)) as (a, b):
        with a.subscribe(PeerIdentified) as at_a, b.subscribe(PeerIdentified) as at_b:
            await a.connect(b.addrs[0])
            for host, other, events in ((a, b, at_a), (b, a, at_b)):
                event = await events.receive()
                assert event.peer == other.local_peer
                assert event.agent_version == "test/1"
                assert event.protocol_version == "test"
                assert event.protocols == (IDENTIFY, IDENTIFY_PUSH)
                store = host.peerstore
                assert store.protocols(other.local_peer) == {IDENTIFY, IDENTIFY_PUSH}
                assert store.metadata(other.local_peer) == {"agent_version": "test/1", "protocol_version": "test"}
                assert [addr.to_bytes() for addr in store.addrs(other.local_peer)] == [
                    parse(str(addr).partition("/p2p/")[0]).to_bytes() for addr in other.addrs
                ]
                assert store.envelope(other.local_peer) is not None
            info = await services.made[0].identified(b.local_peer)
            assert info.observed_addr is not None
            for events in (at_a, at_b):
                with trio.move_on_after(100) as scope:
                    await events.receive()
                assert scope.cancelled_caught


async def test_i6_the_observed_address_is_the_one_seen() -> None:
    async with memory_network(2, ips=[PUBLIC_A, PUBLIC_B]) as (a, b):
        connection = await a.connect(b.addrs[0])
        info = await identify(a, b.local_peer)
        assert info.observed_addr == connection.local_addr
        assert (await identify(b, a.local_peer)).observed_addr == b.connections()[0].local_addr


async def test_i2_repeated_requests_are_answered() -> None:
    async with memory_network(2, connect="full") as (a, b):
        infos = [await identify(a, b.local_peer) for _ in range(3)]
        assert infos[0] == infos[1] == infos[2]
        assert infos[0].public_key == own_key(b)
        assert infos[0].agent_version is not None
        assert infos[0].agent_version.startswith("libp2p-trio/")
        assert infos[0].protocol_version == "ipfs/0.1.0"


async def test_i2_one_message_and_then_the_end() -> None:
    async with memory_network(2, connect="full") as (a, b), await a.open_stream(b.local_peer, IDENTIFY) as stream:
        data = b"".join([chunk async for chunk in stream])
        assert len(FrameBuffer(4096).receive_data(data)) == 1


async def test_identified_waits() -> None:
    services = Services()
    async with memory_network(2, defaults=(services,)) as (a, b):
        await a.connect(b.addrs[0])
        assert (await services.made[0].identified(b.local_peer)).protocols == (IDENTIFY, IDENTIFY_PUSH)
        assert (await services.made[1].identified(a.local_peer)).public_key == own_key(a)
        with pytest.raises(IdentifyFailed, match="not connected"):
            await services.made[0].identified(a.local_peer)
    with pytest.raises(RuntimeError, match="not running"):
        await services.made[0].identified(b.local_peer)


async def test_connections_from_before_the_service() -> None:
    services = Services()
    async with memory_network(2, defaults=()) as (a, b):
        await a.connect(b.addrs[0])
        service = services()
        for protocol, handler in service.handlers.items():
            b.handle(protocol, handler)
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run, b)
            with pytest.raises(IdentifyFailed, match="identify"):
                await service.identified(a.local_peer)
            nursery.cancel_scope.cancel()
        with pytest.raises((NegotiationError, StreamReset)):  # the service has ended, and its handlers know
            await identify(a, b.local_peer)


# --- what peers may say -----------------------------------------------------------------------------------------------


async def test_i3_a_wrong_key_ends_the_connection() -> None:
    stranger = encode(IdentifyInfo(public_key=seeded_key("stranger").public_key.marshal(), protocols=("/x",)))
    async with with_raw_peer(stranger) as (a, service, raw):
        with a.subscribe(Event) as events:
            await a.connect(raw.addrs[0])
            with pytest.raises(IdentifyFailed, match="not its own"):
                await service.identified(raw.local_peer)
            async for event in events:
                assert not isinstance(event, PeerIdentified)
                if isinstance(event, PeerDisconnected):
                    break
        assert not a.peerstore.protocols(raw.local_peer)
        # The service, which asks on the new connection as well, may be the first to notice.
        with pytest.raises((RemoteProtocolError, ConnectionClosed)):
            await identify(a, raw.addrs[0])


async def test_i3_a_missing_key_is_no_wrong_key() -> None:
    async with with_raw_peer(encode(IdentifyInfo(protocols=("/x",)))) as (a, service, raw):
        await a.connect(raw.addrs[0])
        assert (await service.identified(raw.local_peer)).protocols == ("/x",)


async def test_i7_another_protocol_version_is_welcome() -> None:
    async with with_raw_peer(encode(IdentifyInfo(protocol_version="other/9"))) as (a, service, raw):
        await a.connect(raw.addrs[0])
        assert (await service.identified(raw.local_peer)).protocol_version == "other/9"


async def test_i2_an_answer_in_several_messages() -> None:
    async def answer(stream: Stream) -> None:
        for part in (IdentifyInfo(agent_version="one"), IdentifyInfo(protocols=("/two",))):
            for byte in frame(encode(part)):
                await stream.send_all(bytes((byte,)))

    async with with_raw_peer(answer) as (a, service, raw):
        await a.connect(raw.addrs[0])
        info = await service.identified(raw.local_peer)
        assert (info.agent_version, info.protocols) == ("one", ("/two",))


async def too_long(stream: Stream) -> None:
    await stream.send_all(frame(proto.write_bytes(6, b"a" * 8200)))


async def too_many(stream: Stream) -> None:
    await stream.send_all(frame(b"") * 11)
    await trio.sleep_forever()


async def drip(stream: Stream) -> None:
    for byte in frame(b"a" * 8000):
        await stream.send_all(bytes((byte,)))
        await trio.sleep(1)


async def truncated(stream: Stream) -> None:
    await stream.send_all(frame(b"\x0a\x03abc")[:-1])


async def nothing(stream: Stream) -> None:
    await trio.lowlevel.checkpoint()


async def resets(stream: Stream) -> None:
    stream.reset()


@pytest.mark.parametrize(
    ("answer", "seconds", "reason"),
    [
        (too_long, 0, "above the limit"),
        (too_many, 0, "more than 10"),
        (drip, 5, "no answer within 5 s"),
        (silent, 5, "no answer within 5 s"),
        (truncated, 0, "in the middle"),
        (nothing, 0, "without a message"),
        (garbage, 0, "truncated or too long"),
        (resets, 0, "reset"),
    ],
)
async def test_case_i1_bombs(answer, seconds: float, reason: str) -> None:
    async with with_raw_peer(answer) as (a, service, raw):
        await a.connect(raw.addrs[0])
        started = trio.current_time()
        with pytest.raises(IdentifyFailed, match=reason):
            await service.identified(raw.local_peer)
        assert trio.current_time() - started == pytest.approx(seconds, abs=0.5)
        assert a.connections(raw.local_peer)
        with pytest.raises((IdentifyFailed, RemoteProtocolError, StreamReset, NegotiationError)):
            await identify(a, raw.local_peer)


async def test_the_connection_ends_meanwhile() -> None:
    async with with_raw_peer(silent) as (a, service, raw), trio.open_nursery() as nursery:
        await a.connect(raw.addrs[0])

        async def fails() -> None:
            with pytest.raises(IdentifyFailed):
                await service.identified(raw.local_peer)

        nursery.start_soon(fails)
        await settled()
        started = trio.current_time()
        await raw.disconnect(a.local_peer)
        await settled()
        assert trio.current_time() - started < 1
        assert not service._sessions


async def test_a_peer_that_answers_one_at_a_time() -> None:
    answering = False

    async def answer(stream: Stream) -> None:
        nonlocal answering
        if answering:
            return stream.reset()
        answering = True
        await trio.sleep(0.5)
        await stream.send_all(frame(encode(IdentifyInfo(protocols=("/x",)))))
        answering = False

    async with with_raw_peer(answer) as (a, _, raw):
        await a.connect(raw.addrs[0])
        await settled()
        assert (await identify(a, raw.local_peer)).protocols == ("/x",)


# --- addresses and records --------------------------------------------------------------------------------------------


async def test_i9_addresses_from_elsewhere() -> None:
    addrs = ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/9.9.9.9/tcp/1", "/dns/example.com/tcp/1"]
    answer = encode(IdentifyInfo(listen_addrs=tuple(map(parse, addrs))))
    async with with_raw_peer(answer, ips=(PUBLIC_A, PUBLIC_B)) as (a, service, raw):
        await a.connect(raw.addrs[0])
        await service.identified(raw.local_peer)
        held = {str(addr) for addr in a.peerstore.addrs(raw.local_peer)}
        assert held == {*addrs[2:], f"/ip4/{PUBLIC_B}/tcp/4001"}  # and the address that was dialled


async def test_i9_what_a_peer_says_replaces_what_others_said() -> None:
    answer = encode(IdentifyInfo(listen_addrs=(parse("/ip4/9.9.9.9/tcp/1"),)))
    async with with_raw_peer(answer, ips=(PUBLIC_A, PUBLIC_B)) as (a, service, raw):
        a.peerstore.add_addrs(raw.local_peer, [parse("/ip4/6.6.6.6/tcp/6")], ttl=1000)
        await raw.connect(a.addrs[0])
        await service.identified(raw.local_peer)
        assert [str(addr) for addr in a.peerstore.addrs(raw.local_peer)] == ["/ip4/9.9.9.9/tcp/1"]


def record(key: PrivateKey, *addrs: str, seq: int = 1) -> bytes:
    return PeerRecord(peer=PeerId.from_key(key.public_key), seq=seq, addrs=tuple(map(parse, addrs))).seal(key)


async def addrs_after(envelope: Callable[[PrivateKey], bytes]) -> tuple[list[str], Host, Host]:
    async def answer(stream: Stream) -> None:
        claimed = IdentifyInfo(
            listen_addrs=(parse("/ip4/7.7.7.7/tcp/7"),), signed_peer_record=envelope(raw.private_key)
        )
        await stream.send_all(frame(encode(claimed)))

    async with with_raw_peer(answer, ips=(PUBLIC_A, PUBLIC_B)) as (a, service, raw):
        await raw.connect(a.addrs[0])
        await service.identified(raw.local_peer)
        return [str(addr) for addr in a.peerstore.addrs(raw.local_peer)], a, raw


async def test_i9_the_signed_record_counts() -> None:
    addrs, a, raw = await addrs_after(lambda key: record(key, "/ip4/8.8.8.8/tcp/8", "/ip4/127.0.0.1/tcp/8"))
    assert addrs == ["/ip4/8.8.8.8/tcp/8"]
    assert a.peerstore.envelope(raw.local_peer) == record(raw.private_key, "/ip4/8.8.8.8/tcp/8", "/ip4/127.0.0.1/tcp/8")


async def test_s8_a_record_of_somebody_else_does_not() -> None:
    stranger = seeded_key("stranger")
    addrs, a, _ = await addrs_after(lambda key: record(stranger, "/ip4/8.8.8.8/tcp/8"))
    assert addrs == ["/ip4/7.7.7.7/tcp/7"]
    assert PeerId.from_key(stranger.public_key) not in a.peerstore.peers()


async def test_s8_a_broken_record_does_not() -> None:
    addrs, _, _ = await addrs_after(lambda key: record(key, "/ip4/8.8.8.8/tcp/8")[:-1] + b"!")
    assert addrs == ["/ip4/7.7.7.7/tcp/7"]


async def test_e6_an_older_record_does_not() -> None:
    async with with_raw_peer(b"") as (a, service, raw):
        await raw.connect(a.addrs[0])
        await service.identified(raw.local_peer)
        newer = record(raw.private_key, "/ip4/8.8.8.8/tcp/8", seq=5)
        older = record(raw.private_key, "/ip4/6.6.6.6/tcp/6", seq=4)
        for envelope in (newer, older):
            await push(raw, a, encode(IdentifyInfo(signed_peer_record=envelope)))
            assert [str(addr) for addr in a.peerstore.addrs(raw.local_peer)] == ["/ip4/8.8.8.8/tcp/8"]
            assert a.peerstore.envelope(raw.local_peer) == newer


class Seen:
    """As much of a host and a connection as a self-description needs."""

    def __init__(self, *addrs: str, remote: str = "/ip4/127.0.0.1/tcp/9") -> None:
        self.private_key = seeded_key("self")
        self.local_peer = PeerId.from_key(self.private_key.public_key)
        self.addrs = [parse(f"{addr}/p2p/{self.local_peer}") for addr in addrs]
        self.protocols = ["/x"]
        self.remote_addr = parse(remote)

    def described_by(self, description: SelfDescription) -> IdentifyInfo:
        return decode([description.message_for(self, self)])  # type: ignore[arg-type]


def test_e8_a_new_record_only_for_new_addresses() -> None:
    times = iter([1000.0, 1000.0, 500.0, 2000.0])
    description = SelfDescription(agent_version="a", protocol_version="p", clock=lambda: next(times))
    seqs = []
    for port in (1, 1, 2, 3, 4):
        info = Seen(f"/ip4/1.1.1.1/tcp/{port}").described_by(description)
        assert info.signed_peer_record is not None
        opened = open_peer_record(info.signed_peer_record)
        assert opened.addrs == info.listen_addrs
        seqs.append(opened.seq)
    base = 1000 * 10**9
    assert seqs == [base, base, base + 1, base + 2, 2000 * 10**9]


LOOPBACK, PRIVATE, PUBLIC = "/ip4/127.0.0.1/tcp/1", "/ip4/10.1.1.1/tcp/1", "/ip4/8.1.1.1/tcp/1"


@pytest.mark.parametrize(
    ("remote", "listed", "recorded"),
    [
        ("/ip4/127.0.0.1/tcp/9", [LOOPBACK, PRIVATE, PUBLIC], [PRIVATE, PUBLIC]),
        ("/ip4/10.9.9.9/tcp/9", [PRIVATE, PUBLIC], [PRIVATE, PUBLIC]),
        ("/ip4/9.9.9.9/tcp/9", [PUBLIC], [PUBLIC]),
    ],
)
def test_i9_what_this_host_says(remote: str, listed: list[str], recorded: list[str]) -> None:
    description = SelfDescription(agent_version="a", protocol_version="p", clock=lambda: 1.0)
    info = Seen(LOOPBACK, PRIVATE, PUBLIC, remote=remote).described_by(description)
    assert list(map(str, info.listen_addrs)) == listed
    assert info.signed_peer_record is not None
    assert list(map(str, open_peer_record(info.signed_peer_record).addrs)) == recorded


def recorded(description: SelfDescription, *addrs: str, remote: str) -> tuple[int, list[str]]:
    """The number of the record that a peer at ``remote`` gets, and what it lists."""
    sent = Seen(*addrs, remote=remote).described_by(description).signed_peer_record
    assert sent is not None
    record = open_peer_record(sent)
    return record.seq, [str(addr) for addr in record.addrs]


NEXT_DOOR, FAR_AWAY, HERE = "/ip4/10.9.9.9/tcp/9", "/ip4/9.9.9.9/tcp/9", "/ip4/127.0.0.1/tcp/9"


@pytest.mark.parametrize("remotes", [(NEXT_DOOR, FAR_AWAY), (FAR_AWAY, NEXT_DOOR)])
def test_e6_the_record_that_says_more_is_the_newer_one(remotes: tuple[str, str]) -> None:
    """Whoever meets us on the internet and on the site keeps what is told on the site, whichever came first."""
    description = SelfDescription(agent_version="a", protocol_version="p", clock=lambda: 1.0)
    for addrs in ((PRIVATE, PUBLIC), (PRIVATE, "/ip4/8.2.2.2/tcp/1"), ("/ip4/10.2.2.2/tcp/1", "/ip4/8.2.2.2/tcp/1")):
        told = {remote: recorded(description, *addrs, remote=remote) for remote in remotes}
        assert told[FAR_AWAY] < told[NEXT_DOOR]
        assert told == {remote: recorded(description, *addrs, remote=remote) for remote in remotes}  # not made again
        assert told[NEXT_DOOR][1] == list(addrs) and told[FAR_AWAY][1] == [addrs[1]]


def test_e8_numbers_grow_whatever_changes() -> None:
    """Also when what is told on the site becomes the same as what is told everywhere."""
    description = SelfDescription(agent_version="a", protocol_version="p", clock=lambda: 1.0)
    first, far = (recorded(description, PRIVATE, PUBLIC, remote=remote) for remote in (NEXT_DOOR, FAR_AWAY))
    later, there = (recorded(description, PUBLIC, remote=remote) for remote in (NEXT_DOOR, FAR_AWAY))
    assert later[0] > first[0] and later[1] == [PUBLIC]
    assert there == far  # nothing has changed for them
    # And where all kinds are told the same, one record is enough.
    fresh = SelfDescription(agent_version="a", protocol_version="p", clock=lambda: 1.0)
    assert {recorded(fresh, PUBLIC, remote=remote)[0] for remote in (HERE, NEXT_DOOR, FAR_AWAY)} == {10**9}


def test_i9_a_host_on_a_private_network_only() -> None:
    """Its private address is nobody's business on the internet."""
    description = SelfDescription(agent_version="a", protocol_version="p", clock=lambda: 1.0)
    there = Seen(PRIVATE, remote="/ip4/9.9.9.9/tcp/9").described_by(description)
    assert there.listen_addrs == () and there.signed_peer_record is None


def test_i9_a_host_on_loopback_only() -> None:
    description = SelfDescription(agent_version="a", protocol_version="p", clock=lambda: 1.0)
    here = Seen("/ip4/127.0.0.1/tcp/1").described_by(description)
    assert here.signed_peer_record is not None
    there = Seen("/ip4/127.0.0.1/tcp/1", remote="/ip4/9.9.9.9/tcp/9").described_by(description)
    assert there.listen_addrs == ()
    assert there.signed_peer_record is None
    assert Seen().described_by(description).signed_peer_record is None


def test_a_message_is_made_once_for_all_peers_of_a_kind() -> None:
    description = SelfDescription(agent_version="a", protocol_version="p", clock=lambda: 1.0)
    host = Seen("/ip4/1.1.1.1/tcp/1")
    other = Seen("/ip4/1.1.1.1/tcp/1", remote="/ip4/127.0.0.1/tcp/10")
    first = description.common(host, host)  # type: ignore[arg-type]
    assert description.common(other, other) is first  # type: ignore[arg-type]
    assert [host.described_by(description).observed_addr, other.described_by(description).observed_addr] == [
        parse("/ip4/127.0.0.1/tcp/9"),
        parse("/ip4/127.0.0.1/tcp/10"),
    ]
    host.protocols = ["/x", "/y"]
    assert host.described_by(description).protocols == ("/x", "/y")
    host.addrs = [parse("/ip4/2.2.2.2/tcp/1")]
    assert host.described_by(description).listen_addrs == (parse("/ip4/2.2.2.2/tcp/1"),)


def test_there_is_always_room_for_the_observed_address() -> None:
    description = SelfDescription(agent_version="a", protocol_version="p", clock=lambda: 1.0)
    host = Seen("/ip4/1.1.1.1/tcp/1")
    host.protocols = [f"/{number:0100}" for number in range(100)]
    message = description.message_for(host, host)  # type: ignore[arg-type]
    assert MAX_SENT - OBSERVED_ROOM - 110 < len(message) <= MAX_SENT
    assert decode([message]).observed_addr == host.remote_addr
    host.remote_addr = parse("/unix/" + 300 * "a")
    assert host.described_by(description).observed_addr is None


async def test_peers_that_know_everything_are_not_pushed_to() -> None:
    """Identify crosses on a new connection: each side asks what to push, and finds nothing."""
    pushes: list[Stream] = []
    async with memory_network(2) as (a, b):
        for host in (a, b):
            pushed = host._handlers[IDENTIFY_PUSH]
            host._handlers[IDENTIFY_PUSH] = dataclasses.replace(pushed, serve=take(pushes))
        await a.connect(b.addrs[0])
        await settled()
        assert a.peerstore.protocols(b.local_peer) and b.peerstore.protocols(a.local_peer)
        assert not pushes


def take(streams: list[Stream]) -> StreamHandler:
    async def handler(stream: Stream) -> None:
        streams.append(stream)
        await stream.receive_some()

    return handler
