"""Two of our nodes behind two NATs, in network namespaces; see :mod:`interop.holepunch`, whose table is larger."""

from __future__ import annotations

import pytest

from libp2p.testing.nat import why_unavailable

from .holepunch.__main__ import Row, try_pair

pytestmark = pytest.mark.real_clock

CELLS = [
    ("quic", "port-restricted", "port-restricted"),
    ("tcp", "port-restricted", "port-restricted"),
    ("quic", "symmetric", "restricted"),
    ("tcp", "symmetric", "symmetric"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = [("ours", transport, f"{dialer}>{listener}") for transport, dialer, listener in CELLS]
    metafunc.parametrize("cell", found, ids=["-".join(cell[1:]) for cell in found])


async def test_holepunch(cell: tuple[str, str, str]) -> None:
    reason = why_unavailable()
    if reason is not None:
        pytest.skip(reason)
    row = Row(cell[1], *cell[2].split(">"))
    await try_pair(row, runs=2, latency=0.01, patience=5.0)
    assert row.good, (str(row), row.results)
