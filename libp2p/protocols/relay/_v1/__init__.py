"""Messages of circuit relay version 1, a package of their own because they are a schema of their own. Pure."""

from ._codec import RELAY_V1, BadPeer, End, Kind, MessageV1, StatusV1, decode, decode_answer, encode, hop

__all__ = [
    "RELAY_V1",
    "BadPeer",
    "End",
    "Kind",
    "MessageV1",
    "StatusV1",
    "decode",
    "decode_answer",
    "encode",
    "hop",
]
