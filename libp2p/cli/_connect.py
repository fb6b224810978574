"""``libp2p dial``, ``ping`` and ``identify``: look at another node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import trio
import typer

from ..abc import Connection, Host
from ..errors import Libp2pError
from ..protocols.identify import identify as ask
from ..protocols.ping import PingSession, open_ping
from ._errors import Failure
from ._node import Node, run
from ._options import (
    Json,
    KeyFile,
    MoreAddrs,
    MuxerName,
    MuxerOption,
    PskFile,
    SecurityOption,
    Target,
    Timeout,
    Verbose,
)
from ._output import BAD, DIM, GOOD, Output, described
from ._rtt import Rtts

Count = Annotated[int, typer.Option(min=0, help="How many pings; 0 for as many as there is time.")]
Interval = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="From one ping to the next.")]


def dial(
    target: Target,
    addrs: MoreAddrs = None,
    key: KeyFile = None,
    timeout: Timeout = 15.0,
    security: SecurityOption = None,
    psk: PskFile = None,
    muxer: MuxerOption = MuxerName.YAMUX,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Connect to a peer, say how long it took, and hang up."""
    out = Output(as_json=as_json, verbose=verbose)
    node = Node(key=key, timeout=timeout, security=security, psk=psk, muxer=muxer)
    run(partial(_dial, node, out, target, addrs or ()), out)


async def _dial(node: Node, out: Output, target: str, addrs: Sequence[str]) -> None:
    async with node.running() as host:
        connection, seconds = await _connected(host, out, target, addrs)
        record: dict[str, str | float] = {
            "peer": str(connection.peer),
            "addr": str(connection.remote_addr),
            "local_addr": str(connection.local_addr),
            "ms": _ms(seconds),
        }
        out.fields(record)


def ping(
    target: Target,
    addrs: MoreAddrs = None,
    count: Count = 4,
    interval: Interval = 1.0,
    key: KeyFile = None,
    timeout: Timeout = 15.0,
    security: SecurityOption = None,
    psk: PskFile = None,
    muxer: MuxerOption = MuxerName.YAMUX,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Measure round trips to a peer. Fails when no ping was answered."""
    out = Output(as_json=as_json, verbose=verbose)
    node = Node(key=key, timeout=timeout, security=security, psk=psk, muxer=muxer)
    run(partial(_ping, node, out, target, addrs or (), count or math.inf, interval), out)


async def _ping(node: Node, out: Output, target: str, addrs: Sequence[str], count: float, interval: float) -> None:
    rtts = Rtts()
    async with node.running() as host:
        connection, seconds = await _connected(host, out, target, addrs)
        peer, ms = str(connection.peer), _ms(seconds)
        out.result({"event": "connected", "peer": peer, "ms": ms}, f"connected to {peer} ", (f"in {ms} ms", DIM))
        try:
            async with open_ping(host, connection.peer, timeout=node.timeout) as session:
                while rtts.sent < count:
                    next_at = trio.current_time() + interval
                    await _ping_once(session, out, rtts)
                    if rtts.sent < count:
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


def identify(
    target: Target,
    addrs: MoreAddrs = None,
    key: KeyFile = None,
    timeout: Timeout = 15.0,
    security: SecurityOption = None,
    psk: PskFile = None,
    muxer: MuxerOption = MuxerName.YAMUX,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Print what a peer says about itself: its software, protocols and addresses."""
    out = Output(as_json=as_json, verbose=verbose)
    node = Node(key=key, timeout=timeout, security=security, psk=psk, muxer=muxer)
    run(partial(_identify, node, out, target, addrs or ()), out)


async def _identify(node: Node, out: Output, target: str, addrs: Sequence[str]) -> None:
    async with node.running() as host:
        connection, _ = await _connected(host, out, target, addrs)
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
