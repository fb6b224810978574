"""What routers share, and floodsub: requirements PS9, FS1, case G1."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import FLOODSUB, Fault, Floodsub, FloodsubConfig, Message, Verdict
from libp2p.protocols.pubsub._codec import Rpc, Subscription, decode_message, encode_message
from libp2p.protocols.pubsub._router import (
    Action,
    Authenticate,
    Count,
    Deliver,
    PeerSubscribed,
    PeerUnsubscribed,
    SeenCache,
    SendMessage,
    TopicTable,
    Validate,
)
from libp2p.testing.keys import seeded_key

A, B, C, D = (PeerId.from_key(seeded_key(name).public_key) for name in "abcd")


def message(source: PeerId, *, author: PeerId = D, seqno: int = 1, topic: str = "t") -> Message:
    raw = encode_message(topic=topic, data=b"", author=bytes(author), seqno=seqno.to_bytes(8, "big"))
    return decode_message(raw, source)


def table(**bounds: int) -> TopicTable:
    made = TopicTable(**{"topics_per_peer": 100, "topic_bytes_per_peer": 1000, **bounds})
    made.add(A)
    return made


def on(*topics: str) -> list[Subscription]:
    return [Subscription(topic, True) for topic in topics]


def off(*topics: str) -> list[Subscription]:
    return [Subscription(topic, False) for topic in topics]


# --- topics -----------------------------------------------------------------------------------------------------------


def test_subscriptions() -> None:
    topics = table()
    topics.add(B)
    assert topics.apply(A, on("t", "u")) == [PeerSubscribed(A, "t"), PeerSubscribed(A, "u")]
    assert topics.apply(B, on("t")) == [PeerSubscribed(B, "t")]
    assert topics.apply(A, on("t")) == []
    assert list(topics.peers("t")) == [A, B]
    assert topics.apply(A, off("t", "never")) == [PeerUnsubscribed(A, "t")]
    assert list(topics.peers("t")) == [B]
    assert topics.remove(B) == [PeerUnsubscribed(B, "t")]
    assert list(topics.all_peers()) == [A]
    assert B not in topics
    assert topics.remove(B) == []


def test_of_several_changes_the_last_counts() -> None:
    topics = table()
    assert topics.apply(A, [*on("t"), *off("t"), *on("t"), *on("u"), *off("u")]) == [PeerSubscribed(A, "t")]


def test_joining_twice_keeps_subscriptions() -> None:
    topics = table()
    topics.apply(A, on("t"))
    topics.add(A)
    assert list(topics.peers("t")) == [A]


def test_g1_topics_of_a_peer_are_bounded_in_number() -> None:
    topics = table(topics_per_peer=2)
    assert topics.apply(A, on("a", "b", "c", "d")) == [
        PeerSubscribed(A, "a"),
        PeerSubscribed(A, "b"),
        Count("subscriptions_left_out", 2),
    ]
    assert topics.apply(A, [*on("c"), *off("a")]) == [PeerUnsubscribed(A, "a"), PeerSubscribed(A, "c")]


def test_g1_topics_of_a_peer_are_bounded_in_bytes() -> None:
    topics = table(topic_bytes_per_peer=10)
    assert topics.apply(A, on("äää", "bbbb", "c")) == [
        PeerSubscribed(A, "äää"),
        PeerSubscribed(A, "bbbb"),
        Count("subscriptions_left_out", 1),
    ]
    topics.apply(A, off("bbbb"))
    assert topics.apply(A, on("cccc")) == [PeerSubscribed(A, "cccc")]


def test_g1_nothing_stays_of_topics_that_come_and_go() -> None:
    topics = table()
    for number in range(1000):
        topics.apply(A, on(f"t{number}"))
        topics.apply(A, off(f"t{number}"))
    topics.apply(A, on("x", "y"))
    topics.remove(A)
    assert not topics._by_topic
    assert not topics._by_peer
    assert not topics._bytes


# --- ids --------------------------------------------------------------------------------------------------------------


def test_seen_ids_expire() -> None:
    seen = SeenCache(ttl=10, capacity=100)
    assert seen.next_timeout() is None
    seen.add(b"a", 0.0)
    seen.add(b"b", 4.0)
    assert seen.next_timeout() == 14.0
    seen.expire(9.0)
    assert b"a" in seen
    seen.expire(10.0)
    assert b"a" not in seen
    assert b"b" in seen
    assert len(seen) == 1


def test_seen_ids_are_bounded() -> None:
    seen = SeenCache(ttl=10, capacity=2)
    for number in range(5):
        seen.add(bytes((number,)), 0.0)
    assert len(seen) == 2
    assert seen.evicted == 3
    assert b"\x04" in seen


# --- floodsub ---------------------------------------------------------------------------------------------------------


def joined(router: Floodsub, *peers: PeerId, topic: str = "t") -> None:
    for peer in peers:
        assert router.peer_joined(peer, FLOODSUB, 0.0) == []
        router.receive_rpc(peer, Rpc(subscriptions=(Subscription(topic, True),)), (), 0.0)


def receive(router: Floodsub, item: Message, now: float = 0.0) -> list[Action]:
    return router.receive_rpc(item.received_from, Rpc(), [item], now)


def accept(router: Floodsub, item: Message, now: float = 0.0) -> list[Action]:
    assert receive(router, item, now) == [Authenticate(item)]
    assert router.authenticated(item, now) == [Validate(item)]
    return router.validated(item.id, Verdict.ACCEPT, now)


def test_protocols() -> None:
    assert list(Floodsub().protocols) == ["/floodsub/1.0.0"]


def test_fs1_to_all_but_source_and_author() -> None:
    router = Floodsub()
    joined(router, A, B, C, D)
    item = message(A, author=D)
    assert accept(router, item) == [Deliver(item), SendMessage(item, (B, C))]


def test_nobody_else_wants_it() -> None:
    router = Floodsub()
    joined(router, A, D)
    joined(router, B, topic="other")
    item = message(A, author=D)
    assert accept(router, item) == [Deliver(item)]


def test_ps9_copies_are_dropped() -> None:
    router = Floodsub()
    joined(router, A, B)
    item, copy = message(A), message(B)
    accept(router, item)
    assert receive(router, copy) == [Count("duplicates")]
    assert receive(router, item) == [Count("duplicates")]


def test_who_sends_a_copy_meanwhile_gets_none() -> None:
    router = Floodsub()
    joined(router, A, B, C)
    item, copy = message(A), message(B)
    receive(router, item)
    router.authenticated(item, 0.0)
    assert receive(router, copy) == [Count("duplicates")]
    assert router.validated(item.id, Verdict.ACCEPT, 0.0) == [Deliver(item), SendMessage(item, (C,))]


def test_a_forged_copy_does_not_keep_the_real_one_out() -> None:
    router = Floodsub()
    joined(router, A, B)
    forged, real = message(A), message(B)
    assert receive(router, forged) == [Authenticate(forged)]
    assert router.refused(forged, Fault.BAD_SIGNATURE, 0.0) == []
    assert accept(router, real) == [Deliver(real), SendMessage(real, (A,))]


def test_the_quicker_of_two_copies_wins() -> None:
    router = Floodsub()
    joined(router, A, B)
    one, two = message(A), message(B)
    assert receive(router, one) == [Authenticate(one)]
    assert receive(router, two) == [Authenticate(two)]
    assert router.authenticated(two, 0.0) == [Validate(two)]
    assert router.authenticated(one, 0.0) == [Count("duplicates")]


@pytest.mark.parametrize("verdict", [Verdict.REJECT, Verdict.IGNORE])
def test_ps11_what_is_not_accepted_goes_nowhere(verdict: Verdict) -> None:
    router = Floodsub()
    joined(router, A, B)
    item = message(A)
    receive(router, item)
    router.authenticated(item, 0.0)
    assert router.validated(item.id, verdict, 0.0) == []
    assert router.validated(item.id, Verdict.ACCEPT, 0.0) == []
    assert receive(router, message(B)) == [Count("duplicates")]


def test_ids_are_forgotten_after_120_seconds() -> None:
    router = Floodsub()
    joined(router, A)
    assert router.next_timeout() is None
    accept(router, message(A), 5.0)
    assert router.next_timeout() == 125.0
    assert receive(router, message(A), 100.0) == [Count("duplicates")]
    assert router.handle_timeout(125.0) == []
    assert router.next_timeout() is None
    assert receive(router, message(A), 125.0) == [Authenticate(message(A))]


def test_publishing() -> None:
    router = Floodsub()
    joined(router, A, B)
    own = message(D, author=D)
    assert router.publish(own, 0.0) == [SendMessage(own, (A, B))]
    assert router.publish(own, 0.0) == [SendMessage(own, (A, B))]
    assert receive(router, message(A, author=D)) == [Count("duplicates")]
    assert router.publish(message(D, topic="other", seqno=2), 0.0) == []


def test_peers_that_have_not_joined() -> None:
    router = Floodsub()
    assert router.receive_rpc(A, Rpc(subscriptions=tuple(on("t"))), [message(A)], 0.0) == []
    joined(router, A, B)
    assert router.peers() == (A, B)
    assert router.peers("t") == (A, B)
    assert router.peer_left(A, 0.0) == [PeerUnsubscribed(A, "t")]
    assert router.peers("t") == (B,)
    assert receive(router, message(A)) == []


def test_floodsub_has_neither_a_mesh_nor_scores() -> None:
    router = Floodsub()
    joined(router, A)
    assert router.mesh("t") == ()
    assert router.scores(0.0) == {}


def test_own_subscriptions_need_no_more() -> None:
    assert Floodsub().subscribe("t", 0.0) == []
    assert Floodsub().unsubscribe("t", 0.0) == []


def test_bounds_are_positive() -> None:
    for wrong in ("seen_ttl", "seen_capacity", "topics_per_peer", "topic_bytes_per_peer"):
        with pytest.raises(ValueError, match="positive"):
            FloodsubConfig(**{wrong: 0})


class Net:
    """Routers with links between them, without time: every action is carried out at once."""

    def __init__(self, size: int, links: Sequence[tuple[int, int]]) -> None:
        self.ids = [PeerId.from_key(seeded_key(f"net {number}").public_key) for number in range(size)]
        self.routers = dict(zip(self.ids, [Floodsub() for _ in range(size)], strict=True))
        self.delivered: list[PeerId] = []
        self.sent = 0
        for one, other in links:
            for here, there in ((one, other), (other, one)):
                joined(self.routers[self.ids[here]], self.ids[there])

    def perform(self, peer: PeerId, actions: list[Action]) -> None:
        router = self.routers[peer]
        for action in actions:
            if isinstance(action, Authenticate):
                self.perform(peer, router.authenticated(action.message, 0.0))
            elif isinstance(action, Validate):
                self.perform(peer, router.validated(action.message.id, Verdict.ACCEPT, 0.0))
            elif isinstance(action, Deliver):
                self.delivered.append(peer)
            elif isinstance(action, SendMessage):
                for other in action.peers:
                    self.sent += 1
                    copy = decode_message(action.message.raw, peer)
                    self.perform(other, self.routers[other].receive_rpc(peer, Rpc(), [copy], 0.0))

    def publish(self, index: int) -> None:
        peer = self.ids[index]
        own = message(peer, author=peer)
        self.perform(peer, self.routers[peer].publish(own, 0.0))


@pytest.mark.parametrize(
    "links", [[(0, 1), (1, 2), (2, 3), (3, 4)], [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]], ids=["line", "ring"]
)
def test_fs1_five_nodes(links: list[tuple[int, int]]) -> None:
    for start in range(5):
        net = Net(5, links)
        net.publish(start)
        assert sorted(net.delivered) == sorted(net.ids[:start] + net.ids[start + 1 :])
        assert net.sent <= 2 * len(links) - 4


@given(st.integers(2, 8), st.data())
@settings(max_examples=40)
def test_fs1_any_connected_network(size: int, data: st.DataObject) -> None:
    tree = [(data.draw(st.integers(0, node - 1)), node) for node in range(1, size)]
    node = st.integers(0, size - 1)
    extra = [link for link in data.draw(st.lists(st.tuples(node, node), max_size=8)) if link[0] != link[1]]
    net = Net(size, [*tree, *extra])
    net.publish(0)
    assert sorted(net.delivered) == sorted(net.ids[1:])
