"""The programs as processes of this machine, told by their environment what to do as the suites do; and Redis."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from socket import socket

import trio

_ROOT = Path(__file__).parents[2]
_LATENCY = re.compile(r"latency:\n  handshake_plus_one_rtt: ([\d.]+)\n  ping_rtt: ([\d.]+)\n  unit: ms\n")


@contextmanager
def redis_server(program: str) -> Iterator[int]:
    """Run a Redis server that keeps nothing; its port."""
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.terminate()


@asynccontextmanager
async def run_program(command: Sequence[str], environ: Mapping[str, str] | None = None) -> AsyncIterator[trio.Process]:
    """Run ``command``, whose output can be read, and end it when the block is."""

    async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
        await trio.run_process(command, env=environ, stdout=subprocess.PIPE, check=False, task_status=task_status)

    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@asynccontextmanager
async def program(name: str, variables: Mapping[str, str], *, where: Sequence[str] = ()) -> AsyncIterator[trio.Process]:
    """Our program, ended when the block is.

    Args:
        variables: as in a container, nothing else is set but what a process needs to run.
        where: a command that runs the one it is given in the right place.
    """
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT), **variables}
    async with run_program([*where, sys.executable, "-m", f"interop.harness.{name}"], environ) as process:
        yield process


async def result_of(name: str, variables: Mapping[str, str], *, where: Sequence[str] = ()) -> str:
    """What our program prints; it must end with 0."""
    async with program(name, variables, where=where) as process:
        assert process.stdout is not None
        output = b"".join([chunk async for chunk in process.stdout])
        assert await process.wait() == 0, output.decode()
    return output.decode()


def latencies(output: str, *, legacy: bool) -> tuple[float, float]:
    """The milliseconds of the handshake with a ping, and of a ping, from the words that the suites look for."""
    if legacy:
        found = json.loads(output)
        assert set(found) == {"handshakePlusOneRTTMillis", "pingRTTMilllis"}
        times = tuple(found.values())
    else:
        match = _LATENCY.fullmatch(output)
        assert match, output
        times = tuple(map(float, match.groups()))
    assert all(0 < time < 60_000 for time in times)
    handshake, ping = times
    return handshake, ping
