"""Which library does the arithmetic of a curve.

An engine is a module for one type of key: ``cryptography`` always, and a faster library where the extra ``fast`` is
installed. All engines of a type accept and refuse the same keys and signatures; what a library thinks differently about
is decided in the module of the key type, before any engine sees it, or makes the engine refuse to load.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol, TypeAlias, cast

Sign: TypeAlias = Callable[[bytes], bytes]
"""Returns the signature over some data."""
Verify: TypeAlias = Callable[[bytes, bytes], bool]
"""Whether, over the data that comes first, the signature that comes second is by a key; never raises."""


class Engine(Protocol):
    """What the module of an engine offers. Keys are prepared once: signing and verifying are one call each."""

    def load_public(self, raw: bytes) -> Verify:
        """Prepare a public key. Raises ValueError when the engine sees already now that it is none."""
        ...

    def load_private(self, raw: bytes) -> tuple[Sign, bytes]:
        """Prepare a private key that is known to be valid; returns its public key, too."""
        ...


def choose(fast: str, always: str) -> Engine:
    """Return the engine in the module ``fast`` of this package, or that in ``always`` when the first does not load."""
    try:
        module = importlib.import_module(f".{fast}", __package__)
    except ImportError:
        module = importlib.import_module(f".{always}", __package__)
    return cast("Engine", module)
