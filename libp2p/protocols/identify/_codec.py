"""Identify messages: what a peer says about itself. Pure.

One message type serves three purposes. As an answer it is complete, possibly cut into several messages that add up; as
a push, what is missing means "as before". Reading is lenient about single items (an address of a kind not known here, a
protocol id that is no text) and strict about amounts; nothing here believes a word of it.

Source: libp2p/specs identify, with the schema in ``proto/identify.proto``; field 8 and the amounts are what go, js and
rust do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from multiaddr import Multiaddr

from ...abc import ProtocolId
from ...addressing import parse
from ...errors import DecodeError
from ...wire import proto

MAX_SENT = 4096
"""Longest message sent, in bytes: rust reads no longer ones."""
MAX_RECEIVED = 8 * 1024
"""Longest message read, in bytes (go, js)."""
MAX_PARTS = 10
"""Most messages that are read as one answer (go, js)."""
MAX_ADDRS = 500
"""Most addresses kept of a peer (go)."""
MAX_PROTOCOLS = 128
"""Most protocols kept of a peer (case I1)."""
MAX_TEXT = 256
"""Longest agent or protocol version kept, in characters."""
_MAX_PROTOCOL_ID = 1024
"""Longest protocol id kept, in characters: no longer one could be negotiated."""

OBSERVED_ROOM = 256
"""Bytes of a message kept free for the observed address (ours): an address of IP and ports takes 30."""

_PUBLIC_KEY, _LISTEN_ADDR, _PROTOCOL, _OBSERVED_ADDR, _PROTOCOL_VERSION, _AGENT_VERSION, _RECORD = 1, 2, 3, 4, 5, 6, 8
_SINGLE = frozenset((_PUBLIC_KEY, _OBSERVED_ADDR, _PROTOCOL_VERSION, _AGENT_VERSION, _RECORD))
MAX_FIELDS = 1024
"""Most fields of an answer, all its messages together: what is kept, and half as much again. An answer of fields of two
bytes would hold 40,960, which take a fifth of a second to read."""

# Addresses that are sent whatever else there is; the others give way to protocols.
_FIRST_ADDRS = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifyInfo:
    """What a peer says about itself. None of it is proved by being here.

    Attributes:
        public_key: its serialized public key; None when it did not say.
        listen_addrs: where it says it can be reached.
        protocols: the protocol ids it serves.
        observed_addr: our address as it sees it; None when it did not say.
        protocol_version: the family of protocols it belongs to, by convention ``ipfs/0.1.0``; nobody compares it.
        agent_version: what it calls its software.
        signed_peer_record: an envelope with its addresses, not opened.
    """

    public_key: bytes | None = None
    listen_addrs: tuple[Multiaddr, ...] = ()
    protocols: tuple[ProtocolId, ...] = ()
    observed_addr: Multiaddr | None = None
    protocol_version: str | None = None
    agent_version: str | None = None
    signed_peer_record: bytes | None = None


def decode(parts: Sequence[bytes]) -> IdentifyInfo:
    """Return what the messages ``parts`` say together.

    Lists are appended to each other and cut at the limits above; of single fields the last counts. Addresses and
    protocol ids that cannot be read, or are repeated, are left out.

    Raises:
        DecodeError: one of them is no identify message, or there are too many, or too many fields in them.
    """
    if len(parts) > MAX_PARTS:
        raise DecodeError(f"an identify answer of more than {MAX_PARTS} messages")
    single: dict[int, bytes] = {}
    listen_addrs: list[bytes] = []
    protocols: list[bytes] = []
    lists = {_LISTEN_ADDR: listen_addrs, _PROTOCOL: protocols}
    room = MAX_FIELDS
    for part in parts:
        for field in proto.read(part, room):
            room -= 1
            if field.number in lists:
                lists[field.number].append(field.as_bytes())
            elif field.number in _SINGLE:
                single[field.number] = field.as_bytes()
    get = single.get
    return IdentifyInfo(
        public_key=get(_PUBLIC_KEY),
        listen_addrs=_unique(_addrs(listen_addrs), MAX_ADDRS),
        protocols=_unique(_texts(protocols), MAX_PROTOCOLS),
        observed_addr=next(_addrs((get(_OBSERVED_ADDR, b""),)), None),
        protocol_version=_printable(get(_PROTOCOL_VERSION)),
        agent_version=_printable(get(_AGENT_VERSION)),
        signed_peer_record=get(_RECORD) or None,
    )


def merge(known: IdentifyInfo, push: IdentifyInfo) -> IdentifyInfo:
    """Return ``known`` with everything replaced that ``push`` says anew."""
    said = {name: value for name in IdentifyInfo.__slots__ if (value := getattr(push, name)) not in (None, ())}
    if "listen_addrs" in said or "signed_peer_record" in said:
        # Old and new addresses are alternatives, wherever each of them came from.
        said.setdefault("listen_addrs", ())
        said.setdefault("signed_peer_record", None)
    return replace(known, **said)


def encode(info: IdentifyInfo, *, max_length: int = MAX_SENT) -> bytes:
    """Return ``info`` as one message of at most ``max_length`` bytes.

    What does not fit is left out: the signed record first, then addresses after the first few, then protocols from
    the end of the list.
    """
    key = b"" if info.public_key is None else proto.write_bytes(_PUBLIC_KEY, info.public_key)
    singles = b"" if info.observed_addr is None else proto.write_bytes(_OBSERVED_ADDR, info.observed_addr.to_bytes())
    for number, text in ((_PROTOCOL_VERSION, info.protocol_version), (_AGENT_VERSION, info.agent_version)):
        if text is not None:
            singles = singles + proto.write_bytes(number, text[:MAX_TEXT].encode())
    room = max_length - len(key) - len(singles)
    addrs = [proto.write_bytes(_LISTEN_ADDR, addr.to_bytes()) for addr in info.listen_addrs]
    protocols = [proto.write_bytes(_PROTOCOL, protocol.encode()) for protocol in info.protocols]
    kept_addrs, room = _fitting(addrs[:_FIRST_ADDRS], room)
    kept_protocols, room = _fitting(protocols, room)
    more_addrs, room = _fitting(addrs[_FIRST_ADDRS:], room)
    kept_addrs += more_addrs
    record: list[bytes] = []
    complete = len(kept_addrs) == len(addrs) and len(kept_protocols) == len(protocols)
    if info.signed_peer_record is not None and complete:
        record, room = _fitting([proto.write_bytes(_RECORD, info.signed_peer_record)], room)
    return b"".join((key, *kept_addrs, *kept_protocols, singles, *record))


def encode_observed(addr: Multiaddr) -> bytes:
    """Return ``addr`` as the observed address, to go behind a message that :func:`encode` made without one.

    Fields may come in any order, so a message that is the same for all peers but for this field is encoded once. Empty
    when it takes more than :data:`OBSERVED_ROOM` bytes.
    """
    encoded = proto.write_bytes(_OBSERVED_ADDR, addr.to_bytes())
    return encoded if len(encoded) <= OBSERVED_ROOM else b""


def _fitting(fields: Sequence[bytes], room: int) -> tuple[list[bytes], int]:
    """Those first ``fields`` that fit into ``room`` bytes, and the room that is left."""
    kept: list[bytes] = []
    for field in fields:
        if len(field) > room:
            break
        room -= len(field)
        kept.append(field)
    return kept, room


def _unique(values: Iterable[T], limit: int) -> tuple[T, ...]:
    found: dict[T, None] = {}
    for value in values:
        if len(found) == limit:
            break
        found[value] = None
    return tuple(found)


def _addrs(values: Iterable[bytes]) -> Iterator[Multiaddr]:
    for value in values:
        try:
            yield parse(value)
        except DecodeError:
            continue


def _texts(values: Iterable[bytes]) -> Iterator[str]:
    for value in values:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            continue
        if 0 < len(text) <= _MAX_PROTOCOL_ID:
            # Thousands of peers serve the same few protocols, and each message brings its own copies of the names.
            yield sys.intern(text)


def _printable(value: bytes | None) -> str | None:
    """It ends up in logs and on terminals: no control characters, and not a book."""
    if value is None:
        return None
    text = value.decode("utf-8", "replace")[:MAX_TEXT]
    return sys.intern("".join([char if char.isprintable() else "?" for char in text]))
