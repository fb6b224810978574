"""What a server answers. Decides without waiting; the service reads requests and writes answers.

Source: libp2p/specs kad-dht, "RPC messages"; what go does where it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..._util.bounded import LruMap
from ...abc import Host
from ...errors import DecodeError, RemoteProtocolError, ServiceError
from ...peer_id import PeerId
from ...records.ipns import rfc3339
from ._addrs import readable
from ._codec import (
    MAX_PLAIN_REQUEST,
    MAX_SENT,
    Message,
    MessageType,
    PeerInfo,
    Record,
    decode,
    encode,
    encode_closer,
    encode_closer_peers,
    sent,
)
from ._config import KadConfig
from ._errors import StoreBusy
from ._keyspace import point_of
from ._records import InvalidRecord, Namespaces
from ._routing_table import RoutingTable
from ._store import Store, StoredValue

MAX_CONTENT_KEY = 80
"""Bytes of a key of the provider requests (go)."""
_KEPT = 2048
"""Peers whose encoded form is kept."""
_FRESH = 30.0
"""Seconds for which it is."""


class Refused(ServiceError):
    """A request that will not be answered: its stream is reset, and the peer may well go on with others."""


class Server:
    """Answers requests.

    Args:
        host: its peerstore knows the addresses of the peers in ``table``.

    Attributes:
        counters: requests by kind, and refusals by reason.
    """

    def __init__(
        self, host: Host, config: KadConfig, table: RoutingTable, store: Store, namespaces: Namespaces
    ) -> None:
        self.counters: dict[str, int] = {}
        self._host = host
        self._config = config
        self._table = table
        self._store = store
        self._namespaces = namespaces
        self._encoded: LruMap[PeerId, tuple[float, bytes]] = LruMap(_KEPT)

    def answer(self, peer: PeerId, data: bytes, *, now: float, wall: float) -> bytes | None:
        """What to answer ``peer``; None when nothing is to be.

        Args:
            now: seconds of a clock that only goes forward.
            wall: seconds since 1970.

        Raises:
            RemoteProtocolError: it is no request.
            Refused: it asks for something that is not done.
        """
        try:
            request = decode(data)
        except DecodeError as exc:
            raise RemoteProtocolError(str(exc)) from exc
        if len(data) > MAX_PLAIN_REQUEST and request.type is not MessageType.PUT_VALUE:
            raise RemoteProtocolError(f"a request of {len(data)} bytes")
        self.count(request.type.name.lower())
        match request.type:
            case MessageType.FIND_NODE:
                closer = self._closer(request.key, peer, now, target_too=True)
                return encode(Message(type=request.type)) + encode_closer_peers(closer, MAX_SENT)
            case MessageType.GET_VALUE:
                return self._get_value(request, peer, now, wall)
            case MessageType.PUT_VALUE:
                return self._put_value(request, wall)
            case MessageType.GET_PROVIDERS:
                return self._get_providers(request, peer, now, wall)
            case MessageType.ADD_PROVIDER:
                self._add_provider(request, peer, wall)
                return None
            case MessageType.PING:
                return encode(Message(type=MessageType.PING))

    def count(self, what: str) -> None:
        """Count ``what``."""
        self.counters[what] = self.counters.get(what, 0) + 1

    def _refuse(self, reason: str) -> Refused:
        self.count(f"refused: {reason}")
        return Refused(reason)

    # --- peers

    def _closer(self, key: bytes, asking: PeerId, now: float, *, target_too: bool = False) -> Iterable[bytes]:
        """The nearest peers to ``key`` that have addresses, encoded; who asks is not told of itself."""
        count = self._table.config.bucket_size
        nearest = self._table.nearest(point_of(key), count, healthy=True, without=asking)
        if target_too and (target := _peer(key)) is not None and target != asking:
            # Known or not, in the table or not: this is what is asked for. go takes peers into its table only when they
            # name themselves.
            nearest = [target, *(peer for peer in nearest if peer != target)][:count]
        return [encoded for peer in nearest if (encoded := self._encode(peer, now))]

    def _encode(self, peer: PeerId, now: float) -> bytes:
        """``peer`` as it stands in an answer; empty when no address of it is known."""
        kept = self._encoded.get(peer)
        if kept is None or kept[0] <= now:
            own = peer == self._host.local_peer
            addrs = self._host.addrs if own else self._host.peerstore.addrs(peer)
            told = self._config.reach.told(addrs)
            if not told:
                return b""  # not kept: whoever has just come is known a moment later
            kept = self._encoded[peer] = (now + _FRESH, encode_closer(PeerInfo(peer, told)))
        return kept[1]

    # --- values

    def _get_value(self, request: Message, peer: PeerId, now: float, wall: float) -> bytes:
        try:
            self._namespaces.of(request.key)
        except InvalidRecord as exc:
            raise self._refuse("namespace") from exc
        held = self._held(request.key, wall)
        record = None
        if held is not None:
            record = Record(key=request.key, value=held.value, received=rfc3339(held.received))
        head = encode(Message(type=request.type, record=record))
        return head + encode_closer_peers(self._closer(request.key, peer, now), MAX_SENT)

    def _put_value(self, request: Message, wall: float) -> bytes:
        record = request.record
        if record is None or record.key != request.key:
            raise self._refuse("record of another key")
        reason = "validator failed"
        with self._host.contain("record validator"):
            reason = self._against(record, wall)
        if reason:
            raise self._refuse(reason)
        self._keep(record, wall)
        return encode(Message(type=request.type, key=request.key, record=record))

    def _against(self, record: Record, wall: float) -> str:
        """Why ``record`` is not kept; empty when it is."""
        if not self._namespaces.is_valid(record.key, record.value, wall):
            return "invalid record"
        held = self._held(record.key, wall)
        if held is None or held.value == record.value:
            return ""
        return "" if self._namespaces.better(record.key, record.value, held.value, wall) else "older record"

    def _held(self, key: bytes, wall: float) -> StoredValue | None:
        """What is kept under ``key`` and still valid: it may have ended before its place here does."""
        held, valid = self._store.value(key, wall), False
        if held is not None:
            with self._host.contain("record validator"):
                valid = self._namespaces.is_valid(key, held.value, wall)
        return held if valid else None

    def _keep(self, record: Record, wall: float) -> None:
        try:
            kept = self._store.put_value(record.key, record.value, now=wall, expires=wall + self._config.value_ttl)
        except StoreBusy as exc:
            raise self._refuse("store busy") from exc
        if not kept:
            raise self._refuse("store full")

    # --- providers

    def _get_providers(self, request: Message, peer: PeerId, now: float, wall: float) -> bytes:
        self._check_content_key(request.key)
        providers: list[PeerInfo] = []
        for held in self._store.providers(request.key, wall):
            addrs = held.addrs or self._config.reach.told(self._host.peerstore.addrs(held.peer))
            providers.append(PeerInfo(held.peer, addrs))
        head = encode(Message(type=request.type, providers=tuple(providers)))
        return head + encode_closer_peers(self._closer(request.key, peer, now), MAX_SENT - len(head))

    def _add_provider(self, request: Message, peer: PeerId, wall: float) -> None:
        self._check_content_key(request.key)
        own = next((provider for provider in request.providers if provider.peer == peer), None)
        if own is None:
            self.count("refused: provider is not sender")
            return
        addrs = self._config.reach.told(readable(own.addrs, peer))
        if not addrs:
            self.count("refused: provider without address")
            return
        try:
            kept = self._store.add_provider(
                request.key,
                peer,
                sent(addrs),
                addrs_expire=wall + self._config.provider_addrs_ttl,
                expires=wall + self._config.provider_ttl,
            )
        except StoreBusy:
            # Nobody waits for an answer, so it is only counted; who provides announces again.
            self.count("refused: store busy")
            return
        if not kept:
            self.count("refused: store full")

    def _check_content_key(self, key: bytes) -> None:
        if not 0 < len(key) <= MAX_CONTENT_KEY:
            raise self._refuse("key length")


def _peer(key: bytes) -> PeerId | None:
    """The peer whose id ``key`` is."""
    try:
        return PeerId.from_bytes(key)
    except DecodeError:
        return None
