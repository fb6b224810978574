"""Builds a host, starts it, and ends it: the whole lifecycle in one place.

When the block of ``async with open_host(...)`` is entered the host is listening; when it is left nothing is running.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing

import trio
from multiaddr import Multiaddr

from .._util.contain import Containment
from .._util.nursery import Block, open_unwrapping_nursery
from ..abc import (
    Muxer,
    Peerstore,
    Protector,
    ProtocolId,
    Resolver,
    Routing,
    SecurityFactory,
    Service,
    Transport,
    TransportFactory,
)
from ..addressing import parse
from ..crypto.keys import PrivateKey
from ..errors import PrivateNetworkRequired
from ..peer_id import PeerId
from ..swarm import Gater, Handler, Swarm
from ._config import HostConfig
from ._host import RunningHost


@asynccontextmanager
async def open_host(
    *,
    key: PrivateKey,
    listen: Iterable[Multiaddr | str],
    services: Sequence[Service],
    transports: Sequence[Transport | TransportFactory],
    security: Sequence[SecurityFactory],
    muxers: Sequence[Muxer],
    peerstore: Peerstore,
    resolver: Resolver,
    gater: Gater,
    config: HostConfig,
    protector: Protector | None = None,
    routing: Routing | None = None,
) -> AsyncIterator[RunningHost]:
    """Run a host from explicit parts; :func:`libp2p.open_host` has defaults for all of them."""
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "this library runs on Trio: start the program with trio.run(main), not with asyncio.run(main())"
        )
    with closing(peerstore):
        made = [given if isinstance(given, Transport) else given(key) for given in transports]
        made += [transport for service in services for transport in service.transports]
        _check_privacy(config, made, protector)
        containment = Containment(strict=config.strict)
        handlers: dict[ProtocolId, Handler] = {}
        muxer_ids = [muxer.protocol for muxer in muxers]
        swarm = Swarm(
            local_peer=PeerId.from_key(key.public_key),
            peerstore=peerstore,
            transports=made,
            security=[make(key, muxer_ids) for make in security],
            muxers=muxers,
            resolver=resolver,
            gater=gater,
            containment=containment,
            handlers=handlers,
            config=config.swarm,
            protector=protector,
        )
        host = RunningHost(
            key=key,
            swarm=swarm,
            handlers=handlers,
            services=services,
            containment=containment,
            observed=config.observed,
            routing=routing,
        )
        async with _running(host, config, services, listen):
            yield host
            # Only after the block ended in order: nobody new while services and connections say goodbye.
            await swarm.stop_listening()


def _check_privacy(config: HostConfig, transports: Sequence[Transport], protector: Protector | None) -> None:
    """Nothing of a host that belongs into a private network may be reachable outside of it."""
    if protector is None:
        if config.force_private_network:
            raise PrivateNetworkRequired("this host must be in a private network, and has no pre-shared key")
        return
    if public := [type(transport).__name__ for transport in transports if transport.brings_security]:
        raise PrivateNetworkRequired(f"{', '.join(public)} cannot be part of a private network; leave it out")


@asynccontextmanager
async def _running(
    host: RunningHost, config: HostConfig, services: Sequence[Service], listen: Iterable[Multiaddr | str]
) -> AsyncIterator[None]:
    swarm = host.swarm
    block = Block()
    # Three nurseries, because they end in this order: services, connections, the store that remembers both.
    async with (
        open_unwrapping_nursery(block) as store_nursery,
        _ended(store_nursery),
        trio.open_nursery() as swarm_nursery,
        _ended(swarm_nursery),
        _closing(swarm, config),
        trio.open_nursery() as service_nursery,
        _ended(service_nursery),
    ):
        await store_nursery.start(host.peerstore.run)
        await swarm_nursery.start(swarm.run)
        for service in services:
            for protocol, handler in service.handlers.items():
                host.handle(protocol, handler, allow_limited=protocol in service.limited_protocols)
            await service_nursery.start(service.run, host)
        for addr in listen:
            await host.listen(parse(addr))
        with block.watch():
            yield


@asynccontextmanager
async def _ended(nursery: trio.Nursery) -> AsyncIterator[None]:
    """Cancel what runs in ``nursery`` when the block is left, however it is left."""
    try:
        yield
    finally:
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _closing(swarm: Swarm, config: HostConfig) -> AsyncIterator[None]:
    """Say goodbye on all connections when the block ends in order; an error or a cancellation skips the manners."""
    yield
    with trio.move_on_after(config.close_grace):
        await swarm.aclose()
