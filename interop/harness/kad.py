"""``python -m interop.harness.kad``: one of the three nodes of a test of the DHT.

The bootstrap node is a server that the other two know. The provider stores a value and says that it has some content,
and the querier, a client, looks for both and says in the suite's words whether it found them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

import libp2p
from libp2p.muxers.yamux import Yamux
from libp2p.protocols.kad import AnyValue, KadConfig, Kademlia, Mode, public_validators
from libp2p.security.noise import Noise
from libp2p.swarm import SwarmConfig
from libp2p.transports.tcp import Tcp

from . import resp
from .contract import KadContract, read_kad
from .program import main
from .stacks import address_for_others

GREETING = b"hello from"
"""What is part of every implementation's value."""
ANYWHERE = "/ip4/0.0.0.0/tcp/0"
WAIT = 60.0
"""Seconds for the others to get ready, and for what they left to be found; the suite's other programs have as many."""
AGAIN = 0.5
"""Seconds between two looks."""


class NotThere(libp2p.Libp2pError):
    """The querier has not found what the provider left."""


def content(key: str) -> bytes:
    """What the provider says it has. Not a multihash, which the DHT of the specification does not ask for."""
    return f"interop-test-key-{key}".encode()


def name(key: str) -> bytes:
    """Where the provider puts its value."""
    return f"/example/data/{key}".encode()


async def run(contract: KadContract) -> None:
    """Play a role. All but the querier wait until they are killed."""
    async with resp.connect(*contract.redis) as redis:
        if contract.role == "bootstrap":
            async with open_node(Mode.SERVER) as (host, _):
                await resp.publish(redis, f"{contract.key}_bootstrap_addr", address_for_others(host), as_list=False)
                await trio.sleep_forever()
        with trio.fail_after(WAIT):
            bootstrap = await resp.fetch(redis, f"{contract.key}_bootstrap_addr")
        if contract.role == "provider":
            async with open_node(Mode.SERVER, bootstrap) as (_, kad):
                await provide(kad, contract.key)
                await resp.publish(redis, f"{contract.key}_provider_done", "done", as_list=False)
                await trio.sleep_forever()
        with trio.fail_after(WAIT):
            await resp.fetch(redis, f"{contract.key}_provider_done")
        async with open_node(Mode.CLIENT, bootstrap) as (_, kad):
            await answer(kad, contract.key)


@asynccontextmanager
async def open_node(mode: Mode, *bootstrap: str) -> AsyncIterator[tuple[libp2p.Host, Kademlia]]:
    """A node that has whomever it begins with in its table."""
    validators = {**public_validators(), "example": AnyValue()}
    kad = Kademlia(KadConfig(mode=mode, validators=validators), bootstrap=bootstrap)
    async with libp2p.open_host(
        listen=[ANYWHERE],
        transports=[Tcp()],
        security=[Noise],
        muxers=[Yamux()],
        services=[kad],
        # Peers tell each other where others are, and here that is this site.
        config=libp2p.HostConfig(swarm=SwarmConfig(allow_private=True)),
    ) as host:
        with trio.fail_after(WAIT):
            while len(kad.table) < len(bootstrap):
                await trio.sleep(0.01)
        yield host, kad


async def provide(kad: Kademlia, key: str) -> None:
    """Say what is here, and store a value."""
    await kad.provide(content(key))
    await kad.put_value(name(key), GREETING + b" python-trio")


async def answer(kad: Kademlia, key: str) -> None:
    """Say in the suite's words whether all is found.

    Raises:
        NotThere: it is not.
    """
    missing = "content"
    with trio.move_on_after(WAIT):
        while not await is_provided(kad, key):
            await trio.sleep(AGAIN)
        missing = "value"
        while not await is_stored(kad, key):
            await trio.sleep(AGAIN)
        missing = ""
    if missing:
        print(f"error: the {missing} was not found within {WAIT:g} s\nstatus: fail", flush=True)
        raise NotThere(missing)
    print("status: pass", flush=True)


async def is_provided(kad: Kademlia, key: str) -> bool:
    """Whether somebody provides the content."""
    async with kad.find_providers(content(key), count=1) as providers:
        async for _ in providers:
            return True
    return False


async def is_stored(kad: Kademlia, key: str) -> bool:
    """Whether a value is found, in whichever language."""
    try:
        value = await kad.get_value(name(key))
    except libp2p.Libp2pError as exc:
        print(f"not yet: {exc}", file=sys.stderr)
        return False
    return GREETING in value


if __name__ == "__main__":
    main(run, read_kad, os.environ)
