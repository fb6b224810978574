"""What plays the suites on this machine, without containers: a Redis server, and our programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from socket import socket

import trio

ROOT = Path(__file__).parents[2]


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
async def program(name: str, variables: Mapping[str, str]) -> AsyncIterator[trio.Process]:
    """Our program, ended when the block is."""
    command = [sys.executable, "-m", f"interop.harness.{name}"]
    # As in a container, nothing else is set but what a process needs to run.
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}

    async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
        await trio.run_process(command, env=environ, stdout=subprocess.PIPE, check=False, task_status=task_status)

    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


async def result_of(name: str, variables: Mapping[str, str]) -> str:
    """What our program prints; it must end with 0."""
    async with program(name, variables) as process:
        assert process.stdout is not None
        output = b"".join([chunk async for chunk in process.stdout])
        assert await process.wait() == 0, output.decode()
    return output.decode()
