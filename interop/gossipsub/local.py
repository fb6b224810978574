"""Plays a script on this machine, in real time, with as many programs as it has nodes.

Our nodes are processes of the suite's program. The programs of go and rust are in no registry, so interop peers stand
in for them: they do what the script says over the contract of ``interop/``, with parameters and keys of their own, and
tell of each message once.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

import libp2p

from ..peer import Peer, start_peer
from .script import Instruction, message, message_number, node_key, of_node

Record = dict[str, Any]
READY_TIMEOUT = 60.0
"""Seconds until all nodes listen."""
ROOT = Path(__file__).parents[2]
_PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
_PORTS = range(20_000, 30_000)
"""Where the kernel gives none to others by itself."""


async def play(
    script: Sequence[Instruction], nodes: Sequence[str], folder: Path, *, timeout: float
) -> list[list[Record]]:
    """Play ``script``. Returns what each node said.

    Args:
        nodes: what each of them is: ``ours``, or the name of an interop peer.
        folder: for the file with the script.
        timeout: seconds for everything after the start.

    Raises:
        trio.TooSlowError: it took longer.
    """
    params = folder / "params.json"
    params.write_text(json.dumps({"script": list(script)}))
    stage = _Stage(params, _free_ports(len(nodes)), len(nodes))
    async with trio.open_nursery() as nursery:
        for number, name in enumerate(nodes):
            if name == "ours":
                nursery.start_soon(stage.run_ours, number)
            else:
                nursery.start_soon(stage.run_stand_in, number, name, of_node(script, number))
        with trio.fail_after(READY_TIMEOUT):
            await stage.everybody_listens.wait()
        nursery.cancel_scope.deadline = trio.current_time() + timeout
        stage.begin.set()
    if nursery.cancel_scope.cancelled_caught:
        raise trio.TooSlowError
    return stage.said


def expected(script: Sequence[Instruction], count: int) -> list[set[str]]:
    """Which messages each of ``count`` nodes has to receive."""
    parts = [of_node(script, number) for number in range(count)]
    published = [
        (number, said["topicID"], message_number(message(said["messageID"], 8)))
        for number, part in enumerate(parts)
        for said in part
        if said["type"] == "publish"
    ]
    topics = [{said["topicID"] for said in part if said["type"] == "subscribeToTopic"} for part in parts]
    return [
        {found for author, topic, found in published if topic in topics[number] and author != number}
        for number in range(count)
    ]


def received(said: Sequence[Record]) -> list[str]:
    """The ids of the messages that a node received, copies as well."""
    return [line["id"] for line in said if line["msg"] == "Received Message"]


class _Stage:
    """What the nodes of one run have in common."""

    def __init__(self, params: Path, port: int, count: int) -> None:
        self._params = params
        self._port = port
        self._listening: dict[int, str] = {}
        self.said: list[list[Record]] = [[] for _ in range(count)]
        self.everybody_listens = trio.Event()
        self.begin = trio.Event()

    def _listens(self, number: int, addr: str) -> None:
        self._listening[number] = addr
        if len(self._listening) == len(self.said):
            self.everybody_listens.set()

    async def run_ours(self, number: int) -> None:
        """A process of our program, from its first line to its end."""
        command = [sys.executable, "-m", "interop.gossipsub", "--params", str(self._params)]
        command += ["--node", str(number), "--local", str(self._port)]
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(partial(trio.run_process, command, cwd=ROOT, **_PIPES))
            nursery.start_soon(self._start, process)
            assert process.stdout is not None
            buffer = b""
            async for chunk in process.stdout:
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self.said[number].append(json.loads(line))
                    if self.said[number][-1]["msg"] == "PeerID":
                        peer = libp2p.PeerId.from_key(node_key(number).public_key)
                        self._listens(number, f"/ip4/127.0.0.1/tcp/{self._port + number}/p2p/{peer}")

    async def _start(self, process: trio.Process) -> None:
        await self.begin.wait()
        assert process.stdin is not None
        await process.stdin.send_all(b"\n")

    async def run_stand_in(self, number: int, name: str, instructions: Sequence[Instruction]) -> None:
        """An interop peer that does what the script says."""
        listen = f"/ip4/127.0.0.1/tcp/{self._port + number}"
        async with start_peer(name, pubsub="gossipsub", signatures="none", message_id="first8", listen=listen) as peer:
            self._listens(number, peer.addr)
            await self.begin.wait()
            started = trio.current_time()
            for instruction in instructions:
                await self._do(peer, instruction, started)
            self.said[number] = [
                {"msg": "Received Message", "id": message_number(base64.b64decode(event["data"]))}
                for event in peer.events
                if event["event"] == "message"
            ]

    async def _do(self, peer: Peer, instruction: Instruction, started: float) -> None:
        match instruction:
            case {"type": "connect", "connectTo": nodes}:
                for node in nodes:
                    await peer("dial", addr=self._listening[node])
            case {"type": "waitUntil", "elapsedSeconds": seconds}:
                await trio.sleep_until(started + seconds)
            case {"type": "subscribeToTopic", "topicID": topic}:
                await peer("subscribe", topic=topic)
            case {"type": "publish", "topicID": topic, "messageID": number, "messageSizeBytes": size}:
                await peer("publish", topic=topic, data=base64.b64encode(message(number, size)).decode())
            case _:
                pass


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        first = random.choice(_PORTS[:-count])
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
