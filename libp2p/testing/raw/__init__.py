"""Peers made of bytes: what it takes to say anything, right or wrong, to a libp2p node.

Everything here is written from the specifications and shares no code with the library, so that a test against it is a
second opinion, and so that a mistake of the library cannot hide by being made on both sides. Nothing is checked before
it is sent: breaking rules is the purpose.
"""

from ._encoding import pb, read_uvarint, uvarint
from ._multistream import HEADER, NA, line, read_line, read_lines
from ._muxers import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    MplexMessage,
    YamuxFrame,
    mplex,
    mplex_messages,
    yamux,
    yamux_frames,
)
from ._noise import Identity, NoiseXX, handshake_payload
from ._peer import RawPeer, Wants

__all__ = [
    "ACK",
    "DATA",
    "FIN",
    "GO_AWAY",
    "HEADER",
    "NA",
    "PING",
    "RST",
    "SYN",
    "WINDOW_UPDATE",
    "Identity",
    "MplexMessage",
    "NoiseXX",
    "RawPeer",
    "Wants",
    "YamuxFrame",
    "handshake_payload",
    "line",
    "mplex",
    "mplex_messages",
    "pb",
    "read_line",
    "read_lines",
    "read_uvarint",
    "uvarint",
    "yamux",
    "yamux_frames",
]
