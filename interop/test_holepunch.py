"""Two nodes behind two NATs, in network namespaces. Time is real.

See :mod:`interop.holepunch`, whose table is larger and says how soon.
"""

from __future__ import annotations

import pytest

from libp2p.testing.nat import why_unavailable

from .conftest import Features, get_features
from .holepunch.__main__ import SAME, SOON, Row, try_pair

pytestmark = pytest.mark.real_clock

OURS = "ours"
CELLS = [
    (OURS, OURS, "quic", "port-restricted", "port-restricted"),
    (OURS, OURS, "tcp", "port-restricted", "port-restricted"),
    (OURS, OURS, "quic", "symmetric", "restricted"),
    (OURS, OURS, "tcp", "symmetric", "symmetric"),
    (OURS, OURS, "quic", "hairpin", SAME),
    (OURS, OURS, "tcp", "hairpin", SAME),
    *(
        (*who, transport, "port-restricted", "port-restricted")
        for peer in ("go", "js", "rust")
        for who in ((peer, OURS), (OURS, peer))
        for transport in ("tcp", "quic")
    ),
    ("js", OURS, "tcp", "port-restricted", "full-cone"),
    (OURS, "js", "tcp", "full-cone", "port-restricted"),
    ("js", OURS, "quic", "symmetric", "port-restricted"),
    (OURS, "rust", "quic", "restricted", "symmetric"),
    (OURS, "rust", "tcp", "restricted", "symmetric"),
]
"""Who dials, who listens, over what, and the kinds of NAT they are behind."""


def _why_not(peer: Features | None, transport: str, kinds: list[str]) -> str | None:
    if peer is None:
        return "not built: its toolchain is absent, see above"
    unable = peer["unsupported"].get(f"punch-{transport}")
    return f"unsupported by peer: punch-{transport}: {unable}" if unable and "full-cone" not in kinds else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = get_features(metafunc.config)
    cells = []
    for dials, listens, transport, *kinds in CELLS:
        peer = next((name for name in (dials, listens) if name != OURS), OURS)
        if peer != OURS and peer not in found:
            continue  # not asked for
        reason = None if peer == OURS else _why_not(found[peer], transport, kinds)
        marks = [pytest.mark.skip(reason=reason)] if reason else []
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
    [relayed] = row.times("relayed")
    assert relayed < SOON
    assert bool(row.times("direct")) == (row.expected == "soon"), row.results
