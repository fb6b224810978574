"""The attacks of the gossipsub 1.1 evaluation, on a simulated network.

Sybils run the router that everybody runs, with a mesh as large as they can get, and keep to its rules, because breaking
those is noticed at once; what they do not do is to pass messages on, all or some. Each attack differs in whom they
connect to, what they drop, and since when.

Source: "GossipSub: Attack-Resilient Message Propagation in the Filecoin and ETH2.0 Networks", and its evaluation
report.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field

from ..protocols.pubsub import Gossipsub, GossipsubConfig, Message, PeerScoreConfig, TopicScore
from .simulation import LinkModel, Node, Report, Simulation

TOPIC = "attacked"
"""The topic of every scenario."""
_DARK = 10.0
"""Seconds that sybils have for themselves before an attack at dawn."""
_CENSORED = 10
"""Of so many messages, one at least is of the node that is to be censored."""
_SHARED = 2
"""Addresses that all sybils have together in an attack by colocation."""
_CROWD = 3
"""They dial so many times as often there, so that more of them come from an address than scores let pass (P6)."""
_SETTLE = 10.0
"""Seconds for the last messages to arrive, or to be asked for."""


class Attack(enum.Enum):
    """What the sybils are after."""

    NONE = "quiet"
    ECLIPSE_ONE = "eclipse one"
    """All of them connect to one node, and drop everything."""
    ECLIPSE_ALL = "eclipse all"
    """They connect to everybody alike, and drop everything."""
    ECLIPSE_PUBLISHERS = "eclipse publishers"
    """They connect to those that publish."""
    CENSOR = "censor"
    """They connect to one node, and to others, and drop the messages of that one only."""
    DEGRADE = "degrade"
    """They drop every other message."""
    COLD_BOOT = "cold boot"
    """They are there when the network starts, and drop everything from the first second."""
    COVERT_FLASH = "covert flash"
    """They behave well, then all drop everything at the same time."""
    DAWN = "attack at dawn"
    """They are connected to each other first, and to the honest when these start, publishing at once."""
    COLOCATION = "colocation"
    """They connect to everybody, more often than else, from two addresses."""


def scores_for(rate: float) -> PeerScoreConfig:
    """Scores for a topic with ``rate`` messages a second: members of a mesh owe a part of them, soon."""
    decay = 0.9
    steady = rate / (1 - decay)
    return PeerScoreConfig(
        topics={
            TOPIC: TopicScore(
                time_in_mesh_weight=0.01,
                time_in_mesh_cap=300,
                first_deliveries_decay=0.9,
                first_deliveries_cap=max(10.0, steady),
                mesh_deliveries_weight=-40.0 / (steady / 4) ** 2,
                mesh_deliveries_decay=decay,
                mesh_deliveries_cap=steady,
                mesh_deliveries_threshold=steady / 4,
                mesh_deliveries_window=2.0,
                mesh_deliveries_activation=10.0,
                mesh_failure_weight=-40.0 / (steady / 4) ** 2,
                mesh_failure_decay=0.98,
            )
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackReport:
    """What an attack did.

    Attributes:
        report: what became of the messages published during the attack; about its victim, if it has one.
        mesh: share of honest peers in the meshes of honest nodes, each second since the attack began; of the victim's
            mesh, if it is the one that is to be cut off.
        members: how many honest peers those meshes have, on average, each second.
    """

    report: Report
    mesh: tuple[float, ...]
    members: tuple[float, ...]

    def mesh_at(self, seconds: float) -> float:
        """The share so many seconds after the beginning, or at the end if that was earlier."""
        return self.mesh[min(round(seconds), len(self.mesh) - 1)]

    def __str__(self) -> str:
        return f"{self.report}, at least {min(self.mesh):.1%} during the attack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """An attack on a network.

    Attributes:
        honest: honest nodes.
        sybils: sybils for each honest node.
        dials: nodes that an honest one connects to.
        sybil_dials: honest nodes that a sybil connects to.
        publishers: honest nodes that publish, taking turns.
        rate: messages a second.
        onset: seconds until the attack begins, where it does not from the start.
        duration: seconds of the attack.
    """

    attack: Attack
    honest: int = 1000
    sybils: float = 1.0
    dials: int = 10
    sybil_dials: int = 10
    publishers: int = 100
    rate: float = 4.0
    onset: float = 30.0
    duration: float = 60.0
    links: LinkModel = field(default_factory=LinkModel)


def run_attack(scenario: Scenario, *, seed: int) -> AttackReport:
    """Run ``scenario``; the same seed gives the same run."""
    return _Run(scenario, seed).run()


class _Run:
    """One scenario, under way."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.rng = random.Random(seed)
        config = GossipsubConfig(score=scores_for(scenario.rate))
        self.simulation = Simulation(seed=seed, links=scenario.links, config=config)
        self.attacking_since = 0.0 if scenario.attack in (Attack.COLD_BOOT, Attack.DAWN) else scenario.onset
        self.honest: list[Node] = []
        self.published = 0
        self.mesh: list[float] = []
        self.members: list[float] = []

    def run(self) -> AttackReport:
        attack, simulation, sybils = self.scenario.attack, self.simulation, list[Node]()
        if attack in (Attack.COLD_BOOT, Attack.DAWN):
            sybils = self._sybils()
            if attack is Attack.DAWN:
                simulation.connect_at_random(sybils, sybils, dials=self.scenario.dials)
                simulation.run(until=_DARK)
        start = max(simulation.now, self.attacking_since)
        end = start + self.scenario.duration
        self.honest = [simulation.add_node(TOPIC) for _ in range(self.scenario.honest)]
        simulation.connect_at_random(self.honest, self.honest, dials=self.scenario.dials)
        # Scores need traffic all the time: without it, everybody owes.
        for number in range(round((end + _SETTLE - simulation.now) * self.scenario.rate)):
            simulation.at(simulation.now + number / self.scenario.rate, self._publish)
        if not sybils and attack is not Attack.NONE:
            if attack is not Attack.COVERT_FLASH:
                simulation.run(until=start)
            sybils = self._sybils()
        for second in range(round(end + _SETTLE - start) + 1):
            simulation.at(max(simulation.now, start + second), self._look_at_meshes)
        for sybil in sybils:
            simulation.connect_at_random([sybil], self._victims(), dials=self._sybil_dials())
            if attack is Attack.CENSOR:
                simulation.connect(sybil, self.honest[0])
        simulation.run(until=end + _SETTLE)
        victim = self.honest[0]
        report = simulation.report(
            since=start,
            until=end,
            author=victim if attack is Attack.CENSOR else None,
            receiver=victim if attack is Attack.ECLIPSE_ONE else None,
        )
        return AttackReport(report=report, mesh=tuple(self.mesh), members=tuple(self.members))

    def _look_at_meshes(self) -> None:
        nodes = self.honest[:1] if self.scenario.attack is Attack.ECLIPSE_ONE else self.honest
        self.mesh.append(self.simulation.honest_mesh(nodes))
        self.members.append(self.simulation.honest_members(nodes))

    def _sybils(self) -> list[Node]:
        return [self._sybil(number) for number in range(round(self.scenario.honest * self.scenario.sybils))]

    def _sybil_dials(self) -> int:
        times = _CROWD if self.scenario.attack is Attack.COLOCATION else 1
        return times * self.scenario.sybil_dials

    def _publish(self) -> None:
        self.published += 1
        turn = self.published % min(self.scenario.publishers, len(self.honest))
        if self.scenario.attack is Attack.CENSOR and self.published % _CENSORED == 0:
            turn = 0
        self.simulation.publish(self.honest[turn], TOPIC)

    def _victims(self) -> list[Node]:
        if self.scenario.attack is Attack.ECLIPSE_ONE:
            return self.honest[:1]
        if self.scenario.attack is Attack.ECLIPSE_PUBLISHERS:
            return self.honest[: self.scenario.publishers]
        return self.honest

    def _sybil(self, number: int) -> Node:
        shared = self.scenario.attack is Attack.COLOCATION
        config = GossipsubConfig(degree=100, degree_low=100, degree_high=1000, flood_publish=False)
        return self.simulation.add_node(
            TOPIC,
            router=lambda rng: Gossipsub(rng, config),
            address=f"11.0.0.{number % _SHARED}" if shared else None,
            honest=False,
            forwards=self._forwards,
        )

    def _forwards(self, _: Node, message: Message, now: float) -> bool:
        if now < self.attacking_since:
            return True
        if self.scenario.attack is Attack.CENSOR:
            return message.author != self.honest[0].peer
        if self.scenario.attack is Attack.DEGRADE:
            return self.rng.random() < 0.5
        return False
