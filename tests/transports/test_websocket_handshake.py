"""The HTTP of WebSockets: what is asked, what is answered, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from libp2p.errors import RemoteProtocolError
from libp2p.transports.websocket._handshake import answer, check_answer, request

NONCE = b"the sample nonce"
# RFC 6455, section 1.3
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def http(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode()


HEADERS = {
    "Host": "example.com:80",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Origin": "https://elsewhere.example",
    "Sec-WebSocket-Extensions": "permessage-deflate",
}


def asked(line: str = "GET /any/path?and=query HTTP/1.1", **changed: str | None) -> bytes:
    headers = {**HEADERS, **{name.replace("_", "-"): value for name, value in changed.items()}}
    return http(line, *(f"{name}: {value}" for name, value in headers.items() if value is not None))


def answered(line: str = "HTTP/1.1 101 Switching Protocols", **changed: str | None) -> bytes:
    headers = {"upgrade": "WebSocket", "connection": "upgrade", "sec-websocket-accept": ACCEPT}
    headers |= {name.replace("_", "-"): value or "" for name, value in changed.items()}
    return http(line, *(f"{name}:{value}" for name, value in headers.items()))


def test_the_example_of_the_specification() -> None:
    """W6: any origin; extensions are not agreed on, paths do not matter."""
    assert answer(asked()) == http(
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {ACCEPT}",
    )
    check_answer(answered(), NONCE)
    check_answer(answered("HTTP/1.1 101"), NONCE)


def test_we_and_we() -> None:
    check_answer(answer(request("[::1]:4001", "/p2p", NONCE)), NONCE)


def test_wsproto_accepts_us_and_we_it() -> None:
    """Another implementation on either side."""
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(request("example.com:443", "/p2p", NONCE))
    (event,) = server.events()
    assert isinstance(event, Request)
    assert (event.host, event.target) == ("example.com:443", "/p2p")
    check_answer(server.send(AcceptConnection()), NONCE)
    client = WSConnection(ConnectionType.CLIENT)
    client.receive_data(answer(client.send(Request(host="example.com", target="/"))))
    assert [type(event).__name__ for event in client.events()] == ["AcceptConnection"]


@pytest.mark.parametrize(
    "head",
    [
        asked("POST / HTTP/1.1"),
        asked("GET / HTTP/1.0"),
        asked("GET /a b HTTP/1.1"),
        asked(Upgrade=None),
        asked(Upgrade="h2c"),
        asked(Connection="close"),
        asked(Host=None),
        asked(Content_Length="2147483648"),
        asked(Transfer_Encoding="chunked"),
        asked(Sec_WebSocket_Version="8"),
        asked(Sec_WebSocket_Key=None),
        asked(Sec_WebSocket_Key="short"),
        asked(Sec_WebSocket_Key="c2hvcnQ="),
        asked(Sec_WebSocket_Key="\x80" + KEY),
        asked(Sec_WebSocket_Key=f"{KEY}, {KEY}"),
        http("GET / HTTP/1.1", "Host: x", " folded: y"),
        http("GET / HTTP/1.1", "no colon"),
        http("GET / HTTP/1.1", "na me: x"),
        b"\r\n\r\n",
    ],
)
def test_requests_that_are_refused(head) -> None:
    with pytest.raises(RemoteProtocolError):
        answer(head)


def test_a_header_that_comes_twice() -> None:
    """Counts as one with both values."""
    head = asked(Connection="keep-alive").removesuffix(b"\r\n") + b"connection: upgrade\r\n\r\n"
    assert answer(head)


@pytest.mark.parametrize(
    "head",
    [
        answered("HTTP/1.1 200 OK"),
        answered("HTTP/1.0 101 Switching Protocols"),
        answered("SSH-2.0-OpenSSH"),
        answered(upgrade=None),
        answered(connection="close"),
        answered(sec_websocket_accept=None),
        answered(sec_websocket_accept=ACCEPT[::-1]),
        answered(sec_websocket_extensions="permessage-deflate"),
        answered(sec_websocket_protocol="chat"),
    ],
)
def test_answers_that_are_refused(head) -> None:
    with pytest.raises(RemoteProtocolError):
        check_answer(head, NONCE)


@given(st.one_of(st.binary(), st.text("GET/HTP1. :\r\nab", max_size=60).map(str.encode)))
def test_garbage(data) -> None:
    """Is refused, and nothing else happens."""
    with pytest.raises(RemoteProtocolError):
        answer(data + b"\r\n\r\n")
    with pytest.raises(RemoteProtocolError):
        check_answer(data + b"\r\n\r\n", NONCE)
