"""``kad-dht`` of libp2p/unified-testing, played on this machine: ours in some of the three roles, a peer in the others.

The peers speak no Redis: the test takes their part in that. ``cell`` is (the peer, who is bootstrap node, provider and
querier, nothing).
"""

from __future__ import annotations

import base64
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import product

import pytest
import trio

from libp2p.protocols.kad import KAD

from .conftest import Features, get_features
from .harness import resp
from .harness.kad import GREETING, content, name
from .harness.local import program, result_of
from .peer import Peer, PeerFailed, start_peer

OURS = "ours"
AGAIN = 0.2
"""Seconds between two tries of a peer."""
LIMIT = 60.0

pytestmark = pytest.mark.real_clock("other processes")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every arrangement of one peer and ours with ours in it."""
    params = [pytest.param((OURS, ">".join([OURS] * 3), ""), id=OURS)]
    for peer, found in get_features(metafunc.config).items():
        reason = _why_not(found)
        for roles in product((OURS, peer), repeat=3):
            if OURS in roles and peer in roles:
                marks = [pytest.mark.skip(reason=reason)] if reason else []
                params.append(pytest.param((peer, ">".join(roles), ""), id="-".join(roles), marks=marks))
    metafunc.parametrize("cell", params)


def _why_not(found: Features | None) -> str:
    if found is None:
        return "not built: its toolchain is absent, see above"
    if "example" not in found.get("dht_namespaces", ()):
        return "unsupported by peer: its program has no DHT for this"
    why = found["unsupported"].get("dht-keys", "")
    return f"unsupported by peer: {why}, and the suite's is none" if why else ""


@dataclass(frozen=True)
class Trial:
    """What the suite gives to all three.

    Attributes:
        redis: a connection for those who have none.
    """

    port: int
    redis: resp.Redis
    key: str

    def leaves(self, what: str) -> str:
        """Where in Redis."""
        return f"{self.key}_{what}"


class Party(ABC):
    """Whoever plays a role."""

    @abstractmethod
    @asynccontextmanager
    async def serve(self, trial: Trial, role: str) -> AsyncIterator[None]:
        """Be the bootstrap node or the provider."""
        yield

    @abstractmethod
    async def ask(self, trial: Trial) -> None:
        """Be the querier, and find everything."""


class Us(Party):
    """Our program."""

    @asynccontextmanager
    async def serve(self, trial: Trial, role: str) -> AsyncIterator[None]:
        async with program("kad", self._environ(trial, role)):
            yield

    async def ask(self, trial: Trial) -> None:
        assert await result_of("kad", self._environ(trial, "querier")) == "status: pass\n"

    def _environ(self, trial: Trial, role: str) -> dict[str, str]:
        return {"ROLE": role, "REDIS_ADDR": f"127.0.0.1:{trial.port}", "TEST_KEY": trial.key}


class Them(Party):
    """A peer, to which this says what to do."""

    def __init__(self, peer: str) -> None:
        self._name = peer

    @asynccontextmanager
    async def serve(self, trial: Trial, role: str) -> AsyncIterator[None]:
        async with self._peer("server") as peer:
            if role == "bootstrap":
                await resp.publish(trial.redis, trial.leaves("bootstrap_addr"), peer.addr, as_list=False)
            else:
                await self._join(trial, peer)
                await peer("dht_provide", key=_text(content(trial.key)))
                value = GREETING + b" " + self._name.encode()
                await peer("dht_put", key=_text(name(trial.key)), data=_text(value))
                await resp.publish(trial.redis, trial.leaves("provider_done"), "done", as_list=False)
            yield

    async def ask(self, trial: Trial) -> None:
        await resp.fetch(trial.redis, trial.leaves("provider_done"))
        async with self._peer("client") as peer:
            await self._join(trial, peer)
            found = await peer("dht_find_providers", key=_text(content(trial.key)), count=1)
            assert len(found["peers"]) == 1
            value = await peer("dht_get", key=_text(name(trial.key)))
            assert GREETING in base64.b64decode(value["data"])

    def _peer(self, role: str) -> AbstractAsyncContextManager[Peer]:
        return start_peer(self._name, pubsub="none", dht=role, dht_protocol=KAD)

    async def _join(self, trial: Trial, peer: Peer) -> None:
        """Connect, and wait until the bootstrap node is in the table."""
        addr = await resp.fetch(trial.redis, trial.leaves("bootstrap_addr"))
        while not (await peer("dht_table"))["peers"]:
            with suppress(PeerFailed):  # rust dials from the port it listens on, which is not always free at once
                await peer("dial", addr=addr)
            await trio.sleep(AGAIN)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_kad_suite(cell: tuple[str, str, str], redis_port: int) -> None:
    """A value and a provider are found through the bootstrap node."""
    bootstrap, provider, querier = [Us() if each == OURS else Them(each) for each in cell[1].split(">")]
    # As the suite makes it of the test's name.
    key = hashlib.sha256(cell[1].replace(">", "_x_").encode()).hexdigest()[:8]
    with trio.fail_after(LIMIT):
        async with resp.connect("127.0.0.1", redis_port) as redis:
            trial = Trial(redis_port, redis, key)
            async with bootstrap.serve(trial, "bootstrap"), provider.serve(trial, "provider"):
                await querier.ask(trial)
