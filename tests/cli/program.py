"""The command as a process of its own, driven line by line."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0
"""Seconds to wait for one line, or for the end."""


def command(*arguments: str) -> list[str]:
    """What a shell would run for ``libp2p ARGUMENTS``; the script is a call of the same function."""
    return [sys.executable, "-X", "utf8", "-W", "error", "-m", "libp2p.cli", *arguments]


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that finds this tree, on a terminal of a known width."""
    kept = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "NO_COLOR", "TERM"}}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "xterm-256color", **more}


class Lines:
    """What a process writes to one of its outputs."""

    def __init__(self, stream: IO[str]) -> None:
        self.seen: list[str] = []
        self._stream = stream
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        for line in self._stream:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def next(self) -> str | None:
        """Wait for the next line; None at the end."""
        line = self._queue.get(timeout=PATIENCE)
        if line is None:
            self._queue.put(None)
        else:
            self.seen.append(line)
        return line

    def rest(self) -> list[str]:
        """Wait for the end, and return all lines."""
        while self.next() is not None:
            pass
        return self.seen

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line that has ``pattern`` in it."""
        while (line := self.next()) is not None:
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line with {pattern!r} in:\n" + "\n".join(self.seen))

    def close(self) -> None:
        self._thread.join(PATIENCE)
        self._stream.close()


class Program:
    """A running command. Leaving its context kills it, if it has not ended."""

    def __init__(self, *arguments: str, argv: list[str] | None = None, colour: bool = False) -> None:
        self.process = subprocess.Popen(
            argv or command(*arguments),
            env=environment(**({"FORCE_COLOR": "1"} if colour else {})),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            bufsize=1,
        )
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.stdin = self.process.stdin
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.err.close()
        self.hang_up()

    def say(self, text: str) -> None:
        """Write to its standard input."""
        with suppress(BrokenPipeError):  # it has ended, and its own words say why
            self.stdin.write(text)
            self.stdin.flush()

    def hang_up(self) -> None:
        """Close its standard input."""
        with suppress(BrokenPipeError):
            self.stdin.close()

    def event(self, name: str) -> dict[str, Any]:
        """Wait for the JSON line whose ``event`` is ``name``."""
        while (line := self.out.next()) is not None:
            record: dict[str, Any] = json.loads(line)
            if record.get("event") == name:
                return record
        raise AssertionError(f"no event {name!r} in:\n" + "\n".join([*self.out.seen, *self.err.rest()]))

    def events(self, *names: str) -> dict[str, dict[str, Any]]:
        """Wait for a JSON line of each of these events, in whatever order."""
        found: dict[str, dict[str, Any]] = {}
        while not found.keys() >= set(names):
            line = self.out.next()
            assert line is not None, f"no events {names} in:\n" + "\n".join([*self.out.seen, *self.err.rest()])
            record: dict[str, Any] = json.loads(line)
            found[record.get("event", "")] = record
        return found

    def interrupt(self) -> int:
        """Press Ctrl-C. Returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Wait for the end. Returns the exit status."""
        return self.process.wait(PATIENCE)


class Result:
    """How a command ended, and what it said."""

    def __init__(self, status: int, out: list[str], err: list[str]) -> None:
        self.status = status
        self.out = out
        self.err = "\n".join(err)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of its output as JSON."""
        return [json.loads(line) for line in self.out]

    @property
    def record(self) -> dict[str, Any]:
        """Its only line as JSON."""
        (record,) = self.records
        return record


def result_of(*arguments: str, stdin: str = "", colour: bool = False) -> Result:
    """Run a command to its end."""
    with Program(*arguments, colour=colour) as program:
        program.say(stdin)
        program.hang_up()
        out, err = program.out.rest(), program.err.rest()
        return Result(program.end(), out, err)
