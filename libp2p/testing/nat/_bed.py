"""The network itself: a namespace for each host, and this process between them.

Every namespace has one interface, a TUN device, whose other end is held here. What a host sends is read here, goes
through the NATs of :mod:`._internet`, and is written to the device of whoever gets it. So there are no routers to set
up and nothing of the kernel's packet filter is needed, only the right to make namespaces and TUN devices.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from ipaddress import IPv4Address

import trio

from ..._util.nursery import open_unwrapping_nursery
from ._internet import Internet, Place
from ._table import KINDS, Nat

PUBLIC = "public"
"""The kind of a host that is behind no NAT."""
QUEUE = 4096
"""Packets under way at a time; more are lost."""
MTU = 1500
_BATCH = 64
_FIRST_INSIDE = IPv4Address("10.0.0.2")

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_OWN_NAMESPACE = "/proc/thread-self/ns/net"


class Unavailable(Exception):
    """This machine, or this user, cannot have such a network."""


def places(kinds: Mapping[str, str]) -> dict[str, Place]:
    """Where to put hosts: each behind a NAT of its own, or that of another host, or on the public side.

    The public addresses are such as the internet has: what filters private ones takes them for real.

    Args:
        kinds: by the names of the hosts: ``public``, one of :data:`KINDS`, or ``@`` and the name of an earlier host, to
            be behind the same NAT.

    Raises:
        ValueError: a kind is unknown, or there are too many hosts.
    """
    found: dict[str, Place] = {}
    for number, (name, kind) in enumerate(kinds.items(), 1):
        if number > 200:
            raise ValueError("too many hosts")
        if kind == PUBLIC:
            found[name] = Place(ip=IPv4Address(f"7.{number}.0.1"))
        elif kind in KINDS:
            found[name] = Place(ip=_FIRST_INSIDE, nat=Nat(IPv4Address(f"5.{number}.0.1"), KINDS[kind]))
        elif kind[:1] == "@" and kind[1:] in found and (nat := found[kind[1:]].nat) is not None:
            neighbours = sum(place.nat is nat for place in found.values())
            found[name] = Place(ip=_FIRST_INSIDE + neighbours, nat=nat)
        else:
            known = f"{PUBLIC}, {', '.join(KINDS)}, and @NAME for the NAT of an earlier host"
            raise ValueError(f"there is no kind {kind!r}; there are {known}")
    return found


class Bed:
    """Hosts in namespaces; see :func:`nat_bed`.

    Attributes:
        internet: what lies between them.
        lost: packets that were dropped because too many were under way.
    """

    def __init__(
        self, internet: Internet, namespaces: Mapping[str, int], devices: Mapping[str, int], latency: float
    ) -> None:
        self.internet = internet
        self.lost: int = 0
        self._namespaces = namespaces
        self._devices = devices
        self._latency = latency
        self._under_way: deque[tuple[float, Nat | None, bytes]] = deque()
        self._more = trio.lowlevel.ParkingLot()

    def command(self, host: str, *argv: str) -> list[str]:
        """``argv`` as it is to be run to run on ``host``, by whoever may enter namespaces."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self._namespaces[host]}", *argv]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry packets until cancelled."""
        async with trio.open_nursery() as nursery:
            for host, device in self._devices.items():
                nursery.start_soon(self._read, host, device)
            nursery.start_soon(self._deliver)
            task_status.started()

    async def _read(self, host: str, device: int) -> None:
        while True:
            await trio.lowlevel.wait_readable(device)
            for _ in range(_BATCH):
                try:
                    packet = os.read(device, MTU)
                except BlockingIOError:
                    break
                self._send(host, packet)

    def _send(self, host: str, packet: bytes) -> None:
        now = trio.current_time()
        sent = self.internet.send(host, packet, now)
        if sent is None:
            return
        if len(self._under_way) >= QUEUE:
            self.lost += 1
            return
        self._under_way.append((now + self._latency, *sent))
        self._more.unpark()

    async def _deliver(self) -> None:
        while True:
            while not self._under_way:
                await self._more.park()
            due, network, packet = self._under_way.popleft()
            await trio.sleep_until(due)
            arrived = self.internet.arrive(network, packet, trio.current_time())
            if arrived is None:
                continue
            try:
                os.write(self._devices[arrived[0]], arrived[1])
            except OSError as exc:
                if exc.errno not in (errno.EAGAIN, errno.EIO, errno.ENOBUFS):  # full, or down
                    raise


@asynccontextmanager
async def nat_bed(hosts: Mapping[str, Place], *, latency: float = 0.01) -> AsyncIterator[Bed]:
    """Make a network of ``hosts`` and carry its packets while the block is open.

    Args:
        hosts: by name; see :func:`places`.
        latency: seconds that every packet takes.

    Raises:
        Unavailable: namespaces or TUN devices cannot be had here; the text says why.
    """
    internet = Internet(dict(hosts))
    with ExitStack() as stack:
        namespaces: dict[str, int] = {}
        devices: dict[str, int] = {}
        for name, place in hosts.items():
            namespaces[name], devices[name] = _make_host(place.ip)
            stack.callback(os.close, namespaces[name])
            stack.callback(os.close, devices[name])
        bed = Bed(internet, namespaces, devices, latency)
        async with open_unwrapping_nursery() as nursery:
            await nursery.start(bed.run)
            try:
                yield bed
            finally:
                nursery.cancel_scope.cancel()


def why_unavailable() -> str | None:
    """Why there can be no such network here; None when there can."""
    try:
        for fd in _make_host(IPv4Address("10.0.0.2")):
            os.close(fd)
    except Unavailable as exc:
        return str(exc)
    return None


def _make_host(ip: IPv4Address) -> tuple[int, int]:
    """A namespace with one interface, and the other end of that: both as descriptors, the caller's to close."""
    for tool in ("ip", "nsenter"):
        if shutil.which(tool) is None:
            raise Unavailable(f"the program {tool} is not installed")
    try:
        with _new_namespace() as namespace, ExitStack() as undo:
            undo.callback(os.close, namespace)
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            undo.callback(os.close, device)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TUN | _IFF_NO_PI))
            commands = (
                f"link set lo up\naddr add {ip}/32 dev eth0\nlink set eth0 up mtu {MTU}\nroute add default dev eth0\n"
            )
            subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True, capture_output=True)
            undo.pop_all()
            return namespace, device
    except OSError as exc:
        raise Unavailable(f"no network namespaces with TUN devices: {exc}") from exc
    except subprocess.CalledProcessError as exc:
        raise Unavailable(f"ip: {exc.stderr.strip()}") from exc


@contextmanager
def _new_namespace() -> Iterator[int]:
    """Let this thread be in a new namespace for a while; gives a descriptor of that, which stays open."""
    if sys.platform != "linux":
        raise Unavailable("network namespaces are Linux's")
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(libc.unshare(_CLONE_NEWNET))
        try:
            yield os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _check(libc.setns(home, _CLONE_NEWNET))
    finally:
        os.close(home)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def describe(hosts: Mapping[str, Place], kinds: Mapping[str, str], bed: Bed) -> Sequence[str]:
    """A line for each host: its name, its address, the one it has outside, its kind, and how to run something there."""
    return [
        f"{name}\t{place.ip}\t{place.nat.outside if place.nat else place.ip}\t{kinds[name]}\t"
        f"{' '.join(bed.command(name, 'COMMAND'))}"
        for name, place in hosts.items()
    ]
