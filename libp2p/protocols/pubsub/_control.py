"""Control entries of gossipsub on the wire: IHAVE, IWANT, GRAFT, PRUNE, IDONTWANT. Pure.

What a peer says about time and numbers is cut to what is allowed here and nowhere else (case G2). Ids are bytes,
whatever some stacks declare.

Source: libp2p/specs gossipsub v1.0 to v1.3; ``proto/pubsub.proto``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...errors import DecodeError
from ...peer_id import PeerId
from ...wire import proto
from ._codec import MAX_ID_SIZE, MessageId, read_number, read_text, walk

MIN_BACKOFF, MAX_BACKOFF = 1.0, 3600.0
"""Seconds that a peer may ask us to stay away (case G2)."""
MAX_EXCHANGED = 16
"""Peers taken from one PRUNE (js; case G2)."""
MAX_IDS = 5000
"""Message ids taken from one RPC (go, js); the rest, and those that are too long, are left out and counted."""
CONTROL_SIZE = 15 * 1024
"""Bytes of ids put into one entry, so that what is sent fits into the 16 KiB that rust takes."""

_IHAVE, _IWANT, _GRAFT, _PRUNE, _IDONTWANT, _EXTENSIONS = 1, 2, 3, 4, 5, 6
_TOPIC, _IHAVE_IDS, _IDS = 1, 2, 1
_PRUNE_PEERS, _PRUNE_BACKOFF = 2, 3
_PEER_ID, _PEER_RECORD = 1, 2


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A peer that somebody who pruned us proposes instead.

    Attributes:
        record: its signed peer record, not verified; empty when none came.
    """

    peer: PeerId
    record: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Prune:
    """We are no longer in a mesh.

    Attributes:
        backoff: seconds to stay away, within :data:`MIN_BACKOFF` and :data:`MAX_BACKOFF`; None when not said.
    """

    topic: str
    backoff: float | None = None
    peers: tuple[Exchanged, ...] = ()


@dataclass(slots=True)
class Control:
    """The control entries of one RPC.

    Attributes:
        ihave: ids of messages the peer has, by topic.
        iwant: ids of messages it asks for.
        graft: topics whose mesh it takes us into.
        prune: those it takes us out of.
        idontwant: ids of messages it does not want to be sent, one list for each entry.
        extensions: what it says about itself, encoded, for each time it says so.
        ids_left_out: whether there were more than :data:`MAX_IDS` ids, or longer ones than :data:`MAX_ID_SIZE`.
    """

    ihave: dict[str, list[MessageId]] = field(default_factory=dict[str, list[MessageId]])
    iwant: list[MessageId] = field(default_factory=list[MessageId])
    graft: list[str] = field(default_factory=list[str])
    prune: list[Prune] = field(default_factory=list[Prune])
    idontwant: list[list[MessageId]] = field(default_factory=list[list[MessageId]])
    extensions: list[bytes] = field(default_factory=list[bytes])
    ids_left_out: bool = False


def decode_control(data: bytes, *, max_ids: int = MAX_IDS) -> Control:
    """Return the control entries in ``data``. Entries about topics that are empty or not UTF-8 are left out.

    Raises:
        DecodeError: it is malformed, as far as it was looked at.
    """
    control = Control()
    ids = _Ids(max_ids)
    for tag, _, start, stop in walk(data, 0, len(data)):
        number = tag >> 3
        if tag & 7 != proto.BYTES:
            continue
        if number == _IHAVE:
            topic, held = ids.read(data, start, stop, _IHAVE_IDS)
            if topic:
                control.ihave.setdefault(topic, []).extend(held)
        elif number == _IWANT:
            control.iwant += ids.read(data, start, stop, _IDS)[1]
        elif number == _IDONTWANT:
            control.idontwant.append(ids.read(data, start, stop, _IDS)[1])
        elif number == _GRAFT:
            if topic := _topic(data, start, stop):
                control.graft.append(topic)
        elif number == _PRUNE:
            if prune := _decode_prune(data, start, stop):
                control.prune.append(prune)
        elif number == _EXTENSIONS:
            control.extensions.append(data[start:stop])
    control.ids_left_out = ids.left_out
    return control


class _Ids:
    """Reads lists of ids, only so many in all."""

    __slots__ = ("_room", "left_out")

    def __init__(self, room: int) -> None:
        self._room = room
        self.left_out = False

    def read(self, data: bytes, start: int, stop: int, number: int) -> tuple[str | None, list[MessageId]]:
        """The topic, where ``number`` leaves field 1 to it, and the ids in the fields with ``number``."""
        topic: str | None = None
        ids: list[MessageId] = []
        wanted = number << 3 | proto.BYTES
        for tag, _, value_start, value_stop in walk(data, start, stop):
            if tag == wanted:
                if not self._room:
                    self.left_out = True
                    break
                self._room -= 1
                if value_stop - value_start <= MAX_ID_SIZE:
                    ids.append(data[value_start:value_stop])
                else:
                    self.left_out = True
            elif tag == _TOPIC << 3 | proto.BYTES:
                topic = read_text(data[value_start:value_stop])
        return topic, ids


def _topic(data: bytes, start: int, stop: int) -> str | None:
    topic: str | None = None
    for tag, _, value_start, value_stop in walk(data, start, stop):
        if tag == _TOPIC << 3 | proto.BYTES:
            topic = read_text(data[value_start:value_stop])
    return topic


def _decode_prune(data: bytes, start: int, stop: int) -> Prune | None:
    topic: str | None = None
    backoff: float | None = None
    peers: list[Exchanged] = []
    for tag, _, value_start, value_stop in walk(data, start, stop):
        if tag == _TOPIC << 3 | proto.BYTES:
            topic = read_text(data[value_start:value_stop])
        elif tag == _PRUNE_PEERS << 3 | proto.BYTES and len(peers) < MAX_EXCHANGED:
            if peer := _decode_exchanged(data, value_start, value_stop):
                peers.append(peer)
        elif tag == _PRUNE_BACKOFF << 3 | proto.VARINT:
            # Zero is what a field that is missing looks like.
            seconds = read_number(data, value_start, value_stop)
            backoff = float(min(max(seconds, MIN_BACKOFF), MAX_BACKOFF)) if seconds else None
    return Prune(topic, backoff, tuple(peers)) if topic else None


def _decode_exchanged(data: bytes, start: int, stop: int) -> Exchanged | None:
    peer: PeerId | None = None
    record = b""
    for tag, _, value_start, value_stop in walk(data, start, stop):
        if tag == _PEER_ID << 3 | proto.BYTES:
            try:
                peer = PeerId.from_bytes(data[value_start:value_stop])
            except DecodeError:
                return None
        elif tag == _PEER_RECORD << 3 | proto.BYTES:
            record = data[value_start:value_stop]
    return None if peer is None else Exchanged(peer, record)


def encode_ihave(topic: str, ids: Iterable[MessageId]) -> bytes:
    """Return an IHAVE entry."""
    return proto.write_bytes(_IHAVE, proto.write_bytes(_TOPIC, topic.encode()) + _encode_ids(_IHAVE_IDS, ids))


def encode_iwant(ids: Iterable[MessageId]) -> bytes:
    """Return an IWANT entry."""
    return proto.write_bytes(_IWANT, _encode_ids(_IDS, ids))


def encode_idontwant(ids: Iterable[MessageId]) -> bytes:
    """Return an IDONTWANT entry."""
    return proto.write_bytes(_IDONTWANT, _encode_ids(_IDS, ids))


def encode_graft(topic: str) -> bytes:
    """Return a GRAFT entry."""
    return proto.write_bytes(_GRAFT, proto.write_bytes(_TOPIC, topic.encode()))


def encode_prune(prune: Prune) -> bytes:
    """Return a PRUNE entry; the back-off in whole seconds, rounded up."""
    parts = [proto.write_bytes(_TOPIC, prune.topic.encode())]
    for peer in prune.peers:
        info = proto.write_bytes(_PEER_ID, bytes(peer.peer))
        if peer.record:
            info += proto.write_bytes(_PEER_RECORD, peer.record)
        parts.append(proto.write_bytes(_PRUNE_PEERS, info))
    if prune.backoff is not None:
        parts.append(proto.write_uint(_PRUNE_BACKOFF, int(-(-prune.backoff // 1))))
    return proto.write_bytes(_PRUNE, b"".join(parts))


def _encode_ids(number: int, ids: Iterable[MessageId]) -> bytes:
    return b"".join([proto.write_bytes(number, message_id) for message_id in ids])


def split_ids(ids: Sequence[MessageId], size: int = CONTROL_SIZE) -> Iterator[list[MessageId]]:
    """Cut ``ids`` into lists of at most ``size`` bytes each, encoded; a longer id is alone."""
    batch: list[MessageId] = []
    room = size
    for message_id in ids:
        needed = len(message_id) + 6
        if batch and needed > room:
            yield batch
            batch, room = [], size
        batch.append(message_id)
        room -= needed
    if batch:
        yield batch
