"""Identify: what peers tell each other about themselves, on every connection and whenever it changes.

Source: libp2p/specs, identify.
"""

from ._codec import IdentifyInfo
from ._exchange import IDENTIFY, IDENTIFY_PUSH, IdentifyFailed, identify
from ._service import Identify, IdentifyConfig

__all__ = [
    "IDENTIFY",
    "IDENTIFY_PUSH",
    "Identify",
    "IdentifyConfig",
    "IdentifyFailed",
    "IdentifyInfo",
    "identify",
]
