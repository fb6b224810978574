"""What is said with an Internet Gateway Device: search, description, actions. Pure.

Whatever a router names must lie on that router: a description, and where it is controlled, are only taken from the
address that answered the search, or anybody in the local network could have this host send requests wherever they like.

Source: UPnP Device Architecture 1.1: 1.3 (search), 2 (description), 3 (control); WANIPConnection:1 and :2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import urljoin, urlsplit

from ...errors import DecodeError
from ._http import Response, parse_head
from ._types import Port
from ._xml import escape, parse_xml

GROUP = ("239.255.255.250", 1900)
"""Where searches go."""
MAX_PACKET = 2048
"""Bytes of an answer to a search."""
MAX_URL = 512
SEARCHED = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
)
"""What is searched for; a device answers to its older versions' names as well, but not all do."""
SERVICES = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
"""What maps ports, best first."""

CONFLICT = 718
ONLY_PERMANENT = 725
NO_SUCH_ENTRY = 714
_CONFLICTS = frozenset((CONFLICT, 501))
"""``ConflictInMappingEntry``, and ``ActionFailed``, which miniupnpd says for ports that are taken otherwise."""


@dataclass(frozen=True, slots=True)
class Url:
    """Of ``http``, on an IPv4 address."""

    host: str
    port: int
    path: str

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """Where a router takes orders, and under which name of its service."""

    url: Url
    service: str


class Fault(Exception):
    """A router refused an action.

    Attributes:
        code: of UPnP; 0 when it did not say.
        words: its description.
    """

    def __init__(self, code: int, words: str) -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words

    @property
    def is_conflict(self) -> bool:
        """Whether another external port may do."""
        return self.code in _CONFLICTS


def parse_url(text: str) -> Url:
    """Read a URL.

    Raises:
        DecodeError: it is none of ``http`` on an IPv4 address.
    """
    try:
        split = urlsplit(text)
        host, port = str(IPv4Address(split.hostname or "")), split.port
    except (ValueError, AddressValueError) as exc:
        raise DecodeError(f"URL: {exc}") from exc
    if split.scheme != "http" or len(text) > MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise DecodeError("a URL that is not one of http")
    path = split.path or "/"
    return Url(host, 80 if port is None else port, f"{path}?{split.query}" if split.query else path)


def encode_search(target: str, *, group: tuple[str, int] = GROUP, seconds: int) -> bytes:
    """Ask who is ``target``; answers come within ``seconds``."""
    lines = ["M-SEARCH * HTTP/1.1", f"HOST: {group[0]}:{group[1]}", 'MAN: "ssdp:discover"', f"MX: {seconds}"]
    return "\r\n".join([*lines, f"ST: {target}", "", ""]).encode()


def decode_search_answer(data: bytes, source: str) -> Url:
    """Where the sender has its description.

    Raises:
        DecodeError: it is no answer, or names another machine than ``source``.
    """
    if len(data) > MAX_PACKET:
        raise DecodeError("an answer to a search that is too long")
    head = parse_head(data)
    url = parse_url(head.headers.get("location", ""))
    if head.status != 200 or url.host != source:
        raise DecodeError("an answer to a search that leads elsewhere")
    return url


def encode_get(url: Url) -> bytes:
    """Ask for a description."""
    return f"GET {url.path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nConnection: close\r\n\r\n".encode()


def decode_description(response: Response, url: Url) -> ControlPoint:
    """Find the service that maps ports in a description from ``url``.

    Raises:
        DecodeError: there is none, or it is controlled elsewhere.
    """
    if response.status != 200:
        raise DecodeError(f"a description with status {response.status}")
    document = parse_xml(response.body)
    services: dict[str, str] = {}
    for service in document.every("service"):
        services.setdefault(service.said("serviceType") or "", service.said("controlURL") or "")
    base = next((found.text for found in document.every("URLBase") if found.text), str(url))
    for name in SERVICES:
        if control := services.get(name):
            try:
                found = parse_url(urljoin(base, control))
            except ValueError as exc:
                raise DecodeError(f"URL: {exc}") from exc
            if found.host != url.host:
                raise DecodeError("a router that is controlled elsewhere")
            return ControlPoint(found, name)
    raise DecodeError("a description without a service that maps ports")


def encode_action(point: ControlPoint, action: str, arguments: Mapping[str, str]) -> bytes:
    """Ask for an action."""
    given = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in arguments.items())
    body = (
        '<?xml version="1.0"?>\r\n<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{point.service}">{given}</u:{action}></s:Body></s:Envelope>\r\n'
    ).encode()
    head = (
        f"POST {point.url.path} HTTP/1.1\r\nHost: {point.url.host}:{point.url.port}\r\nConnection: close\r\n"
        f'Content-Type: text/xml; charset="utf-8"\r\nContent-Length: {len(body)}\r\n'
        f'SOAPAction: "{point.service}#{action}"\r\n\r\n'
    )
    return head.encode() + body


def decode_action_answer(response: Response, action: str) -> Mapping[str, str]:
    """What an action returned, by name.

    Raises:
        Fault: the router refused it.
        DecodeError: it is no answer.
    """
    document = parse_xml(response.body) if response.body else None
    if response.status != 200:
        error = None if document is None else next(document.every("UPnPError"), None)
        if error is None:
            raise Fault(0, f"HTTP status {response.status}")
        code, words = error.said("errorCode") or "", error.said("errorDescription") or "it did not say why"
        known = code.isascii() and code.isdigit() and len(code) <= 4
        raise Fault(int(code) if known else 0, words[:MAX_URL])
    answer = None if document is None else next(document.every(f"{action}Response"), None)
    if answer is None:
        raise DecodeError(f"no answer to {action}")
    return {child.name: child.text for child in answer.children}


def mapping_arguments(port: Port, *, external_port: int, local_ip: str, lifetime: int) -> dict[str, str]:
    """The arguments of AddPortMapping."""
    return {
        **entry_arguments(port, external_port),
        "NewInternalPort": str(port.number),
        "NewInternalClient": local_ip,
        "NewEnabled": "1",
        "NewPortMappingDescription": f"libp2p {port}",
        "NewLeaseDuration": str(lifetime),
    }


def entry_arguments(port: Port, external_port: int) -> dict[str, str]:
    """The arguments that name a mapping."""
    return {"NewRemoteHost": "", "NewExternalPort": str(external_port), "NewProtocol": port.transport.name}
