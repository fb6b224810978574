"""``libp2p.protocols.request_response``."""

from __future__ import annotations

import pytest
import trio

from libp2p.abc import Host, Stream
from libp2p.errors import DialError, NegotiationError, RemoteProtocolError, ServiceError, StreamReset
from libp2p.peer_id import PeerId
from libp2p.protocols.request_response import RequestResponse, RequestTimeout, RequestTooLarge
from libp2p.testing import memory_network
from libp2p.wire.framing import frame

PROTOCOL = "/upper/1"


async def upper(peer: PeerId, request: bytes) -> bytes:
    return request.upper()


class Hosts:
    """A host that asks, one that serves, and what the asking is done with."""

    def __init__(self, handler=upper, **options) -> None:
        self.service = RequestResponse(PROTOCOL, handler, **options)
        self.client = RequestResponse(PROTOCOL, **{k: v for k, v in options.items() if k == "timeout"})
        self._network = memory_network(2)

    async def __aenter__(self) -> tuple[Host, Host, RequestResponse]:
        a, b = await self._network.__aenter__()
        for protocol, handler in self.service.handlers.items():
            b.handle(protocol, handler)
        await a.connect(b.addrs[0])
        return a, b, self.client

    async def __aexit__(self, *exc_info) -> None:
        await self._network.__aexit__(*exc_info)


async def test_as_a_service_of_a_host() -> None:
    async with memory_network(2, services=[lambda: RequestResponse(PROTOCOL, upper)]) as (a, b):
        client = RequestResponse(PROTOCOL)
        assert client.handlers == {}
        assert await client.request(a, b.addrs[0], b"one") == b"ONE"
        assert await client.request(b, a.local_peer, b"two") == b"TWO"


@pytest.mark.parametrize("size", [0, 1, 127, 128, 100_000, 1024 * 1024])
async def test_sizes(size: int) -> None:
    async with Hosts() as (a, b, client):
        assert await client.request(a, b.local_peer, b"x" * size) == b"X" * size


async def test_the_handler_knows_who_asks() -> None:
    async def who(peer: PeerId, request: bytes) -> bytes:
        return bytes(peer)

    async with Hosts(who) as (a, b, client):
        assert await client.request(a, b.local_peer, b"") == bytes(a.local_peer)


async def test_on_the_wire() -> None:
    async with Hosts() as (a, b, _), await a.open_stream(b.local_peer, PROTOCOL) as stream:
        for byte in frame(b"in pieces"):
            await stream.send_all(bytes((byte,)))
        assert b"".join([chunk async for chunk in stream]) == frame(b"IN PIECES")  # without a half-close


@pytest.mark.parametrize(
    "sent", [frame(b"one") + frame(b"two"), frame(b"one") + b"\x03tw", b"\x05abc", b"", b"\xff" * 10, b"\x81\x80\x40"]
)
async def test_requests_that_break_the_rules(sent: bytes) -> None:
    async with Hosts() as (a, b, client):
        async with await a.open_stream(b.local_peer, PROTOCOL) as stream:
            await stream.send_all(sent)
            await stream.send_eof()
            with pytest.raises((StreamReset, NegotiationError)):
                while await stream.receive_some():
                    pass
        assert await client.request(a, b.local_peer, b"x") == b"X"


async def test_requests_have_a_limit() -> None:
    async with Hosts(max_request=10) as (a, b, client):
        assert await client.request(a, b.local_peer, b"x" * 10) == b"X" * 10
        with pytest.raises((StreamReset, NegotiationError)):
            await client.request(a, b.local_peer, b"x" * 11)
        with pytest.raises(RequestTooLarge, match="11 bytes is above the limit of 10") as caught:
            await RequestResponse(PROTOCOL, max_request=10).request(a, b.local_peer, b"x" * 11)
        assert (caught.value.size, caught.value.limit) == (11, 10)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "before its response was complete"),
        (b"\x05abc", "before its response was complete"),
        (frame(b"one") + b"x", "more than one response"),
        (b"\x81\x80\x80\x02", "above the limit"),
    ],
)
async def test_responses_that_break_the_rules(answer: bytes, reason: str) -> None:
    async def script(stream: Stream) -> None:
        assert [chunk async for chunk in stream]
        await stream.send_all(answer)

    async with memory_network(2, connect="full") as (a, b):
        with b.handle(PROTOCOL, script), pytest.raises(RemoteProtocolError, match=reason):
            await RequestResponse(PROTOCOL).request(a, b.local_peer, b"?")


async def test_a_handler_that_takes_its_time() -> None:
    async def slow(peer: PeerId, request: bytes) -> bytes:
        await trio.sleep(25)
        return request

    async with Hosts(slow) as (a, b, client):
        started = trio.current_time()
        with pytest.raises(RequestTimeout, match=f"no response from {b.local_peer} within 10 s") as caught:
            await client.request(a, b.local_peer, b"x")
        assert trio.current_time() - started == pytest.approx(10, abs=0.1)
        assert isinstance(caught.value, trio.TooSlowError)
        assert isinstance(caught.value, ServiceError)
        assert await RequestResponse(PROTOCOL, timeout=30).request(a, b.local_peer, b"x") == b"x"


async def test_a_peer_that_takes_its_time() -> None:
    async with Hosts(timeout=3.0) as (a, b, _), await a.open_stream(b.local_peer, PROTOCOL) as stream:
        started = trio.current_time()
        await stream.send_all(b"\x05")
        with pytest.raises((StreamReset, NegotiationError)):
            await stream.receive_some()
        assert trio.current_time() - started == pytest.approx(3, abs=0.1)


async def test_a_handler_that_fails(expected_bugs: list[BaseException]) -> None:
    async def fails(peer: PeerId, request: bytes) -> bytes:
        if request == b"too much":
            return bytes(100)
        raise ZeroDivisionError

    async with Hosts(fails, max_response=99) as (a, b, client):
        b.containment._strict = False  # type: ignore[attr-defined]
        for request in (b"x", b"too much"):
            with pytest.raises((StreamReset, NegotiationError)):
                await client.request(a, b.local_peer, request)
        assert [type(bug) for bug in expected_bugs] == [ZeroDivisionError, ValueError]


async def test_nobody_there() -> None:
    async with memory_network(2) as (a, b):
        client = RequestResponse(PROTOCOL)
        with pytest.raises(DialError):
            await client.request(a, b.local_peer, b"")
        with pytest.raises(NegotiationError):
            await client.request(a, b.addrs[0], b"")


def test_options() -> None:
    assert RequestResponse(PROTOCOL, upper).limited_protocols == frozenset()
    assert RequestResponse(PROTOCOL, upper, allow_limited=True).limited_protocols == {PROTOCOL}
    for wrong in ({"max_request": -1}, {"max_response": -1}, {"timeout": 0}):
        with pytest.raises(ValueError, match="negative"):
            RequestResponse(PROTOCOL, **wrong)  # type: ignore[arg-type]
