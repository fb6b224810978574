"""mDNS as a service of a host: sockets around the machine."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Sequence

import trio

from ..._util.rate import RateLimit
from ...abc import Host, Service
from ...events import ListenAddrsChanged, PeerDiscovered
from ...metrics import Metric, counter
from ._codec import name
from ._machine import Heard, MdnsConfig, MdnsMachine
from ._sockets import PORT, GroupSocket, interfaces

_log = logging.getLogger("libp2p.mdns")

_SOURCES = 256
"""Addresses whose rate is remembered."""
_RETRY = 1.0
"""Seconds until a socket that broke is read again."""
SOURCE = "mdns"
"""What :class:`~libp2p.events.PeerDiscovered` says of peers that were heard of here."""


class Mdns(Service):
    """Finds peers on the local network, and is found there.

    Peers it hears of come into the peerstore for as long as they say, and are published as
    :class:`~libp2p.events.PeerDiscovered` when they or their addresses are new. It connects to nobody.

    Anybody on the local network can say anything: an address is a place to try, and the handshake tells who is there.
    In a private network, give its ``network``, or members and strangers hear of each other.

    Args:
        config: how often it speaks, and how much it listens.
        network: the fingerprint of a private network (:attr:`libp2p.security.pnet.PreSharedKey.fingerprint`).
        rng: the peer's name on this network, and the moments of answers.
        port: the UDP port; another one than 5353 finds only those who use it, too.

    Attributes:
        dropped: packets that were not read and peers that were not taken, because there were too many.
    """

    def __init__(
        self,
        config: MdnsConfig | None = None,
        *,
        network: bytes | None = None,
        rng: random.Random | None = None,
        port: int = PORT,
    ) -> None:
        self._config = config or MdnsConfig()
        self._service = name("_p2p._udp.local" if network is None else f"_p2p-{network.hex()}._udp.local")
        self._rng = rng or random.SystemRandom()
        self._port = port
        rate, total = self._config.packets_per_second, self._config.packets_of_all
        self._rate = RateLimit(rate=rate, burst=self._config.packets_burst, sources=_SOURCES)
        # Sources are easily made up.
        self._total = RateLimit(rate=total, burst=math.ceil(total), sources=1)
        self._wake = trio.Event()
        self.dropped: int = 0

    def measure(self) -> Iterator[Metric]:
        """What was too much."""
        yield counter("libp2p_mdns_dropped_total", "Packets and peers of the local network not taken", self.dropped)

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask, answer and listen, until cancelled."""
        machine = MdnsMachine(
            host.local_peer, service=self._service, config=self._config, rng=self._rng, now=trio.current_time()
        )
        machine.set_addrs(host.addrs, trio.current_time())
        sockets = await self._open()
        try:
            async with trio.open_nursery() as nursery:
                for sock in sockets:
                    sock.use(interfaces(self._config.interfaces))
                    nursery.start_soon(self._listen, sock, machine, host)
                nursery.start_soon(self._watch_addrs, machine, host)
                nursery.start_soon(self._watch_interfaces, sockets, machine)
                task_status.started()
                await self._speak(sockets, machine)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(_RETRY):
                machine.say_farewell()
                await self._send(sockets, machine)
            for sock in sockets:
                sock.close()

    async def _open(self) -> list[GroupSocket]:
        opened: list[GroupSocket] = []
        for version in (4, 6):
            try:
                sock = GroupSocket(version, port=self._port)
            except OSError as exc:
                _log.info("no mDNS over IPv%d: %s", version, exc)
                continue
            try:
                await sock.bind()
            except OSError as exc:
                sock.close()
                _log.warning("no mDNS over IPv%d: %s", version, exc)
            else:
                opened.append(sock)
        return opened

    async def _speak(self, sockets: Sequence[GroupSocket], machine: MdnsMachine) -> None:
        while True:
            with trio.move_on_at(machine.next_timeout()):
                await self._wake.wait()
            self._wake = trio.Event()
            machine.handle_timeout(trio.current_time())
            await self._send(sockets, machine)

    async def _send(self, sockets: Sequence[GroupSocket], machine: MdnsMachine) -> None:
        if packets := machine.data_to_send():
            for sock in sockets:
                await sock.send(packets)

    async def _listen(self, sock: GroupSocket, machine: MdnsMachine, host: Host) -> None:
        while True:
            try:
                data, source = await sock.receive()
            except OSError as exc:
                _log.debug("receiving: %s", exc)
                await trio.sleep(_RETRY)
                continue
            now = trio.current_time()
            if not self._rate.take(source, now) or not self._total.take(None, now):
                self.dropped += 1
                continue
            lost = machine.dropped
            for heard in machine.receive_packet(data, now):
                _tell(host, heard)
            self.dropped += machine.dropped - lost
            self._wake.set()

    async def _watch_addrs(self, machine: MdnsMachine, host: Host) -> None:
        with host.subscribe(ListenAddrsChanged) as changes:
            while True:
                machine.set_addrs(host.addrs, trio.current_time())
                self._wake.set()
                await changes.receive()

    async def _watch_interfaces(self, sockets: Sequence[GroupSocket], machine: MdnsMachine) -> None:
        while True:
            await trio.sleep(self._config.interface_check)
            found = interfaces(self._config.interfaces)
            fresh = [sock.use(found) for sock in sockets]
            if any(fresh):
                machine.ask_again(trio.current_time())
                self._wake.set()


def _tell(host: Host, heard: Heard) -> None:
    host.peerstore.add_addrs(heard.peer, heard.addrs, ttl=heard.ttl)
    if heard.news:
        host.publish(PeerDiscovered(peer=heard.peer, addrs=heard.addrs, source=SOURCE))
