"""Messages of eight parts, as small as they can be: metadata is a byte with a bit for each part that somebody has."""

from __future__ import annotations

from dataclasses import dataclass, field

from libp2p.errors import DecodeError
from libp2p.protocols.pubsub import Parts

WHOLE = 0xFF


@dataclass
class Eight:
    """What one host has of a message; a part is a byte.

    Attributes:
        group: the message.
        parts: what it has, by number.
        eager: whether to push what a peer has not asked for.
    """

    group: bytes
    parts: dict[int, int] = field(default_factory=dict[int, int])
    eager: bool = False

    @property
    def bits(self) -> int:
        return sum(1 << number for number in self.parts)

    def metadata(self) -> bytes:
        return bytes((self.bits,))

    def parts_for(self, metadata: bytes | None) -> Parts | None:
        if metadata is None and not self.eager:
            return None
        if metadata is not None and len(metadata) != 1:
            raise DecodeError("metadata is one byte")
        theirs = 0 if metadata is None else metadata[0]
        missing = [number for number in self.parts if not theirs & 1 << number]
        if not missing:
            return None
        data = bytes([value for number in missing for value in (number, self.parts[number])])
        return Parts(data, bytes((theirs | self.bits,)))

    def add(self, data: bytes) -> bool:
        """Take parts in; whether any was new."""
        before = self.bits
        self.parts.update(zip(data[::2], data[1::2], strict=True))
        return self.bits != before


def eight(group: bytes = b"g", *numbers: int, eager: bool = False) -> Eight:
    """A message of which the parts with ``numbers`` are there."""
    return Eight(group, {number: 100 + number for number in numbers}, eager)
