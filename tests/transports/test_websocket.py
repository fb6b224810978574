"""WebSockets beyond the contract of transports: addresses, TLS, handshakes that fail, sends that are cancelled."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import libp2p
from libp2p.abc import DirectStream
from libp2p.addressing import parse, parts, with_sni
from libp2p.errors import TransportError
from libp2p.protocols.ping import ping
from libp2p.testing import Memory, MemoryNetwork
from libp2p.testing.certificates import tls_pair
from libp2p.testing.conformance.stream import receive_all, receive_exactly
from libp2p.transports.dns import DnsResolver
from libp2p.transports.websocket import (
    HANDSHAKE_TIMEOUT,
    WebSocket,
    WebSocketStream,
    insecure_client_tls,
)

TCP = parse("/ip4/10.0.0.1/tcp/80")
WS = parse("/ip4/10.0.0.1/tcp/80/ws")


class Net:
    """Two machines in memory."""

    def __init__(self, **link: Any) -> None:
        network = MemoryNetwork(1, **link)
        self.server = Memory(network, ip="10.0.0.1")
        self.client = Memory(network, ip="10.0.0.2")

    async def raw(self) -> tuple[DirectStream, DirectStream]:
        """Both ends of a connection on which nothing was said: who dialled first."""
        listener = await self.server.listen(TCP)
        ours = (await self.client.dial(TCP, peer=None)).stream
        theirs: Any = (await listener.accept()).stream
        await listener.aclose()
        assert isinstance(ours, DirectStream)
        return ours, theirs


def opened(raw: DirectStream, *, client: bool) -> WebSocketStream:
    """One end behind its handshake."""
    stream = WebSocketStream(raw, client=client)
    stream.begin(b"")
    return stream


@asynccontextmanager
async def streams(**link: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Both ends of a WebSocket behind its handshake."""
    ours, theirs = await Net(**link).raw()
    one, other = opened(ours, client=True), opened(theirs, client=False)
    with trio.fail_after(100):
        yield one, other
    await one.aclose()
    await other.aclose()


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/1.2.3.4/tcp/80/ws",
        "/ip6/::1/tcp/80/ws",
        "/ip6zone/eth0/ip6/fe80::1/tcp/80/ws",
        "/ip4/1.2.3.4/tcp/443/wss",
        "/ip4/1.2.3.4/tcp/443/tls/ws",
        "/ip4/1.2.3.4/tcp/443/tls/sni/example.com/ws",
    ],
)
def test_W1_addresses(text) -> None:
    """W1: every spelling."""
    assert WebSocket().can_dial(parse(text))
    assert WebSocket().can_listen(parse(text))
    assert WebSocket().can_dial(parse(text + "/http-path/p2p"))
    assert not WebSocket().can_listen(parse(text + "/http-path/p2p"))


@pytest.mark.parametrize(
    "text",
    [
        "/dns4/example.com/tcp/443/wss",
        "/ip4/1.2.3.4/tcp/443",
        "/ip4/1.2.3.4/udp/443/ws",
        "/ip4/1.2.3.4/tcp/443/tls",
        "/ip4/1.2.3.4/tcp/443/tls/sni/example.com",
        "/ip4/1.2.3.4/tcp/443/tls/sni/example.com/ws/ws",
        "/ip4/1.2.3.4",
        "/ws",
    ],
)
def test_W1_other_addresses(text) -> None:
    """W1: what is no WebSocket, or has a name still to be resolved."""
    assert not WebSocket().can_dial(parse(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dns4/example.com/tcp/443/wss", "/dns4/example.com/tcp/443/tls/sni/example.com/ws"),
        ("/dns/example.com/tcp/1/tls/ws/http-path/x", "/dns/example.com/tcp/1/tls/sni/example.com/ws/http-path/x"),
        ("/dns6/a.example/tcp/1/tls/sni/b.example/ws", None),
        ("/dns6/a.example/tcp/1/ws", None),
        ("/dns6/a.example/tcp/1/tls", None),
        ("/dns6/a.example/udp/1/quic-v1", None),
        ("/dnsaddr/a.example/tcp/1/wss", None),
        ("/ip4/1.2.3.4/tcp/443/wss", None),
        ("/dns6/a.example", None),
    ],
)
async def test_W4_the_name_survives_its_resolution(text, expected) -> None:
    """W4: the certificate must be for the name in the address, which becomes an IP address."""
    assert with_sni(parts(parse(text))) == parts(parse(expected or text))
    if expected:

        async def lookup(host: str, version: int) -> list[str]:
            return ["1.2.3.4"] if version == 4 else []

        (found,) = await DnsResolver(lookup_ip=lookup).resolve(parse(text))
        assert str(found) == "/ip4/1.2.3.4/" + expected.split("/", 3)[3]
    await trio.lowlevel.checkpoint()


# --- what is said -----------------------------------------------------------------------------------------------------


async def _served(net: Net, addr: str) -> bytes:
    """The request that dialling ``addr`` makes."""
    listener = await net.server.listen(TCP)
    request = b""

    async def serve() -> None:
        nonlocal request
        stream = (await listener.accept()).stream
        request = bytes(await stream.receive_some())
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(TransportError, match="ended in the handshake"):
            await WebSocket(below=net.client).dial(parse(addr), peer=None)
    await listener.aclose()
    return request


async def test_W5_path_and_host() -> None:
    """W5: ``http-path``, percent-encoded; the host as in a URL."""
    net = Net()
    request = await _served(net, "/ip4/10.0.0.1/tcp/80/ws")
    assert request.startswith(b"GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\n")
    request = await _served(net, "/ip4/10.0.0.1/tcp/80/ws/http-path/a%2Fb%20c%3Fd")
    assert request.startswith(b"GET /a/b%20c%3Fd HTTP/1.1\r\n")


async def test_W2_binary_frames() -> None:
    """W2, W6: binary, masked by the client, of moderate size."""
    ours, theirs = await Net().raw()
    stream = opened(ours, client=True)
    await stream.send_all(b"payload")
    wire = await receive_exactly(theirs, 13)
    assert wire[:2] == bytes((0x82, 0x80 | 7))
    assert wire[6:] != b"payload"
    await stream.send_all(bytes(100_000))
    assert (await receive_exactly(theirs, 4))[:4] == b"\x82\xfe\xff\xff"
    await stream.aclose()
    await theirs.aclose()


async def test_early_data() -> None:
    """What comes in one piece with the other side's handshake is read first, in any pieces."""
    async with streams() as (ours, theirs):
        theirs.begin(b"\x82\x85\0\0\0\0early")
        await theirs.wait_readable()
        await ours.send_all(b"later")
        assert await receive_exactly(theirs, 1) == b"e"
        assert await receive_exactly(theirs, 9) == b"arlylater"


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_cancelled_send_corrupts_nothing() -> None:
    """What is sent next fills the frame that was begun."""
    async with streams(buffer=1000) as (ours, theirs):
        sent = bytearray()

        async def send(data: bytes) -> None:
            view = memoryview(data)
            while view:
                try:
                    taken = ours.send_nowait(view)
                except trio.WouldBlock:
                    await ours.wait_writable()
                else:
                    sent.extend(view[:taken])
                    view = view[taken:]

        with trio.move_on_after(1) as scope:
            await send(b"a" * 5000)
        assert scope.cancelled_caught
        assert 0 < len(sent) < 5000
        got = bytearray()

        async def receive() -> None:
            while len(got) < len(sent) or len(sent) < 3000:
                got.extend(await theirs.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await send(b"b" * 3000)
        assert got == sent


async def test_pings_are_answered() -> None:
    """W6: while nobody sends, and between the frames of who does."""
    ours, theirs = await Net().raw()
    stream = opened(ours, client=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await theirs.send_all(b"\x89\x84\0\0\0\0ping")
        assert await receive_exactly(theirs, 6) == b"\x8a\x04ping"
        await stream.send_all(b"data")
        assert await receive_exactly(theirs, 6) == b"\x82\x04data"
        nursery.cancel_scope.cancel()
    await stream.aclose()
    await theirs.aclose()


async def test_closing_says_goodbye() -> None:
    """A close frame; the other side answers it, reads the end, and cannot send any more."""
    async with streams() as (ours, theirs):
        await ours.send_all(b"last words")
        await ours.aclose()
        assert await receive_all(theirs) == b"last words"
        assert await theirs.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError, match="closed"):
            await theirs.send_all(b"x")
        for use in (ours.receive_some(), ours.send_all(b"x"), ours.send_all(b"")):
            with pytest.raises(trio.ClosedResourceError):
                await use
        await ours.aclose()


async def test_an_end_without_a_goodbye() -> None:
    """Is an end between frames, and an error inside of one."""
    for part, ok in ((b"\x82\x04data", True), (b"\x82\x05data", False), (b"\x82", False)):
        ours, theirs = await Net().raw()
        stream = opened(ours, client=True)
        await theirs.send_all(part)
        await theirs.aclose()
        if ok:
            assert await receive_all(stream) == b"data"
        else:
            with pytest.raises(trio.BrokenResourceError, match="inside a frame"):
                await receive_all(stream)
        await stream.aclose()


async def test_W2_broken_rules_end_the_connection() -> None:
    """W2: a text frame is answered with a close frame, once, and nothing more is read."""
    ours, theirs = await Net().raw()
    stream = opened(ours, client=False)
    await theirs.send_all(b"\x81\x84\0\0\0\0text")
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="text"):
            await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    assert await receive_exactly(theirs, 4) == b"\x88\x02\x03\xea"
    await stream.aclose()
    assert await receive_all(theirs) == b""
    await theirs.aclose()


async def test_T7_a_flood_of_pings() -> None:
    """T7: ten thousand at once end the connection; one answer and a close frame is all they get."""
    ours, theirs = await Net().raw()
    stream = opened(ours, client=False)
    await theirs.send_all(b"\x89\x80\0\0\0\0" * 10_000)
    with pytest.raises(trio.BrokenResourceError, match="flood"):
        await stream.receive_some()
    await stream.aclose()
    assert await receive_all(theirs) == b"\x88\x02\x03\xea"
    await theirs.aclose()


@pytest.mark.parametrize(("pause", "ends"), [(0.1, True), (0.5, False)])
async def test_M5_frames_without_payload_and_without_end(pause, ends) -> None:
    """M5: four hundred in each read, ten times a second; twice a second is borne."""
    ours, theirs = await Net().raw()
    stream = opened(ours, client=False)

    async def flood() -> None:
        for _ in range(20):
            await theirs.send_all(b"\x89\x80\0\0\0\0" * 400)
            await trio.sleep(pause)
        await theirs.send_all(b"\x82\x81\0\0\0\0x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        if ends:
            with pytest.raises(trio.BrokenResourceError, match="flood"):
                await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError, match="flood"):
                await stream.receive_some()
        else:
            assert await stream.receive_some() == b"x"
        nursery.cancel_scope.cancel()
    await stream.aclose()
    await theirs.aclose()


async def test_a_close_that_cannot_get_out_takes_no_time() -> None:
    """Nobody waits for a peer that reads nothing."""
    ours, theirs = await Net(buffer=4).raw()
    await ours.send_all(b"full")
    stream, began = opened(ours, client=False), trio.current_time()
    await stream.aclose()
    assert trio.current_time() == began
    await theirs.aclose()


async def test_two_tasks_on_one_side() -> None:
    """Are told so."""
    async with streams(buffer=10) as (ours, _), trio.open_nursery() as nursery:
        nursery.start_soon(ours.receive_some)
        nursery.start_soon(ours.send_all, bytes(1000))
        await wait_all_tasks_blocked()
        for use in (ours.receive_some(), ours.send_all(b"x"), ours.wait_send_all_might_not_block()):
            with pytest.raises(trio.BusyResourceError):
                await use
        nursery.cancel_scope.cancel()


async def test_max_bytes() -> None:
    """Is a bound, and must be positive."""
    async with streams() as (ours, theirs):
        await ours.send_all(b"0123456789")
        got = b""
        while len(got) < 10:
            piece = await theirs.receive_some(3)
            assert len(piece) <= 3
            got += piece
        assert got == b"0123456789"
        with pytest.raises(ValueError, match="max_bytes"):
            await theirs.receive_some(0)


# --- handshakes -------------------------------------------------------------------------------------------------------


async def test_a_silent_server() -> None:
    """Is given up in time."""
    net = Net()
    listener = await net.server.listen(TCP)
    began = trio.current_time()
    with pytest.raises(TransportError, match="within 10 s") as caught:
        await WebSocket(below=net.client).dial(WS, peer=None)
    assert caught.value.addr == WS
    assert trio.current_time() - began == pytest.approx(HANDSHAKE_TIMEOUT)
    await listener.aclose()


async def test_a_client_that_asks_for_a_page() -> None:
    """Is told what this is."""
    net = Net()
    listener = await WebSocket(below=net.server).listen(WS)
    client = (await net.client.dial(TCP, peer=None)).stream
    await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    accepted = await listener.accept()
    assert accepted.prepare is not None
    with pytest.raises(TransportError, match="no upgrade"):
        await accepted.prepare()
    await accepted.stream.aclose()
    assert (await receive_all(client)).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    await client.aclose()
    await listener.aclose()


# --- TLS --------------------------------------------------------------------------------------------------------------


async def _dial_tls(server: ssl.SSLContext, client: ssl.SSLContext, addr: str) -> None:
    """Listen with one context and dial ``addr``, its port put in, with the other; talk both ways."""
    listener = await WebSocket(server_tls=server).listen(parse("/ip4/127.0.0.1/tcp/0/wss"))
    port = str(listener.addresses[0]).split("/")[4]
    failed: list[Exception] = []

    async def serve() -> None:
        accepted = await listener.accept()
        assert accepted.prepare is not None
        try:
            await accepted.prepare()
            await accepted.stream.send_all(await receive_exactly(accepted.stream, 5))
        except TransportError as exc:
            failed.append(exc)
        await accepted.stream.aclose()

    dialled: list[Exception] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            try:
                conn = await WebSocket(client_tls=client).dial(parse(addr.replace("PORT", port)), peer=None)
            except TransportError as exc:
                dialled.append(exc)
            else:
                await conn.stream.send_all(b"hello")
                assert await receive_all(conn.stream) == b"hello"
                await conn.stream.aclose()
        await listener.aclose()
    assert bool(failed) == bool(dialled)
    if dialled:
        raise dialled[0]


@pytest.mark.sockets
async def test_W4_certificates_are_verified() -> None:
    """W4: for the name in ``/sni``, or for the IP address when there is none."""
    server, client = tls_pair("example.com", "127.0.0.1")
    await _dial_tls(server, client, "/ip4/127.0.0.1/tcp/PORT/tls/sni/example.com/ws")
    await _dial_tls(server, client, "/ip4/127.0.0.1/tcp/PORT/wss")


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("names", "days", "trusted", "match"),
    [
        (("other.example", "127.0.0.1"), 1, True, "certificate.*Hostname mismatch"),
        (("example.com",), -1, True, "certificate.*expired"),
        (("example.com",), 1, False, "certificate.*local issuer"),
    ],
)
async def test_W4_bad_certificates_are_refused(names, days, trusted, match) -> None:
    """W4: another name, one that has expired, one that nobody trusts."""
    server, client = tls_pair(*names, days=days)
    if not trusted:
        client = ssl.create_default_context()
    with pytest.raises(TransportError, match=match):
        await _dial_tls(server, client, "/ip4/127.0.0.1/tcp/PORT/tls/sni/example.com/ws")


@pytest.mark.sockets
async def test_W4_the_default_is_to_verify() -> None:
    """W4: with the authorities of the system, who do not know ours."""
    server, _ = tls_pair("127.0.0.1")
    listener = await WebSocket(server_tls=server).listen(parse("/ip4/127.0.0.1/tcp/0/wss"))

    async def serve() -> None:
        accepted = await listener.accept()
        assert accepted.prepare is not None
        with pytest.raises(TransportError, match="TLS"):
            await accepted.prepare()
        await accepted.stream.aclose()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with pytest.raises(TransportError, match="certificate"):
                await WebSocket().dial(listener.addresses[0], peer=None)
        await listener.aclose()


@pytest.mark.sockets
async def test_W4_verification_can_be_left_out() -> None:
    """W4: when asked for."""
    server, _ = tls_pair("other.example", days=-1)
    await _dial_tls(server, insecure_client_tls(), "/ip4/127.0.0.1/tcp/PORT/tls/sni/example.com/ws")


@pytest.mark.parametrize("name", ["a..b", ".a", "x" * 64, "\N{LATIN SMALL LETTER A WITH DIAERESIS}" * 60])
async def test_W4_names_that_are_none(name) -> None:
    """W4: whoever tells of such an address costs us an attempt."""
    with pytest.raises(TransportError, match="no server is called"):
        await WebSocket(below=Net().client).dial(parse(f"/ip4/10.0.0.1/tcp/80/tls/sni/{name}/ws"), peer=None)


@pytest.mark.sockets
async def test_W4_names_beyond_ascii() -> None:
    """W4: TLS and HTTP are told what stands in the certificate."""
    server, client = tls_pair("xn--mnchen-3ya.example")
    await _dial_tls(
        server, client, "/ip4/127.0.0.1/tcp/PORT/tls/sni/m\N{LATIN SMALL LETTER U WITH DIAERESIS}nchen.example/ws"
    )


@pytest.mark.sockets
async def test_plain_text_to_a_secure_listener() -> None:
    """The dialer is told that nobody answered; the listener knows why."""
    server, _ = tls_pair("127.0.0.1")
    with pytest.raises(TransportError, match="handshake"):
        await _dial_tls(server, insecure_client_tls(), "/ip4/127.0.0.1/tcp/PORT/ws")


async def test_listening_with_tls_needs_a_certificate() -> None:
    """And says so."""
    with pytest.raises(TransportError, match="certificate"):
        await WebSocket().listen(parse("/ip4/127.0.0.1/tcp/0/wss"))


# --- hosts ------------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
@pytest.mark.parametrize("suffix", ["ws", "tls/ws"])
async def test_W3_hosts(suffix) -> None:
    """W3: Noise and yamux run inside, also over TLS; a default host understands ``/ws``."""
    server, client = tls_pair("127.0.0.1")
    transports = [WebSocket(server_tls=server, client_tls=client)] if suffix != "ws" else None
    with trio.fail_after(10):
        async with (
            libp2p.open_host(listen=[f"/ip4/127.0.0.1/tcp/0/{suffix}"], transports=transports) as one,
            libp2p.open_host(transports=transports) as other,
        ):
            connection: Any = await other.connect(one.addrs[0])
            assert (connection.security, connection.muxer) == ("/noise", "/yamux/1.0.0")
            assert str(connection.remote_addr).endswith(suffix)
            await ping(other, one.local_peer)
            await ping(one, other.local_peer)
