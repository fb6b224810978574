"""A yamux machine, a clock, and a peer who writes by hand."""

from __future__ import annotations

from typing import Any

import pytest

from libp2p.errors import RemoteProtocolError
from libp2p.muxers._machine import REFUSED_DEAD, MuxEvent, StreamOpened
from libp2p.muxers.yamux._machine import YamuxConfig, YamuxMachine
from tests.muxers import raw
from tests.muxers.raw import ACK, GOAWAY, SYN, Frame


class Side:
    """A machine and its peer."""

    def __init__(self, *, client: bool = False, **limits: Any) -> None:
        self.config = YamuxConfig(**limits)
        self.machine = YamuxMachine(self.config, client=client)
        self.now = 1000.0

    def feed(self, *wire: bytes) -> list[MuxEvent]:
        """Give the peer's bytes to the machine."""
        return self.machine.receive_data(b"".join(wire), self.now)

    def sent(self) -> list[Frame]:
        """What the machine has sent since the last time."""
        return raw.frames(raw.join(self.machine.data_to_send()))

    def inbound(self, stream: int = 1, *, flags: int = 0) -> int:
        """Let the peer open a stream, and acknowledge it."""
        assert self.feed(raw.window(stream, 0, SYN | flags)) == [StreamOpened(stream)]
        self.machine.acknowledge(stream)
        self.sent()
        return stream

    def outbound(self) -> int:
        """Open a stream and let the peer acknowledge it."""
        stream = self.machine.open_stream()
        self.machine.announce(stream)
        self.feed(raw.window(stream, 0, ACK))
        self.sent()
        return stream

    def state(self, stream: int) -> Any:
        """The machine's entry of a stream."""
        return self.machine._streams[stream]

    def violate(self, *wire: bytes, match: str | None = None) -> None:
        """The peer's bytes must cost it the connection: GoAway 1 is sent, nothing is left."""
        with pytest.raises(RemoteProtocolError, match=match):
            self.feed(*wire)
        assert self.sent()[-1] == Frame(GOAWAY, 0, 0, 1)
        machine = self.machine
        assert machine.stream_count == machine.inbound_count == machine.outbound_count == machine.buffered == 0
        assert machine.refusal == REFUSED_DEAD
        assert machine.going_away
        with pytest.raises(RemoteProtocolError, match="dead"):
            self.feed()
