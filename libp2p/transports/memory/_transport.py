"""A node of the network in memory, as a transport."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import trio
from multiaddr import Multiaddr
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from ...abc import Listener, RawConnection, Transport
from ...addressing import Part, from_parts, host_port, ip_addr, names, parts
from ...errors import TransportError
from ...peer_id import PeerId
from ._network import MemoryNetwork
from ._stream import MemoryStream

BACKLOG = 1024
"""Connections a listener holds between two accepts; more are refused, as by a kernel."""
_FIRST_PORT = 40_000

_TCP = (("ip4", "tcp"), ("ip6", "tcp"))


class MemoryListener(Listener):
    """One listening address of a node.

    Attributes:
        node: the node's name.
    """

    def __init__(self, network: MemoryNetwork, node: str, addr: Multiaddr) -> None:
        self.node = node
        self._network = network
        self._addr = addr
        self._waiting: deque[RawConnection] = deque()
        self._task: Task | None = None
        self._closed = False
        network._listen(self)

    @property
    def addresses(self) -> Sequence[Multiaddr]:
        return (self._addr,)

    @property
    def has_room(self) -> bool:
        """Whether another connection may wait to be accepted."""
        return len(self._waiting) < BACKLOG

    def offer(self, stream: MemoryStream, remote_addr: Multiaddr) -> None:
        """Let a connection wait to be accepted."""
        self._waiting.append(RawConnection(stream=stream, local_addr=self._addr, remote_addr=remote_addr))
        self._wake()

    async def accept(self) -> RawConnection:
        await trio.lowlevel.checkpoint()
        while not self._closed:
            if self._waiting:
                return self._waiting.popleft()
            if self._task is not None:
                raise trio.BusyResourceError("another task is accepting")
            self._task = current_task()
            await wait_task_rescheduled(self._abort)
        raise trio.ClosedResourceError("this listener is closed")

    def _abort(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED

    def _wake(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            reschedule(task)

    async def aclose(self) -> None:
        """Stop listening; connections that were not accepted are reset."""
        if not self._closed:
            self._closed = True
            self._network._unlisten(self)
            self._wake()
            with trio.CancelScope(shield=True):
                while self._waiting:
                    await trio.aclose_forcefully(self._waiting.popleft().stream)
        await trio.lowlevel.checkpoint()


class Memory(Transport):
    """The transport of one node.

    Args:
        network: the network it joins.
        name: the node's name there; by default ``node-1``, ``node-2`` and so on.
        ip: an IP address. The node then listens on and dials TCP addresses too, and others see it come from there.

    Raises:
        ValueError: the name is taken.
    """

    def __init__(self, network: MemoryNetwork, name: str | None = None, *, ip: str | None = None) -> None:
        self.network = network
        self.name: str = name if name is not None else f"node-{len(network.nodes) + 1}"
        self._ip = ip
        self._next_port = _FIRST_PORT
        network._join(self)

    def __repr__(self) -> str:
        return f"<Memory {self.name}>"

    def can_dial(self, addr: Multiaddr) -> bool:
        return names(addr) == ("memory",) or (self._ip is not None and names(addr) in _TCP)

    def can_listen(self, addr: Multiaddr) -> bool:
        if names(addr) == ("memory",):
            return True
        target = host_port(addr)
        return self.can_dial(addr) and target is not None and target[0] in (self._ip, "0.0.0.0", "::")

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection:
        local = self._own_addr(addr)
        stream = await self.network._connect(self, local, addr)
        return RawConnection(stream=stream, local_addr=local, remote_addr=addr)

    def _own_addr(self, addr: Multiaddr) -> Multiaddr:
        """Where a new connection seems to come from."""
        if names(addr) == ("memory",) or self._ip is None:
            return _memory_addr(self.network._free_number())
        return ip_addr(self._ip, self._free_port())

    def _free_port(self) -> int:
        port = self._next_port
        self._next_port = port + 1 if port < 0xFFFF else _FIRST_PORT
        return port

    async def listen(self, addr: Multiaddr) -> MemoryListener:
        await trio.lowlevel.checkpoint()
        if names(addr) == ("memory",):
            number = int(parts(addr)[0].text)
            return MemoryListener(self.network, self.name, self._free_memory_addr() if number == 0 else addr)
        target = host_port(addr)
        if self._ip is None or target is None:
            raise TransportError(addr, "this node has no IP address")
        return MemoryListener(self.network, self.name, ip_addr(self._ip, target[1] or self._free_port()))

    def _free_memory_addr(self) -> Multiaddr:
        taken = set(self.network.listening)
        while (addr := _memory_addr(self.network._free_number())) in taken:
            continue
        return addr


def _memory_addr(number: int) -> Multiaddr:
    return from_parts((Part("memory", number.to_bytes(8, "big")),))
