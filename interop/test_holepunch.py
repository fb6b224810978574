"""Two nodes behind two NATs, in network namespaces. Time is real.

See :mod:`interop.holepunch`, whose table is larger and says how soon.
"""

from __future__ import annotations

import pytest

from libp2p.testing.nat import why_unavailable

from .conftest import get_features
from .holepunch.__main__ import Row, try_pair

pytestmark = pytest.mark.real_clock

OURS = "ours"
CELLS = [
    (OURS, OURS, "quic", "port-restricted", "port-restricted"),
    (OURS, OURS, "tcp", "port-restricted", "port-restricted"),
    (OURS, OURS, "quic", "symmetric", "restricted"),
    (OURS, OURS, "tcp", "symmetric", "symmetric"),
    ("go", OURS, "tcp", "port-restricted", "port-restricted"),
    ("go", OURS, "quic", "port-restricted", "port-restricted"),
    (OURS, "go", "tcp", "port-restricted", "port-restricted"),
    (OURS, "go", "quic", "port-restricted", "port-restricted"),
]
"""Who dials, who listens, over what, and the kinds of NAT they are behind."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = get_features(metafunc.config)
    cells = []
    for dials, listens, transport, *kinds in CELLS:
        peer = next((name for name in (dials, listens) if name != OURS), OURS)
        if peer != OURS and peer not in found:
            continue  # not asked for
        marks = []
        if peer != OURS and found[peer] is None:
            marks.append(pytest.mark.skip(reason="not built: its toolchain is absent, see above"))
        cell = (peer, f"{dials}>{listens}", transport, ">".join(kinds))
        cells.append(pytest.param(cell, id="-".join(cell[1:]), marks=marks))
    metafunc.parametrize("cell", cells)


async def test_holepunch(cell: tuple[str, str, str, str]) -> None:
    reason = why_unavailable()
    if reason is not None:
        pytest.skip(reason)
    _, who, transport, kinds = cell
    row = Row(transport, *kinds.split(">"), *who.split(">"))
    await try_pair(row, runs=1, latency=0.01, patience=20.0 if row.expected == "soon" else 5.0)
    assert row.times("relayed"), row.results
    assert bool(row.times("direct")) == (row.expected == "soon"), row.results
