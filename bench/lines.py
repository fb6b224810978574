"""A peer's side of interop/CONTRACT.md: commands come as lines of JSON, answers go the same way."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import trio

Results: TypeAlias = dict[str, Any] | None
Command: TypeAlias = Callable[..., Awaitable[Results]]


def emit(message: Mapping[str, object]) -> None:
    """Print one line of the contract."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def serve(commands: Mapping[str, Command]) -> None:
    """Answer commands, side by side, until ``shutdown`` or the end of standard input."""
    async with trio.open_nursery() as nursery:
        async for line in _lines():
            request = json.loads(line)
            number, name = request.pop("id"), request.pop("cmd")
            if name == "shutdown":
                emit({"id": number, "ok": True})
                break
            nursery.start_soon(_answer, number, commands.get(name), name, request)
        nursery.cancel_scope.cancel()


async def _answer(number: int, command: Command | None, name: str, arguments: dict[str, Any]) -> None:
    try:
        if command is None:
            raise LookupError(f"unknown command {name}")
        emit({"id": number, "ok": True, **(await command(**arguments) or {})})
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer
        while isinstance(exc, ExceptionGroup):
            exc = exc.exceptions[0]
        emit({"id": number, "ok": False, "error": f"{type(exc).__name__}: {exc}"})


async def _lines() -> AsyncIterator[bytes]:
    # Not a file in a thread, which could not be cancelled.
    rest = b""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line
