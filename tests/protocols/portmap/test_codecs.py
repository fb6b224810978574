"""The messages of PCP, NAT-PMP and UPnP: written out byte by byte from their documents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.protocols.portmap import (
    Lease,
    NoGateway,
    Port,
    PortMapConfig,
    RouterRefused,
    RouterSilent,
    Transport,
    _natpmp,
    _pcp,
    _upnp,
    _xml,
)
from libp2p.protocols.portmap._http import MAX_BODY, MAX_HEAD, Response, ResponseReader, parse_head
from libp2p.protocols.portmap._machine import Mappings

TCP, UDP = Port(Transport.TCP, 4001), Port(Transport.UDP, 4001)
NONCE = bytes(range(12))
MAPPED = bytes(10) + b"\xff\xff"


# --- PCP --------------------------------------------------------------------------------------------------------------


def test_pcp_requests() -> None:
    data = _pcp.encode_map("192.168.1.7", TCP, nonce=NONCE, external_ip="0.0.0.0", external_port=4001, lifetime=3600)
    assert data == (
        b"\x02\x01\0\0\0\0\x0e\x10" + MAPPED + b"\xc0\xa8\x01\x07"
        + NONCE + b"\x06\0\0\0\x0f\xa1\x0f\xa1" + MAPPED + bytes(4)
    )  # fmt: skip
    assert _pcp.encode_announce("192.168.1.7") == b"\x02\0\0\0\0\0\0\0" + MAPPED + b"\xc0\xa8\x01\x07"


HEAD = b"\x02\x81\0\0\0\0\x0e\x10\0\0\0\x2a" + bytes(12)
BODY = NONCE + b"\x06\0\0\0\x0f\xa1\x0f\xa2" + MAPPED + b"\x5d\xb8\xd8\x22"


def test_pcp_responses() -> None:
    response = _pcp.decode_response(HEAD + BODY)
    assert (response.opcode, response.result, response.lifetime, response.epoch) == (1, 0, 3600, 42)
    assert response.mapping == _pcp.PcpMapping(NONCE, 6, 4001, 4002, "93.184.216.34")
    announced = _pcp.decode_response(b"\x02\x80" + HEAD[2:])
    assert announced.mapping is None
    other = _pcp.decode_response(b"\0\x81\0\x01")
    assert (other.result, other.mapping) == (_pcp.UNSUPPORTED_VERSION, None)
    ipv6 = _pcp.decode_response(HEAD + BODY[:20] + bytes(15) + b"\1")
    assert ipv6.mapping is not None and ipv6.mapping.external_ip == "0.0.0.0"


@pytest.mark.parametrize(
    "data", [b"", b"\x02\x81\0", b"\x02\x01\0\0" + bytes(56), HEAD, HEAD[:23], HEAD + BODY[:-1], HEAD + bytes(1100)]
)
def test_pcp_no_responses(data: bytes) -> None:
    with pytest.raises(DecodeError):
        _pcp.decode_response(data)


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        ((0, 1000), (100, 1100), True),
        ((0, 1000), (100, 1094), True),  # a slow clock
        ((0, 1000), (100, 1106), True),  # a fast one
        ((0, 1000), (100, 1080), False),
        ((0, 1000), (100, 1120), False),
        ((0, 1000), (100, 50), False),
        ((0, 1000), (1, 999), True),
        ((0, 1000), (3, 998), False),
    ],
)
def test_pcp_epoch(before: tuple[float, int], after: tuple[float, int], goes_on: bool) -> None:
    """RFC 6887, 8.5."""
    epoch = _pcp.Epoch()
    assert epoch.goes_on(before[1], before[0])
    assert epoch.goes_on(after[1], after[0]) is goes_on


# --- NAT-PMP ----------------------------------------------------------------------------------------------------------


def test_natpmp_requests() -> None:
    assert _natpmp.encode_address_request() == b"\0\0"
    assert _natpmp.encode_map(TCP, external_port=4002, lifetime=7200) == b"\0\x02\0\0\x0f\xa1\x0f\xa2\0\0\x1c\x20"
    assert _natpmp.encode_map(UDP, external_port=0, lifetime=0) == b"\0\x01\0\0\x0f\xa1" + bytes(6)


def test_natpmp_responses() -> None:
    address = _natpmp.decode_response(b"\0\x80\0\0\0\0\0\x2a\x5d\xb8\xd8\x22")
    assert (address.opcode, address.epoch, address.external_ip) == (0, 42, "93.184.216.34")
    mapped = _natpmp.decode_response(b"\0\x82\0\0\0\0\0\x2a\x0f\xa1\x0f\xa2\0\0\x1c\x20")
    assert (mapped.opcode, mapped.internal_port, mapped.external_port, mapped.lifetime) == (2, 4001, 4002, 7200)
    assert _natpmp.decode_response(b"\0\x82\0\x02\0\0\0\x2a").result == 2


@pytest.mark.parametrize(
    "data", [b"", bytes(7), b"\1\x80" + bytes(10), b"\0\0" + bytes(10), b"\0\x80" + bytes(9), b"\0\x81" + bytes(13)]
)
def test_natpmp_no_responses(data: bytes) -> None:
    with pytest.raises(DecodeError):
        _natpmp.decode_response(data)


@given(st.binary(max_size=100))
def test_garbage(data: bytes) -> None:
    for decode in (
        _pcp.decode_response,
        _natpmp.decode_response,
        lambda data: _upnp.decode_search_answer(data, "192.168.1.1"),
        lambda data: _upnp.decode_description(Response(200, {}, data), URL),
        lambda data: ResponseReader().receive_data(data),
    ):
        try:
            decode(data)
        except DecodeError:
            pass


# --- HTTP -------------------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"content-length:5\r\nno colon\r\n\r\nhello and more", b"hello"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.0 404\r\nContent-Length: 1\r\n\r\nx", b"x"),
    ],
)
@pytest.mark.parametrize("split", [1, 7, 1000])
def test_http_answers(data: bytes, body: bytes, split: int) -> None:
    reader = ResponseReader()
    found = [answer for start in range(0, len(data), split) if (answer := reader.receive_data(data[start:][:split]))]
    assert found[0].body == body
    assert found[0].status == (404 if b"404" in data else 200)


def test_http_an_answer_that_lasts_to_the_end() -> None:
    reader = ResponseReader()
    assert reader.receive_data(OK + b"\r\nhel") is None
    assert reader.receive_data(b"lo") is None
    assert reader.receive_eof().body == b"hello"


@pytest.mark.parametrize(
    "data", [b"", OK, OK + b"Content-Length: 5\r\n\r\nhell", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"]
)
def test_http_cut_short(data: bytes) -> None:
    reader = ResponseReader()
    assert reader.receive_data(data) is None
    with pytest.raises(DecodeError):
        reader.receive_eof()


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (MAX_HEAD + 1),
        b"SSH-2.0\r\n\r\n",
        OK + b"\r\n" + bytes(MAX_BODY + 1),
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: \xb2\r\n\r\n",
        OK + b"Content-Length: 999999999\r\n\r\n",
        OK + b"Content-Length: 99999999\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 300,
    ],
)
def test_http_no_answers(data: bytes) -> None:
    with pytest.raises(DecodeError):
        ResponseReader().receive_data(data)


def test_http_head_without_its_end() -> None:
    assert parse_head(OK + b"A: b\r\na: c").headers == {"a": "c"}


# --- UPnP -------------------------------------------------------------------------------------------------------------

URL = _upnp.Url("192.168.1.1", 5000, "/rootDesc.xml")
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
POINT = _upnp.ControlPoint(_upnp.Url("192.168.1.1", 5000, "/ctl?x"), SERVICE)


def described(*services: tuple[str, str], base: str = "") -> Response:
    inner = "".join(
        f"<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>" for kind, url in services
    )
    return Response(200, {}, f"<root>{base}<device><serviceList>{inner}</serviceList></device></root>".encode())


def test_upnp_search() -> None:
    assert _upnp.encode_search("urn:x", seconds=2) == (
        b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 2\r\nST: urn:x\r\n\r\n'
    )
    answer = b"HTTP/1.1 200 OK\r\nLocation: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n"
    assert _upnp.decode_search_answer(answer, "192.168.1.1") == URL
    for wrong in (answer.replace(b"200", b"404"), answer + bytes(2048)):
        with pytest.raises(DecodeError):
            _upnp.decode_search_answer(wrong, "192.168.1.1")
    with pytest.raises(DecodeError):
        _upnp.decode_search_answer(answer, "192.168.1.2")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://192.168.1.1", "http://192.168.1.1:80/"),
        ("http://192.168.1.1:49152/a/b?c=d", "http://192.168.1.1:49152/a/b?c=d"),
    ],
)
def test_upnp_urls(text: str, url: str) -> None:
    assert str(_upnp.parse_url(text)) == url


@pytest.mark.parametrize(
    "text",
    ["", "x", "https://192.168.1.1/", "http://router/", "http://[fe80::1]/", "http://1.2.3.4:99999/", "http://[/",
     "http://1.2.3.4/\u00e9", "http://1.2.3.4/a b", "http://1.2.3.4/" + "a" * 600],
)  # fmt: skip
def test_upnp_no_urls(text: str) -> None:
    with pytest.raises(DecodeError):
        _upnp.parse_url(text)


def test_upnp_descriptions() -> None:
    ppp = "urn:schemas-upnp-org:service:WANPPPConnection:1"
    found = _upnp.decode_description(described(("urn:other", "/a"), (ppp, "/p"), (SERVICE, "/ctl?x")), URL)
    assert found == POINT
    based = described((ppp, "p"), base="<URLBase>http://192.168.1.1:81/base/</URLBase>")
    assert _upnp.decode_description(based, URL).url == _upnp.Url("192.168.1.1", 81, "/base/p")


@pytest.mark.parametrize(
    "response",
    [
        Response(404, {}, b""),
        described(),
        described((SERVICE, "")),
        described((SERVICE, "http://192.168.1.2/")),
        described((SERVICE, "http://[x/")),
        described((SERVICE, "/x"), base="<URLBase>http://[x/</URLBase>"),
        Response(200, {}, b"<!DOCTYPE x><x/>"),
        Response(200, {}, b"<x>"),
        Response(200, {}, b'<?xml version="1.0" encoding="nothing"?><x/>'),
        Response(200, {}, b'<?xml version="1.0" encoding="hex"?><x/>'),
        Response(200, {}, b"<x>\xff</x>"),
    ],
)
def test_upnp_no_descriptions(response: Response) -> None:
    with pytest.raises(DecodeError):
        _upnp.decode_description(response, URL)


def test_xml_bounds() -> None:
    assert len([*_xml.parse_xml(b"<a>" + b"<b/>" * 4095 + b"</a>").every("b")]) == 4095
    for data in (b"<a>" + b"<b/>" * 4096 + b"</a>", b"<a>" * 33 + b"</a>" * 33):
        with pytest.raises(DecodeError):
            _xml.parse_xml(data)
    [root] = _xml.parse_xml(b"<x:a xmlns:x='y'> <b>1 &amp; 2</b><b>3</b></x:a>").children
    assert (root.name, root.said("b"), root.said("c")) == ("a", "1 & 2", None)


def test_upnp_actions() -> None:
    arguments = _upnp.mapping_arguments(TCP, external_port=4002, local_ip="192.168.1.7", lifetime=60)
    head, _, body = _upnp.encode_action(POINT, "AddPortMapping", {**arguments, "X": "<&>"}).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /ctl?x HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n")
    assert f'SOAPAction: "{SERVICE}#AddPortMapping"'.encode() in head
    assert f"Content-Length: {len(body)}".encode() in head
    [envelope] = _xml.parse_xml(body).children
    [action] = envelope.every("AddPortMapping")
    assert {child.name: child.text for child in action.children} == {**arguments, "X": "<&>"}
    assert arguments["NewExternalPort"] == "4002" and arguments["NewInternalPort"] == "4001"
    assert _upnp.encode_get(URL).startswith(b"GET /rootDesc.xml HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n")


def test_upnp_answers() -> None:
    good = Response(200, {}, b"<e><b><u:GetResponse xmlns:u='x'><A>1</A><B/></u:GetResponse></b></e>")
    assert _upnp.decode_action_answer(good, "Get") == {"A": "1", "B": ""}
    for body in (b"", b"<x/>"):
        with pytest.raises(DecodeError):
            _upnp.decode_action_answer(Response(200, {}, body), "Get")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"<x><UPnPError><errorCode>718</errorCode><errorDescription>taken</errorDescription></UPnPError></x>", 718,
         "taken"),
        (b"<x><UPnPError><errorCode>many</errorCode></UPnPError></x>", 0, "it did not say why"),
        (b"<x><UPnPError><errorCode>99999</errorCode></UPnPError></x>", 0, "it did not say why"),
        (b"<x><UPnPError/></x>", 0, "it did not say why"),
        (b"<x/>", 0, "HTTP status 500"),
        (b"", 0, "HTTP status 500"),
    ],
)  # fmt: skip
def test_upnp_faults(body: bytes, code: int, words: str) -> None:
    with pytest.raises(_upnp.Fault) as caught:
        _upnp.decode_action_answer(Response(500, {}, body), "Get")
    assert (caught.value.code, caught.value.words, caught.value.is_conflict) == (code, words, code == 718)


# --- when to ask ------------------------------------------------------------------------------------------------------


def lease(port: Port = TCP, lifetime: float = 3600, external: int = 5000) -> Lease:
    return Lease(port, "93.184.216.34", external, lifetime)


def test_a_mapping_is_renewed_at_half_of_its_life_with_the_port_that_was_granted() -> None:
    mappings = Mappings(PortMapConfig())
    assert mappings.want([TCP], 0) == []
    assert mappings.due(0) == [(TCP, 4001)]
    assert mappings.leases(0) == []
    mappings.granted(lease(), 10)
    assert mappings.due(1809) == []
    assert mappings.next_timeout(10) == 1810
    assert mappings.due(1810) == [(TCP, 5000)]
    assert mappings.want([TCP], 20) == []
    assert mappings.leases(3609) == [lease()]
    assert mappings.leases(3610) == []
    assert mappings.next_timeout(3610) == 1810


def test_a_life_of_nothing_is_not_hammered() -> None:
    mappings = Mappings(PortMapConfig(min_renewal=15))
    mappings.want([TCP], 0)
    mappings.granted(lease(lifetime=0), 0)
    assert mappings.leases(0) == []
    assert mappings.due(14.9) == []
    assert mappings.due(15) == [(TCP, 5000)]


def test_refusals_put_off_and_what_is_alive_counts() -> None:
    mappings = Mappings(PortMapConfig(first_retry=10, max_retry=35))
    mappings.want([TCP], 0)
    mappings.granted(lease(lifetime=100), 0)
    now = 50.0
    for delay in (10, 20, 35, 35):
        mappings.refused(TCP, now)
        assert mappings.due(now + delay - 0.1) == []
        now += delay
        assert mappings.due(now) == [(TCP, 5000)]
        assert bool(mappings.leases(now)) is (now < 100)
    mappings.granted(lease(), now)
    mappings.refused(TCP, now)
    assert mappings.due(now + 10) == [(TCP, 5000)]  # the count began anew


def test_what_is_not_wanted_is_given_back() -> None:
    mappings = Mappings(PortMapConfig())
    mappings.want([TCP, UDP], 0)
    mappings.granted(lease(), 0)
    assert mappings.want([UDP], 1) == [lease()]
    assert mappings.want([], 1) == []
    assert mappings.next_timeout(1) == float("inf")


def test_a_router_that_forgot() -> None:
    mappings = Mappings(PortMapConfig())
    mappings.want([TCP], 0)
    mappings.granted(lease(), 0)
    mappings.forget(5)
    assert mappings.leases(5) == []
    assert mappings.due(5) == [(TCP, 5000)]


def test_no_more_than_so_many() -> None:
    mappings = Mappings(PortMapConfig(ports=2))
    mappings.want([Port(Transport.TCP, number) for number in range(1, 100)], 0)
    assert [port.number for port, _ in mappings.due(0)] == [1, 2]


@pytest.mark.parametrize("wrong", [{"lifetime": 0}, {"ports": 0}, {"check": -1}, {"farewell": -1}, {"max_retry": 1}])
def test_config(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        PortMapConfig(**wrong)


def test_words() -> None:
    assert str(TCP) == "tcp/4001"
    assert "no default route" in str(NoGateway("no default route"))
    assert "no router speaks PCP here" in str(RouterSilent("PCP", "x"))
    assert str(RouterRefused("UPnP", 606, "no")) == "the router refused by UPnP: no (606)"
