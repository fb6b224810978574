"""``libp2p`` on a terminal: colours, and a chat whose input line survives what others say."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.program import PATIENCE, Program, command, environment

pytest.importorskip("typer")
pytest.importorskip("rich")
pytestmark = [
    pytest.mark.real_clock("runs the real command in processes of its own"),
    pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals"),
]


class Terminal:
    """A pseudo-terminal, seen from the side of the person."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.screen = ""

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until ``pattern`` is in what was written, and forget everything up to it."""
        while not (found := re.search(pattern, self.screen)):
            ready, _, _ = select.select([self._fd], [], [], PATIENCE)
            assert ready, f"no {pattern!r} in {self.screen!r}"
            try:
                self.screen += os.read(self._fd, 65536).decode(errors="replace")
            except OSError:  # the other side is closed (Linux)
                pytest.fail(f"no {pattern!r} in {self.screen!r}")
        self.screen = self.screen[found.end() :]
        return found


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes], int]]:
    """Run a command with a terminal for all three streams; yields the far side's descriptor, too."""
    person, far = os.openpty()
    try:
        with subprocess.Popen(command(*arguments), env=environment(), stdin=far, stdout=far, stderr=far) as process:
            try:
                yield Terminal(person), process, far
            finally:
                process.kill()
    finally:
        os.close(person)
        os.close(far)


def test_a_chat() -> None:
    termios = pytest.importorskip("termios")
    with Program("chat", "--listen", "/ip4/127.0.0.1/tcp/0", "--json") as ada:
        addr = ada.event("listening")["addrs"][0]
        with on_a_terminal("chat", addr) as (terminal, process, far):
            terminal.until("joined.*\r\n.*> ")
            terminal.press("helo\x7flo")
            terminal.until("> .*hello")
            ada.say("me first\n")
            terminal.until("\r\x1b\\[K.*me first.*\r\n.*> .*hello")
            terminal.press("\r")
            terminal.until("you .*hello\r\n")
            assert ada.event("message")["text"] == "hello"
            assert not termios.tcgetattr(far)[3] & termios.ICANON
            terminal.press("\x04")
            assert process.wait(PATIENCE) == 0
            assert termios.tcgetattr(far)[3] & termios.ICANON, "the terminal is left as it was"


def test_interrupting_a_chat() -> None:
    termios = pytest.importorskip("termios")
    with on_a_terminal("chat", "--listen", "/ip4/127.0.0.1/tcp/0") as (terminal, process, far):
        terminal.until("listens on .*/p2p/")
        terminal.until("> ")
        terminal.press("anybody?\r")
        terminal.until("nobody else is here")
        terminal.press("half a line")
        terminal.until("half a line")
        process.send_signal(2)
        assert process.wait(PATIENCE) == 130
        assert termios.tcgetattr(far)[3] & termios.ICANON


def test_progress_and_colours() -> None:
    with on_a_terminal("dial", "/ip4/127.0.0.1/tcp/1") as (terminal, process, _):
        terminal.until("connecting to /ip4/127.0.0.1/tcp/1")
        terminal.until("\x1b\\[[0-9;]*merror: ")
        assert process.wait(PATIENCE) == 1


def test_a_mesh_is_a_table_that_stays_in_its_place() -> None:
    with Program("pubsub", "sub", "news", "--listen", "/ip4/127.0.0.1/tcp/0", "--json") as sub:
        addr = sub.event("listening")["addrs"][0]
        looks = ("--count", "3", "--interval", "0.5")
        with on_a_terminal("pubsub", "mesh", "news", "--peer", addr, *looks) as (terminal, process, _):
            terminal.until("1 of 1 peers are in the mesh")
            terminal.until("peer.*mesh.*score.*address")
            terminal.until("│ mesh .*/ip4/127.0.0.1/tcp/")
            terminal.until("\x1b\\[1A.*1 of 1 peers are in the mesh")
            assert process.wait(PATIENCE) == 0
