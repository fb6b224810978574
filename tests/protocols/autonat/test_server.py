"""Dialling others back: requirements AN2 to AN4, AN6, AV4 to AV6, AV8, AV9, case R5."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import pytest
import trio

from libp2p.abc import Stream
from libp2p.addressing import parse
from libp2p.errors import StreamReset
from libp2p.host import RunningHost
from libp2p.peer_id import PeerId
from libp2p.protocols.autonat import AUTONAT, DIAL_BACK, DIAL_REQUEST, AutoNat, AutoNatLimits, AutoNatServer
from libp2p.protocols.autonat._codec import (
    DIAL_BACK_OK,
    Dial,
    DialData,
    DialDataRequest,
    DialRequest,
    DialResponse,
    DialResult,
    DialStatus,
    Message,
    ResponseStatus,
    Status1,
    decode,
    decode_result,
    encode,
    encode_dial,
)
from libp2p.protocols.autonat._exchange import Messages
from libp2p.protocols.relay import RelayClient, RelayLimits, RelayServer
from libp2p.testing.keys import seeded_key
from libp2p.transports.memory import Wire

from .nodes import CLIENT, Firewall, Net, net, server_ip

HERE = f"/ip4/{CLIENT}/tcp/4001"
ELSEWHERE = "/ip4/50.0.0.1/tcp/4001"
REJECTED = DialResponse(status=ResponseStatus.E_REQUEST_REJECTED)
REFUSED = DialResponse(status=ResponseStatus.E_DIAL_REFUSED)


async def ask_1(client: RunningHost, server: RunningHost, *addrs: str, peer: PeerId | None = None) -> DialResult:
    async with await client.open_stream(server.local_peer, AUTONAT) as stream:
        messages = Messages(stream)
        await messages.send(encode_dial(Dial(peer=peer, addrs=tuple(map(parse, addrs)))))
        return decode_result(await messages.receive())


async def ask_2(
    client: RunningHost, server: RunningHost, *addrs: str, nonce: int = 1, chunk: int = 4000, pause: float = 0.0
) -> tuple[Message, int]:
    """The answer, and what was paid for it."""
    paid = 0
    async with await client.open_stream(server.local_peer, DIAL_REQUEST) as stream:
        messages = Messages(stream)
        await messages.send(encode(DialRequest(addrs=tuple(map(parse, addrs)), nonce=nonce)))
        answer = decode(await messages.receive())
        if isinstance(answer, DialDataRequest):
            while paid < answer.size:
                await messages.send(encode(DialData(size=chunk)))
                await trio.sleep(pause)
                paid += chunk
            answer = decode(await messages.receive())
        return answer, paid


async def two(found: Net, *, limits: AutoNatLimits | None = None) -> tuple[RunningHost, RunningHost]:
    """A client that takes every dial back, and a server it is connected to."""
    client, server = await found.open("client", ip=CLIENT), await found.server(1, limits=limits)
    client.handle(DIAL_BACK, take_any)
    await client.connect(server.addrs[0])
    return client, server


async def take_any(stream: Stream) -> None:
    messages = Messages(stream)
    await messages.receive()
    await messages.send(DIAL_BACK_OK)


# --- version 1


async def test_an6_a_dial_of_its_own() -> None:
    """Neither the connection that exists is used, nor the server's identity."""
    async with net() as found:
        client, server = await two(found)
        seen: list[PeerId] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while len(seen) < 2:
                    seen[:] = {connection.peer: None for connection in client.connections()}
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(watch)
            assert await ask_1(client, server, HERE) == DialResult(status=Status1.OK, addr=parse(HERE))
        assert seen[0] == server.local_peer != seen[1]
        await trio.sleep(1)
        assert len(client.connections()) == 1


async def test_an3_r5_no_other_address_is_ever_dialled() -> None:
    async with net() as found:
        client, server = await two(found)
        await found.open("victim", ip="50.0.0.1")
        result = await ask_1(client, server, ELSEWHERE, "/ip4/10.0.0.1/tcp/4001", "/ip4/20.0.0.1/tcp/9", HERE)
        assert result.status == Status1.OK
        assert {addr.split("/")[2] for addr in found.dials} == {CLIENT}


async def test_an2_a_failure_is_told_when_the_time_is_over() -> None:
    """R5: or it would tell a scanner whether there is nobody, or somebody else."""
    async with net() as found:
        client, server = await two(found)
        for addr in (f"/ip4/{CLIENT}/tcp/9",):
            began = trio.current_time()
            assert (await ask_1(client, server, addr)).status == Status1.E_DIAL_ERROR
            assert trio.current_time() - began == pytest.approx(15, abs=0.1)


@pytest.mark.parametrize(
    ("addrs", "peer", "status"),
    [
        pytest.param([], None, Status1.E_DIAL_REFUSED, id="nothing to dial"),
        pytest.param(["/dns/example.com/tcp/1", "/ip6/2600::1/tcp/1"], None, Status1.E_DIAL_REFUSED, id="other kinds"),
        pytest.param([f"/ip4/{CLIENT}/udp/1/quic-v1"], None, Status1.E_DIAL_REFUSED, id="no such transport"),
        pytest.param([HERE], PeerId.from_key(seeded_key("x").public_key), Status1.E_BAD_REQUEST, id="somebody else"),
    ],
)
async def test_an2_refusals(addrs: Sequence[str], peer: PeerId | None, status: Status1) -> None:
    async with net() as found:
        client, server = await two(found)
        assert (await ask_1(client, server, *addrs, peer=peer)).status == status
        assert found.dials == []


async def test_an2_what_is_no_request() -> None:
    async with net() as found:
        client, server = await two(found)
        async with await client.open_stream(server.local_peer, AUTONAT) as stream:
            messages = Messages(stream)
            await messages.send(b"\x08\x01")  # a DIAL_RESPONSE
            assert decode_result(await messages.receive()).status == Status1.E_BAD_REQUEST


async def test_an2_a_dialer_that_has_trouble_of_its_own() -> None:
    async with net() as found:
        client = await found.open("client", ip=CLIENT)
        full = AutoNatServer(found.dialer(server_ip(1), dial_queue=0))
        server = await found.open("server", full, ip=server_ip(1))
        await client.connect(server.addrs[0])
        assert (await ask_1(client, server, HERE)).status == Status1.E_INTERNAL_ERROR
        answer, _ = await ask_2(client, server, HERE)
        assert answer == DialResponse(status=ResponseStatus.OK, dial=DialStatus.E_DIAL_ERROR)


async def test_an4_through_a_relay_nobody_is_dialled() -> None:
    async with net() as found:
        limits = RelayLimits(circuit_duration=None, circuit_data=None)
        relay = await found.open("relay", RelayServer(limits), ip="60.0.0.1")
        server = await found.open("server", AutoNatServer(found.dialer(server_ip(1))), RelayClient(), ip=server_ip(1))
        client = await found.open("client", RelayClient(), ip=CLIENT)
        await server.listen(f"{relay.addrs[0]}/p2p-circuit")
        await client.connect(f"{relay.addrs[0]}/p2p-circuit/p2p/{server.local_peer}")
        assert (await ask_1(client, server, HERE, "/ip4/60.0.0.1/tcp/1")).status == Status1.E_DIAL_REFUSED
        assert (await ask_2(client, server, HERE))[0] == REFUSED
        assert found.dials == []


async def test_an6_limits() -> None:
    """Three requests of a peer in a minute, thirty of all."""
    async with net() as found:
        client, server = await two(found)
        statuses = [(await ask_1(client, server, HERE)).status for _ in range(4)]
        assert statuses == [Status1.OK] * 3 + [Status1.E_DIAL_REFUSED]
        await trio.sleep(20)
        assert (await ask_1(client, server, HERE)).status == Status1.OK


# --- version 2


async def test_av4_the_first_that_can_be_dialled_and_no_other() -> None:
    async with net() as found:
        client, server = await two(found)
        addrs = ["/ip4/10.0.0.1/tcp/1", "/dns/example.com/tcp/1", "/ip4/1.1.1.1/udp/1/quic-v1", HERE, ELSEWHERE]
        answer, paid = await ask_2(client, server, *addrs)
        assert answer == DialResponse(status=ResponseStatus.OK, index=3, dial=DialStatus.OK) and paid == 0
        assert found.dials == [HERE]


@pytest.mark.parametrize(
    "addrs",
    [
        [],
        ["/ip4/192.168.1.1/tcp/4001"],
        ["/ip4/127.0.0.1/tcp/4001"],
        [f"/ip4/{server_ip(1)}/tcp/4001"],
        ["/dns4/example.com/tcp/4001"],
        [f"/ip4/{CLIENT}/udp/1/quic-v1"],
        ["/ip6/2600::1/tcp/4001"],
        [f"{HERE}/p2p/{PeerId.from_key(seeded_key('x').public_key)}"],
        [f"{HERE}/p2p/{PeerId.from_key(seeded_key('x').public_key)}/p2p-circuit"],
    ],
)
async def test_av6_what_is_not_dialled(addrs: list[str]) -> None:
    async with net() as found:
        client, server = await two(found)
        assert (await ask_2(client, server, *addrs))[0] == REFUSED
        assert found.dials == []


async def test_av5_another_address_has_to_be_paid_for() -> None:
    async with net() as found:
        client, server = await two(found)
        victim = await found.open("victim", ip="50.0.0.1")
        began = trio.current_time()
        answer, paid = await ask_2(client, server, ELSEWHERE)
        # Somebody else answers there, whom nobody has asked for.
        assert answer == DialResponse(status=ResponseStatus.OK, dial=DialStatus.E_DIAL_ERROR)
        assert 30_000 <= paid < 104_000
        assert trio.current_time() - began <= 13
        assert found.dials == [ELSEWHERE] and not victim.connections()


async def test_av5_no_dial_before_all_is_paid() -> None:
    async with net() as found:
        client, server = await two(found)
        async with await client.open_stream(server.local_peer, DIAL_REQUEST) as stream:
            messages = Messages(stream)
            await messages.send(encode(DialRequest(addrs=(parse(ELSEWHERE),), nonce=1)))
            wanted = decode(await messages.receive())
            assert isinstance(wanted, DialDataRequest) and 30_000 <= wanted.size <= 100_000
            await messages.send(encode(DialData(size=4096)))
            await trio.sleep(9)
            assert found.dials == []


@pytest.mark.parametrize("how", [{"pause": 1.0}, {"chunk": 99}])
async def test_r5_trickled_and_tiny_payments(how: dict[str, float]) -> None:
    async with net() as found:
        client, server = await two(found)
        with pytest.raises(StreamReset):
            await ask_2(client, server, ELSEWHERE, **how)  # type: ignore[arg-type]
        assert found.dials == []


async def test_r5_whoever_pays_in_something_else() -> None:
    async with net() as found:
        client, server = await two(found)
        async with await client.open_stream(server.local_peer, DIAL_REQUEST) as stream:
            messages = Messages(stream)
            request = encode(DialRequest(addrs=(parse(ELSEWHERE),), nonce=1))
            await messages.send(request)
            await messages.receive()
            await messages.send(request)
            with pytest.raises(StreamReset):
                await messages.receive()
        assert found.dials == []


async def test_r5_one_victim_is_dialled_once_in_ten_seconds() -> None:
    """Whoever asks, whatever the port; and what it receives is less than what was paid for it."""
    async with net() as found:
        _, server = await two(found)
        attackers = [await found.open(f"attacker-{number}", ip=f"70.{number}.0.1") for number in range(10)]
        answers: list[tuple[Message, int]] = []

        async def attack(attacker: RunningHost, port: int) -> None:
            await attacker.connect(server.addrs[0])
            answers.append(await ask_2(attacker, server, f"/ip4/50.0.0.1/tcp/{port}"))

        async with trio.open_nursery() as nursery:
            for port, attacker in enumerate(attackers, start=1):
                nursery.start_soon(attack, attacker, port)
        assert len(found.dials) == 1
        assert sorted(paid > 0 for _, paid in answers) == [False] * 9 + [True]
        assert [answer for answer, paid in answers if not paid] == [REJECTED] * 9


async def test_r5_who_pays_slowly_and_who_pays_at_once() -> None:
    """Requests that are ten seconds apart must not become dials at one moment."""
    async with net() as found:
        client, server = await two(found)
        async with trio.open_nursery() as nursery:
            for number in range(6):
                pause = 0.0 if number % 2 else 0.7
                nursery.start_soon(partial(ask_2, client, server, ELSEWHERE, chunk=8000, pause=pause))
                await trio.sleep(10.1)
        assert len(found.times) > 1
        assert min(later - earlier for earlier, later in pairwise(found.times)) >= 10


@pytest.mark.parametrize("count", [6, pytest.param(60, marks=[pytest.mark.bar_n, pytest.mark.limit(300)])])
async def test_r5_many_servers_and_one_victim(count: int) -> None:
    """Whoever fires them all at once has sent much more than arrives there, and it does not arrive at once."""
    async with net() as found:
        servers = [await found.server(number) for number in range(count)]
        attacker, victim = await found.open("attacker", ip=CLIENT), await found.open("victim", ip="50.0.0.1")
        attacker_node, victim_node = found.network.nodes[-2:]
        sent: Counter[str] = Counter()

        def watch(wire: Wire, piece: bytes) -> None:
            sent["by the attacker"] += len(piece) * (wire.source == attacker_node)
            sent["to the victim"] += len(piece) * (wire.target == victim_node)

        async def fire(server: RunningHost) -> None:
            await attacker.connect(server.addrs[0])
            await ask_2(attacker, server, ELSEWHERE)

        with found.network.tap(watch):
            async with trio.open_nursery() as nursery:
                for server in servers:
                    nursery.start_soon(fire, server)
        assert found.dials == [ELSEWHERE] * count and not victim.connections()
        assert 0 < sent["to the victim"] * 20 < sent["by the attacker"]
        assert max(found.times) - min(found.times) > 1


async def test_av9_limits() -> None:
    async with net() as found:
        client, server = await two(found)
        answers = [(await ask_2(client, server, HERE))[0] for _ in range(13)]
        assert REJECTED not in answers[:12] and answers[12] == REJECTED
        assert len(found.dials) == 12
        await trio.sleep(5)
        assert (await ask_2(client, server, HERE))[0] != REJECTED


async def test_av9_no_more_at_once_than_there_are_dialers_for() -> None:
    async with net() as found:
        client, server = await two(found, limits=AutoNatLimits(at_once=1))
        other = await found.open("other", ip="20.1.0.1")
        await other.connect(server.addrs[0])
        async with await client.open_stream(server.local_peer, DIAL_REQUEST) as stream:
            await stream.send_all(b"\x10")  # the beginning of a request
            await trio.sleep(1)
            assert (await ask_2(other, server, "/ip4/20.1.0.1/tcp/4001"))[0] == REJECTED
        await trio.sleep(1)
        assert (await ask_2(other, server, "/ip4/20.1.0.1/tcp/4001"))[0] != REJECTED


async def test_av3_dial_errors() -> None:
    async with net() as found:
        firewall = Firewall()
        client = await found.open("client", ip=CLIENT, gater=firewall)
        server = await found.server(1)
        await client.connect(server.addrs[0])
        answer, _ = await ask_2(client, server, HERE)
        assert answer == DialResponse(status=ResponseStatus.OK, dial=DialStatus.E_DIAL_ERROR)
        firewall.shut = False  # but it does not serve dial back
        answer, _ = await ask_2(client, server, HERE)
        assert answer == DialResponse(status=ResponseStatus.OK, dial=DialStatus.E_DIAL_BACK_ERROR)
        with client.handle(DIAL_BACK, reset):
            answer, _ = await ask_2(client, server, HERE)
            assert answer == DialResponse(status=ResponseStatus.OK, dial=DialStatus.OK)
        client.handle(DIAL_BACK, sleep)
        answer, _ = await ask_2(client, server, HERE)
        assert answer == DialResponse(status=ResponseStatus.OK, dial=DialStatus.E_DIAL_BACK_ERROR)


async def reset(stream: Stream) -> None:
    """As rust: the answer and a reset, which may be quicker."""
    await take_any(stream)
    stream.reset()


async def sleep(stream: Stream) -> None:
    await trio.sleep_forever()


async def test_what_begins_with_something_else() -> None:
    async with net() as found:
        client, server = await two(found)
        async with await client.open_stream(server.local_peer, DIAL_REQUEST) as stream:
            await Messages(stream).send(encode(DialData(size=4)))
            with pytest.raises(StreamReset):
                await Messages(stream).receive()


async def test_a_server_on_a_private_network_dials_nobody() -> None:
    """It sees its clients at addresses that say nothing about the internet."""
    async with net() as found:
        served = AutoNatServer(found.dialer("192.168.0.9"))
        server = await found.open("server", served, ip="192.168.0.9")
        client = await found.open("client", AutoNat(), ip="192.168.0.1")
        await client.connect(server.addrs[0])
        assert (await ask_1(client, server, HERE)).status == Status1.E_DIAL_REFUSED
        assert (await ask_2(client, server, "/ip4/192.168.0.1/tcp/4001"))[0] == REFUSED
        assert found.dials == []
