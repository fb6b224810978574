"""The server: dials those who want to know whether they can be reached.

Theory of operation. Whoever may tell others whom to dial has a weapon, so what is dialled is bounded by what the asker
has shown or paid (case R5):

* Version 1 dials the IP address that the asker is seen at, and no other; of the addresses in the request only the rest,
  protocols and port, is used. A failure is told when the time for the dial is over, or servers would be port scanners.
* Version 2 dials the first address of the request that it can. When that is not where the asker is seen, the asker
  sends as much as a few handshakes cost, at once, and a random moment passes before the dial; nobody is dialled twice
  within ten seconds this way.

Each dial is made by a host of its own, with an identity of its own, which ends with it: no connection that exists can
be taken for a new one, no listening port opens a way through the asker's NAT, and nothing is remembered of strangers.

Source: libp2p/specs autonat/autonat-v1, autonat/autonat-v2.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import trio
from multiaddr import Multiaddr

from ...abc import Connection, Host, ProtocolId, Service, Stream, StreamHandler
from ...addressing import Part, Scope, from_parts, ip_group, is_relay, parts, scope, split_peer, with_peer
from ...errors import DecodeError, DialError, Libp2pError, RemoteProtocolError, StreamReset
from ...metrics import Metric, Tally
from ...peer_id import PeerId
from ._codec import (
    DialData,
    DialDataRequest,
    DialRequest,
    DialResponse,
    DialResult,
    DialStatus,
    ResponseStatus,
    Status1,
    decode,
    decode_dial,
    encode,
    encode_dial_back,
    encode_result,
)
from ._exchange import AUTONAT, DIAL_BACK, DIAL_REQUEST, Messages
from ._limits import Admission, AutoNatLimits
from ._shape import ip_version, transport_name

REQUEST_TIMEOUT = 10.0
"""Seconds that a peer has for its request, and for taking the answer (ours; go: 15 for all of it)."""
DIAL_BACK_TIMEOUT = 5.0
"""Seconds to hand over the nonce, once the asker is connected (go ``dialBackStreamTimeout``)."""
_MIN_CHUNK = 100
"""Smallest message of dial data but the last, in bytes (go): less makes more work here than there."""
_IPS = ("ip4", "ip6")
_LOST = (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError)

DialerFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[Host]]


class AutoNatServer(Service):
    """Tells peers whether they can be reached, by dialling them.

    Args:
        dialer: opens the host that makes one dial: with the transports of this one, an identity of its own, and nothing
            to listen on. :func:`libp2p.open_host` does.
        limits: how much work it does for others.
        allow_private: also dial private and loopback addresses; for a laboratory.
        rng: chooses what is to be paid, and how long to wait then.
    """

    def __init__(
        self,
        dialer: DialerFactory,
        *,
        limits: AutoNatLimits | None = None,
        allow_private: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self.limits: AutoNatLimits = limits or AutoNatLimits()
        self._dialer = dialer
        self._allow_private = allow_private
        self._rng = rng or random.Random()
        self._admission = Admission(self.limits)
        self._host: Host | None = None
        self._answered_1 = Tally()
        self._refused_1 = Tally()
        self._answered_2 = Tally()

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """Both versions."""
        return {AUTONAT: self._serve_1, DIAL_REQUEST: self._serve_2}

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        self._host = host
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._host = None

    # --- version 1

    async def _serve_1(self, stream: Stream) -> None:
        host = self._host
        if host is None:
            return stream.reset()  # the host is closing
        messages = Messages(stream)
        try:
            with trio.fail_after(REQUEST_TIMEOUT):
                request = decode_dial(await messages.receive())
        except DecodeError as exc:
            result = DialResult(status=Status1.E_BAD_REQUEST, text=str(exc))
        else:
            if request.peer not in (None, stream.connection.peer):
                result = DialResult(status=Status1.E_BAD_REQUEST, text="this is not the asker's peer id")
            else:
                result = await self._answer_1(host, stream.connection, request.addrs)
        self._answered_1.add(Status1(result.status).name)
        with trio.fail_after(REQUEST_TIMEOUT):
            await messages.send(encode_result(result))

    async def _answer_1(self, host: Host, connection: Connection, addrs: Sequence[Multiaddr]) -> DialResult:
        peer, seen = connection.peer, connection.remote_addr
        if not self._is_outside(host, seen):
            return self._refuse_1("dial_blocked", "an asker at this address is not dialled")
        wanted = [addr for addr in _moved(addrs, seen) if host.can_dial(addr)][: self.limits.addrs_1]
        if not wanted:
            return self._refuse_1("no_valid_address", "there is no address that can be dialled")
        work = self._admission.enter(peer, 1, trio.current_time())
        if work is None:
            return self._refuse_1("rate_limited", "too many requests")
        with work:
            deadline = trio.current_time() + self.limits.dial_timeout_1
            with trio.CancelScope(deadline=deadline):
                try:
                    async with self._dialer() as dialer:
                        found = (await dialer.connect(with_peer(wanted[0], peer), wanted[1:])).remote_addr
                    return DialResult(status=Status1.OK, addr=found)
                except DialError:
                    pass
                except _LOST as exc:
                    return DialResult(status=Status1.E_INTERNAL_ERROR, text=type(exc).__name__)
            await trio.sleep_until(deadline)
            return DialResult(status=Status1.E_DIAL_ERROR, text="no address could be reached")

    def _refuse_1(self, reason: str, text: str) -> DialResult:
        self._refused_1.add(reason)
        return DialResult(status=Status1.E_DIAL_REFUSED, text=text)

    # --- version 2

    async def _serve_2(self, stream: Stream) -> None:
        host = self._host
        if host is None:
            return stream.reset()  # the host is closing
        messages, connection = Messages(stream), stream.connection
        work = self._admission.enter(connection.peer, 2, trio.current_time())
        if work is None:
            return await self._respond(messages, DialResponse(status=ResponseStatus.E_REQUEST_REJECTED))
        with work:
            with trio.fail_after(REQUEST_TIMEOUT):
                request = await messages.read(decode)
            if not isinstance(request, DialRequest):
                raise RemoteProtocolError("an AutoNAT request begins with something else")
            index = self._choose(host, connection, request.addrs)
            if index is None:
                return await self._respond(messages, DialResponse(status=ResponseStatus.E_DIAL_REFUSED))
            addr = request.addrs[index]
            assert addr is not None  # it was chosen
            elsewhere = _ip(addr) != _ip(connection.remote_addr)
            if elsewhere:
                if not self._admission.elsewhere(ip_group(addr, ip4_bits=32, ip6_bits=64), trio.current_time()):
                    rejected = DialResponse(status=ResponseStatus.E_REQUEST_REJECTED)
                    return await self._respond(messages, rejected, addr, paid=True)
                await self._collect(messages, index)
                await trio.sleep(self._rng.uniform(0, self.limits.max_wait))
            status = await self._dial_back(connection.peer, addr, request.nonce)
            answer = DialResponse(status=ResponseStatus.OK, index=index, dial=status)
            await self._respond(messages, answer, addr, paid=elsewhere)

    async def _respond(
        self, messages: Messages, answer: DialResponse, addr: Multiaddr | None = None, *, paid: bool = False
    ) -> None:
        dialled = ("unknown", "unknown") if addr is None else (ip_version(addr), transport_name(addr))
        self._answered_2.add(
            ResponseStatus(answer.status).name, DialStatus(answer.dial).name, str(paid).lower(), *dialled
        )
        with trio.fail_after(REQUEST_TIMEOUT):
            await messages.send(encode(answer))

    def _choose(self, host: Host, connection: Connection, addrs: Sequence[Multiaddr | None]) -> int | None:
        """The place of the address to dial: the first that can be."""
        if is_relay(connection.remote_addr):
            return None
        families = _families(host, connection)
        for index, addr in enumerate(addrs):
            if addr is not None and (ip := _ip(addr)) is not None and ip.name in families:
                bare, peer = split_peer(addr)
                if peer in (None, connection.peer) and self._is_outside(host, bare) and host.can_dial(bare):
                    return index
        return None

    async def _collect(self, messages: Messages, index: int) -> None:
        """Have the asker pay."""
        left = self._rng.randint(self.limits.min_data, self.limits.max_data)
        with trio.fail_after(self.limits.data_timeout):
            await messages.send(encode(DialDataRequest(index=index, size=left)))
            while left > 0:
                paid = await messages.read(decode)
                if not isinstance(paid, DialData):
                    raise RemoteProtocolError("an AutoNAT client sent something else than the data it owes")
                left -= paid.size
                if left > 0 and paid.size < _MIN_CHUNK:
                    raise RemoteProtocolError("an AutoNAT client pays in too small coin")

    async def _dial_back(self, peer: PeerId, addr: Multiaddr, nonce: int) -> DialStatus:
        async with self._dialer() as dialer:
            connection: Connection | None = None
            with trio.move_on_after(self.limits.dial_timeout):
                try:
                    connection = await dialer.connect(with_peer(addr, peer))
                except _LOST:
                    pass  # what went wrong is nobody's business
            if connection is None:
                return DialStatus.E_DIAL_ERROR
            with trio.move_on_after(DIAL_BACK_TIMEOUT):
                try:
                    async with await connection.open_stream(DIAL_BACK) as stream:
                        back = Messages(stream)
                        await back.send(encode_dial_back(nonce))
                        # Any answer will do: the nonce has arrived.
                        await back.receive()
                    return DialStatus.OK
                except StreamReset:
                    return DialStatus.OK  # of rust, whose reset overtakes its answer; the asker knows what came
                except _LOST:
                    pass
            return DialStatus.E_DIAL_BACK_ERROR

    # ---

    def _is_outside(self, host: Host, addr: Multiaddr) -> bool:
        """Whether a dial to ``addr`` tells something: it is on the internet, and not where we are ourselves."""
        if is_relay(addr) or _ip(addr) is None:
            return False
        if self._allow_private:
            return True
        return scope(addr) is Scope.PUBLIC and _ip(addr) not in [_ip(split_peer(own)[0]) for own in host.addrs]

    def measure(self) -> Iterable[Metric]:
        """Requests and answers, under the names of go-libp2p's dashboards."""
        yield self._answered_1.metric(
            "libp2p_autonat_outgoing_dial_response_total", "Answers of AutoNAT 1", "response_status"
        )
        yield self._refused_1.metric(
            "libp2p_autonat_outgoing_dial_refused_total", "Requests of AutoNAT 1 that were refused", "refusal_reason"
        )
        yield self._answered_2.metric(
            "libp2p_autonatv2_requests_completed_total",
            "Answers of AutoNAT 2",
            "response_status",
            "dial_status",
            "dial_data_required",
            "ip_or_dns_version",
            "transport",
        )


def _ip(addr: Multiaddr) -> Part | None:
    """The IP address that ``addr`` begins with."""
    first = parts(addr)[0]
    return first if first.name in _IPS else None


def _families(host: Host, connection: Connection) -> set[str]:
    """The versions of IP that this host can dial, as far as it knows: the asker's, and those it listens on itself."""
    own = [connection.remote_addr, *host.listen_addrs()]
    return {ip.name for addr in own if (ip := _ip(addr)) is not None and (ip.name == "ip4" or _is_global(addr, own[0]))}


def _is_global(addr: Multiaddr, asker: Multiaddr) -> bool:
    """Whether ``addr`` shows that IPv6 leads somewhere: each machine has some that does not."""
    return addr == asker or scope(addr) is Scope.PUBLIC


def _moved(addrs: Iterable[Multiaddr], seen: Multiaddr) -> list[Multiaddr]:
    """``addrs`` with the IP address of ``seen``; without those that are of another family, or relayed."""
    there = _ip(seen)
    found: dict[Multiaddr, None] = {}
    for addr in addrs:
        bare, _ = split_peer(addr)
        ip = _ip(bare) if bare.to_bytes() else None
        if there is not None and ip is not None and ip.name == there.name and not is_relay(bare):
            found[from_parts((there, *parts(bare)[1:]))] = None
    return list(found)
