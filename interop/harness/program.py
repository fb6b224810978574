"""What the programs have in common: from the environment to the exit code."""

from __future__ import annotations

import functools
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Mapping

import trio

from libp2p.errors import Libp2pError

from .contract import Contract, ContractError, read
from .resp import RedisError


def main(run: Callable[[Contract], Awaitable[None]], environ: Mapping[str, str]) -> None:
    """Run one side of a test and exit: 0 when it passed, 1 when it failed, 2 when the environment makes no sense."""
    try:
        contract = read(environ)
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG if contract.debug else logging.WARNING)
        trio.run(functools.partial(_within_time, run, contract))
    except ContractError as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
    except trio.TooSlowError:
        print(f"no result within {contract.timeout:g} s", file=sys.stderr)
        sys.exit(1)
    except (Libp2pError, RedisError, OSError, trio.BrokenResourceError) as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


async def _within_time(run: Callable[[Contract], Awaitable[None]], contract: Contract) -> None:
    # A listener is ended by the suite, which has the same deadline.
    with trio.fail_after(contract.timeout if contract.dialer else math.inf):
        await run(contract)
