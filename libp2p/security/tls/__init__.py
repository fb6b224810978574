"""TLS 1.3: mutual authentication and encryption (``/tls/1.0.0``).

Needs pyOpenSSL, which the extra ``tls`` installs. It takes 0.1 to 0.2 s to import, so it is loaded when the first
handshake begins, outside of the event loop.

Specification: libp2p/specs tls/tls.md.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trio.abc import Stream as ByteStream

from ..._util.load import load
from ...abc import Direction, ProtocolId, SecureChannel, SecurityProtocol
from ...crypto.keys import PrivateKey
from ...peer_id import PeerId

if TYPE_CHECKING:
    from ._engine import Engine

__all__ = ["Tls", "installed"]

_ENGINE = f"{__name__}._engine"


def installed() -> bool:
    """Whether pyOpenSSL is there, without loading it."""
    return importlib.util.find_spec("OpenSSL") is not None


class Tls(SecurityProtocol):
    """The TLS security protocol of one host, with a certificate of its own.

    Args:
        key: the host's identity key.
        muxers: muxers to agree on inside the handshake (ALPN), best first; empty to leave that to a multistream round.
        clock: wall clock in seconds since 1970, by which certificates are valid.

    Raises:
        ImportError: the extra ``tls`` is not installed.
    """

    protocol: ProtocolId = "/tls/1.0.0"

    def __init__(
        self, key: PrivateKey, muxers: Sequence[ProtocolId] = (), *, clock: Callable[[], float] = time.time
    ) -> None:
        if not installed():
            raise ImportError("TLS needs an extra: pip install 'libp2p-trio[tls]'")
        self._key = key
        self._muxers = tuple(muxers)
        self._clock = clock
        self._engine: Engine | None = None

    async def secure(
        self, stream: ByteStream, *, direction: Direction, peer: PeerId | None, initial: bytes = b""
    ) -> SecureChannel:
        """Run the handshake; see :class:`libp2p.abc.SecurityProtocol`."""
        engine = self._engine
        if engine is None:
            module = await load(_ENGINE)
            engine = self._engine = self._engine or module.Engine(self._key, self._muxers, self._clock)
        return await engine.handshake(stream, direction=direction, peer=peer, initial=initial)
