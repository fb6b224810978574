"""A router on loopback, written from the documents and not from the code it tests: PCP, NAT-PMP and UPnP."""

from __future__ import annotations

import re
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from libp2p.protocols.portmap import RouterPlace

LOOPBACK = "127.0.0.1"
EXTERNAL = "93.184.216.34"
NAMES = {6: "TCP", 17: "UDP"}
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"

DESCRIPTION = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
<controlURL>/ctl/L3F</controlURL></service></serviceList>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>%s</serviceType><controlURL>%s</controlURL></service></serviceList></device></deviceList></device>
</deviceList></device></root>"""


@dataclass
class Mapping:
    """What the router passes on."""

    client: str
    port: int
    lifetime: int
    owner: bytes = b""


@dataclass
class FakeRouter:
    """A router's state, and how it misbehaves.

    Attributes:
        speaks: of ``"pcp"``, ``"nat-pmp"`` and ``"upnp"``.
        mappings: by protocol name and external port.
        epoch: seconds since it was started, as it says.
        refuse: result code for requests that are understood; 0 to grant them.
        refuse_map: likewise, for mappings alone.
        shift: what it adds to the external port that is wished for.
        upnp_fault: by action, the error code to answer with.
        lose: datagrams to ignore before the next answer.
        mute: whether it does not say that it has mapped something.
        log: what it was asked for.
        raw_upnp: what it sends in place of each answer over HTTP.
        raw_udp: what it sends in front of each answer over UDP.
        location: what it answers to a search; ``{port}`` is where it is.
    """

    speaks: set[str]
    external: str = EXTERNAL
    mappings: dict[tuple[str, int], Mapping] = field(default_factory=dict)
    epoch: float = 1000.0
    max_lifetime: int = 7200
    refuse: int = 0
    refuse_map: int = 0
    shift: int = 0
    upnp_fault: dict[str, int] = field(default_factory=dict)
    lose: int = 0
    mute: bool = False
    log: list[str] = field(default_factory=list)
    raw_upnp: bytes | None = None
    raw_udp: list[bytes] = field(default_factory=list)
    location: str = "http://127.0.0.1:{port}/rootDesc.xml"
    control: str = "/ctl/IPConn"
    started: float = 0.0
    news: trio.Event = field(default_factory=trio.Event)
    place: RouterPlace = field(default_factory=RouterPlace)

    def now(self) -> int:
        return int(self.epoch + trio.current_time() - self.started)

    def note(self, what: str) -> None:
        self.log.append(what)
        self.news.set()
        self.news = trio.Event()

    @property
    def _has_mapped(self) -> bool:
        """Whether it has just done what it does not say."""
        return self.mute and self.log[-1:] in (["map TCP"], ["map UDP"])

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something the router was asked for makes ``condition`` true."""
        with trio.fail_after(30):
            while not condition():
                await self.news.wait()

    def restart(self) -> None:
        """Lose all, as by a power cut."""
        self.mappings.clear()
        self.epoch, self.started = 0.0, trio.current_time()

    # --- PCP and NAT-PMP

    async def serve_udp(self, sock: trio.socket.SocketType) -> None:
        while True:
            data, source = await sock.recvfrom(2000)
            if self.lose:
                self.lose -= 1
                continue
            answer = self._answer_udp(data, source[0])
            if answer is not None and not self._has_mapped:
                for junk in self.raw_udp:
                    await sock.sendto(junk, source)
                await sock.sendto(answer, source)

    def _answer_udp(self, data: bytes, source: str) -> bytes | None:
        if data[0] == 2 and "pcp" in self.speaks:
            return self._answer_pcp(data, source)
        if "nat-pmp" not in self.speaks:
            return None
        if data[0] != 0:
            return struct.pack(">BBHI", 0, 128 | data[1], 1, self.now())
        if refused := self.refuse or (data[1] and self.refuse_map):
            self.note("refused")
            return struct.pack(">BBHI", 0, 128 | data[1], refused, self.now())
        if data[1] == 0:
            self.note("address")
            return struct.pack(">BBHI4s", 0, 128, 0, self.now(), bytes(map(int, self.external.split("."))))
        internal, external, lifetime = struct.unpack_from(">HHI", data, 4)
        name = "UDP" if data[1] == 1 else "TCP"
        external, lifetime = self._map(name, source, internal, external, lifetime, b"")
        return struct.pack(">BBHIHHI", 0, 128 | data[1], 0, self.now(), internal, external, lifetime)

    def _answer_pcp(self, data: bytes, source: str) -> bytes:
        opcode, lifetime = data[1], int.from_bytes(data[4:8], "big")
        result = self.refuse or (opcode and self.refuse_map)
        assert data[8:24] == bytes(10) + b"\xff\xff" + bytes(map(int, source.split(".")))
        if opcode == 0:
            self.note("announce")
            return struct.pack(">BBxBII12x", 2, 128, result, 0, self.now())
        nonce, number, internal, external = struct.unpack_from(">12sB3xHH", data, 24)
        if not result:
            external, lifetime = self._map(NAMES[number], source, internal, external, lifetime, nonce)
            if external < 0:
                result, external = 2, 0
        ip = bytes(10) + b"\xff\xff" + bytes(map(int, self.external.split(".")))
        head = struct.pack(">BBxBII12x", 2, 129, result, lifetime, self.now())
        return head + struct.pack(">12sB3xHH", nonce, number, internal, external) + ip

    def _map(
        self, name: str, client: str, internal: int, external: int, lifetime: int, owner: bytes
    ) -> tuple[int, int]:
        """Map, renew or remove; the external port (-1 when it is somebody else's), and the lifetime."""
        held = {key: found for key, found in self.mappings.items() if key[0] == name and found.port == internal}
        if any(found.owner != owner for found in held.values()):
            return -1, 0
        for key in held:
            external = key[1]
            del self.mappings[key]
        if not lifetime:
            self.note(f"unmap {name}")
            return 0, 0
        if not held:
            external += self.shift
        lifetime = min(lifetime, self.max_lifetime)
        self.mappings[name, external] = Mapping(client, internal, lifetime, owner)
        self.note(f"map {name}")
        return external, lifetime

    # --- UPnP

    async def serve_search(self, sock: trio.socket.SocketType, port: int) -> None:
        while True:
            data, source = await sock.recvfrom(2000)
            assert data.startswith(b"M-SEARCH * HTTP/1.1\r\n") and b'MAN: "ssdp:discover"' in data
            if "upnp" in self.speaks:
                location = self.location.format(port=port)
                answer = f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: x\r\nLOCATION: {location}\r\n\r\n"
                for junk in self.raw_udp:
                    await sock.sendto(junk, source)
                await sock.sendto(answer.encode(), source)

    async def serve_http(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                answer = self._answer_http(await self._request(stream))
                if self._has_mapped:
                    await trio.sleep_forever()
                await stream.send_all(answer)
            except trio.BrokenResourceError:
                pass

    async def _request(self, stream: trio.SocketStream) -> bytes:
        data = bytearray()
        while True:
            data += await stream.receive_some()
            head, end, body = bytes(data).partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            if end and len(body) >= (int(length[1]) if length else 0):
                return bytes(data)

    def _answer_http(self, request: bytes) -> bytes:
        if self.raw_upnp is not None:
            return self.raw_upnp
        if request.startswith(b"GET "):
            return reply(200, DESCRIPTION % (SERVICE, self.control))
        action = re.search(rb'SOAPAction: "([^"]+)#(\w+)"', request)
        assert action is not None and action[1].decode() == SERVICE
        assert request.startswith(f"POST {self.control} ".encode())
        name = action[2].decode()
        arguments = {key.decode(): value.decode() for key, value in re.findall(rb"<(New\w+)>([^<]*)</", request)}
        code = self.upnp_fault.get(name, 0) or self._act(name, arguments)
        if isinstance(code, int) and code:
            self.note(f"fault {name}")
            return reply(500, fault(code))
        values = code if isinstance(code, dict) else {}
        inner = "".join(f"<{key}>{value}</{key}>" for key, value in values.items())
        return reply(200, envelope(f'<u:{name}Response xmlns:u="{SERVICE}">{inner}</u:{name}Response>'))

    def _act(self, name: str, given: dict[str, str]) -> int | dict[str, str]:
        if name == "GetExternalIPAddress":
            self.note("address")
            return {"NewExternalIPAddress": self.external}
        key = given["NewProtocol"], int(given["NewExternalPort"])
        held = self.mappings.get(key)
        if name == "AddPortMapping":
            if held is not None and held.client != given["NewInternalClient"]:
                return 718
            lifetime = int(given["NewLeaseDuration"])
            if lifetime and not self.max_lifetime:
                return 725
            self.mappings[key] = Mapping(given["NewInternalClient"], int(given["NewInternalPort"]), lifetime)
            self.note(f"map {key[0]}")
            return {}
        if held is None:
            return 714
        if name == "GetSpecificPortMappingEntry":
            self.note("entry")
            return {"NewInternalPort": str(held.port), "NewInternalClient": held.client}
        assert name == "DeletePortMapping"
        del self.mappings[key]
        self.note(f"unmap {key[0]}")
        return {}


def reply(status: int, body: str) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def envelope(inner: str) -> str:
    return f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{inner}</s:Body></s:Envelope>'


def fault(code: int) -> str:
    error = f"<UPnPError><errorCode>{code}</errorCode><errorDescription>no</errorDescription></UPnPError>"
    return envelope(f"<s:Fault><detail>{error}</detail></s:Fault>")


@asynccontextmanager
async def open_router(*speaks: str) -> AsyncIterator[FakeRouter]:
    """Run a router that speaks these protocols, and where to find it."""
    router = FakeRouter(set(speaks), started=trio.current_time())
    datagrams = partial(trio.socket.socket, type=trio.socket.SOCK_DGRAM)
    with datagrams() as asked, datagrams() as searched:
        await asked.bind((LOOPBACK, 0))
        await searched.bind((LOOPBACK, 0))
        group = (LOOPBACK, searched.getsockname()[1])
        router.place = RouterPlace(gateway=LOOPBACK, port=asked.getsockname()[1], group=group)
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, lambda stream: router.serve_http(stream), 0, host=LOOPBACK)
            [listener] = await nursery.start(serve)
            nursery.start_soon(router.serve_udp, asked)
            nursery.start_soon(router.serve_search, searched, listener.socket.getsockname()[1])
            yield router
            nursery.cancel_scope.cancel()
