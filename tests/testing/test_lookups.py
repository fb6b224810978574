"""The simulator of lookups, and what lookups must withstand: requirements KD1 and KD18, cases K6 to K8."""

from __future__ import annotations

import pytest

from libp2p.protocols.kad import QueryConfig
from libp2p.testing.lookups import LookupReport, LookupSimulation, Role


def simulate(
    honest: int, lookups: int, *, sybils: int = 0, groups: int | None = None, dead: int = 0, seed: int = 1
) -> LookupReport:
    simulation = LookupSimulation(seed=seed)
    simulation.add(honest)
    simulation.add(sybils, role=Role.SYBIL, groups=groups)
    simulation.fill_tables(met=60)
    simulation.kill(dead)
    return simulation.lookups(lookups)


def test_quiet() -> None:
    """KD1: who is there is found, with few questions; the same seed gives the same run."""
    report = simulate(120, 40)
    assert (report.found, report.exact) == (1.0, 1.0)
    assert report.messages < 60
    assert report.hops < 4
    assert simulate(120, 40).digest == report.digest
    assert simulate(120, 40, seed=2).digest != report.digest
    assert "40 lookups, 100.00% found" in str(report)


def test_k8_tarpits() -> None:
    """K8: 30 % never answer."""
    report = simulate(150, 30, dead=45)
    assert report.found == 1.0
    assert report.p95 <= 15
    assert report.most_asked <= 200


def test_k6_few_groups() -> None:
    """K6: as many sybils as honest peers, in ten IP groups."""
    assert simulate(120, 30, sybils=120, groups=10).found >= 0.99


def test_k6_diverse() -> None:
    """K6: 30 % sybils, each with an address of its own."""
    assert simulate(120, 40, sybils=51).found >= 0.85


@pytest.mark.parametrize("role", [Role.HIDER, Role.SYBIL])
def test_k7_identities_mined_around_a_key_do_not_hide_it(role: Role) -> None:
    """K7: as many as a value is stored with, and they keep nothing."""
    simulation = LookupSimulation(seed=1)
    simulation.add(150)
    simulation.fill_tables(met=60)
    assert simulation.retrievals(3, mined=20, role=role) >= 0.95


@pytest.mark.bar_n
def test_paths_are_worth_their_messages() -> None:
    """Two disjoint paths find more of the nearest than one, among sybils."""
    found: list[float] = []
    for paths in (1, 2):
        simulation = LookupSimulation(seed=1, query=QueryConfig(paths=paths))
        simulation.add(200)
        simulation.add(86, role=Role.SYBIL)
        simulation.fill_tables(met=100)
        found.append(simulation.lookups(50).exact)
    assert found[1] > found[0]


@pytest.mark.bar_r
@pytest.mark.limit(1200)
@pytest.mark.parametrize("mined", [20, 60])
@pytest.mark.parametrize(("role", "least"), [(Role.HIDER, 0.95), (Role.SYBIL, 0.8)])
def test_k7_a_thousand_nodes(role: Role, least: float, mined: int) -> None:
    """K7."""
    simulation = LookupSimulation(seed=1)
    simulation.add(1000)
    simulation.fill_tables()
    assert simulation.retrievals(50, mined=mined, role=role) >= least


@pytest.mark.bar_r
@pytest.mark.limit(1200)
@pytest.mark.parametrize(
    ("sybils", "groups", "least"),
    [(0, None, 0.999), (111, None, 0.95), (429, None, 0.85), (1000, 20, 0.99), (4000, 20, 0.99)],
)
def test_k6_a_thousand_nodes(sybils: int, groups: int | None, least: float) -> None:
    """K6."""
    assert simulate(1000, 1000, sybils=sybils, groups=groups).found >= least
