"""Finding out what can be reached: requirements AN5, AV7, I10, cases I3 and R6."""

from __future__ import annotations

import pytest
import trio

from libp2p.abc import Stream
from libp2p.addressing import parse, split_peer
from libp2p.errors import RemoteProtocolError, StreamReset
from libp2p.events import Reachability, ReachabilityChanged
from libp2p.host import RunningHost
from libp2p.protocols.autonat import (
    AUTONAT,
    DIAL_BACK,
    DIAL_REQUEST,
    AutoNat,
    AutoNatConfig,
    AutoNatRefused,
    AutoNatServer,
    ReachabilityConfig,
    ScheduleConfig,
    Voice,
)
from libp2p.protocols.autonat._client import MAX_DATA
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
    decode_dial,
    encode,
    encode_dial_back,
    encode_result,
)
from libp2p.protocols.autonat._exchange import Messages
from libp2p.wire.framing import frame

from .nodes import CLIENT, Firewall, Net, net, server_ip

LISTENS = parse(f"/ip4/{CLIENT}/tcp/4001")


def announced(host: RunningHost) -> list[str]:
    return [str(split_peer(addr)[0]) for addr in host.addrs]


# --- version 2, with real servers


async def test_av7_two_neighbourhoods_prove_it() -> None:
    """One server is not enough, two of one neighbourhood are not, two of two are."""
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip=CLIENT)
        with client.subscribe(ReachabilityChanged) as events:
            await client.connect((await found.server(1)).addrs[0])
            first = await events.receive()
            assert first.reachability is Reachability.UNKNOWN and first.addrs == {LISTENS: Reachability.UNKNOWN}
            await trio.sleep(300)
            assert autonat.reachability is Reachability.UNKNOWN and autonat.confidence == 0
            await client.connect((await found.server(2)).addrs[0])
            second = await events.receive()
        assert second == ReachabilityChanged(Reachability.PUBLIC, {LISTENS: Reachability.PUBLIC})
        assert autonat.reachability is Reachability.PUBLIC and autonat.confidence == 2
        assert announced(client) == [str(LISTENS)]
        assert set(found.dials) == {str(LISTENS)}


async def test_an5_more_than_three_failures_make_it_private() -> None:
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip=CLIENT, gater=Firewall())
        for number in range(3):
            await client.connect((await found.server(number)).addrs[0])
        await trio.sleep(1000)
        assert autonat.reachability is Reachability.UNKNOWN and announced(client)
        await client.connect((await found.server(3)).addrs[0])
        await trio.sleep(100)
        assert autonat.reachability is Reachability.PRIVATE and autonat.confidence == 4
        assert autonat.addrs == {LISTENS: Reachability.PRIVATE} and announced(client) == []


async def test_a_firewall_that_opens() -> None:
    """What was private becomes public when dials get through, and is announced again."""
    async with net() as found:
        autonat, firewall = AutoNat(), Firewall()
        client = await found.open("client", autonat, ip=CLIENT, gater=firewall)
        for number in range(5):
            await client.connect((await found.server(number)).addrs[0])
        await trio.sleep(600)
        assert announced(client) == []
        firewall.shut = False
        # One server tries it again every quarter of an hour.
        await trio.sleep(3000)
        assert autonat.reachability is Reachability.PUBLIC
        assert announced(client) == [str(LISTENS)]


async def test_nobody_is_asked_about_private_addresses_or_at_them() -> None:
    """AV6: neither is a private address sent, nor a peer asked that is seen at one."""
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip="192.168.0.1")
        await client.connect((await found.server(1)).addrs[0])
        await trio.sleep(1000)
        assert found.dials == [] and autonat.addrs == {}

        other = await found.open("other", AutoNat(), ip=CLIENT)
        served = AutoNatServer(found.dialer("192.168.0.9"), allow_private=True)
        near = await found.open("near", served, ip="192.168.0.9")
        await other.connect(near.addrs[0])
        await trio.sleep(1000)
        assert found.dials == []


async def test_in_a_laboratory_private_addresses_are_tried() -> None:
    config = AutoNatConfig(allow_private=True, reachability=ReachabilityConfig(proofs=1))
    async with net() as found:
        autonat = AutoNat(config)
        client = await found.open("client", autonat, ip="192.168.0.1")
        served = AutoNatServer(found.dialer("192.168.0.9"), allow_private=True)
        server = await found.open("server", served, ip="192.168.0.9")
        with client.subscribe(ReachabilityChanged) as events:
            await client.connect(server.addrs[0])
            while (await events.receive()).reachability is not Reachability.PUBLIC:
                pass
        assert autonat.confidence == 1


async def test_check_by_hand() -> None:
    async with net() as found:
        autonat, firewall = AutoNat(), Firewall()
        client = await found.open("client", autonat, ip=CLIENT, gater=firewall)
        server = await found.server(1)
        await client.connect(server.addrs[0])
        tried = await autonat.check(client, server.local_peer, LISTENS)
        assert tried is not None and (tried.addr, tried.voice) == (LISTENS, Voice.DENIAL)
        firewall.shut = False
        tried = await autonat.check(client, server.local_peer, LISTENS)
        assert tried is not None and tried.voice is Voice.PROOF
        with pytest.raises(AutoNatRefused, match="answered 101"):
            await autonat.check(client, server.local_peer, parse("/ip4/10.0.0.1/tcp/1"))


# --- version 2, with servers that lie


Script = list[Message | float | int]


class Liar:
    """A server of version 2 that says what it was told to say."""

    def __init__(self, found: Net, number: int, *, status: DialStatus, steps: list[Message] | None = None) -> None:
        self.found, self.number = found, number
        self.status = status
        self.steps = steps or []
        self.requests: list[DialRequest] = []
        self.paid = 0

    async def open(self) -> RunningHost:
        host = await self.found.open(f"liar-{self.number}", ip=server_ip(self.number))
        host.handle(DIAL_REQUEST, self._serve)
        return host

    async def _serve(self, stream: Stream) -> None:
        messages = Messages(stream)
        request = decode(await messages.receive())
        assert isinstance(request, DialRequest)
        self.requests.append(request)
        for step in self.steps:
            await messages.send(encode(step))
            if isinstance(step, DialDataRequest):
                while self.paid < step.size:
                    data = decode(await messages.receive())
                    assert isinstance(data, DialData)
                    self.paid += data.size
        await messages.send(encode(DialResponse(status=ResponseStatus.OK, dial=self.status)))


async def test_r6_a_success_without_the_nonce_is_worth_nothing() -> None:
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip=CLIENT, gater=Firewall())
        for number in range(9):
            await client.connect((await Liar(found, number, status=DialStatus.OK).open()).addrs[0])
        await trio.sleep(2000)
        assert autonat.reachability is Reachability.UNKNOWN


async def test_r6_nine_of_ten_deny() -> None:
    """Whom we can prove wrong does not count: two honest ones are enough, whoever else says what."""
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip=CLIENT)
        flips: list[Reachability] = []
        with client.subscribe(ReachabilityChanged) as events:
            for number in range(18):
                await client.connect((await Liar(found, number, status=DialStatus.E_DIAL_ERROR).open()).addrs[0])
            for number in (20, 21):
                await client.connect((await found.server(number)).addrs[0])
            with trio.move_on_after(10_000):
                while True:
                    flips.append((await events.receive()).reachability)
        assert autonat.reachability is Reachability.PUBLIC
        assert flips == [Reachability.UNKNOWN, Reachability.PRIVATE, Reachability.UNKNOWN, Reachability.PUBLIC]


async def test_r6_a_guessed_nonce() -> None:
    """A dial back that nobody asked for is reset, and proves nothing of what is asked at the same time."""
    async with net() as found:
        client = await found.open("client", AutoNat(), ip=CLIENT)
        stranger = await found.open("stranger", ip="40.0.0.1")
        await stranger.connect(client.addrs[0])
        with pytest.raises(StreamReset):
            await dial_back(stranger, client, 4711)


async def dial_back(host: RunningHost, client: RunningHost, nonce: int) -> bytes:
    async with await host.open_stream(client.local_peer, DIAL_BACK) as stream:
        messages = Messages(stream)
        await messages.send(encode_dial_back(nonce))
        return await messages.receive()


@pytest.mark.parametrize(
    ("ip", "off_by", "proof"),
    [
        pytest.param("40.0.0.1", 0, True, id="anybody's identity will do"),
        pytest.param("40.0.0.1", 1, False, id="the wrong nonce"),
        pytest.param("192.168.0.7", 0, False, id="from inside"),
    ],
)
async def test_av7_what_a_dial_back_is_worth(ip: str, off_by: int, proof: bool) -> None:
    async with net() as found:
        autonat = AutoNat(AutoNatConfig(reachability=ReachabilityConfig(proofs=1)))
        client = await found.open("client", autonat, ip=CLIENT)
        helper = await found.open("helper", ip=ip)
        await helper.connect(client.addrs[0])
        assert await is_convinced(found, client, autonat, helper, off_by) is proof


async def test_av7_over_a_connection_of_our_own_it_is_worth_nothing() -> None:
    async with net() as found:
        autonat = AutoNat(AutoNatConfig(reachability=ReachabilityConfig(proofs=1)))
        client = await found.open("client", autonat, ip=CLIENT)
        helper = await found.open("helper", ip="40.0.0.1")
        await client.connect(helper.addrs[0])
        assert not await is_convinced(found, client, autonat, helper, 0)


async def is_convinced(found: Net, client: RunningHost, autonat: AutoNat, helper: RunningHost, off_by: int) -> bool:
    """Whether a server is believed that says OK, when ``helper`` dials back with about the right nonce."""
    liar = Liar(found, 1, status=DialStatus.OK)
    await client.connect((await liar.open()).addrs[0])
    while not liar.requests:
        await trio.sleep(0.1)
    try:
        assert await dial_back(helper, client, liar.requests[0].nonce ^ off_by) == DIAL_BACK_OK
    except StreamReset:
        pass
    await trio.sleep(10)
    return autonat.reachability is Reachability.PUBLIC


async def test_av5_dial_data_is_paid_exactly() -> None:
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip=CLIENT)
        liar = Liar(found, 1, status=DialStatus.E_DIAL_ERROR, steps=[DialDataRequest(index=0, size=30_001)])
        server = await liar.open()
        await client.connect(server.addrs[0])
        tried = await autonat.check(client, server.local_peer, LISTENS)
        assert tried is not None and tried.voice is Voice.DENIAL
        assert liar.paid == 30_001


@pytest.mark.parametrize(
    "step",
    [
        DialDataRequest(index=0, size=MAX_DATA + 1),
        DialDataRequest(index=1, size=30_000),
        DialRequest(addrs=(), nonce=1),
        DialResponse(status=ResponseStatus.OK, index=1, dial=DialStatus.OK),
    ],
)
async def test_servers_that_break_the_rules(step: Message) -> None:
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip=CLIENT)
        server = await Liar(found, 1, status=DialStatus.OK, steps=[step]).open()
        await client.connect(server.addrs[0])
        with pytest.raises(RemoteProtocolError):
            await autonat.check(client, server.local_peer, LISTENS)
        assert "failure" in str(list(client.measure())) or isinstance(step, DialResponse)


@pytest.mark.parametrize("status", [DialStatus.UNUSED, DialStatus.E_DIAL_BACK_ERROR, DialStatus.OK, 999])
async def test_answers_that_mean_nothing(status: DialStatus) -> None:
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip=CLIENT)
        server = await Liar(found, 1, status=status).open()
        await client.connect(server.addrs[0])
        assert await autonat.check(client, server.local_peer, LISTENS) is None


@pytest.mark.parametrize("protocol", [DIAL_BACK, DIAL_REQUEST, AUTONAT])
async def test_garbage_costs_the_stream(protocol: str) -> None:
    async with net() as found:
        autonat = AutoNat()
        host = await found.open("host", autonat, AutoNatServer(found.dialer(CLIENT)), ip=CLIENT)
        stranger = await found.open("stranger", ip="40.0.0.1")
        for data in (b"\xff" * 20, frame(b"\xff"), frame(bytes(9000))[:100], b""):
            async with await stranger.open_stream(host.addrs[0], protocol) as stream:
                await stream.send_all(data)
                await stream.send_eof()
                try:
                    assert protocol == AUTONAT or not await stream.receive_some()
                except StreamReset:
                    pass
        assert len(stranger.connections(host.local_peer)) == 1


# --- version 1


class Server1:
    """A server of version 1 that says what it was told to say."""

    def __init__(self, found: Net, number: int, result: DialResult) -> None:
        self.found, self.number, self.result = found, number, result
        self.requests: list[Dial] = []

    async def open(self, *, also_2: bool = False) -> RunningHost:
        host = await self.found.open(f"one-{self.number}", ip=server_ip(self.number))
        host.handle(AUTONAT, self._serve)
        if also_2:
            host.handle(DIAL_REQUEST, self._serve)  # that would fail
        return host

    async def _serve(self, stream: Stream) -> None:
        messages = Messages(stream)
        self.requests.append(decode_dial(await messages.receive()))
        await messages.send(encode_result(self.result))


OK_1 = DialResult(status=Status1.OK, addr=LISTENS)
FAILED_1 = DialResult(status=Status1.E_DIAL_ERROR)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([OK_1] * 3, Reachability.UNKNOWN),
        ([OK_1] * 4, Reachability.PUBLIC),
        ([FAILED_1] * 3, Reachability.UNKNOWN),
        ([FAILED_1] * 4, Reachability.PRIVATE),
        ([OK_1] * 4 + [FAILED_1] * 4, None),
        ([DialResult(status=Status1.OK, addr=parse("/ip4/9.9.9.9/tcp/9"))] * 4, Reachability.UNKNOWN),
        ([DialResult(status=Status1.E_DIAL_REFUSED)] * 9, Reachability.UNKNOWN),
        ([DialResult(status=12345)] * 9, Reachability.UNKNOWN),
    ],
)
async def test_an5_version_1(answers: list[DialResult], expected: Reachability | None) -> None:
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip=CLIENT)
        servers = [Server1(found, number, answer) for number, answer in enumerate(answers)]
        for server in servers:
            await client.connect((await server.open()).addrs[0])
        await trio.sleep(200)
        assert expected in (None, autonat.reachability)
        assert servers[0].requests[0] == Dial(peer=client.local_peer, addrs=(LISTENS,))


@pytest.mark.parametrize("also_2", [False, True])
@pytest.mark.parametrize(
    ("result", "expected"),
    [(FAILED_1, Reachability.PRIVATE), (DialResult(status=Status1.OK), Reachability.PUBLIC)],
)
async def test_version_1_knows_where_we_are_when_we_do_not(
    result: DialResult, expected: Reachability, also_2: bool
) -> None:
    """Behind a NAT, without an observed address, our ports are all we can tell, and version 2 is of no use."""
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip="192.168.0.1")
        servers = [Server1(found, number, result) for number in range(4)]
        for server in servers:
            await client.connect((await server.open(also_2=also_2)).addrs[0])
        await trio.sleep(200)
        assert autonat.reachability is expected and autonat.addrs == {}
        assert servers[0].requests[0].addrs == (parse("/ip4/192.168.0.1/tcp/4001"),)


async def test_a_server_that_fails_is_left_alone_for_a_while() -> None:
    async with net() as found:
        autonat = AutoNat(AutoNatConfig(schedule=ScheduleConfig(refused_pause=100)))
        client = await found.open("client", autonat, ip=CLIENT)
        server = Server1(found, 1, DialResult(status=Status1.E_INTERNAL_ERROR))
        await client.connect((await server.open()).addrs[0])
        await trio.sleep(50)
        assert len(server.requests) == 1
        await trio.sleep(200)
        assert len(server.requests) == 3


async def test_what_is_counted() -> None:
    async with net() as found:
        autonat = AutoNat()
        client = await found.open("client", autonat, ip=CLIENT)
        servers = [await found.server(number) for number in range(2)]
        for server in servers:
            await client.connect(server.addrs[0])
        await trio.sleep(30)
        metrics = {metric.name: metric.values for metric in client.measure()}
        assert metrics["libp2p_autonat_reachability_status"] == {(): 1}
        assert metrics["libp2p_autonat_reachability_status_confidence"] == {(): 2}
        assert metrics["libp2p_autonatv2_client_requests_total"] == {("success",): 2}
        labels = ("ip4", "tcp", "1", "false", "public")
        assert metrics["libp2p_autonatv2_client_requests_completed_total"] == {labels: 2}
        assert metrics["libp2p_host_addrs_reachable"] == {("ip4", "tcp"): 1}
        served = {metric.name: metric.values for metric in servers[0].measure()}
        labels = ("OK", "OK", "false", "ip4", "tcp")
        assert served["libp2p_autonatv2_requests_completed_total"] == {labels: 1}
