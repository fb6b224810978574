"""The demo of `make demo`: four nodes, each a process of its own, find each other and chat.

The first node is the meeting point; the others know just its address. Whoever comes is told who else is there and
connects to them, so that in the end everybody is connected to everybody, and the talk goes on when the meeting point is
killed.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import trio

import libp2p
from libp2p.protocols.pubsub import Message, Pubsub
from libp2p.protocols.request_response import RequestResponse

ROOM = "demo"
COLOURS = {"ada": "1;36", "brian": "1;33", "chien": "1;35", "dana": "1;32"}
DIM, BOLD = "90", "1"
PATIENCE = 60


def paint(text: str, colour: str) -> str:
    coloured = (sys.stdout.isatty() or "FORCE_COLOR" in os.environ) and "NO_COLOR" not in os.environ
    return f"\x1b[{colour}m{text}\x1b[0m" if coloured else text


def say(name: str, text: str, colour: str = "") -> None:
    # In one write with its end: four processes share the terminal.
    line = f"{paint(f'{name:>7}', COLOURS[name])}  {paint(text, colour) if colour else text}\n"
    print(line, end="", flush=True)


def say_aside(text: str) -> None:
    print(paint(text, BOLD), flush=True)


# --- a node: it prints what happens, and tells the director on standard error when it has reached a step --------------


async def node(name: str, meeting_point: str | None) -> None:
    guests: dict[str, str] = {}

    async def sign_in(peer: libp2p.PeerId, request: bytes) -> bytes:
        others = json.dumps(guests).encode()
        guests.update(json.loads(request))
        return others

    pubsub, guest_book = Pubsub(), RequestResponse("/demo/guests/1.0.0", sign_in)
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[pubsub, guest_book]) as host:
        guests[name] = str(host.addrs[0])
        say(name, f"listens on {guests[name]}", DIM)
        if meeting_point is not None:
            others = json.loads(await guest_book.request(host, meeting_point, json.dumps(guests).encode()))
            async with trio.open_nursery() as nursery:
                for addr in others.values():
                    nursery.start_soon(host.connect, addr)
            say(name, f"has met {' and '.join(others)}")
        async with pubsub.subscribe(ROOM) as messages, trio.open_nursery() as nursery:
            nursery.start_soon(hear, name, messages)
            tell_director(f"addr {guests[name]}")
            await follow_orders(name, pubsub)
            nursery.cancel_scope.cancel()


async def hear(name: str, messages: trio.abc.ReceiveChannel[Message]) -> None:
    async for message in messages:
        say(name, f"heard {message.data.decode()}", DIM)
        tell_director("heard")


async def follow_orders(name: str, pubsub: Pubsub) -> None:
    async for order in trio.wrap_file(sys.stdin):
        verb, _, text = order.strip().partition(" ")
        if verb == "company":
            while len(pubsub.peers(ROOM)) < int(text):
                await trio.sleep(0.01)
            tell_director("company")
        elif verb == "say":
            say(name, f"“{text}”")
            await pubsub.publish(ROOM, f"{name}: “{text}”".encode())


def tell_director(line: str) -> None:
    print("*", line, file=sys.stderr, flush=True)


# --- the director: starts the nodes, and says who speaks when ---------------------------------------------------------


class Gone(Exception):
    """A node ended before its time."""


class Actor:
    """A node's process, as the director sees it."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self.name = name
        self.process = process
        self.reports: list[str] = []
        self.ended = False
        self._news = trio.Event()

    async def read(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.startswith(b"* "):
                    self.reports.append(line[2:].decode())
                else:
                    print(line.decode(), file=sys.stderr)
            self._tell()
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def reported(self, what: str, count: int = 1) -> str:
        """Wait for the ``count``-th report that starts with ``what``; return its rest."""
        while len(found := [report for report in self.reports if report.split()[0] == what]) < count:
            if self.ended:
                raise Gone(f"{self.name} ended before its time")
            await self._news.wait()
        return found[count - 1].partition(" ")[2]

    async def order(self, text: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{text}\n".encode())


async def direct() -> None:
    started = time.monotonic()
    say_aside("Four nodes, four processes. Each knows the address of ada, and nothing else.\n")
    actors: list[Actor] = []
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for name in COLOURS:
                meeting_point = [await actors[0].reported("addr")] if actors else []
                command = [sys.executable, __file__, "--node", name, *meeting_point]
                actors.append(Actor(name, await nursery.start(run, command)))
                nursery.start_soon(actors[-1].read)
                await actors[-1].reported("addr")
            for actor in actors:
                await actor.order(f"company {len(actors) - 1}")
            for actor in actors:
                await actor.reported("company")
            ada, brian, chien, dana = actors
            await speak(dana, "hello, is this thing on?", [ada, brian, chien])
            await speak(ada, "loud and clear", [brian, chien, dana])
            ada.process.kill()
            await ada.process.wait()
            say("ada", "is killed: the meeting point is gone", "1;31")
            await speak(chien, "can we go on without?", [brian, dana])
            await speak(brian, "as you hear", [chien, dana])
            nursery.cancel_scope.cancel()
    took = f"{time.monotonic() - started:.1f} s"
    say_aside(f"\nThey found each other and talked, with and without the meeting point, in {took}.")


async def speak(speaker: Actor, text: str, audience: list[Actor]) -> None:
    heard = [listener.reports.count("heard") for listener in audience]
    await speaker.order(f"say {text}")
    for listener, before in zip(audience, heard, strict=True):
        await listener.reported("heard", before + 1)


async def run(command: list[str], *, task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(
        command, stdin=subprocess.PIPE, stdout=None, stderr=subprocess.PIPE, check=False, task_status=task_status
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", choices=COLOURS)
    parser.add_argument("meeting_point", nargs="?")
    options = parser.parse_args()
    try:
        if options.node:
            trio.run(node, options.node, options.meeting_point)
        else:
            trio.run(direct)
    except* KeyboardInterrupt:
        sys.exit(130)
    except* Gone as group:
        sys.exit(str(group.exceptions[0]))
