"""Accept loops: they share no fate with any connection.

Whoever is accepted is charged before anything of it is read: see ``Scopes.reserve_pending``. When too many are being
upgraded, the one that has come least far makes room, so that a thousand silent connections cannot lock everybody out.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

import trio

from .._util.contain import Containment
from ..abc import Direction, Listener, RawConnection, SecureMuxedConnection
from ..errors import Libp2pError, LimitExceeded
from ..events import ListenerClosed
from ._config import SwarmConfig
from ._connection import SwarmConnection
from ._gater import Gater
from ._limits import PendingToken, Scopes, source_ip
from ._upgrade import Progress, Upgraded, Upgrader

_log = logging.getLogger("libp2p.swarm")

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Errors of ``accept`` that pass when somebody gives resources back (as in Trio's ``serve_listeners``)."""
EXHAUSTED_PAUSE = 0.1
"""Seconds before the next try."""


class Listening:
    """The listeners of one swarm."""

    def __init__(
        self,
        *,
        upgrader: Upgrader,
        gater: Gater,
        scopes: Scopes,
        containment: Containment,
        config: SwarmConfig,
        admit: Callable[[Upgraded, Direction, PendingToken], SwarmConnection],
        publish: Callable[[ListenerClosed], None],
    ) -> None:
        self._upgrader = upgrader
        self._gater = gater
        self._scopes = scopes
        self._containment = containment
        self._config = config
        self._admit = admit
        self._publish = publish
        self._upgrades: dict[PendingToken, trio.CancelScope] = {}
        self.listeners: list[Listener] = []

    def start(self, listener: Listener, nursery: trio.Nursery) -> None:
        """Accept on ``listener`` from now on. Upgrades run in ``nursery``, the swarm's."""
        self.listeners.append(listener)
        nursery.start_soon(self._serve, listener, nursery)

    async def _serve(self, listener: Listener, nursery: trio.Nursery) -> None:
        exhausted = False
        try:
            while True:
                try:
                    raw = await listener.accept()
                    exhausted = False
                except OSError as exc:
                    if exc.errno in EXHAUSTED:
                        if not exhausted:  # once, and not with every try
                            _log.warning("accept on %s: %s; trying again", listener.addresses[0], exc)
                        exhausted = True
                        await trio.sleep(EXHAUSTED_PAUSE)
                        continue
                    _log.error("listener on %s failed: %s", listener.addresses[0], exc)
                    self._publish(ListenerClosed(listener.addresses[0], str(exc)))
                    return
                except trio.ClosedResourceError:
                    return
                token = self._reserve(raw)
                if token is None:
                    await trio.aclose_forcefully(raw.stream if isinstance(raw, RawConnection) else raw)
                else:
                    scope = trio.CancelScope(deadline=trio.current_time() + self._config.accept_timeout)
                    self._upgrades[token] = scope
                    nursery.start_soon(self._upgrade, raw, token, scope)
        finally:
            self.listeners.remove(listener)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(listener)

    async def close(self) -> None:
        """Stop listening."""
        for listener in tuple(self.listeners):
            await listener.aclose()

    def _reserve(self, raw: RawConnection | SecureMuxedConnection) -> PendingToken | None:
        if not self._gater.accept(raw.remote_addr):
            return None
        now = trio.current_time()
        ip = source_ip(raw.remote_addr)
        try:
            try:
                return self._scopes.reserve_pending(ip, now)
            except LimitExceeded as exc:
                if exc.scope != "pending_inbound":
                    raise
                victim = self._scopes.evict_pending(now)
                if victim is None:
                    raise
                self._upgrades[victim].cancel()
                return self._scopes.reserve_pending(ip, now)
        except LimitExceeded as exc:
            _log.debug("refused %s: %s", raw.remote_addr, exc)
            return None

    async def _upgrade(
        self, raw: RawConnection | SecureMuxedConnection, token: PendingToken, scope: trio.CancelScope
    ) -> None:
        progress = Progress(token)
        # Contained: whatever a stranger's bytes bring about here, only its connection ends.
        with self._containment.contain("connection from", raw.remote_addr):
            try:
                with scope:
                    upgraded = await self._upgrader.upgrade(
                        raw, direction=Direction.INBOUND, peer=None, progress=progress
                    )
                    self._admit(upgraded, Direction.INBOUND, token)
                if scope.cancelled_caught:
                    _log.debug("%s: ended at %s, too slow", raw.remote_addr, progress.stage)
            except (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                _log.debug("%s: failed at %s: %s", raw.remote_addr, progress.stage, exc)
            finally:
                del self._upgrades[token]
                token.release()
