"""Randomsub: some of the subscribers get each message, floodsub peers all of them."""

from __future__ import annotations

import random

import pytest

from libp2p.protocols.pubsub import FLOODSUB, RANDOMSUB, Randomsub, Verdict
from libp2p.protocols.pubsub._codec import Rpc, Subscription
from libp2p.testing.simulation import Simulation
from tests.protocols.pubsub.test_gossipsub import PEERS, A, B, message, receivers


def router(size: int = 1, simple: int = 0) -> Randomsub:
    """With twenty subscribed peers, the first ``simple`` of which speak floodsub."""
    made = Randomsub(random.Random(1), size=size)
    for number, peer in enumerate(PEERS[:20]):
        made.peer_joined(peer, FLOODSUB if number < simple else RANDOMSUB, 0.0)
        made.receive_rpc(peer, Rpc(subscriptions=(Subscription("t", True),)), (), 0.0)
    return made


def test_protocols() -> None:
    assert list(router().protocols) == ["/randomsub/1.0.0", "/floodsub/1.0.0"]
    with pytest.raises(ValueError, match="at least one"):
        Randomsub(random.Random(1), size=0)


@pytest.mark.parametrize(("size", "count"), [(1, 6), (36, 6), (100, 10), (10_000, 20)])
def test_how_many_get_a_message(size: int, count: int) -> None:
    made = router(size)
    assert len(receivers(made.publish(message(1), 0.0))) == count


def test_others_each_time() -> None:
    made = router()
    assert len({frozenset(receivers(made.publish(message(number), 0.0))) for number in range(10)}) > 5


def test_floodsub_peers_get_everything() -> None:
    made = router(simple=3)
    for number in range(10):
        found = receivers(made.publish(message(number), 0.0))
        assert set(PEERS[:3]) <= found
        assert len(found) == 9
    made.peer_joined(A, RANDOMSUB, 1.0)
    made.peer_left(B, 1.0)
    assert {len(receivers(made.publish(message(20 + number), 1.0))) for number in range(10)} == {7}


def test_never_back_to_where_it_came_from() -> None:
    made = router()
    for number in range(10):
        item = message(number, A, author=B)
        made.receive_rpc(A, Rpc(), [item], 0.0)
        made.authenticated(item, 0.0)
        assert not {A, B} & receivers(made.validated(item.id, Verdict.ACCEPT, 0.0))


def test_a_network_of_them() -> None:
    simulation = Simulation(seed=1)
    nodes = [simulation.add_node("t", router=lambda rng: Randomsub(rng, size=50)) for _ in range(50)]
    simulation.connect_at_random(nodes, dials=6)
    simulation.run(until=1.0)
    for node in nodes[:10]:
        simulation.publish(node, "t")
    simulation.run(until=5.0)
    assert simulation.report().delivery > 0.99
