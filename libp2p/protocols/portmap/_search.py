"""Finding the router, in three protocols at once."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

import trio

from ._gateway import default_gateway
from ._igd import PROTOCOL as UPNP
from ._igd import find_igd
from ._machine import PortMapConfig
from ._pcp import SERVER_PORT
from ._types import PortMappingError, Router
from ._udp import find_natpmp, find_pcp
from ._upnp import GROUP

PREFERENCE = ("PCP", "NAT-PMP", UPNP)
"""Best first: the newest, and the one that takes the fewest packets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterPlace:
    """Where to look for the router. The defaults are those of every network; others are for tests.

    Attributes:
        gateway: the router's IPv4 address; None for the one that the default route leads to.
        port: where PCP and NAT-PMP are served.
        group: where UPnP is searched.
    """

    gateway: str | None = None
    port: int = SERVER_PORT
    group: tuple[str, int] = field(default=GROUP)

    def address(self) -> str:
        """The router's address.

        Raises:
            NoGateway: it is not given, and cannot be found.
        """
        return self.gateway or default_gateway()


async def find_routers(
    place: RouterPlace,
    config: PortMapConfig,
    *,
    secret: bytes,
    rng: random.Random,
    protocols: Collection[str] = PREFERENCE,
    first: bool = False,
) -> Mapping[str, Router | PortMappingError]:
    """Ask for the router in each of ``protocols`` at once: who answered, or why nobody did, by protocol.

    Args:
        place: where.
        config: how long.
        secret: of this host; see :class:`~libp2p.protocols.portmap._udp.PcpRouter`.
        rng: for UPnP's ports.
        protocols: in which to ask.
        first: whether one that answers is enough: better ones have a moment more, and who has not answered is missing.
    """
    timeout = config.search_timeout
    ways: dict[str, Callable[[], Awaitable[Router]]] = {
        "PCP": lambda: find_pcp(place.address(), port=place.port, timeout=timeout, secret=secret),
        "NAT-PMP": lambda: find_natpmp(place.address(), port=place.port, timeout=timeout),
        UPNP: lambda: find_igd(config, rng=rng, group=place.group),
    }
    asked = [protocol for protocol in PREFERENCE if protocol in protocols]
    found: dict[str, Router | PortMappingError] = {}
    async with trio.open_nursery() as nursery:

        async def ask(protocol: str) -> None:
            try:
                found[protocol] = await ways[protocol]()
            except PortMappingError as exc:
                found[protocol] = exc
            else:
                if first:
                    better = asked[: asked.index(protocol)]
                    wait = config.head_start if any(each not in found for each in better) else 0
                    scope = nursery.cancel_scope
                    scope.deadline = min(scope.deadline, trio.current_time() + wait)

        for protocol in asked:
            nursery.start_soon(ask, protocol)
    return found


def best(found: Mapping[str, Router | PortMappingError]) -> Router | None:
    """The router in the best protocol that answered; None when there is none."""
    answers = [answer for protocol in PREFERENCE if (answer := found.get(protocol)) is not None]
    return next((answer for answer in answers if not isinstance(answer, PortMappingError)), None)
