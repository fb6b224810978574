"""Port mapping as a service of a host.

Theory of operation. A *session* lasts as long as one router does: it is found, asked for every TCP and UDP port that
this host listens on at the address that faces the router, asked again when mappings are half over, and looked at now
and then. A session ends when the router no longer answers, refuses everything, or is another one; then there is a
search again. What is mapped becomes part of the host's addresses, and goes when it ends.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address

import trio
from multiaddr import Multiaddr

from ...abc import Host, Service
from ...addressing import Part, Scope, from_parts, parts, scope
from ...events import ListenAddrsChanged
from ...metrics import Metric, gauge
from ._gateway import local_ip_towards
from ._machine import Mappings, PortMapConfig
from ._search import PREFERENCE, RouterPlace, best, find_routers
from ._types import (
    Lease,
    NoGateway,
    Port,
    PortMappingChanged,
    PortMappingError,
    Router,
    RouterRefused,
    RouterSilent,
    Transport,
)

_log = logging.getLogger("libp2p.portmap")

_TRANSPORTS = {transport.name.lower(): transport for transport in Transport}
_USEFUL = (Scope.PUBLIC, Scope.PRIVATE)
"""External addresses that somebody may dial: a router behind another router has a private one."""
_NOWHERE = "0.0.0.0"
_SILENCE = 3
"""Requests in a row without an answer until the router counts as gone."""


class _SessionEnded(Exception):
    """The router is gone, or of no use.

    Attributes:
        error: why; None when the network is another one.
    """

    def __init__(self, error: PortMappingError | None) -> None:
        super().__init__(error)
        self.error = error


class PortMapping(Service):
    """Has the router let peers in: it maps the ports that the host listens on, by PCP, NAT-PMP or UPnP.

    :class:`PortMappingChanged` is published when what is mapped changes, and when it turns out that nothing can be.

    Args:
        config: how.
        place: where to look for the router.
        rng: external ports to try with UPnP.
    """

    def __init__(
        self,
        config: PortMapConfig | None = None,
        *,
        place: RouterPlace | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config or PortMapConfig()
        self._place = place or RouterPlace()
        self._rng = rng or random.SystemRandom()
        self._wake = trio.Event()
        self._said: tuple[object, ...] | None = None
        self._failures = 0
        self.leases: Sequence[Lease] = ()
        """What the router has granted."""
        self.protocol: str | None = None
        """How it was asked; None while no router is known."""

    def measure(self) -> Iterator[Metric]:
        """How many ports are mapped."""
        yield gauge("libp2p_portmap_leases", "Ports that a router maps to this host", len(self.leases))

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Map ports until cancelled, then give them back."""
        secret = hashlib.sha256(b"libp2p port mapping" + host.private_key.marshal()).digest()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch, host)
            task_status.started()
            refused_in: set[str] = set()
            while True:
                if not await self._one_router(host, secret, refused_in):
                    refused_in.clear()
                    await self._pause()

    async def _pause(self) -> None:
        """Until the next search: longer after each that failed."""
        delay = min(self._config.first_retry * 2 ** min(self._failures, 32), self._config.max_retry)
        self._failures += 1
        await trio.sleep(delay)

    async def _watch(self, host: Host, *, task_status: trio.TaskStatus[None]) -> None:
        with host.subscribe(ListenAddrsChanged) as changes:
            task_status.started()
            while True:
                await changes.receive()
                self._wake.set()

    async def _one_router(self, host: Host, secret: bytes, refused_in: set[str]) -> bool:
        """Find a router and use it while it is there. Returns whether to search again at once.

        Args:
            host: whose ports to map.
            secret: for PCP.
            refused_in: the protocols in which everything was refused, which are left out; one may be added.
        """
        protocols = [protocol for protocol in PREFERENCE if protocol not in refused_in]
        found = await find_routers(
            self._place, self._config, secret=secret, rng=self._rng, protocols=protocols, first=True
        )
        router = best(found)
        if router is None:
            error = next(answer for each in protocols if isinstance(answer := found[each], PortMappingError))
            self._tell(host, None, (), error)
            return False
        why = await _Session(self, host, router, self._config, self._place).run()
        self._tell(host, None, (), why)
        if why is None:
            return True  # it is another network
        if isinstance(why, RouterRefused):
            refused_in.add(router.protocol)
            return len(refused_in) < len(PREFERENCE)
        return False

    def _tell(self, host: Host, router: Router | None, leases: Sequence[Lease], error: PortMappingError | None) -> None:
        """Make ``leases`` the host's addresses, and say so, unless that is how it was."""
        self.protocol = None if router is None else router.protocol
        self.leases = tuple(leases)
        if leases:
            self._failures = 0
        local_ip = None if router is None else router.local_ip
        host.set_mapped_addrs(_outside(host.listen_addrs(), local_ip, leases))
        said = (
            self.protocol,
            tuple((lease.port, lease.external_ip, lease.external_port) for lease in leases),
            str(error),
        )
        if said != self._said:
            self._said = said
            _log.info("%s: %d ports mapped, %s", self.protocol, len(leases), error or "no error")
            host.publish(PortMappingChanged(protocol=self.protocol, leases=tuple(leases), error=error))

    async def _wait_for_news(self, deadline: float) -> None:
        """Wait until the host's addresses change, at most until ``deadline``."""
        with trio.move_on_at(deadline):
            await self._wake.wait()
        self._wake = trio.Event()


class _Session:
    """One router, from when it was found to when it is gone."""

    def __init__(
        self, service: PortMapping, host: Host, router: Router, config: PortMapConfig, place: RouterPlace
    ) -> None:
        self._service = service
        self._host = host
        self._router = router
        self._config = config
        self._place = place
        self._gateway = _gateway(place)
        self._mappings = Mappings(config)
        self._unwanted: dict[Lease, None] = {}
        self._silent = 0
        self._error: PortMappingError | None = None

    async def run(self) -> PortMappingError | None:
        """Use the router while it is there. Returns why it ended; None when there is another network now."""
        check_at = trio.current_time() + self._config.check
        try:
            while True:
                await self._ask()
                self._tell()
                timeout = self._mappings.next_timeout(trio.current_time())
                await self._service._wait_for_news(min(check_at, timeout))
                if trio.current_time() >= check_at:
                    check_at = trio.current_time() + self._config.check
                    await self._check()
        except _SessionEnded as ended:
            return ended.error
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(self._config.farewell):
                # Also what was about to be given back: closing listeners is the first thing that a closing host does.
                self._unwanted.update(dict.fromkeys(self._mappings.leases(trio.current_time())))
                await self._give_back()

    async def _ask(self) -> None:
        """Have what is wanted, as far as the router grants it."""
        mappings = self._mappings
        ports = _inside(self._host.listen_addrs(), self._router.local_ip)
        self._unwanted.update(dict.fromkeys(mappings.want(ports, trio.current_time())))
        await self._give_back()
        due = mappings.due(trio.current_time())
        if due:
            self._error = None
        for port, wish in due:
            # Whether it has been granted is not known when this is cancelled: then it is given back.
            asked = Lease(port, _NOWHERE, wish, 0.0)
            self._unwanted[asked] = None
            try:
                lease = await self._router.map(port, wish=wish, lifetime=self._config.lifetime)
            except PortMappingError as exc:
                del self._unwanted[asked]
                self._failed(exc)
                mappings.refused(port, trio.current_time())
            else:
                del self._unwanted[asked]
                self._silent = 0
                mappings.granted(lease, trio.current_time())
        if self._error is not None and due and not mappings.leases(trio.current_time()):
            raise _SessionEnded(self._error)

    async def _check(self) -> None:
        """Is it still this router, and does it remember?"""
        if _gateway(self._place) != self._gateway or _local_ip(self._router) != self._router.local_ip:
            raise _SessionEnded(None)
        try:
            remembers = await self._router.check(self._mappings.leases(trio.current_time()))
        except PortMappingError as exc:
            self._failed(exc)
        else:
            self._silent = 0
            if not remembers:
                self._mappings.forget(trio.current_time())

    def _failed(self, exc: PortMappingError) -> None:
        self._error = exc
        self._silent = self._silent + 1 if isinstance(exc, RouterSilent) else 0
        if self._silent >= _SILENCE:
            raise _SessionEnded(exc)

    async def _give_back(self) -> None:
        async with trio.open_nursery() as nursery:
            for lease in self._unwanted:
                nursery.start_soon(self._give_back_one, lease)

    async def _give_back_one(self, lease: Lease) -> None:
        try:
            await self._router.unmap(lease)
        except PortMappingError as exc:
            _log.debug("giving back %s: %s", lease.port, exc)  # it ends by itself
        del self._unwanted[lease]

    def _tell(self) -> None:
        leases = self._mappings.leases(trio.current_time())
        self._service._tell(self._host, self._router, leases, self._error)


def _gateway(place: RouterPlace) -> str | None:
    try:
        return place.address()
    except NoGateway:
        return None


def _local_ip(router: Router) -> str | None:
    try:
        return local_ip_towards(router.address)
    except OSError:
        return None


def _inside(addrs: Iterable[Multiaddr], local_ip: str) -> list[Port]:
    """The ports that ``addrs`` listen on at ``local_ip``."""
    found: dict[Port, None] = {}
    for addr in addrs:
        if (port := _port_at(parts(addr), local_ip)) is not None:
            found[port] = None
    return list(found)


def _outside(addrs: Iterable[Multiaddr], local_ip: str | None, leases: Iterable[Lease]) -> list[Multiaddr]:
    """What of ``addrs`` looks like from the other side of the router."""
    by_port = {lease.port: lease for lease in leases}
    found: dict[Multiaddr, None] = {}
    for addr in addrs:
        inner = parts(addr)
        port = None if local_ip is None else _port_at(inner, local_ip)
        if port is not None and (lease := by_port.get(port)) is not None and lease.external_port:
            ip = Part("ip4", IPv4Address(lease.external_ip).packed)
            outer = from_parts((ip, Part(inner[1].name, lease.external_port.to_bytes(2, "big")), *inner[2:]))
            if scope(outer) in _USEFUL:
                found[outer] = None
    return list(found)


def _port_at(inner: tuple[Part, ...], local_ip: str) -> Port | None:
    if len(inner) < 2 or inner[0].name != "ip4" or inner[0].value != IPv4Address(local_ip).packed:
        return None
    if any(part.name == "p2p-circuit" for part in inner):
        return None
    transport = _TRANSPORTS.get(inner[1].name)
    return None if transport is None else Port(transport, int.from_bytes(inner[1].value, "big"))
