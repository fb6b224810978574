"""Starts an interop peer and talks to it; see CONTRACT.md."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import trio

BUILD = Path(__file__).parent / ".build"
START_TIMEOUT = 30.0
COMMAND_TIMEOUT = 120.0


class PeerFailed(Exception):
    """The peer answered ``ok: false``, or died."""


class Peer:
    """A running peer process."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self.name = name
        self.process = process
        self.peer_id = ""
        self.addrs: list[str] = []
        self.version = ""
        self.events: list[dict[str, Any]] = []
        self._ready = trio.Event()
        self._event = trio.Event()
        self._answers: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = {}
        self._next_id = 0
        self._sending = trio.Lock()
        self._dead = False

    @property
    def addr(self) -> str:
        """The first address it listens on."""
        return self.addrs[0]

    async def __call__(self, cmd: str, *, limit: float = COMMAND_TIMEOUT, **arguments: object) -> dict[str, Any]:
        """Send a command and wait for its answer. Raises PeerFailed, or TooSlowError after ``limit`` seconds."""
        self._next_id += 1
        answered = trio.Event()
        box: list[dict[str, Any]] = []
        self._answers[self._next_id] = (answered, box)
        line = json.dumps({"id": self._next_id, "cmd": cmd, **arguments}) + "\n"
        if self._dead:
            raise PeerFailed(f"{self.name} is gone")
        assert self.process.stdin is not None
        async with self._sending:
            await self.process.stdin.send_all(line.encode())
        with trio.fail_after(limit):
            await answered.wait()
        if not box:
            raise PeerFailed(f"{self.name} died during {cmd}")
        if not box[0].get("ok"):
            raise PeerFailed(f"{self.name} {cmd}: {box[0].get('error')}")
        return box[0]

    async def event(self, kind: str, *, limit: float = 20.0, **matching: object) -> dict[str, Any]:
        """Wait for an event whose fields equal ``matching``; earlier ones count."""
        with trio.fail_after(limit):
            while True:
                for event in self.events:
                    if event["event"] == kind and all(event.get(key) == value for key, value in matching.items()):
                        return event
                await self._event.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.send_signal(signal.SIGKILL)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        buffer = b""
        async for chunk in self.process.stdout:
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    self._take(json.loads(line))
        self._dead = True
        for answered, _ in self._answers.values():
            answered.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            answered, box = self._answers[message["id"]]
            box.append(message)
            answered.set()
            return
        if message["event"] == "ready":
            self.peer_id, self.addrs = message["peer_id"], message["addrs"]
            self.version = message["version"]
            self._ready.set()
        self.events.append(message)
        self._event.set()
        self._event = trio.Event()

    async def wait_ready(self) -> None:
        """Wait until it listens."""
        with trio.fail_after(START_TIMEOUT):
            await self._ready.wait()


@asynccontextmanager
async def start_peer(name: str, **flags: str | bool) -> AsyncIterator[Peer]:
    """Run the peer called ``name`` with ``--flag value`` for each flag, and end it afterwards; True is no value."""
    command = [str(BUILD / f"{name}-peer")]
    for flag, value in flags.items():
        if value is not False:
            command += [f"--{flag.replace('_', '-')}", *([] if value is True else [value])]
    async with run_peer(name, command) as peer:
        yield peer


@asynccontextmanager
async def run_peer(
    name: str, command: Sequence[str], *, cwd: Path | None = None, log: IO[bytes] | None = None
) -> AsyncIterator[Peer]:
    """Run ``command``, which speaks the contract, and end it afterwards. Its standard error goes to ``log``."""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(_run, command, cwd, log)
        peer = Peer(name, process)
        nursery.start_soon(peer._read)
        try:
            await peer.wait_ready()
            yield peer
        finally:
            if process.poll() is None:
                process.kill()
            nursery.cancel_scope.cancel()


async def _run(
    command: Sequence[str], cwd: Path | None, log: IO[bytes] | None, *, task_status: trio.TaskStatus[trio.Process]
) -> None:
    # Its own session, so that whatever it starts can be ended with it.
    await trio.run_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        check=False,
        cwd=cwd,
        start_new_session=True,
        deliver_cancel=_kill,
        task_status=task_status,
    )


async def _kill(process: trio.Process) -> None:
    process.kill()


def features(name: str) -> dict[str, Any] | None:
    """What the built peer says it can do; None when it is not built."""
    path = BUILD / f"{name}-peer"
    if not path.exists():
        return None
    output = subprocess.run([str(path), "--features"], check=True, capture_output=True, timeout=60).stdout
    result: dict[str, Any] = json.loads(output)
    return result
