"""The rendezvous point: keeps who is registered where, and tells those who ask."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping

import trio

from ...abc import Host, ProtocolId, Service, Stream, StreamHandler
from ...errors import DecodeError, LimitExceeded, RemoteProtocolError
from ...metrics import Metric, Tally, gauge
from ...peer_id import PeerId
from ...wire.framing import frame
from ._codec import (
    MAX_REQUEST,
    Discover,
    DiscoverResponse,
    Message,
    Register,
    RegisterResponse,
    Status,
    Unregister,
    encode,
    fitting,
)
from ._exchange import RENDEZVOUS, Messages, open_record
from ._registrations import Cookies, Refused, Registration, Registrations, RendezvousConfig, check_namespace
from ._store import RegistrationStore

_SWEEP = 60.0
"""Seconds between two looks for what has ended, for a point that nobody asks anything."""
_KEY_SIZE = 32
REQUESTS_PER_STREAM = 100
"""That are answered (ours); rust and we ask one on each, others go on."""


class RendezvousPoint(Service):
    """Serves ``/rendezvous/1.0.0``: takes registrations, and answers who is registered.

    Registrations are answered with what is left of their lives. A peer can register only itself, with a record it has
    signed. Cookies are good for as long as the service runs: asked with an older one, it says that it is invalid, and
    the other side starts from the beginning.

    Args:
        config: what it takes.
        store: where registrations survive a restart; by default they do not. It is closed with the service.
    """

    def __init__(self, config: RendezvousConfig | None = None, *, store: RegistrationStore | None = None) -> None:
        self._config = config or RendezvousConfig()
        self._store = store
        self._table = Registrations(self._config)
        self._cookies = Cookies(secrets.token_bytes(_KEY_SIZE))
        self._serving: Counter[PeerId] = Counter()
        self._running = False
        self._requests = Tally()

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """The one protocol."""
        return {RENDEZVOUS: self._answer}

    @property
    def registrations(self) -> int:
        """How many registrations there are."""
        return len(self._table)

    def measure(self) -> Iterator[Metric]:
        """Registrations, and what became of requests."""
        yield gauge("libp2p_rendezvous_registrations", "Registrations at this point", len(self._table))
        yield self._requests.metric("libp2p_rendezvous_requests_total", "Requests, by answer", "request", "status")

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the store, then remove what has ended, until cancelled.

        Raises:
            StoreCorrupt: the store's file is damaged.
        """
        try:
            self._load()
            self._running = True
            task_status.started()
            while True:
                await trio.sleep(_SWEEP)
                self._table.handle_timeout(trio.current_time())
        finally:
            self._running = False
            if self._store is not None:
                await self._store.aclose()

    def _load(self) -> None:
        now = trio.current_time()
        for stored in () if self._store is None else self._store.load():
            try:
                self._table.register(stored.namespace, stored.peer, stored.record, expires=now + stored.left, now=now)
            except Refused:
                continue  # the bounds are narrower than they were

    # --- serving

    async def _answer(self, stream: Stream) -> None:
        peer, serving, config = stream.connection.peer, self._serving, self._config
        if serving.total() >= config.streams_at_once or serving[peer] >= config.streams_per_peer or not self._running:
            return stream.reset(LimitExceeded.wire_code)
        serving[peer] += 1
        try:
            messages = Messages(stream, MAX_REQUEST)
            for _ in range(REQUESTS_PER_STREAM):
                with trio.fail_after(self._config.timeout):
                    request = await messages.receive()
                if request is None:
                    return
                answer = await self._serve(peer, request)
                status = Status.OK if answer is None else Status(answer.status)
                self._requests.add(type(request).__name__.lower(), status.name.lower())
                if answer is not None:
                    with trio.fail_after(self._config.timeout):
                        await stream.send_all(frame(encode(answer)))
        finally:
            serving[peer] -= 1
            if not serving[peer]:
                del serving[peer]

    async def _serve(self, peer: PeerId, request: Message) -> RegisterResponse | DiscoverResponse | None:
        match request:
            case Register():
                try:
                    return RegisterResponse(status=Status.OK, ttl=await self._register(peer, request))
                except Refused as exc:
                    return RegisterResponse(status=exc.status, text=exc.text)
            case Discover():
                try:
                    return self._discover(request)
                except Refused as exc:
                    return DiscoverResponse(status=exc.status, text=exc.text)
            case Unregister():
                if self._table.unregister(request.namespace, peer) and self._store is not None:
                    await self._store.remove(request.namespace, peer)
                return None
            case _:
                raise RemoteProtocolError("an answer where a request should be")

    async def _register(self, peer: PeerId, request: Register) -> int:
        # What is cheap to refuse comes before the signature.
        check_namespace(request.namespace)
        life = self._table.life(request.ttl)
        try:
            record, _ = open_record(request.record)
        except DecodeError as exc:
            raise Refused(Status.INVALID_SIGNED_PEER_RECORD, str(exc)) from exc
        if record.peer != peer:
            raise Refused(Status.NOT_AUTHORIZED, "the record is somebody else's")
        now = trio.current_time()
        self._table.register(request.namespace, peer, request.record, expires=now + life, now=now)
        if self._store is not None:
            await self._store.save(request.namespace, peer, request.record, life)
        return life

    def _discover(self, request: Discover) -> DiscoverResponse:
        namespace, now = request.namespace, trio.current_time()
        after = 0
        if namespace:
            check_namespace(namespace)
        if request.cookie:
            try:
                after = self._cookies.read(namespace, request.cookie)
            except DecodeError as exc:
                raise Refused(Status.INVALID_COOKIE, str(exc)) from exc
        found = self._table.discover(namespace, after=after, limit=request.limit, now=now)
        page = fitting([_described(registration, now) for registration in found], self._config.answer_bytes)
        last = found[len(page) - 1].number if page else after
        return DiscoverResponse(status=Status.OK, registrations=page, cookie=self._cookies.bake(namespace, last))


def _described(registration: Registration, now: float) -> Register:
    left = max(1, int(registration.expires - now))
    return Register(namespace=registration.namespace, record=registration.record, ttl=left)
