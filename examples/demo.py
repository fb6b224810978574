"""The demo of `make demo`: four nodes, each a process of its own, find each other and chat.

The first node is the meeting point; the others know just its address. Whoever joins is told who else is there, so that
afterwards everybody is connected to everybody, and the talk goes on when the meeting point is killed.
"""

import argparse
import json
import os
import subprocess
import sys

import trio

import libp2p
from libp2p.protocols.pubsub import Floodsub, Pubsub
from libp2p.protocols.request_response import RequestResponse

ROOM = "demo"
NAMES = ("ada", "brian", "chien", "dana")
COLOURS = {"ada": 36, "brian": 33, "chien": 35, "dana": 32}


def say(name: str, text: str) -> None:
    coloured = sys.stdout.isatty() or os.environ.get("FORCE_COLOR")
    head = f"\x1b[{COLOURS[name]}m{name:>6}\x1b[0m" if coloured else f"{name:>6}"
    print(f"{head}  {text}", flush=True)


async def node(name: str, meeting_point: str | None) -> None:
    """One node. It prints what happens, and says on standard error, for the director, when it has reached a step."""
    members: list[str] = []

    async def register(peer: libp2p.PeerId, request: bytes) -> bytes:
        others = json.dumps(members).encode()
        members.append(request.decode())
        return others

    pubsub, guests = Pubsub(Floodsub()), RequestResponse("/demo/guests/1.0.0", register)
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[pubsub, guests]) as host:
        members.append(str(host.addrs[0]))
        say(name, f"listens on {host.addrs[0]}")
        if meeting_point is not None:
            others = json.loads(await guests.request(host, meeting_point, members[0].encode()))
            async with trio.open_nursery() as nursery:
                for addr in others:
                    nursery.start_soon(host.connect, addr)
            say(name, f"met {len(others)} other{'s' if len(others) != 1 else ''}")
        print(f"addr {host.addrs[0]}", file=sys.stderr, flush=True)
        async with pubsub.subscribe(ROOM) as messages:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen, name, host, messages)
                await follow(name, pubsub)
                nursery.cancel_scope.cancel()


async def listen(name: str, host: libp2p.Host, messages: trio.abc.ReceiveChannel) -> None:
    async for message in messages:
        if message.author != host.local_peer:
            say(name, f"heard: {message.data.decode()}")
            print("heard", file=sys.stderr, flush=True)


async def follow(name: str, pubsub: Pubsub) -> None:
    """Do what the director writes on standard input."""
    async for line in trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())):
        for order in line.decode().splitlines():
            verb, _, text = order.partition(" ")
            if verb == "wait":
                while len(pubsub.peers(ROOM)) < int(text):
                    await trio.sleep(0.02)
                print("ready", file=sys.stderr, flush=True)
            elif verb == "say":
                say(name, f"says: {text}")
                await pubsub.publish(ROOM, f"{name}: {text}".encode())


class Actor:
    """A node's process, as the director sees it."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = trio.Event()

    async def read(self) -> None:
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            self.lines += [line.decode() for line in lines]
            self._news.set()
            self._news = trio.Event()

    async def until(self, start: str, count: int = 1) -> str:
        with trio.fail_after(60):
            while len(found := [line for line in self.lines if line.startswith(start)]) < count:
                await self._news.wait()
        return found[-1]

    async def order(self, text: str) -> None:
        await self.process.stdin.send_all(text.encode() + b"\n")


async def direct() -> None:
    """Start four nodes and let them talk."""
    actors: dict[str, Actor] = {}
    async with trio.open_nursery() as nursery:
        for name in NAMES:
            first = next(iter(actors.values()), None)
            meeting_point = [(await first.until("addr")).split()[1]] if first else []
            command = [sys.executable, __file__, "--node", name, *meeting_point]
            process = await nursery.start(run, command)
            actors[name] = Actor(process)
            nursery.start_soon(actors[name].read)
            await actors[name].until("addr")
        heard = dict.fromkeys(NAMES, 0)
        for name, text in (("dana", "hello, is this thing on?"), ("ada", "loud and clear"), ("brian", "and here")):
            await everybody(actors, f"wait {len(actors) - 1}", "ready")
            await actors[name].order(f"say {text}")
            for other in actors:
                if other != name:
                    heard[other] += 1
                    await actors[other].until("heard", heard[other])
        say("ada", "is killed: the meeting point is gone")
        actors.pop("ada").process.kill()
        await actors["chien"].order("say we can do without")
        for other in ("brian", "dana"):
            await actors[other].until("heard", heard[other] + 1)
        print("\nfour nodes found each other and talked, also after the first one was killed")
        nursery.cancel_scope.cancel()


async def everybody(actors: dict[str, Actor], order: str, answer: str) -> None:
    for actor in actors.values():
        count = sum(line == answer for line in actor.lines) + 1
        await actor.order(order)
        await actor.until(answer, count)


async def run(command: list[str], *, task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(
        command, stdin=subprocess.PIPE, stdout=None, stderr=subprocess.PIPE, check=False, task_status=task_status
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", choices=NAMES)
    parser.add_argument("meeting_point", nargs="?")
    options = parser.parse_args()
    try:
        trio.run(*([node, options.node, options.meeting_point] if options.node else [direct]))
    except KeyboardInterrupt:
        pass
