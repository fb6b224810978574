"""Which router leads to the internet, and which address this machine has on the way there."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from pathlib import Path

from ._types import NoGateway

ROUTES = Path("/proc/net/route")
"""Linux's table of IPv4 routes."""
MAX_ROUTES = 1024 * 1024
"""Bytes of it that are read."""
_UP_AND_GATEWAY = 0x3
"""``RTF_UP | RTF_GATEWAY`` of ``linux/route.h``."""


def default_gateway(routes: Path = ROUTES) -> str:
    """The IPv4 address of the router that the default route leads to; of several the one with the lowest metric.

    Raises:
        NoGateway: there is none, or this system does not tell.
    """
    try:
        with routes.open("rb") as file:
            text = file.read(MAX_ROUTES).decode("ascii", "replace")
    except OSError as exc:
        raise NoGateway(
            f"the routes of this system cannot be read ({exc.strerror}); give the router's address"
        ) from exc
    found = parse_routes(text)
    if found is None:
        raise NoGateway("there is no default route for IPv4")
    return found


def parse_routes(text: str) -> str | None:
    """The default gateway in a table as Linux writes it; None when there is none."""
    best: tuple[int, str] | None = None
    for line in text.splitlines()[1:]:
        fields = line.split()
        try:
            destination, gateway, flags, metric, mask = fields[1], fields[2], int(fields[3], 16), fields[6], fields[7]
            if int(destination, 16) or int(mask, 16) or flags & _UP_AND_GATEWAY != _UP_AND_GATEWAY:
                continue
            # The kernel prints the four bytes as a number of this machine's, and all machines with Linux we know of
            # that have a NAT in front are little-endian.
            route = int(metric), str(IPv4Address(bytes.fromhex(gateway)[::-1]))
        except (IndexError, ValueError):
            continue
        if best is None or route[0] < best[0]:
            best = route
    return None if best is None else best[1]


def local_ip_towards(host: str) -> str:
    """The address this machine has on its way to the IPv4 address ``host``. Sends nothing.

    Raises:
        OSError: there is no way.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        ip: str = probe.getsockname()[0]
        return ip
