"""The checks of ``libp2p doctor``: each looks at one thing, and says what it found."""

from __future__ import annotations

import ctypes
import importlib.util
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio
from multiaddr import Multiaddr

from .. import Host, HostConfig, open_host
from ..abc import Connection
from ..addressing import Scope, host_port, ip_addr, names, parse, scope, with_peer
from ..errors import DecodeError, Libp2pError, TransportError
from ..protocols.autonat import DIAL_REQUEST, AutoNat, Voice
from ..protocols.identify import IdentifyInfo
from ..protocols.identify import identify as ask
from ..protocols.ping import ping
from ..protocols.portmap import PortMapConfig, PortMappingError, RouterPlace, find_routers
from ..swarm import SwarmConfig
from ..transports.dns import DnsResolver
from ..transports.quic import Quic
from ..transports.quic import installed as quic_installed
from ._findings import ASK_PEERS, Finding, Observation, State, Try, judge_interfaces, judge_nat, judge_reachability
from ._node import Node

if sys.platform != "win32":
    import resource

FEW_FILES = 1024
"""File descriptors below which a node meets its limits: each connection takes one."""
RELEASED = 1_735_689_600
"""The start of 2025 in seconds since 1970: an earlier clock is wrong."""
PINGS = 3
_ANY = ("/ip4/0.0.0.0/tcp/{}", "/ip6/::/tcp/{}")
_ANY_QUIC = "/ip4/0.0.0.0/udp/0/quic-v1"
_TIME_ERROR = 5
"""What ``adjtimex`` of Linux returns while the clock is not synchronized."""
_TIMEX_SIZE = 512
"""More bytes than ``struct timex`` has anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A peer that was reached, and what it says."""

    connection: Connection
    info: IdentifyInfo


class Checks:
    """The checks of one run.

    Args:
        node: what the options say of nodes.
        host: one that runs for the checks.
        peers: addresses of peers to look from.
        relays: addresses of relays to go through.
        name: a host name to look up.
        gateway: the router's address; None for the default route's.
        port: the TCP port to be reached at; 0 for any that is free.
    """

    def __init__(
        self,
        node: Node,
        host: Host,
        *,
        peers: Sequence[str],
        relays: Sequence[str],
        name: str,
        gateway: str | None,
        port: int,
    ) -> None:
        self._node = node
        self._host = host
        self._peers = peers
        self._relays = relays
        self._name = name
        self._gateway = gateway
        self._port = port
        self._timeout = node.timeout
        self._contacts: list[Contact] = []
        self._observations: list[Observation] = []
        self._peers_asked = trio.Event()
        self._quic_asked = trio.Event()

    async def interfaces(self) -> Finding:
        """Which addresses are there?"""
        failures: list[TransportError] = []
        for addr in _ANY:
            try:
                await self._host.listen(addr.format(self._port))
            except TransportError as exc:
                failures.append(exc)  # there is no such version of IP here, or the port is taken
        if self._port and len(failures) == len(_ANY):
            return Finding(state=State.BAD, words=str(failures[0]), advice="give a port that is free: --port N")
        return judge_interfaces(self._host.listen_addrs())

    async def peers(self) -> Finding:
        """Who of those that were given can be reached?"""
        if not self._peers:
            self._peers_asked.set()
            return Finding(state=State.UNKNOWN, words="none were given", advice=ASK_PEERS)
        failures: dict[str, str] = {}
        try:
            async with trio.open_nursery() as nursery:
                for target in self._peers:
                    nursery.start_soon(self._reach, target, failures)
        finally:
            self._peers_asked.set()
        details = {"reached": [str(each.connection.peer) for each in self._contacts], "failed": failures}
        words = f"{len(self._contacts)} of {len(self._peers)} reached"
        if not self._contacts:
            reason = next(iter(failures.values())).splitlines()[-1].strip()
            return Finding(state=State.BAD, words=f"{words}: {reason}", advice="try others", details=details)
        return Finding(state=State.GOOD, words=words, details=details)

    async def _reach(self, target: str, failures: dict[str, str]) -> None:
        try:
            connection = await self._host.connect(target)
            await self._identify(self._host, connection)
        except Libp2pError as exc:
            failures[target] = str(exc)

    async def _identify(self, host: Host, connection: Connection) -> None:
        info = await ask(host, connection.peer, timeout=self._timeout)
        if host is self._host:
            self._contacts.append(Contact(connection=connection, info=info))
        if info.observed_addr is not None:
            self._observations.append(
                Observation(peer=connection.remote_addr, local=connection.local_addr, seen=info.observed_addr)
            )

    async def udp(self) -> Finding:
        """Does QUIC get through?"""
        try:
            await self._peers_asked.wait()
            return await self._udp()
        finally:
            self._quic_asked.set()

    async def _udp(self) -> Finding:
        if self._node.psk is not None:
            return Finding(state=State.UNKNOWN, words="QUIC cannot be part of a private network")
        if not quic_installed():
            return Finding(state=State.UNKNOWN, words="the extra quic is not installed",
                           advice="pip install 'libp2p-trio[quic]'")  # fmt: skip
        targets = [addr for each in self._contacts if (addr := _quic_addr(each)) is not None]
        if not targets:
            return Finding(state=State.UNKNOWN, words="no peer that was reached serves QUIC", advice=ASK_PEERS)
        failures: list[str] = []
        reached: list[str] = []

        async def reach(host: Host, addr: Multiaddr) -> None:
            try:
                connection = await host.connect(addr)
                reached.append(str(addr))
                await self._identify(host, connection)
            except Libp2pError as exc:
                failures.append(str(exc))

        config = HostConfig(swarm=SwarmConfig(dial_timeout=self._timeout))
        # A node of its own, with no other way, and one socket for all: what each peer sees of it tells how a NAT maps.
        async with (
            open_host(listen=[_ANY_QUIC], transports=[Quic], config=config) as host,
            trio.open_nursery() as nursery,
        ):
            for addr in targets:
                nursery.start_soon(reach, host, addr)
        words = f"QUIC reaches {len(reached)} of {len(targets)} peers"
        if not reached:
            return Finding(state=State.BAD, words=f"{words}, which TCP does: UDP seems to be blocked",
                           advice="ask whoever runs the network, or do without QUIC and hole punching",
                           details={"failed": failures})  # fmt: skip
        return Finding(state=State.GOOD, words=words, details={"reached": reached})

    async def nat(self) -> Finding:
        """What do peers see of this machine?"""
        await self._quic_asked.wait()
        return judge_nat(self._observations)

    async def reachability(self) -> Finding:
        """Do peers get through to this machine, when they are asked to?"""
        await self._peers_asked.wait()
        autonat = AutoNat()  # it does not run: it would ask the same peers, who count how often they are asked
        for protocol, handler in autonat.handlers.items():
            self._host.handle(protocol, handler)
        tries: list[Try] = []
        async with trio.open_nursery() as nursery:
            for each in self._contacts:
                addr = self._reached_at(each)
                if addr is not None and DIAL_REQUEST in each.info.protocols:
                    nursery.start_soon(self._be_tried, autonat, each.connection, addr, tries)
        return judge_reachability(tries)

    def _reached_at(self, contact: Contact) -> Multiaddr | None:
        """The IP address that a peer sees, with the port that is listened on here."""
        seen = contact.info.observed_addr
        place = None if seen is None else host_port(seen)
        if seen is None or place is None:
            return None
        listening = [addr for addr in self._host.listen_addrs() if names(addr)[:2] == (names(seen)[0], "tcp")]
        ports = [found[1] for addr in listening if (found := host_port(addr)) is not None]
        return ip_addr(place[0], ports[0]) if ports else None

    async def _be_tried(self, autonat: AutoNat, connection: Connection, addr: Multiaddr, tries: list[Try]) -> None:
        reached, reason = None, ""
        try:
            tried = await autonat.check(self._host, connection.peer, addr)
            reached = None if tried is None else tried.voice is Voice.PROOF
            reason = "its answer means nothing"
        except Libp2pError as exc:
            reason = str(exc)
        except trio.TooSlowError:
            reason = "no answer in time"
        tries.append(Try(server=connection.remote_addr, addr=addr, reached=reached, reason=reason))

    async def ipv6(self) -> Finding:
        """Does IPv6 get through?"""
        await self._peers_asked.wait()
        own = [addr for addr in self._host.listen_addrs() if names(addr)[0] == "ip6" and scope(addr) is Scope.PUBLIC]
        if not own:
            return Finding(state=State.UNKNOWN, words="this machine has no public address of IPv6")
        known = [addr for each in self._contacts for addr in (each.connection.remote_addr, *each.info.listen_addrs)]
        targets = [addr for addr in known if names(addr)[:2] == ("ip6", "tcp") and scope(addr) is Scope.PUBLIC]
        if not targets:
            return Finding(state=State.UNKNOWN, words=f"{len(own)} addresses; no peer to try them on", advice=ASK_PEERS)
        for addr in targets[:PINGS]:
            place = host_port(addr)
            assert place is not None  # it is of IP and TCP
            try:
                with trio.fail_after(self._timeout / PINGS):
                    await trio.aclose_forcefully(await trio.open_tcp_stream(*place))
            except (OSError, trio.TooSlowError):
                continue
            return Finding(state=State.GOOD, words=f"reaches {place[0]}")
        return Finding(state=State.BAD, words="this machine has an address, and reaches nobody with it",
                       advice="ask whoever runs the network; IPv4 is used instead")  # fmt: skip

    async def port_mapping(self) -> Finding:
        """Is there a router that maps ports?"""
        config = PortMapConfig(search_timeout=self._timeout / 3, request_timeout=self._timeout / 3)
        place = RouterPlace(gateway=self._gateway)
        found = await find_routers(place, config, secret=b"", rng=random.SystemRandom())
        errors = {name: str(each) for name, each in found.items() if isinstance(each, PortMappingError)}
        routers = [each for each in found.values() if not isinstance(each, PortMappingError)]
        details: dict[str, object] = {"protocols": [each.protocol for each in routers], "failed": errors}
        if not routers:
            return Finding(state=State.BAD, words=f"no router maps ports: {next(iter(errors.values()))}",
                           advice="switch on UPnP, NAT-PMP or PCP in the router's settings, or forward a port by hand",
                           details=details)  # fmt: skip
        spoken = ", ".join(each.protocol for each in routers)
        ip = next((each.external_ip for each in routers if each.external_ip is not None), None)
        details["external_ip"] = ip
        if ip is not None and scope(ip_addr(ip, 1)) is not Scope.PUBLIC:
            return Finding(state=State.BAD, words=f"the router speaks {spoken}, but its own address, {ip}, is private",
                           advice="there is another NAT behind it: use a relay", details=details)  # fmt: skip
        return Finding(state=State.GOOD, words=f"the router speaks {spoken}" + (f"; it is {ip}" if ip else ""),
                       advice="libp2p listen --port-map", details=details)  # fmt: skip

    async def relays(self) -> Finding:
        """How long does a round trip through each relay take?"""
        if not self._relays:
            return Finding(state=State.UNKNOWN, words="none were given", advice="give one: --relay ADDR")
        trips: dict[str, float] = {}
        failures: dict[str, str] = {}

        async def go(relay: str) -> None:
            try:
                trips[relay] = await self._through(relay)
            except Libp2pError as exc:
                failures[relay] = str(exc)

        async with trio.open_nursery() as nursery:
            for relay in self._relays:
                nursery.start_soon(go, relay)
        details = {
            "round_trips_ms": {relay: round(trip * 1000, 3) for relay, trip in trips.items()},
            "failed": failures,
        }
        if not trips:
            reason = next(iter(failures.values())).splitlines()[-1].strip()
            return Finding(state=State.BAD, words=f"none of {len(self._relays)} carries: {reason}",
                           advice="try another one: --relay ADDR", details=details)  # fmt: skip
        words = ", ".join(f"{trip * 1000:.1f} ms through {relay}" for relay, trip in trips.items())
        return Finding(state=State.GOOD, words=words, advice="libp2p listen RELAY/p2p-circuit", details=details)

    async def _through(self, relay: str) -> float:
        """Be reached through ``relay`` by another node of this process: the best round trip in seconds."""
        way = f"{relay}/p2p-circuit"
        stranger = replace(self._node, key=None)
        async with stranger.listening([way]).open() as hidden, stranger.open() as caller:
            target = with_peer(parse(way), hidden.local_peer)
            return min(await ping(caller, target, count=PINGS, timeout=self._timeout))

    async def dns(self) -> Finding:
        """Do names resolve?"""
        started = trio.current_time()
        try:
            found = await DnsResolver().resolve(parse(f"/dns/{self._name}/tcp/1"))
        except DecodeError as exc:
            return Finding(state=State.BAD, words=str(exc), advice="give another name: --name NAME")
        except TransportError as exc:
            return Finding(state=State.BAD, words=f"{self._name} does not resolve: {exc.reason}",
                           advice="look at this machine's DNS servers; addresses with /ip4 work without")  # fmt: skip
        ms = round((trio.current_time() - started) * 1000, 3)
        details = {
            "name": self._name,
            "addresses": [place[0] for addr in found if (place := host_port(addr))],
            "ms": ms,
        }
        if importlib.util.find_spec("dns") is None:
            return Finding(state=State.UNKNOWN, words=f"{self._name} resolves; /dnsaddr needs dnspython",
                           advice="pip install dnspython", details=details)  # fmt: skip
        return Finding(state=State.GOOD, words=f"{self._name} resolves in {ms:.0f} ms", details=details)

    async def clock(self) -> Finding:
        """Is the clock right? Signed records, reservations and certificates have times in them."""
        return judge_clock(time.time, _synchronized)

    async def files(self) -> Finding:
        """Are there enough file descriptors?"""
        return judge_files(file_limits())


def judge_clock(wall: Callable[[], float], synchronized: Callable[[], bool | None]) -> Finding:
    """What to think of a clock.

    Args:
        wall: seconds since 1970.
        synchronized: whether the system keeps it right; None when it does not tell.
    """
    now = wall()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    kept = synchronized()
    details = {"time": now, "synchronized": kept}
    if now < RELEASED:
        return Finding(state=State.BAD, words=f"it is wrong: {text}", advice="set it", details=details)
    if kept is None:
        return Finding(state=State.UNKNOWN, words=f"{text}; this system does not tell whether that is right",
                       details=details)  # fmt: skip
    if not kept:
        return Finding(state=State.UNKNOWN, words=f"{text}; nothing keeps it right", advice="switch on NTP",
                       details=details)  # fmt: skip
    return Finding(state=State.GOOD, words=f"{text}, kept right by the system", details=details)


def _synchronized() -> bool | None:
    """What Linux knows about its clock; None elsewhere."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE))
    except (OSError, TypeError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def judge_files(limits: tuple[int, int] | None) -> Finding:
    """What to think of the limits of file descriptors: soft and hard, negative for none."""
    if limits is None:
        return Finding(state=State.UNKNOWN, words="this system has no limit that can be asked for")
    soft, hard = limits
    details = {"soft": soft, "hard": hard}
    if 0 <= soft < FEW_FILES:
        return Finding(state=State.BAD, words=f"{soft}, fewer than the {FEW_FILES} of a busy node",
                       advice=f"ulimit -n {min(hard, 8192) if hard >= 0 else 8192}", details=details)  # fmt: skip
    return Finding(state=State.GOOD, words="no limit" if soft < 0 else str(soft), details=details)


def file_limits() -> tuple[int, int] | None:
    """The limits of this process; None where there are none to ask for."""
    if sys.platform == "win32":
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def _quic_addr(contact: Contact) -> Multiaddr | None:
    """Where a peer serves QUIC over IPv4: of what it says, first where it was reached."""
    remote = host_port(contact.connection.remote_addr)
    ours = None if remote is None else remote[0]
    known = (contact.connection.remote_addr, *contact.info.listen_addrs)
    found = [addr for addr in known if names(addr)[:3] == ("ip4", "udp", "quic-v1") and len(names(addr)) <= 4]
    found.sort(key=lambda addr: (host_port(addr) or ("",))[0] != ours)
    return with_peer(found[0], contact.connection.peer) if found else None
