"""The message of DCUtR, and which addresses go into it. Pure.

Source: libp2p/specs relay/DCUtR.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError as ProtobufError
from multiaddr import Multiaddr

from ...addressing import Scope, parse, scope
from ...errors import DecodeError
from ...pb import dcutr_pb2 as pb

MAX_MESSAGE = 4096
"""Longest message read, in bytes (specs; go, rust)."""
MAX_ADDRS = 16
"""Most addresses that are sent, or read of a message (case R4)."""

_USELESS = frozenset((Scope.LOOPBACK, Scope.LINK_LOCAL, Scope.UNSPECIFIED, Scope.RELAY, Scope.NAME))


class Kind(enum.IntEnum):
    """What a message is."""

    CONNECT = 100
    SYNC = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class HolePunch:
    """A message.

    Attributes:
        addrs: of a CONNECT, where its sender is seen.
    """

    kind: Kind
    addrs: tuple[Multiaddr, ...] = ()


def encode(message: HolePunch) -> bytes:
    """Return the serialized ``message``."""
    out = pb.HolePunch(type=message.kind)
    out.ObsAddrs.extend(addr.to_bytes() for addr in message.addrs)
    encoded: bytes = out.SerializeToString()
    return encoded


def decode(data: bytes) -> HolePunch:
    """Return the message in ``data``. Addresses that cannot be read, or are of no use here, are left out.

    Raises:
        DecodeError: it does not parse, or is of no known type.
    """
    message = pb.HolePunch()
    try:
        message.ParseFromString(data)
        kind = Kind(message.type)
    except (ProtobufError, ValueError) as exc:
        raise DecodeError("not a message of hole punching") from exc
    return HolePunch(kind=kind, addrs=punchable(_addrs(list(message.ObsAddrs)[:MAX_ADDRS])))


def _addrs(values: Iterable[bytes]) -> Iterable[Multiaddr]:
    for value in values:
        try:
            yield parse(value)
        except DecodeError:
            continue  # one address of a kind not known here must not cost the others


def punchable(addrs: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Those of ``addrs`` that another machine may come through, each once, as many as a message holds."""
    useful = dict.fromkeys(addr for addr in addrs if scope(addr) not in _USELESS)
    return tuple(useful)[:MAX_ADDRS]
