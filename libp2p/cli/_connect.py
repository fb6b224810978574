"""``libp2p dial``, ``ping`` and ``identify``: look at another node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import trio
import typer

from ..abc import Connection, Host
from ..errors import Libp2pError
from ..protocols.identify import identify as ask
from ..protocols.ping import PingSession, open_ping
from ._errors import Failure
from ._node import Node, node_command
from ._options import MoreAddrs, Target
from ._output import BAD, DIM, GOOD, Output, described
from ._rtt import Rtts

Count = Annotated[int, typer.Option(min=0, help="How many pings; 0 for as many as there is time.")]
Interval = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="From one ping to the next.")]


@node_command
async def dial(
    node: Node,
    out: Output,
    target: Target,
    addrs: MoreAddrs = None,
) -> None:
    """Connect to a peer, say how long it took, and hang up."""
    async with node.running() as host:
        connection, seconds = await _connected(host, out, target, addrs or ())
        record: dict[str, str | float] = {
            "peer": str(connection.peer),
            "addr": str(connection.remote_addr),
            "local_addr": str(connection.local_addr),
            "ms": _ms(seconds),
        }
        out.fields(record)


@node_command
async def ping(
    node: Node,
    out: Output,
    target: Target,
    addrs: MoreAddrs = None,
    count: Count = 4,
    interval: Interval = 1.0,
) -> None:
    """Measure round trips to a peer. Fails when no ping was answered."""
    rtts, wanted = Rtts(), count or math.inf
    async with node.running() as host:
        connection, seconds = await _connected(host, out, target, addrs or ())
        peer, ms = str(connection.peer), _ms(seconds)
        out.result({"event": "connected", "peer": peer, "ms": ms}, f"connected to {peer} ", (f"in {ms} ms", DIM))
        try:
            async with open_ping(host, connection.peer, timeout=node.timeout) as session:
                while rtts.sent < wanted:
                    next_at = trio.current_time() + interval
                    await _ping_once(session, out, rtts)
                    if rtts.sent < wanted:
                        await trio.sleep_until(next_at)
        finally:
            out.result({"event": "summary", **rtts.summary()}, rtts.text())
    if not rtts.received:
        raise Failure(f"none of {rtts.sent} pings was answered")


async def _ping_once(session: PingSession, out: Output, rtts: Rtts) -> None:
    try:
        seconds = await session.once()
    except Libp2pError as exc:
        rtts.lost()
        record = {"event": "lost", "seq": rtts.sent, "error": described(exc)}
        out.result(record, (f"{rtts.sent:>3}  ", DIM), ("lost: ", BAD), str(exc))
    else:
        rtts.add(seconds)
        ms = _ms(seconds)
        record = {"event": "pong", "seq": rtts.sent, "ms": ms}
        out.result(record, (f"{rtts.sent:>3}  ", DIM), (f"{ms:.3f}", GOOD), " ms")


@node_command
async def identify(
    node: Node,
    out: Output,
    target: Target,
    addrs: MoreAddrs = None,
) -> None:
    """Print what a peer says about itself: its software, protocols and addresses."""
    async with node.running() as host:
        connection, _ = await _connected(host, out, target, addrs or ())
        with out.waiting("asking who it is"):
            info = await ask(host, connection.peer, timeout=node.timeout)
        record = {
            "peer": str(connection.peer),
            "key_type": connection.remote_key.key_type.name.lower(),
            "agent": info.agent_version,
            "version": info.protocol_version,
            "addrs": [str(addr) for addr in info.listen_addrs],
            "protocols": sorted(info.protocols),
            "sees_us_at": None if info.observed_addr is None else str(info.observed_addr),
            "signed": info.signed_peer_record is not None,
        }
        out.fields(record)


async def _connected(host: Host, out: Output, target: str, addrs: Sequence[str]) -> tuple[Connection, float]:
    started = trio.current_time()
    with out.waiting(f"connecting to {target}"):
        connection = await host.connect(target, addrs)
    return connection, trio.current_time() - started


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
