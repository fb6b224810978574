"""Simulated networks: gossipsub at scale, under attack (case G8), with churn and partitions; the same for a seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from libp2p.protocols.pubsub import Floodsub, GossipsubConfig, Verdict
from libp2p.testing.attacks import Attack, Scenario, run_attack, scores_for
from libp2p.testing.simulation import LinkModel, Node, Report, Simulation


def network(size: int = 60, *, seed: int = 1, dials: int = 6, links: LinkModel | None = None) -> Simulation:
    simulation = Simulation(seed=seed, links=links)
    nodes = [simulation.add_node("t") for _ in range(size)]
    simulation.connect_at_random(nodes, dials=dials)
    simulation.run(until=5.0)
    return simulation


def publish_each(simulation: Simulation, count: int = 10) -> Report:
    since = simulation.now
    for index in range(count):
        node = simulation.nodes[index]
        simulation.at(since + index, lambda node=node: simulation.publish(node, "t"))  # type: ignore[misc]
    simulation.run(until=since + count + 5.0)
    return simulation.report(since=since)


def story(seed: int) -> str:
    simulation = network(30, seed=seed, links=LinkModel(loss=0.05))
    simulation.remove(simulation.nodes[7])
    return publish_each(simulation).digest


def test_a_quiet_network() -> None:
    simulation = network()
    assert all(5 <= len(node.router.mesh("t")) <= 12 for node in simulation.nodes)
    report = publish_each(simulation)
    assert (report.published, report.delivery, report.honest_mesh) == (10, 1.0, 1.0)
    assert 0.02 < report.p50 < report.p99 < 1.0
    assert report.copies < 12
    assert "100.00% delivered" in str(report)


def test_a_seed_is_a_run() -> None:
    assert story(1) == story(1)
    assert story(1) != story(2)


def test_a_seed_is_the_same_run_in_every_process() -> None:
    """Sets of ids come out in another order in every process: nothing may depend on it."""
    command = "from tests.testing.test_simulation import story; print(story(3))"
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


def test_losses_delay() -> None:
    clean, lossy = (publish_each(network(links=LinkModel(loss=loss))) for loss in (0.0, 0.2))
    assert lossy.delivery == 1.0
    assert lossy.p99 > clean.p99


def test_nodes_that_come_and_go() -> None:
    simulation = network()
    for index in range(20):
        simulation.remove(simulation.nodes[40 + index])
        newcomer = simulation.add_node("t")
        simulation.connect_at_random([newcomer], dials=6)
        simulation.run(until=simulation.now + 1.0)
    report = publish_each(simulation)
    assert report.delivery == 1.0
    assert len(newcomer.router.mesh("t")) >= 5


def test_x8_a_partition_that_heals() -> None:
    """What was published in the last heartbeats before it heals still arrives, by gossip."""
    simulation = network(40)
    left, right = simulation.nodes[:20], simulation.nodes[20:]
    for one in left:
        for other in right:
            simulation.disconnect(one, other)
    simulation.run(until=simulation.now + 5.0)
    simulation.publish(left[0], "t")
    simulation.run(until=simulation.now + 0.5)
    assert simulation.report().delivery == pytest.approx(19 / 39)
    simulation.connect_at_random(left, right, dials=3)
    simulation.run(until=simulation.now + 5.0)
    assert simulation.report().delivery == 1.0


def test_who_is_not_subscribed_gets_nothing() -> None:
    simulation = network(20)
    outsider = simulation.add_node(None)
    simulation.connect_at_random([outsider], dials=6)
    simulation.run(until=simulation.now + 1.0)
    simulation.publish(outsider, "t")
    simulation.run(until=simulation.now + 3.0)
    report = simulation.report(author=outsider)
    assert (report.published, report.delivery) == (1, 1.0)
    assert simulation.report(receiver=outsider).delivery == 1.0  # of nothing


def test_verdicts() -> None:
    def reject(_: Node, __: object) -> Verdict:
        return Verdict.REJECT

    simulation = Simulation(seed=1)
    good, strict = simulation.add_node("t"), simulation.add_node("t", judges=reject)
    simulation.connect(good, strict)
    simulation.run(until=1.0)
    simulation.publish(good, "t")
    simulation.run(until=2.0)
    assert simulation.report().delivery == 0.0
    assert simulation.report().p99 == 0.0
    assert strict.router.scores(2.0)[good.peer] < 0


def test_other_routers() -> None:
    simulation = Simulation(seed=1)
    nodes = [simulation.add_node("t", router=lambda _: Floodsub()) for _ in range(10)]
    simulation.connect_at_random(nodes, dials=3)
    simulation.run(until=1.0)
    report = publish_each(simulation, 5)
    assert report.delivery == 1.0


def test_links() -> None:
    simulation = Simulation(seed=1)
    one, other = simulation.add_node("t"), simulation.add_node("t")
    assert (simulation.honest_mesh(), simulation.honest_members()) == (1.0, 0.0)
    assert simulation.report().delivery == 1.0
    assert simulation.connect(one, other)
    assert not simulation.connect(other, one)
    assert not simulation.connect(one, one)
    simulation.publish(one, "t")
    simulation.remove(other)  # with everything under way
    assert not simulation.connect(one, other)
    simulation.run(until=5.0)
    assert simulation.report().delivery == 0.0
    for wrong in ({"min_latency": 0.3}, {"min_latency": -0.1}, {"loss": 1.0}):
        with pytest.raises(ValueError, match="must not be"):
            LinkModel(**wrong)


@pytest.mark.parametrize("attack", list(Attack), ids=lambda attack: attack.value)
def test_g8_attacks(attack: Attack) -> None:
    """As many sybils as honest nodes; small, for every commit."""
    scenario = Scenario(attack=attack, honest=30, dials=6, sybil_dials=6, publishers=5, onset=12.0, duration=15.0)
    done = run_attack(scenario, seed=1)
    assert done.report.published > 5
    assert done.report.delivery >= 0.99
    assert done.report.p99 <= 3.0
    assert len(done.mesh) == 26
    assert done.mesh_at(0) == done.mesh[0]
    assert len(done.members) == len(done.mesh)
    assert min(done.members[15:]) >= 5
    assert done.mesh_at(60) == done.mesh[-1]
    assert "during the attack" in str(done)


def test_g8_sybils_from_few_addresses_get_into_few_meshes() -> None:
    """P6 counts those that come from an address, at once; alone, each of them is as good as any newcomer."""
    colocated, spread = [
        run_attack(
            Scenario(attack=attack, honest=30, dials=6, sybil_dials=10, publishers=5, onset=12.0, duration=10.0), seed=1
        )
        for attack in (Attack.COLOCATION, Attack.ECLIPSE_ALL)
    ]
    assert min(colocated.mesh) > 0.8
    assert min(spread.mesh) < 0.7


def test_g9_scores_of_attacked_networks_are_safe() -> None:
    for rate in (0.1, 1.0, 10.0, 1000.0):
        GossipsubConfig(score=scores_for(rate))
