"""Hosts with the identify service, and peers that say what they are told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from libp2p.abc import Host, Stream, StreamHandler
from libp2p.protocols.identify import (
    IDENTIFY,
    IDENTIFY_PUSH,
    Identify,
)
from libp2p.testing import memory_network
from libp2p.testing.network import open_memory_host
from libp2p.wire.framing import frame

PUBLIC_A, PUBLIC_B = "1.2.3.4", "5.6.7.8"


class Services:
    """Makes the identify services of a network and keeps them."""

    def __init__(self, **options) -> None:
        self.made: list[Identify] = []
        self.options = options

    def __call__(self) -> Identify:
        self.made.append(Identify(**self.options))
        return self.made[-1]


@asynccontextmanager
async def with_raw_peer(
    answer: bytes | StreamHandler, *, ips: tuple[str, ...] = (), **options
) -> AsyncIterator[tuple[Host, Identify, Host]]:
    """A host with the service, and one that says ``answer`` when it is asked who it is."""
    services = Services(**options)
    async with (
        memory_network(1, defaults=(services,), ips=ips[:1]) as hosts,
        open_memory_host(hosts.network, name="raw", ip=ips[1] if ips else None, defaults=()) as raw,
    ):

        async def handler(stream: Stream) -> None:
            if isinstance(answer, bytes):
                await stream.send_all(frame(answer))
            else:
                await answer(stream)

        raw.handle(IDENTIFY, handler)
        yield hosts[0], services.made[0], raw


def own_key(host: Host) -> bytes:
    return host.private_key.public_key.marshal()


async def push(raw: Host, host: Host, message: bytes) -> None:
    async with await raw.open_stream(host.local_peer, IDENTIFY_PUSH) as stream:
        await stream.send_all(frame(message))
        await stream.send_eof()
        assert [chunk async for chunk in stream] == []


async def nop(stream: Stream) -> None:
    await trio.lowlevel.checkpoint()


async def silent(stream: Stream) -> None:
    await trio.sleep_forever()


async def garbage(stream: Stream) -> None:
    await stream.send_all(frame(b"\xff\xff"))
