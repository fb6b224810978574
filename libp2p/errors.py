"""The exception tree: named by who broke what, and in which phase.

Everything the library raises on purpose derives from :class:`Libp2pError`. Misuse by the caller keeps Python's and
Trio's own names (``ValueError``, ``trio.ClosedResourceError``, ``trio.BusyResourceError``). Data lives in attributes;
the text is made when it is printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

import trio

if TYPE_CHECKING:
    from multiaddr import Multiaddr

    from .peer_id import PeerId


class Libp2pError(Exception):
    """Root of all errors of this library."""


class DecodeError(Libp2pError, ValueError):
    """Bytes or text that do not parse: a multiaddr, peer id, key, message or record."""


class ProtocolError(Libp2pError):
    """Somebody broke a protocol's rules. Always one of its two subclasses.

    Attributes:
        wire_code: the stream or connection error code that tells the other side
            (libp2p error codes: 0x1001 negotiation failed, 0x1002 resource limit, 0x1003 rate limited,
            0x1004 protocol violation).
    """

    wire_code: ClassVar[int] = 0x1004


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules; it loses the stream or the connection."""


class LocalProtocolError(ProtocolError):
    """Our own caller broke the rules: a bug, or misuse of a machine."""


class TransportError(Libp2pError):
    """A transport could not dial or listen on one address.

    Attributes:
        addr: the address that was tried.
        reason: what the operating system or the transport said.
    """

    def __init__(self, addr: Multiaddr, reason: str) -> None:
        super().__init__(addr, reason)
        self.addr = addr
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.addr}: {self.reason}"


class ResolveError(TransportError):
    """A name in an address did not resolve, or resolved past the limits of depth or count."""


class UpgradeError(Libp2pError):
    """A raw connection could not be made secure and muxed.

    Attributes:
        stage: the step that failed: ``"private network"``, ``"security negotiation"``, ``"security handshake"``,
            ``"muxer negotiation"``.
    """

    def __init__(self, message: str, *, stage: str = "upgrade") -> None:
        super().__init__(message)
        self.stage = stage


class NegotiationError(UpgradeError):
    """Multistream-select found no protocol both sides speak, or the peer broke its rules.

    Attributes:
        offered: the protocol ids that were proposed.
        peer: with whom; None where that is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        offered: Iterable[str] = (),
        stage: str = "protocol negotiation",
        peer: PeerId | None = None,
    ) -> None:
        super().__init__(message, stage=stage)
        self.offered: tuple[str, ...] = tuple(offered)
        self.peer = peer

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.peer is None else f"{text} ({self.peer})"


class SecurityError(UpgradeError):
    """The security handshake failed: a bad signature, a broken record, a refused key."""

    def __init__(self, message: str, *, stage: str = "security handshake") -> None:
        super().__init__(message, stage=stage)


class PeerIdMismatch(SecurityError):
    """Another peer answered than the one that was dialled.

    Attributes:
        expected: the peer id that was asked for.
        actual: the peer id that the handshake proved.
    """

    def __init__(self, expected: PeerId, actual: PeerId) -> None:
        super().__init__(f"expected peer {expected}, found {actual}")
        self.expected = expected
        self.actual = actual


class PrivateNetworkRequired(Libp2pError):
    """The host must not run outside of a private network, and was given no key of one, or a transport that has none."""


class DialError(Libp2pError):
    """No address of a peer led to a usable connection.

    Attributes:
        peer: who was dialled; None when an address without a peer id was dialled.
        attempts: each address that was tried, or could not be, with the reason.
    """

    def __init__(self, peer: PeerId | None, attempts: Sequence[tuple[Multiaddr, Exception]] = ()) -> None:
        super().__init__(peer, attempts)
        self.peer = peer
        self.attempts: tuple[tuple[Multiaddr, Exception], ...] = tuple(attempts)

    def __str__(self) -> str:
        lines = [f"could not connect to {self.peer or 'the given address'}: {self._summary()}"]
        for addr, exc in self.attempts:
            stage = getattr(exc, "stage", "transport")
            reason = getattr(exc, "reason", None) or str(exc) or type(exc).__name__
            lines.append(f"  {addr}: {stage}: {reason}")
        return "\n".join(lines)

    def _summary(self) -> str:
        return f"{len(self.attempts)} address{'es' if len(self.attempts) != 1 else ''} tried, none worked"


class NoAddresses(DialError):
    """Nothing to dial: no address is known, or no transport here can dial those that are."""

    def _summary(self) -> str:
        if self.attempts:
            return "none of its addresses can be dialled from this host"
        return "no address is known; pass one, or add it to the peerstore"


class DialToSelf(DialError):
    """The peer to reach is this host itself."""

    reason = "this is the host itself"

    def _summary(self) -> str:
        return self.reason


class DialTimeout(Libp2pError):
    """One dial attempt ran into its deadline.

    Attributes:
        stage: the step the attempt had reached.
        seconds: the deadline.
    """

    def __init__(self, stage: str, seconds: float) -> None:
        super().__init__(stage, seconds)
        self.stage = stage
        self.seconds = seconds

    def __str__(self) -> str:
        return f"no answer within {self.seconds:g} s"


class LimitExceeded(Libp2pError):
    """A named limit refused the work.

    Attributes:
        scope: the limit's name, as in the configuration, for example ``"connections_per_peer"``.
        limit: its value.
    """

    wire_code: ClassVar[int] = 0x1002

    def __init__(self, scope: str, limit: float) -> None:
        super().__init__(scope, limit)
        self.scope = scope
        self.limit = limit

    def __str__(self) -> str:
        return f"limit {self.scope} = {self.limit:g} reached; raise it in the host's limits if this load is wanted"


class LimitedConnection(Libp2pError):
    """The only connection goes through a relay that limits it, and the protocol was not allowed to use such a one.

    Attributes:
        peer: who is at the other end.
    """

    def __init__(self, peer: PeerId) -> None:
        super().__init__(peer)
        self.peer = peer

    def __str__(self) -> str:
        return f"{self.peer} is connected through a relay with limits only; allow_limited=True uses it all the same"


class ConnectionDenied(Libp2pError):
    """The connection gater said no.

    Attributes:
        what: the peer or address that was refused.
    """

    def __init__(self, what: object) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the connection gater refused {self.what}"


class ConnectionClosed(Libp2pError, trio.BrokenResourceError):
    """The connection is gone.

    Attributes:
        reason: what ended it.
        code: the code of the close, 0 when none was given.
        remote: whether the other side ended it.
    """

    def __init__(self, reason: str = "connection closed", *, code: int = 0, remote: bool = False) -> None:
        super().__init__(reason, code, remote)
        self.reason = reason
        self.code = code
        self.remote = remote

    def __str__(self) -> str:
        who = "by the peer" if self.remote else "locally"
        return f"{self.reason} ({who}{f', code {self.code:#x}' if self.code else ''})"


class StreamReset(Libp2pError, trio.BrokenResourceError):
    """The stream was reset; data that was not read yet is lost.

    Attributes:
        code: the code that came with the reset, 0 when none did.
        remote: whether the other side reset it.
    """

    def __init__(self, *, code: int = 0, remote: bool = True) -> None:
        super().__init__(code, remote)
        self.code = code
        self.remote = remote

    def __str__(self) -> str:
        who = "by the peer" if self.remote else "locally"
        return f"stream reset {who}{f', code {self.code:#x}' if self.code else ''}"


class ServiceError(Libp2pError):
    """A service refused or failed; each service has its own subclasses."""


class ServiceTimeout(ServiceError, trio.TooSlowError):
    """A peer did not answer in time; services have subclasses, which say what was waited for.

    Attributes:
        what: what was waited for, in words.
        target: who was asked: a peer id or an address.
        seconds: how long it had.
    """

    what: ClassVar[str] = "answer"

    def __init__(self, target: object, seconds: float) -> None:
        super().__init__(target, seconds)
        self.target = target
        self.seconds = seconds

    def __str__(self) -> str:
        return f"no {self.what} from {self.target} within {self.seconds:g} s"


class StoreLocked(ServiceError):
    """Another process or host has the store's file open.

    Attributes:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} is in use by another host; give each host its own file"


class StoreError(ServiceError):
    """Something is wrong with a store's file.

    Attributes:
        path: the file.
        reason: what, in SQLite's words.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class StoreCorrupt(StoreError):
    """The file is damaged, or is something else than a store of this kind. Move it away to start afresh."""


class StoreUnwritable(StoreError):
    """The file cannot be opened or written: a missing folder, no permission, a full or broken disk."""


class StoreVersionMismatch(StoreError):
    """The file was written by another version of this library.

    Attributes:
        found: the version of the file.
        expected: the version this library reads and writes.
    """

    def __init__(self, path: str, found: int, expected: int) -> None:
        super().__init__(path, f"schema version {found}, but this version of libp2p needs {expected}")
        self.found = found
        self.expected = expected
