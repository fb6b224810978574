"""The node behind a command: its options, its life, and what ends it."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import trio
import typer

from .. import Host, HostConfig, Service, open_host
from .._util.contain import leaves
from ..abc import SecurityFactory
from ..addressing import Scope, parse, scope
from ..crypto.key_file import KeyFileError, load
from ..errors import Libp2pError
from ..muxers.mplex import Mplex
from ..muxers.yamux import Yamux
from ..protocols.relay import RelayClient
from ..security.noise import Noise
from ..security.plaintext import Plaintext
from ..security.pnet import PreSharedKey
from ..security.tls import Tls
from ..swarm import SwarmConfig
from ._errors import Interrupted
from ._logs import configure
from ._options import Json, KeyFile, MuxerName, MuxerOption, PskFile, Security, SecurityOption, Timeout, Verbose
from ._output import DIM, Output

SECURITY: dict[Security, SecurityFactory] = {
    Security.NOISE: Noise,
    Security.TLS: Tls,
    Security.PLAINTEXT: Plaintext,
}
MUXERS = {MuxerName.YAMUX: Yamux, MuxerName.MPLEX: Mplex}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What the options say about the node.

    Attributes:
        key: the file with its identity; None for a new one.
        listen: where to listen.
        timeout: seconds for each address to connect.
        security: the only security protocol; None for all that are safe.
        psk: the file with the key of its private network; None for the public one.
        inside: whether to dial addresses of this machine and of private networks that it hears of.
    """

    key: Path | None = None
    listen: Sequence[str] = ()
    timeout: float = 15.0
    security: Security | None = None
    psk: Path | None = None
    muxer: MuxerName = MuxerName.YAMUX
    inside: bool = False

    @asynccontextmanager
    async def running(self, *services: Service) -> AsyncIterator[Host]:
        """Run the node while the block is open. It can dial, and listen, through relays.

        The first interrupt ends the block, and the node says goodbye to its peers; a second one ends all at once.

        Raises:
            Interrupted: there was one.
        """
        watch = _SignalWatch()
        async with self.open(*services) as host, watch.ending():
            yield host
        watch.check()

    def listening(self, addrs: Sequence[str] | None) -> Node:
        """The same node, listening on ``addrs``."""
        return replace(self, listen=addrs or ())

    def meeting_at(self, points: Sequence[str]) -> Node:
        """The same node. Where a rendezvous point is on this machine or network, so may be whom one meets there."""
        inside = any(scope(parse(point)) in (Scope.LOOPBACK, Scope.PRIVATE) for point in points)
        return replace(self, inside=inside)

    def open(self, *services: Service) -> AbstractAsyncContextManager[Host]:
        """Run the node while the block is open, whoever interrupts."""
        return open_host(
            key=None if self.key is None else load(self.key),
            listen=self.listen,
            services=[RelayClient(), *services],
            security=None if self.security is None else [SECURITY[self.security]],
            muxers=[MUXERS[self.muxer]()],
            psk=None if self.psk is None else PreSharedKey.load(self.psk),
            config=HostConfig(swarm=SwarmConfig(dial_timeout=self.timeout, allow_private=self.inside)),
        )


class _SignalWatch:
    """Turns the first signal that asks this process to end into a cancellation."""

    def __init__(self) -> None:
        self._received: int | None = None

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """End the block when such a signal comes."""
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                await nursery.start(self._wait, scope)
                yield
            nursery.cancel_scope.cancel()

    def check(self) -> None:
        """Raise ``Interrupted`` when there was a signal."""
        if self._received is not None:
            raise Interrupted(self._received)

    async def _wait(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        # Once the block is left the signals have their usual effect again: the second one is not to be polite about.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for self._received in signals:
                break
        scope.cancel()


Command: TypeAlias = Callable[..., Awaitable[None]]
"""An async function of a node, an output and what else the command takes."""


def node_command(command: Command) -> Callable[..., None]:
    """Make a command of the program out of ``command``: one that runs a node.

    It takes the parameters of ``command``, but for the first two, and the options that all such commands have.
    """

    def run_command(**given: object) -> None:
        shared = {name: given.pop(name) for name in options}
        node, out = _from_options(**shared)  # type: ignore[arg-type]
        run(partial(command, node, out, **given), out)

    own = [*inspect.signature(command, eval_str=True).parameters.values()][2:]
    options = inspect.signature(_from_options, eval_str=True).parameters
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *options.values())]
    # What typer reads.
    run_command.__doc__, run_command.__name__ = command.__doc__, command.__name__
    run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    cast("Any", run_command).__signature__ = inspect.Signature(parameters)
    return run_command


def _from_options(
    key: KeyFile = None,
    timeout: Timeout = 15.0,
    security: SecurityOption = None,
    psk: PskFile = None,
    muxer: MuxerOption = MuxerName.YAMUX,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> tuple[Node, Output]:
    node = Node(key=key, timeout=timeout, security=security, psk=psk, muxer=muxer)
    return node, Output(as_json=as_json, verbose=verbose)


def announce(host: Host, out: Output, *, results: bool = False) -> None:
    """Say where ``host`` listens.

    Args:
        results: whether the addresses are what the command is about, and go to standard output.
    """
    addrs = [str(addr) for addr in host.addrs]
    record = {"event": "listening", "peer": str(host.local_peer), "addrs": addrs, "protocols": list(host.protocols)}
    if out.as_json or results:
        out.listing(record, addrs)
    else:
        for addr in addrs:
            out.note(("listens on ", DIM), addr)


def run(command: Callable[[], Awaitable[None]], out: Output) -> None:
    """Run ``command``, and turn what it raises into words and an exit status.

    Raises:
        typer.Exit: it failed or was interrupted.
    """
    configure(out.verbose)
    status = 0
    try:
        trio.run(command)
    except* KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except* Interrupted as group:
        status = max(exc.status for exc in leaves(group) if isinstance(exc, Interrupted))
    except* KeyFileError as group:
        status = _explained(group, out, status=2)
    except* Libp2pError as group:
        status = _explained(group, out, status=1)
    except* (BrokenPipeError, SystemExit):
        # Nobody reads what we say any more, as in `libp2p listen | head -1`. SystemExit is how rich puts it.
        _discard_output()
        status = 1
    if status:
        raise typer.Exit(status)


def _explained(group: BaseExceptionGroup[Libp2pError], out: Output, *, status: int) -> int:
    for exc in leaves(group):
        if isinstance(exc, Libp2pError):
            out.failure(exc)
    return status


def _discard_output() -> None:
    """Lose what is still to be flushed to standard output, so that the interpreter does not complain about it."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
