"""What the programs have in common: from the environment to the exit code."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import trio

from libp2p.errors import Libp2pError

from .contract import ContractError, Part
from .resp import RedisError

P = TypeVar("P", bound=Part)


def main(
    run: Callable[[P], Awaitable[None]], read: Callable[[Mapping[str, str]], P], environ: Mapping[str, str]
) -> None:
    """Run one side of a test and exit: 0 when it passed, 1 when it failed, 2 when the environment makes no sense."""
    try:
        contract = read(environ)
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG if contract.debug else logging.WARNING)
        trio.run(functools.partial(_within_time, run, contract))
    except ContractError as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
    except trio.TooSlowError:
        print("no result in time", file=sys.stderr)
        sys.exit(1)
    except (Libp2pError, RedisError, OSError, trio.BrokenResourceError) as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


async def _within_time(run: Callable[[P], Awaitable[None]], contract: P) -> None:
    with trio.fail_after(contract.patience):
        await run(contract)
