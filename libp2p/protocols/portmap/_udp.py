"""Routers that are asked over UDP: PCP and NAT-PMP."""

from __future__ import annotations

import hashlib
import hmac
import socket
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from ...errors import DecodeError
from . import _natpmp, _pcp
from ._gateway import local_ip_towards
from ._pcp import MAX_PACKET, NONCE_SIZE, Epoch
from ._types import Lease, Port, RouterRefused, RouterSilent

FIRST_WAIT = 0.25
"""Seconds until a request is repeated; doubled each time (RFC 6886, 3.1)."""
_ANY = "0.0.0.0"

AnswerT = TypeVar("AnswerT")


class _Asker:
    """Requests to one port of one router, each with a socket of its own: connected, so that only the router answers."""

    def __init__(self, protocol: str, host: str, port: int, timeout: float) -> None:
        self._protocol = protocol
        self.host = host
        self._address = (host, port)
        self._timeout = timeout

    def local_ip(self) -> str:
        """This machine's address on the way there."""
        try:
            return local_ip_towards(self.host)
        except OSError as exc:
            raise RouterSilent(self._protocol, exc.strerror or str(exc)) from exc

    async def ask(self, request: bytes, read: Callable[[bytes], AnswerT | None]) -> AnswerT:
        """Send ``request``, again and again, until ``read`` makes an answer of something that comes back.

        Raises:
            RouterSilent: nothing did in time.
        """
        try:
            with trio.fail_after(self._timeout):
                sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                with sock:
                    await sock.connect(self._address)
                    wait = FIRST_WAIT
                    while True:
                        await sock.send(request)
                        with trio.move_on_after(wait):
                            return await self._answer(sock, read)
                        wait *= 2
        except trio.TooSlowError as exc:
            raise RouterSilent(self._protocol, f"no answer within {self._timeout:g} s") from exc
        except OSError as exc:  # nobody listens there, or there is no way
            raise RouterSilent(self._protocol, exc.strerror or str(exc)) from exc

    async def _answer(self, sock: trio.socket.SocketType, read: Callable[[bytes], AnswerT | None]) -> AnswerT:
        while True:
            data = await sock.recv(MAX_PACKET + 1)
            try:
                answer = read(data)
            except DecodeError:
                continue  # it answers nothing; the true answer may still come
            if answer is not None:
                return answer


class PcpRouter:
    """A router that speaks PCP.

    Args:
        asker: where it is.
        secret: makes the nonces, which have to be the same whenever this host asks for the same port, also after a
            crash: a router refuses to renew for others.
    """

    protocol = "PCP"

    def __init__(self, asker: _Asker, secret: bytes) -> None:
        self._asker = asker
        self._secret = secret
        self._epoch = Epoch()
        self._forgot = False  # since the last check
        self.address: str = asker.host
        self.local_ip: str = asker.local_ip()
        self.external_ip: str | None = None

    async def find(self) -> PcpRouter:
        """Ask whether it is there."""
        await self.check(())
        return self

    async def map(self, port: Port, *, wish: int, lifetime: int) -> Lease:
        """See :class:`libp2p.protocols.portmap.Router`."""
        nonce = self._nonce(port)
        request = _pcp.encode_map(
            self.local_ip,
            port,
            nonce=nonce,
            external_ip=self.external_ip or _ANY if lifetime else _ANY,
            external_port=wish,
            lifetime=lifetime,
        )

        def read(data: bytes) -> _pcp.PcpResponse | None:
            response = _pcp.decode_response(data)
            found = response.mapping
            if response.opcode != _pcp.MAP or found is None:
                return response if response.result == _pcp.UNSUPPORTED_VERSION else None
            own = (found.nonce, found.protocol, found.internal_port) == (nonce, port.transport.value, port.number)
            return response if own else None

        response = await self._asker.ask(request, read)
        self._judge(response)
        assert response.mapping is not None  # or it was no answer, or a refusal
        if lifetime:
            self.external_ip = response.mapping.external_ip
        return Lease(port, response.mapping.external_ip, response.mapping.external_port, float(response.lifetime))

    async def unmap(self, lease: Lease) -> None:
        """See :class:`libp2p.protocols.portmap.Router`."""
        await self.map(lease.port, wish=0, lifetime=0)

    async def check(self, leases: Sequence[Lease]) -> bool:
        """See :class:`libp2p.protocols.portmap.Router`."""

        def read(data: bytes) -> _pcp.PcpResponse | None:
            response = _pcp.decode_response(data)
            return response if response.opcode == _pcp.ANNOUNCE else None

        self._judge(await self._asker.ask(_pcp.encode_announce(self.local_ip), read))
        forgot, self._forgot = self._forgot, False
        return not forgot

    def _judge(self, response: _pcp.PcpResponse) -> None:
        if response.result:
            raise RouterRefused(self.protocol, response.result, _pcp.RESULTS.get(response.result, "no known reason"))
        self._forgot |= not self._epoch.goes_on(response.epoch, trio.current_time())

    def _nonce(self, port: Port) -> bytes:
        return hmac.digest(self._secret, f"PCP nonce {port}".encode(), hashlib.sha256)[:NONCE_SIZE]


class PmpRouter:
    """A router that speaks NAT-PMP.

    Args:
        asker: where it is.
    """

    protocol = "NAT-PMP"

    def __init__(self, asker: _Asker) -> None:
        self._asker = asker
        self._epoch = Epoch()
        self._forgot = False  # since the last check
        self.address: str = asker.host
        self.local_ip: str = asker.local_ip()
        self.external_ip: str | None = None

    async def find(self) -> PmpRouter:
        """Ask whether it is there, and for its address."""
        await self.check(())
        return self

    async def map(self, port: Port, *, wish: int, lifetime: int) -> Lease:
        """See :class:`libp2p.protocols.portmap.Router`."""
        request = _natpmp.encode_map(port, external_port=wish, lifetime=lifetime)

        def read(data: bytes) -> _natpmp.PmpResponse | None:
            response = _natpmp.decode_response(data)
            ours = response.opcode == _natpmp.opcode_of(port)
            return response if ours and (response.result or response.internal_port == port.number) else None

        response = await self._asker.ask(request, read)
        self._judge(response)
        return Lease(port, self.external_ip or _ANY, response.external_port, float(response.lifetime))

    async def unmap(self, lease: Lease) -> None:
        """See :class:`libp2p.protocols.portmap.Router`."""
        await self.map(lease.port, wish=0, lifetime=0)

    async def check(self, leases: Sequence[Lease]) -> bool:
        """See :class:`libp2p.protocols.portmap.Router`."""

        def read(data: bytes) -> _natpmp.PmpResponse | None:
            response = _natpmp.decode_response(data)
            return response if response.opcode == _natpmp.ADDRESS else None

        response = await self._asker.ask(_natpmp.encode_address_request(), read)
        self._judge(response)
        forgot, self._forgot = self._forgot, False
        before, self.external_ip = self.external_ip, response.external_ip
        return not forgot and before in (None, response.external_ip)

    def _judge(self, response: _natpmp.PmpResponse) -> None:
        if response.result:
            reason = _natpmp.RESULTS.get(response.result, "no known reason")
            raise RouterRefused(self.protocol, response.result, reason)
        self._forgot |= not self._epoch.goes_on(response.epoch, trio.current_time())


async def find_pcp(gateway: str, *, port: int, timeout: float, secret: bytes) -> PcpRouter:
    """Ask the router ``gateway`` whether it speaks PCP.

    Raises:
        PortMappingError: it does not.
    """
    return await PcpRouter(_Asker("PCP", gateway, port, timeout), secret).find()


async def find_natpmp(gateway: str, *, port: int, timeout: float) -> PmpRouter:
    """Ask the router ``gateway`` whether it speaks NAT-PMP.

    Raises:
        PortMappingError: it does not.
    """
    return await PmpRouter(_Asker("NAT-PMP", gateway, port, timeout)).find()
