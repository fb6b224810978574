"""Modules that take long to import."""

from __future__ import annotations

import importlib
from typing import Any

import trio


async def load(name: str) -> Any:
    """Import a module by its full name, outside of the event loop.

    Raises:
        ImportError: it, or what it needs, is not there.
    """
    if hasattr(trio.lowlevel.current_clock(), "autojump_threshold"):
        await trio.lowlevel.checkpoint()
        return importlib.import_module(name)  # such a clock jumps while a thread works
    return await trio.to_thread.run_sync(importlib.import_module, name)
