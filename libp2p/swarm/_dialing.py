"""Runs dial plans. Everybody who wants the same peer shares one dial.

A dial lives in the swarm's nursery, not in a caller's task: a caller that gives up does not take the others' dial away,
and when the last one has gone the dial is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio
from multiaddr import Multiaddr

from .._util.contain import Containment
from ..abc import Direction, Peerstore, RawConnection, Resolver, SecureMuxedConnection, Transport
from ..addressing import is_relay, names, split_peer
from ..errors import (
    ConnectionDenied,
    DialError,
    DialTimeout,
    Libp2pError,
    NoAddresses,
    TransportError,
    UpgradeError,
)
from ..peer_id import PeerId
from ._black_hole import BlackHoles
from ._config import SwarmConfig
from ._connection import SwarmConnection
from ._dial_plan import Backoff, DialPlan
from ._dial_rank import rank
from ._gater import Gater, remote_addr_allowed
from ._limits import Scopes
from ._measured import SwarmCounters
from ._seen_hosts import note_host, was_seen
from ._unsupported import not_dialled
from ._upgrade import Progress, Refused, Upgraded, Upgrader

_INWARDS = "leads inside and was only heard of; name it to connect(), or set SwarmConfig.allow_private"

Admit = Callable[[Upgraded, Direction], SwarmConnection]


class _Dial:
    """One peer being dialled, and who waits for it."""

    def __init__(self, peer: PeerId | None, addrs: Iterable[Multiaddr]) -> None:
        self.peer = peer
        self.new_addrs = list(addrs)
        self.waiters = 0
        self.scope: trio.CancelScope | None = None
        self.wake = trio.Event()
        self.done = trio.Event()
        self.attempts: list[tuple[Multiaddr, Exception]] = []
        self.unusable: dict[Multiaddr, str] = {}
        self.complete = False
        self.connection: SwarmConnection | None = None


class Dialing:
    """The dials of one swarm.

    Args:
        admit: takes an upgraded connection into the swarm; raises when the swarm refuses it.
        counters: told of what failed.
        peerstore: where the addresses of peers are.
    """

    def __init__(
        self,
        *,
        transports: Sequence[Transport],
        upgrader: Upgrader,
        resolver: Resolver,
        gater: Gater,
        scopes: Scopes,
        containment: Containment,
        config: SwarmConfig,
        admit: Admit,
        counters: SwarmCounters,
        peerstore: Peerstore,
    ) -> None:
        self._transports = transports
        self._upgrader = upgrader
        self._resolver = resolver
        self._gater = gater
        self._scopes = scopes
        self._containment = containment
        self._config = config
        self._admit = admit
        self._counters = counters
        self._peerstore = peerstore
        self._dials: dict[PeerId | None, _Dial] = {}
        self._slots = trio.CapacityLimiter(config.limits.dials)
        self._black_holes = BlackHoles(config.black_holes)
        self._backoff = Backoff(config.backoff)

    def connected(self, connection: SwarmConnection) -> None:
        """Learn from a connection that was made, in whichever direction."""
        self._backoff.clear(connection.peer)
        note_host(self._peerstore, connection.peer, connection.remote_addr)

    async def connect(
        self,
        peer: PeerId | None,
        addrs: Sequence[Multiaddr],
        nursery: trio.Nursery,
    ) -> SwarmConnection:
        """Dial ``peer``, or join the dial that is under way.

        Args:
            peer: None to accept whoever answers at ``addrs``; such dials are never shared.
            nursery: the swarm's, where the dial runs.

        Raises:
            DialError: every address failed.
            LimitExceeded: too many wait for dials.
        """
        with self._scopes.reserve_queued_dial():
            dial = self._dials.get(peer) if peer is not None else None
            if dial is None:
                dial = _Dial(peer, addrs)
                if peer is not None:
                    self._dials[peer] = dial
                nursery.start_soon(self._run, dial)
            else:
                dial.new_addrs.extend(addrs)
                dial.wake.set()
            dial.waiters += 1
            try:
                await dial.done.wait()
            finally:
                dial.waiters -= 1
                if not dial.waiters:
                    # Out of the table at once: who comes now must not join a dial that is ending.
                    self._drop(dial)
                    if dial.scope is not None:
                        dial.scope.cancel()
        if dial.connection is not None:
            return dial.connection
        # A dial that did not come to its end, because the host ends or by a bug, proves nothing about addresses.
        if dial.complete and not dial.attempts:
            raise NoAddresses(peer, [(addr, TransportError(addr, why)) for addr, why in dial.unusable.items()])
        raise DialError(peer, dial.attempts)

    async def _run(self, dial: _Dial) -> None:
        try:
            with self._containment.contain("dial of", dial.peer):
                async with trio.open_nursery() as nursery:
                    dial.scope = nursery.cancel_scope
                    if dial.waiters:  # else the last has gone before this began
                        await self._follow(await self._plan(dial), dial, nursery)
                        dial.complete = True
                    nursery.cancel_scope.cancel()
        finally:
            self._drop(dial)
            connected = dial.connection is not None
            self._counters.dialled(len(dial.attempts) + connected, success=connected)
            dial.done.set()

    async def _plan(self, dial: _Dial) -> DialPlan:
        known = self._peerstore.addrs(dial.peer) if dial.peer is not None else ()
        given = await self._candidates(dial, self._take_new(dial), insist=True)
        addrs = [*given, *await self._candidates(dial, known, insist=False, besides=given)]
        return DialPlan(
            self._rank(dial, addrs),
            now=trio.current_time(),
            max_parallel=self._config.limits.dials_per_peer,
            max_attempts=self._config.limits.dial_addresses_per_peer,
        )

    def _rank(self, dial: _Dial, addrs: Sequence[Multiaddr]) -> list[tuple[Multiaddr, float]]:
        """When to try which of ``addrs``, without those that lead nowhere from here."""
        refused = self._black_holes.refusals(addrs)
        dial.attempts += [(addr, TransportError(addr, reason)) for addr, reason in refused.items()]
        return rank([addr for addr in addrs if addr not in refused], self._config.rank)

    def _drop(self, dial: _Dial) -> None:
        if dial.peer is not None and self._dials.get(dial.peer) is dial:
            del self._dials[dial.peer]

    async def _follow(self, plan: DialPlan, dial: _Dial, nursery: trio.Nursery) -> None:
        """Start attempts when the plan says so, until one worked or all failed."""
        while True:
            if dial.new_addrs:
                addrs = await self._candidates(dial, self._take_new(dial), insist=True)
                plan.add(self._rank(dial, addrs), trio.current_time())
            for addr in plan.next(trio.current_time()):
                nursery.start_soon(self._attempt, plan, dial, addr)
            if plan.done:
                # At once: who comes now with an address of his own must not join a dial that tries no more.
                self._drop(dial)
                return
            timeout = plan.next_timeout()
            dial.wake = trio.Event()
            if timeout is None:
                await dial.wake.wait()
            else:
                with trio.CancelScope(deadline=timeout):
                    await dial.wake.wait()

    @staticmethod
    def _take_new(dial: _Dial) -> list[Multiaddr]:
        addrs, dial.new_addrs = dial.new_addrs, []
        return addrs

    async def _candidates(
        self, dial: _Dial, addrs: Iterable[Multiaddr], *, insist: bool, besides: Sequence[Multiaddr] = ()
    ) -> list[Multiaddr]:
        """Resolve names, and drop what cannot or must not be dialled.

        Why not goes to ``dial.unusable`` where nobody here could dial it, else to ``dial.attempts``.

        Args:
            insist: the caller named these addresses: they are tried even if they failed a moment ago.
            besides: will be dialled anyway; left out here.
        """
        candidates: dict[Multiaddr, None] = {}
        for addr in dict.fromkeys(addrs):
            try:
                resolved = await self._resolve(addr)
            except Libp2pError as exc:
                dial.attempts.append((addr, exc))
                continue
            for found in resolved:
                bare, peer = split_peer(found)
                if dial.peer is not None and peer not in (None, dial.peer):
                    dial.unusable[addr] = "leads to another peer"
                elif self._transport(bare) is None:
                    dial.unusable[bare] = not_dialled(bare)
                elif bare not in besides:
                    refusal = self._refusal(dial.peer, bare, insist)
                    if refusal is None:
                        candidates[bare] = None
                    else:
                        dial.attempts.append((bare, refusal))
        return list(candidates)

    async def _resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        if any(name.startswith("dns") for name in names(addr)):
            return await self._resolver.resolve(addr)
        return (addr,)

    def _refusal(self, peer: PeerId | None, addr: Multiaddr, insist: bool) -> Libp2pError | None:
        """Why ``addr`` must not be dialled."""
        if not insist and not self._allowed(peer, addr):
            return TransportError(addr, _INWARDS)
        if not self._gater.dial_addr(peer, addr):
            return ConnectionDenied(addr)
        now = trio.current_time()
        if not insist and (until := self._backoff.blocked_until(addr, now, peer=peer)) is not None:
            return TransportError(addr, f"failed a moment ago; left alone for {until - now:.0f} s more")
        return None

    def _allowed(self, peer: PeerId | None, addr: Multiaddr) -> bool:
        """Whether to dial what was only heard of: who told us may want us to knock at what is behind our firewall."""
        trusted = self._config.allow_private or (peer is not None and was_seen(self._peerstore, peer, addr))
        return remote_addr_allowed(addr, allow_private=trusted)

    def _transport(self, addr: Multiaddr) -> Transport | None:
        return next((transport for transport in self._transports if transport.can_dial(addr)), None)

    async def _attempt(self, plan: DialPlan, dial: _Dial, addr: Multiaddr) -> None:
        found = await self._try(
            dial.peer or dial, addr, Direction.OUTBOUND, partial(self._dial_and_upgrade, dial, addr)
        )
        if isinstance(found, SwarmConnection):
            plan.succeeded(addr)
            self._backoff.succeeded(addr, peer=dial.peer)
            dial.connection = dial.connection or found
            dial.done.set()  # whoever waits need not wait for the other attempts to be cancelled
        else:
            self._failed(plan, dial, addr, found)
        dial.wake.set()

    async def _try(
        self, who: object, addr: Multiaddr, direction: Direction, obtain: Callable[[Progress], Awaitable[Upgraded]]
    ) -> SwarmConnection | Exception:
        """Let ``obtain`` make a connection, and take it in. Returns what went wrong otherwise."""
        progress = Progress()
        with self._containment.contain("dial of", addr):
            try:
                async with self._slot(who, addr):
                    with trio.fail_after(self._config.dial_timeout):
                        upgraded = await obtain(progress)
                return self._admit(upgraded, direction)
            except trio.TooSlowError:
                return DialTimeout(progress.stage, self._config.dial_timeout)
            except Libp2pError as exc:
                return exc
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
                failure = UpgradeError(f"the connection was lost: {exc.__cause__ or exc}", stage=progress.stage)
                failure.__cause__ = exc
                return failure
        return UpgradeError("an unexpected error, see the log", stage=progress.stage)

    @asynccontextmanager
    async def _slot(self, who: object, addr: Multiaddr) -> AsyncIterator[None]:
        """One of the dials that may go on at a time. Not a checkpoint when one is free: dialling is."""
        if is_relay(addr):
            # It opens no socket, and waits for the dial of the relay, which takes a slot: if it held one, too, then
            # as many as there are slots would wait for each other.
            yield
            return
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._slots.acquire()
        try:
            with self._scopes.reserve_dial(who):
                yield
        finally:
            self._slots.release()

    async def _dial_and_upgrade(self, dial: _Dial, addr: Multiaddr, progress: Progress) -> Upgraded:
        return await self._upgraded(partial(self._reach, dial, addr), dial.peer, progress)

    async def _upgraded(
        self,
        reach: Callable[[], Awaitable[RawConnection | SecureMuxedConnection]],
        peer: PeerId | None,
        progress: Progress,
    ) -> Upgraded:
        upgrade = partial(self._upgrader.upgrade, direction=Direction.OUTBOUND, peer=peer, progress=progress)
        try:
            return await upgrade(await reach())
        except Refused:
            return await upgrade(await reach(), patient=True)

    async def _reach(self, dial: _Dial, addr: Multiaddr) -> RawConnection | SecureMuxedConnection:
        """Dial, and note for the black holes whether anybody answered."""
        transport = self._transport(addr)
        assert transport is not None
        try:
            found = await transport.dial(addr, peer=dial.peer)
        except TransportError:
            self._black_holes.record(addr, worked=False)
            raise
        except trio.Cancelled:
            # Too late, or later than another: both are how a black hole shows. When nobody waits any more, it is not.
            if dial.waiters or dial.connection is not None:
                self._black_holes.record(addr, worked=False)
            raise
        except UpgradeError:  # by somebody who answered
            self._black_holes.record(addr, worked=True)
            raise
        self._black_holes.record(addr, worked=True)
        return found

    # --- without a plan

    def reachable(self, peer: PeerId, addrs: Iterable[Multiaddr]) -> list[Multiaddr]:
        """Those of ``addrs``, which ``peer`` told, that lead to it and to nothing inside, as many as are dialled at a
        time."""
        found: dict[Multiaddr, None] = {}
        for addr in addrs:
            bare, named = split_peer(addr)
            if (
                named in (None, peer)
                and not is_relay(bare)
                and self._transport(bare) is not None
                and self._allowed(peer, bare)
                and self._gater.dial_addr(peer, bare)
            ):
                found[bare] = None
        return list(found)[: self._config.limits.dials_per_peer]

    async def try_once(self, peer: PeerId, addr: Multiaddr, direction: Direction) -> SwarmConnection | Exception:
        """Dial ``addr``, or meet who dials from there, without regard to what happened before, or for later.

        What becomes of such an attempt says nothing about the address, nor about the network: it depends on NATs, and
        on what the peer does at the time. Returns what went wrong otherwise.
        """
        transport = self._transport(addr)
        assert transport is not None

        async def obtain(progress: Progress) -> Upgraded:
            if direction is Direction.OUTBOUND:
                return await self._upgraded(partial(transport.dial, addr, peer=peer), peer, progress)
            met = await transport.punch(addr, peer=peer)
            return await self._upgrader.upgrade(met, direction=direction, peer=peer, progress=progress)

        return await self._try(peer, addr, direction, obtain)

    def _failed(self, plan: DialPlan, dial: _Dial, addr: Multiaddr, exc: Exception) -> None:
        now = trio.current_time()
        dial.attempts.append((addr, exc))
        self._counters.dial_failed(addr, exc)
        plan.failed(addr, now)
        if dial.peer is not None:
            self._backoff.failed(addr, now, peer=dial.peer)
