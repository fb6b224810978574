"""Routers that are asked over HTTP: UPnP's Internet Gateway Devices."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address

import trio

from ...errors import DecodeError
from ._gateway import local_ip_towards
from ._http import Response, ResponseReader
from ._machine import PortMapConfig
from ._types import Lease, Port, RouterRefused, RouterSilent
from ._upnp import (
    GROUP,
    MAX_PACKET,
    NO_SUCH_ENTRY,
    ONLY_PERMANENT,
    SEARCHED,
    ControlPoint,
    Fault,
    Url,
    decode_action_answer,
    decode_description,
    decode_search_answer,
    encode_action,
    encode_get,
    encode_search,
    entry_arguments,
    mapping_arguments,
)

PROTOCOL = "UPnP"
MAX_DEVICES = 4
"""Answers to a search that are looked at."""
SEARCHES = 2
"""How often it is asked: datagrams get lost (UPnP Device Architecture 1.3.2)."""
MX = 1
"""Seconds that devices spread their answers over."""
PORTS_TRIED = 4
"""External ports that are asked for when they are taken by others."""
_RECEIVE_SIZE = 64 * 1024


class IgdRouter:
    """A router that speaks UPnP.

    Args:
        point: where it takes orders.
        timeout: seconds for each.
        rng: external ports to try when the one wished for is taken.
    """

    protocol = PROTOCOL

    def __init__(self, point: ControlPoint, *, timeout: float, rng: random.Random) -> None:
        self._point = point
        self._timeout = timeout
        self._rng = rng
        self._permanent = False
        self.address: str = point.url.host
        self.local_ip: str = _local_ip(point.url.host)
        self.external_ip: str | None = None

    async def find(self) -> IgdRouter:
        """Ask for its address."""
        self.external_ip = await self._ask_address()
        return self

    async def map(self, port: Port, *, wish: int, lifetime: int) -> Lease:
        """See :class:`libp2p.protocols.portmap.Router`."""
        # First: what is mapped after that can be told, and given back.
        self.external_ip = await self._ask_address()
        external = wish
        for left in reversed(range(PORTS_TRIED)):
            try:
                await self._add(port, external, lifetime)
                break
            except Fault as fault:
                if not fault.is_conflict or not left:
                    raise RouterRefused(self.protocol, fault.code, fault.words) from fault
                external = self._rng.randrange(1024, 65536)
        return Lease(port, self.external_ip, external, float(lifetime))

    async def _add(self, port: Port, external: int, lifetime: int) -> None:
        for seconds in (0,) if self._permanent else (lifetime, 0):
            arguments = mapping_arguments(port, external_port=external, local_ip=self.local_ip, lifetime=seconds)
            try:
                await self._act("AddPortMapping", arguments)
                return
            except Fault as fault:
                if fault.code != ONLY_PERMANENT or self._permanent:
                    raise
                self._permanent = True

    async def unmap(self, lease: Lease) -> None:
        """See :class:`libp2p.protocols.portmap.Router`."""
        if not await self._is_ours(lease):
            return
        try:
            await self._act("DeletePortMapping", entry_arguments(lease.port, lease.external_port))
        except Fault as fault:
            if fault.code != NO_SUCH_ENTRY:
                raise RouterRefused(self.protocol, fault.code, fault.words) from fault

    async def check(self, leases: Sequence[Lease]) -> bool:
        """See :class:`libp2p.protocols.portmap.Router`."""
        before, self.external_ip = self.external_ip, await self._ask_address()
        return self.external_ip == before and (not leases or await self._is_ours(leases[0]))

    async def _is_ours(self, lease: Lease) -> bool:
        """Whether the router's port still leads here, as far as it tells: it may be somebody else's by now."""
        try:
            entry = entry_arguments(lease.port, lease.external_port)
            found = await self._act("GetSpecificPortMappingEntry", entry)
        except Fault as fault:
            return fault.code != NO_SUCH_ENTRY  # some do not know this action
        place = found.get("NewInternalClient"), found.get("NewInternalPort")
        return place == (self.local_ip, str(lease.port.number))

    async def _ask_address(self) -> str:
        try:
            found = await self._act("GetExternalIPAddress", {})
            return str(IPv4Address(found.get("NewExternalIPAddress", "")))
        except Fault as fault:
            raise RouterRefused(self.protocol, fault.code, fault.words) from fault
        except AddressValueError as exc:
            raise RouterRefused(self.protocol, 0, "the router has no address itself") from exc

    async def _act(self, action: str, arguments: Mapping[str, str]) -> Mapping[str, str]:
        response = await _exchange(self._point.url, encode_action(self._point, action, arguments), self._timeout)
        try:
            return decode_action_answer(response, action)
        except DecodeError as exc:
            raise RouterSilent(PROTOCOL, str(exc)) from exc


async def find_igd(config: PortMapConfig, *, rng: random.Random, group: tuple[str, int] = GROUP) -> IgdRouter:
    """Search the local network for a router that speaks UPnP.

    Raises:
        PortMappingError: there is none.
    """
    failure = RouterSilent(PROTOCOL, f"no answer within {config.search_timeout:g} s")
    for url in await _search(group, config):
        try:
            response = await _exchange(url, encode_get(url), config.request_timeout)
            point = decode_description(response, url)
            return await IgdRouter(point, timeout=config.request_timeout, rng=rng).find()
        except DecodeError as exc:
            failure = RouterSilent(PROTOCOL, str(exc))
        except RouterSilent as exc:
            failure = exc
    raise failure


async def _search(group: tuple[str, int], config: PortMapConfig) -> list[Url]:
    """Who answers, in the order of their answers; the search ends a moment after the first of them."""
    found: dict[Url, None] = {}
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        with sock, trio.move_on_after(config.search_timeout) as scope:
            for _ in range(SEARCHES):
                for target in SEARCHED:
                    await sock.sendto(encode_search(target, group=group, seconds=MX), group)
            while len(found) < MAX_DEVICES:
                data, source = await sock.recvfrom(MAX_PACKET + 1)
                try:
                    found[decode_search_answer(data, str(source[0]))] = None
                except DecodeError:
                    continue
                scope.deadline = min(scope.deadline, trio.current_time() + config.head_start)
    except OSError as exc:
        raise RouterSilent(PROTOCOL, exc.strerror or str(exc)) from exc
    return list(found)


async def _exchange(url: Url, request: bytes, timeout: float) -> Response:
    """Ask over a connection of its own."""
    reader = ResponseReader()
    try:
        with trio.fail_after(timeout):
            stream = await trio.open_tcp_stream(url.host, url.port)
            async with stream:
                await stream.send_all(request)
                while True:
                    data = await stream.receive_some(_RECEIVE_SIZE)
                    response = reader.receive_data(data) if data else reader.receive_eof()
                    if response is not None:
                        return response
    except trio.TooSlowError as exc:
        raise RouterSilent(PROTOCOL, f"no answer within {timeout:g} s") from exc
    except (OSError, trio.BrokenResourceError) as exc:
        raise RouterSilent(PROTOCOL, str(exc)) from exc
    except DecodeError as exc:
        raise RouterSilent(PROTOCOL, str(exc)) from exc


def _local_ip(host: str) -> str:
    try:
        return local_ip_towards(host)
    except OSError as exc:
        raise RouterSilent(PROTOCOL, exc.strerror or str(exc)) from exc
