"""``libp2p doctor``: can others reach a node on this machine, and if not, what would help?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import trio
import typer

from ..errors import Libp2pError
from ..protocols.bootstrap import AMINO
from ._checks import Checks
from ._findings import Finding, State, conclude
from ._node import Node, node_command
from ._options import addrs_option
from ._output import BAD, DIM, GOOD, NAME, Output

_STYLES = {State.GOOD: GOOD, State.BAD: BAD, State.UNKNOWN: DIM}

Peers = Annotated[list[str] | None, addrs_option("--peer", text="Look from this peer")]
Public = Annotated[bool, typer.Option("--public", help="Look from the public network of IPFS.")]
Relays = Annotated[list[str] | None, addrs_option("--relay", text="Try this relay")]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="A host name to look up.")]
Gateway = Annotated[
    str | None,
    typer.Option(
        "--gateway", metavar="IP", help="The router; by default that of the default route.", show_default=False
    ),
]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, metavar="N", help="The TCP port to be reached at; 0: any.")
]


@node_command
async def doctor(
    node: Node,
    out: Output,
    peer: Peers = None,
    public: Public = False,
    relay: Relays = None,
    name: Name = "bootstrap.libp2p.io",
    gateway: Gateway = None,
    port: Port = 0,
) -> None:
    """Find out how this machine is connected, and say what to do next.

    Looks at interfaces, NAT, whether peers get through, UDP, IPv6, port mapping, relays, DNS, the clock and file
    descriptors, all at once, each for a limited time. Nothing is sent to the internet but by --peer, --public, --relay,
    and the question for --name.
    """
    peers, relays = [*(peer or ()), *(AMINO if public else ())], relay or ()
    findings: dict[str, Finding] = {}
    async with node.running() as host:
        checks = Checks(node, host, peers=peers, relays=relays, name=name, gateway=gateway, port=port)
        # Before the others, which use what it listens on.
        await _check("interfaces", checks.interfaces, node.timeout, findings, out)
        # With how many times --timeout each has: some wait for somebody else's answer first.
        others: dict[str, tuple[Callable[[], Awaitable[Finding]], int]] = {
            "peers": (checks.peers, 2),
            "udp": (checks.udp, 4),
            "nat": (checks.nat, 5),
            "reachability": (checks.reachability, 4),
            "ipv6": (checks.ipv6, 3),
            "port mapping": (checks.port_mapping, 2),
            "relays": (checks.relays, 3),
            "dns": (checks.dns, 1),
            "clock": (checks.clock, 1),
            "file descriptors": (checks.files, 1),
        }
        async with trio.open_nursery() as nursery:
            for title, (check, share) in others.items():
                nursery.start_soon(_check, title, check, node.timeout * share, findings, out)
    words, step = conclude(findings, asked=[*peers, *relays])
    out.text()
    out.result({"event": "verdict", "verdict": words, "next": step}, (words, NAME))
    out.text(("next: ", DIM), step)


async def _check(
    title: str,
    check: Callable[[], Awaitable[Finding]],
    seconds: float,
    findings: dict[str, Finding],
    out: Output,
) -> None:
    found = Finding(state=State.UNKNOWN, words=f"nothing known after {seconds:g} s")
    with trio.move_on_after(seconds):
        try:
            found = await check()
        except (Libp2pError, OSError) as exc:
            found = Finding(state=State.BAD, words=str(exc))
    findings[title] = found
    record: dict[str, object] = {"event": "check", "check": title, "state": found.state.value, "words": found.words}
    record |= {"advice": found.advice, "details": dict(found.details)}
    out.result(record, (f"{found.state.value:<8}", _STYLES[found.state]), (f"{title:<17}", DIM), found.words)
    if found.advice and found.state is State.BAD:
        out.text(f"{'':<25}", ("→ ", DIM), found.advice)
