"""``python -m interop.harness.perf``: one side of a perf test, with the framing of the specification.

Some images of the suite put a second number into the header; see :mod:`libp2p.protocols.perf`.
"""

from __future__ import annotations

import os

import trio

from libp2p.protocols.perf import Perf, perf

from . import report, resp
from .contract import LISTENER, Contract, iterations, read
from .program import main
from .stacks import address_for_others, open_stack

GIB = 1 << 30


async def run(contract: Contract) -> None:
    """Play one side. A listener waits until it is killed."""
    async with open_stack(contract, Perf()) as host, resp.connect(*contract.redis) as redis:
        if not contract.dialer:
            await resp.publish(redis, contract.key(LISTENER), address_for_others(host), as_list=False)
            await trio.sleep_forever()
        connection = await host.connect(await resp.fetch(redis, contract.key(LISTENER)))

        async def measure(upload: int, download: int, times: int) -> list[float]:
            """Seconds for each transfer, on a new stream each."""
            seconds = []
            for _ in range(times):
                result = await perf(host, connection.peer, upload=upload, download=download)
                seconds.append(result.upload_seconds + result.download_seconds)
            return seconds

        sizes = {name: iterations(os.environ, f"{name}_BYTES", GIB) for name in ("UPLOAD", "DOWNLOAD")}
        times = {
            name: iterations(os.environ, f"{name}_ITERATIONS", default)
            for name, default in (("UPLOAD", 10), ("DOWNLOAD", 10), ("LATENCY", 100))
        }
        up = await measure(sizes["UPLOAD"], 0, times["UPLOAD"])
        down = await measure(0, sizes["DOWNLOAD"], times["DOWNLOAD"])
        both = await measure(1, 1, times["LATENCY"])
        print(report.distribution("upload", [sizes["UPLOAD"] * 8 / taken / 1e9 for taken in up], "Gbps"))
        print(report.distribution("download", [sizes["DOWNLOAD"] * 8 / taken / 1e9 for taken in down], "Gbps"))
        print(report.distribution("latency", [taken * 1000 for taken in both], "ms"), flush=True)


if __name__ == "__main__":
    main(run, read, os.environ)
