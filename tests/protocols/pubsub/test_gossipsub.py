"""The gossipsub router: requirements G3 to G8, G11.2 to G11.17, G12.1 to G12.3; cases G2 to G5."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from libp2p.abc import ProtocolId
from libp2p.errors import DecodeError
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import (
    FLOODSUB,
    MESHSUB_10,
    MESHSUB_11,
    MESHSUB_12,
    Fault,
    Gossipsub,
    GossipsubConfig,
    Message,
    PeerScoreConfig,
    ScoreThresholds,
    Verdict,
)
from libp2p.protocols.pubsub._codec import Rpc, Subscription, decode_message, encode_message
from libp2p.protocols.pubsub._control import (
    Control,
    Exchanged,
    Prune,
    decode_control,
    encode_graft,
    encode_idontwant,
    encode_ihave,
    encode_iwant,
    encode_prune,
)
from libp2p.protocols.pubsub._router import (
    Action,
    Authenticate,
    Connect,
    Count,
    Deliver,
    PeerSubscribed,
    PeerUnsubscribed,
    SendControl,
    SendMessage,
    SendPrune,
    Unqueue,
    Validate,
)
from libp2p.testing.keys import seeded_key

PEERS = [PeerId.from_key(seeded_key(f"peer {number}").public_key) for number in range(40)]
A, B, C, D = PEERS[:4]
US = PeerId.from_key(seeded_key("us").public_key)
THEM = PeerId.from_key(seeded_key("author").public_key)


def router(**config: Any) -> Gossipsub:
    return Gossipsub(random.Random(1), GossipsubConfig(**config))


def message(number: int = 1, source: PeerId = A, author: PeerId = THEM, topic: str = "t", size: int = 0) -> Message:
    raw = encode_message(topic=topic, data=bytes(size), author=bytes(author), seqno=number.to_bytes(8, "big"))
    return decode_message(raw, source)


def join(
    gossip: Gossipsub,
    peers: Iterable[PeerId],
    *,
    topic: str | None = "t",
    protocol: ProtocolId = MESHSUB_12,
    outbound: bool = False,
    now: float = 0.0,
) -> list[Action]:
    actions: list[Action] = []
    for peer in peers:
        actions += gossip.peer_joined(peer, protocol, now, outbound=outbound)
        if topic is not None:
            rpc = Rpc(subscriptions=(Subscription(topic, True),))
            actions += gossip.receive_rpc(peer, rpc, (), now)
    return actions


def control(gossip: Gossipsub, peer: PeerId, *entries: bytes, now: float = 0.0) -> list[Action]:
    return gossip.receive_rpc(peer, Rpc(control=b"".join(entries)), (), now)


def receive(gossip: Gossipsub, item: Message, now: float = 0.0) -> list[Action]:
    return gossip.receive_rpc(item.received_from, Rpc(), [item], now)


def accept(gossip: Gossipsub, item: Message, now: float = 0.0, verdict: Verdict = Verdict.ACCEPT) -> list[Action]:
    assert receive(gossip, item, now) == [Authenticate(item)]
    actions = gossip.authenticated(item, now)
    assert actions[0] == Validate(item)
    return gossip.validated(item.id, verdict, now)


def sent(actions: Iterable[Action]) -> dict[PeerId, Control]:
    """The control entries, by peer."""
    data: dict[PeerId, bytes] = {}
    for action in actions:
        if isinstance(action, SendControl):
            data[action.peer] = data.get(action.peer, b"") + action.control
    return {peer: decode_control(held) for peer, held in data.items()}


def grafted(actions: Iterable[Action]) -> set[PeerId]:
    return {peer for peer, entries in sent(actions).items() if entries.graft}


def pruned(actions: Iterable[Action]) -> dict[PeerId, SendPrune]:
    return {action.peer: action for action in actions if isinstance(action, SendPrune)}


def counts(actions: Iterable[Action]) -> dict[str, int]:
    return {action.what: action.by for action in actions if isinstance(action, Count)}


def receivers(actions: Iterable[Action]) -> set[PeerId]:
    return {peer for action in actions if isinstance(action, SendMessage) for peer in action.peers}


def beat(gossip: Gossipsub, times: int = 1, now: float = 1.0) -> list[Action]:
    """Heartbeats, one a second; the actions of the last."""
    actions: list[Action] = []
    for number in range(times):
        actions = gossip.handle_timeout(now + number)
    return actions


def blame(gossip: Gossipsub, peer: PeerId, misdeeds: int) -> None:
    gossip._score.penalize(peer, misdeeds)


# --- peers and topics -------------------------------------------------------------------------------------------------


def test_protocols() -> None:
    assert list(router().protocols) == [
        "/meshsub/1.3.0",
        "/meshsub/1.2.0",
        "/meshsub/1.1.0",
        "/meshsub/1.0.0",
        "/floodsub/1.0.0",
    ]


def test_peers_come_and_go() -> None:
    gossip = router()
    assert gossip.receive_rpc(A, Rpc(subscriptions=(Subscription("t", True),)), [message()], 0.0) == []
    assert gossip.next_timeout() is None
    assert join(gossip, [A, B], now=5.0) == [PeerSubscribed(A, "t"), PeerSubscribed(B, "t")]
    assert gossip.next_timeout() == 5.1
    assert gossip.peers() == gossip.peers("t") == (A, B)
    assert gossip.mesh("t") == ()
    assert list(gossip.scores(5.0)) == [A, B]
    gossip.subscribe("t", 5.0)
    gossip.publish(message(1, US, US, "u"), 5.0)
    assert gossip.peer_left(A, 6.0) == [PeerUnsubscribed(A, "t")]
    assert gossip.peer_left(A, 6.0) == []
    assert gossip.peers() == gossip.mesh("t") == (B,)
    gossip.peer_left(B, 6.0)
    assert gossip.next_timeout() is None


def test_a_peer_that_leaves_the_topic_leaves_the_mesh() -> None:
    gossip = router()
    join(gossip, [A])
    gossip.subscribe("t", 0.0)
    assert gossip.mesh("t") == (A,)
    off = Rpc(subscriptions=(Subscription("t", False), Subscription("never", False)))
    assert gossip.receive_rpc(A, off, (), 0.0) == [PeerUnsubscribed(A, "t")]
    assert gossip.mesh("t") == ()


def test_a_peer_is_told_again_when_its_stream_was_lost() -> None:
    gossip = router()
    join(gossip, [A])
    gossip.subscribe("t", 0.0)
    assert sent(gossip.peer_joined(A, MESHSUB_11, 1.0, outbound=True))[A].graft == ["t"]


# --- joining and leaving ----------------------------------------------------------------------------------------------


def test_g3_join_grafts_some_at_random() -> None:
    gossip = router()
    join(gossip, PEERS[:20])
    join(gossip, PEERS[20:25], protocol=FLOODSUB)
    actions = gossip.subscribe("t", 0.0)
    assert len(gossip.mesh("t")) == 6
    assert grafted(actions) == set(gossip.mesh("t")) <= set(PEERS[:20])


def test_g3_join_takes_the_fanout() -> None:
    gossip = router(flood_publish=False)
    join(gossip, PEERS[:20])
    first = receivers(gossip.publish(message(1, US, US), 0.0))
    assert len(first) == 6
    assert receivers(gossip.publish(message(2, US, US), 1.0)) == first
    gossip.subscribe("t", 2.0)
    assert set(gossip.mesh("t")) == first


def test_fanout_peers_that_became_bad_are_not_grafted() -> None:
    gossip = router(flood_publish=False)
    join(gossip, [A, B])
    gossip.publish(message(1, US, US), 0.0)
    blame(gossip, A, 3)
    gossip.subscribe("t", 2.0)
    assert gossip.mesh("t") == (B,)


def test_g3_leave_prunes_everybody() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    members = gossip.mesh("t")
    assert set(members) == {A, B}
    assert gossip.unsubscribe("t", 0.0) == [SendPrune(peer, "t", 10.0) for peer in members]
    assert gossip.mesh("t") == ()
    assert gossip.unsubscribe("t", 0.0) == []


def test_g11_2_leaving_and_coming_back() -> None:
    gossip = router()
    join(gossip, [A])
    gossip.subscribe("t", 0.0)
    gossip.unsubscribe("t", 0.0)
    assert gossip.subscribe("t", 1.0) == []
    assert not grafted(beat(gossip, 11))  # 10 s, and 2 s of slack
    assert grafted(gossip.handle_timeout(12.1)) == {A}


def test_who_comes_first_is_grafted_at_once() -> None:
    gossip = router()
    gossip.subscribe("t", 0.0)
    assert grafted(join(gossip, PEERS[:10])) == set(PEERS[:5])
    assert grafted(join(gossip, PEERS[10:12], topic="u")) == set()


# --- the heartbeat (G4) -----------------------------------------------------------------------------------------------


def test_g4_few_are_filled_up() -> None:
    gossip = router()
    gossip.subscribe("t", 0.0)
    join(gossip, PEERS[:20])
    for peer in PEERS[:3]:
        gossip.peer_left(peer, 0.0)
    actions = beat(gossip)
    assert len(gossip.mesh("t")) == 6
    assert len(grafted(actions)) == 4


def test_g4_many_are_cut() -> None:
    gossip = router()
    join(gossip, PEERS[:20], outbound=True)
    gossip.subscribe("t", 0.0)
    for peer in PEERS[:13]:
        control(gossip, peer, encode_graft("t"))
    assert len(gossip.mesh("t")) > 12
    mesh = set(gossip.mesh("t"))
    actions = beat(gossip)
    assert len(gossip.mesh("t")) == 6
    assert set(pruned(actions)) == mesh - set(gossip.mesh("t"))
    assert {prune.backoff for prune in pruned(actions).values()} == {60.0}


def test_g11_2_nobody_is_grafted_in_backoff() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    control(gossip, A, encode_prune(Prune("t", 30.0)))
    control(gossip, B, encode_prune(Prune("t")))
    control(gossip, B, encode_prune(Prune("other", 1.0)))
    grafts = [(now, grafted(gossip.handle_timeout(float(now)))) for now in range(1, 70)]
    assert [item for item in grafts if item[1]] == [(32, {A}), (62, {B})]


def test_g11_7_bad_peers_leave_the_mesh() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    blame(gossip, A, 2)
    assert set(pruned(beat(gossip))) == {A}
    assert gossip.mesh("t") == (B,)


def test_g11_6_outbound_peers_are_missing() -> None:
    gossip = router()
    join(gossip, PEERS[:6])
    gossip.subscribe("t", 0.0)
    assert len(gossip.mesh("t")) == 6
    join(gossip, PEERS[6:9], outbound=True)
    actions = beat(gossip)
    assert len(grafted(actions)) == 2
    assert grafted(actions) < set(PEERS[6:9])
    assert not grafted(beat(gossip, now=2.0))


def test_g11_12_opportunistic_grafting() -> None:
    gossip = router(opportunistic_beats=3)
    join(gossip, PEERS[:6], outbound=True)
    gossip.subscribe("t", 0.0)
    join(gossip, PEERS[6:10])
    for number, peer in enumerate(PEERS[6:10]):
        accept(gossip, message(number, peer))
    assert not grafted(beat(gossip, 2))
    better = grafted(beat(gossip, now=3.0))
    assert len(better) == 2
    assert better < set(PEERS[6:10])


# --- GRAFT and PRUNE --------------------------------------------------------------------------------------------------


def test_g5_graft() -> None:
    gossip = router()
    gossip.subscribe("t", 0.0)
    join(gossip, [A], topic="u")
    assert gossip.receive_rpc(A, Rpc(subscriptions=(Subscription("t", True),), control=encode_graft("t")), (), 0.0)[
        0
    ] == PeerSubscribed(A, "t")
    assert gossip.mesh("t") == (A,)
    assert control(gossip, A, encode_graft("t"), encode_graft("t")) == []


def test_g11_15_graft_for_a_topic_nobody_here_wants() -> None:
    gossip = router()
    join(gossip, [A])
    assert control(gossip, A, *[encode_graft(f"{number}") for number in range(3)]) == [Count("graft_unknown_topic")] * 3
    assert gossip.mesh("0") == ()
    assert gossip.scores(0.0)[A] == 0.0


def test_a_graft_of_somebody_who_is_not_subscribed() -> None:
    gossip = router()
    gossip.subscribe("t", 0.0)
    join(gossip, [A], topic=None)
    assert counts(control(gossip, A, encode_graft("t"))) == {"graft_not_subscribed": 1}
    assert gossip.mesh("t") == ()


def test_g5_graft_in_backoff() -> None:
    gossip = router()
    join(gossip, PEERS[:2])
    gossip.subscribe("t", 0.0)
    control(gossip, A, encode_prune(Prune("t", 60.0)))
    actions = control(gossip, A, encode_graft("t"), now=30.0)
    assert actions == [Count("graft_in_backoff"), SendPrune(A, "t", 60.0)]
    assert gossip.scores(30.0)[A] == 0.0  # one is forgiven
    control(gossip, A, encode_graft("t"), now=89.0)
    assert gossip.scores(89.0)[A] == -10.0
    # The back-off began anew, and this is less than ten seconds after the last PRUNE: it counts twice.
    control(gossip, A, encode_graft("t"), now=98.0)
    assert gossip.scores(98.0)[A] == -90.0
    assert gossip.mesh("t") == (B,)


def test_g5_graft_of_a_bad_peer() -> None:
    gossip = router()
    gossip.subscribe("t", 0.0)
    join(gossip, [A])
    control(gossip, A, encode_prune(Prune("t", 1.0)))
    blame(gossip, A, 2)
    assert control(gossip, A, encode_graft("t"), now=5.0) == [Count("graft_refused"), SendPrune(A, "t", 60.0)]


def test_g5_a_full_mesh_takes_only_those_dialled_from_here() -> None:
    gossip = router()
    gossip.subscribe("t", 0.0)
    join(gossip, PEERS[:20])
    for peer in PEERS[:20]:
        control(gossip, peer, encode_graft("t"))
    assert len(gossip.mesh("t")) == 12
    join(gossip, PEERS[20:21], outbound=True)
    control(gossip, PEERS[20], encode_graft("t"))
    assert len(gossip.mesh("t")) == 13


def test_g5_500_sybils() -> None:
    """The mesh stays within its size, and keeps those that were dialled from here."""
    gossip = router()
    gossip.subscribe("t", 0.0)
    join(gossip, PEERS[:3], outbound=True)
    sybils = [PeerId.from_key(seeded_key(f"sybil {number}").public_key) for number in range(500)]
    join(gossip, sybils)
    for now in range(1, 30):
        for peer in sybils:
            control(gossip, peer, encode_graft("t"), now=float(now))
        gossip.handle_timeout(float(now))
        assert len(gossip.mesh("t")) <= 12
        assert len(set(gossip.mesh("t")) & set(PEERS[:3])) >= 2


def test_prune_for_peers_without_backoff() -> None:
    gossip = router(exchange=True)
    join(gossip, [A], protocol=MESHSUB_10)
    join(gossip, [B])
    gossip.subscribe("t", 0.0)
    prunes = pruned(gossip.unsubscribe("t", 0.0))
    assert prunes == {A: SendPrune(A, "t", None), B: SendPrune(B, "t", 10.0, (A,))}


def test_g2_a_prune_again_and_again() -> None:
    gossip = router()
    join(gossip, [A])
    gossip.subscribe("t", 0.0)
    for now in range(100):
        control(gossip, A, encode_prune(Prune("t", 3600.0)), now=float(now))
    assert len(gossip._backoff) == 1
    assert not grafted(gossip.handle_timeout(3700.0))
    assert grafted(gossip.handle_timeout(3702.0)) == {A}


def test_g11_3_peer_exchange() -> None:
    offered = (Exchanged(B, b"record"), Exchanged(C, b""))
    gossip = router(thresholds=ScoreThresholds(accept_exchange=1.0))
    join(gossip, [A, C])
    gossip.subscribe("t", 0.0)
    assert control(gossip, A, encode_prune(Prune("t", 60.0, offered))) == [Count("exchange_ignored")]
    accept(gossip, message())
    prune = encode_prune(Prune("t", 60.0, offered))
    assert control(gossip, A, prune) == [Connect(B, b"record")]
    assert control(gossip, A, prune * 100) == [Connect(B, b"record")]


def test_g11_3_proposing_peers() -> None:
    gossip = router(exchange=True)
    join(gossip, PEERS[:30])
    gossip.subscribe("t", 0.0)
    for peer in PEERS[:12]:
        control(gossip, peer, encode_graft("t"))
    blame(gossip, PEERS[29], 2)
    actions = control(gossip, PEERS[20], encode_graft("t"))
    assert counts(actions) == {"graft_mesh_full": 1}
    (prune,) = pruned(actions).values()
    assert len(prune.exchange) == 16
    assert PEERS[20] not in prune.exchange
    assert PEERS[29] not in prune.exchange


# --- forwarding and publishing ----------------------------------------------------------------------------------------


def test_forwarding_goes_to_the_mesh() -> None:
    gossip = router()
    join(gossip, PEERS[:20])
    gossip.subscribe("t", 0.0)
    (first, *rest) = gossip.mesh("t")
    item = message(1, first)
    assert accept(gossip, item) == [Deliver(item), SendMessage(item, tuple(rest))]


def test_forwarding_leaves_out_who_has_it() -> None:
    gossip = router()
    join(gossip, [A, B, C, D])
    gossip.subscribe("t", 0.0)
    item = message(1, A, author=D)
    receive(gossip, item)
    gossip.authenticated(item, 0.0)
    assert receive(gossip, message(1, B, author=D)) == [Count("duplicates")]
    assert receivers(gossip.validated(item.id, Verdict.ACCEPT, 0.0)) == {C}
    assert gossip.validated(item.id, Verdict.ACCEPT, 0.0) == []


def test_messages_without_an_author_go_to_everybody_else() -> None:
    gossip = router()
    join(gossip, [A, B, C])
    gossip.subscribe("t", 0.0)
    assert receivers(accept(gossip, decode_message(encode_message(topic="t", data=b"d"), A))) == {B, C}


def test_peers_that_only_know_floodsub() -> None:
    gossip = router()
    join(gossip, [A, B], protocol=FLOODSUB)
    join(gossip, [C])
    gossip.subscribe("t", 0.0)
    assert gossip.mesh("t") == (C,)
    assert receivers(accept(gossip, message(1, C))) == {A, B}
    # What they say about meshes is not listened to.
    assert control(gossip, A, encode_graft("t")) == []
    blame(gossip, A, 5)
    assert receivers(accept(gossip, message(2, C))) == {B}


def test_ps9_copies_and_forgeries() -> None:
    gossip = router()
    join(gossip, [A, B])
    one, two = message(1, A), message(1, B)
    receive(gossip, one)
    assert receive(gossip, two) == [Authenticate(two)]
    assert gossip.refused(one, Fault.BAD_SIGNATURE, 0.0) == []
    assert gossip.scores(0.0)[A] == -10.0
    assert gossip.refused(one, Fault.SELF_ORIGIN, 0.0) == []
    assert gossip.scores(0.0)[A] == -10.0
    assert gossip.authenticated(two, 0.0) == [Validate(two)]
    assert gossip.authenticated(one, 0.0) == [Count("duplicates")]


def test_g11_16_verdicts() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    assert accept(gossip, message(1), verdict=Verdict.IGNORE) == []
    assert gossip.scores(0.0)[A] == 0.0
    assert accept(gossip, message(2), verdict=Verdict.REJECT) == []
    assert gossip.scores(0.0)[A] == -10.0
    assert len(gossip._cache) == 0


def test_g11_4_flood_publishing() -> None:
    gossip = router()
    join(gossip, PEERS[:20])
    gossip.subscribe("t", 0.0)
    blame(gossip, PEERS[0], 4)
    own = message(1, US, US)
    assert receivers(gossip.publish(own, 0.0)) == set(PEERS[1:20]) | (set(gossip.mesh("t")) & {PEERS[0]})
    assert receivers(gossip.publish(own, 0.0))
    assert receive(gossip, message(1, B, US)) == [Count("duplicates")]


def test_publishing_to_the_mesh() -> None:
    gossip = router(flood_publish=False)
    join(gossip, PEERS[:20])
    gossip.subscribe("t", 0.0)
    assert receivers(gossip.publish(message(1, US, US), 0.0)) == set(gossip.mesh("t"))


def test_publishing_while_the_mesh_is_small() -> None:
    gossip = router(flood_publish=False)
    join(gossip, PEERS[:20])
    gossip.subscribe("t", 0.0)
    for peer in gossip.mesh("t")[:4]:
        control(gossip, peer, encode_prune(Prune("t")))
    receiving = receivers(gossip.publish(message(1, US, US), 0.0))
    assert set(gossip.mesh("t")) < receiving
    assert len(receiving) == 6


def test_g8_fanout() -> None:
    gossip = router(flood_publish=False)
    join(gossip, PEERS[:20])
    first = receivers(gossip.publish(message(1, US, US), 0.0))
    gone, bad, left = sorted(first)[:3]
    gossip.peer_left(gone, 1.0)
    blame(gossip, bad, 4)
    gossip.receive_rpc(left, Rpc(subscriptions=(Subscription("t", False),)), (), 1.0)
    beat(gossip, now=2.0)
    second = receivers(gossip.publish(message(2, US, US), 3.0))
    assert len(second) == 6
    assert first - {gone, bad, left} < second
    beat(gossip, now=63.0)
    assert len(gossip._fanout) == 0
    assert gossip.publish(message(3, US, US, "nobody"), 63.0) == []
    assert len(gossip._fanout) == 0


def test_g11_17_a_graylisted_peer_is_not_heard() -> None:
    gossip = router()
    join(gossip, [A, B])
    blame(gossip, A, 4)
    rpc = Rpc(subscriptions=(Subscription("u", True),), control=encode_graft("t"))
    assert gossip.receive_rpc(A, rpc, [message()], 0.0) == [Count("graylisted")]
    assert gossip.peers("u") == ()


# --- gossip -----------------------------------------------------------------------------------------------------------


def test_g4_others_are_told() -> None:
    gossip = router()
    join(gossip, PEERS[:40])
    gossip.subscribe("t", 0.0)
    item = message(1, gossip.mesh("t")[0])
    accept(gossip, item)
    told = [{peer for peer, entries in sent(beat(gossip, now=now)).items() if entries.ihave} for now in (1.0, 2.0, 3.0)]
    for peers in told:
        assert len(peers) == 8  # a quarter of 34
        assert not peers & set(gossip.mesh("t"))
    assert not sent(beat(gossip, now=4.0))


def test_g6_ihave_and_iwant() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    known = message(1)
    accept(gossip, known)
    wanted = sent(control(gossip, A, encode_ihave("t", [known.id, b"x"]), encode_ihave("not ours", [b"y"])))
    assert wanted[A].iwant == [b"x"]
    assert control(gossip, A, encode_ihave("t", [known.id])) == []
    assert control(gossip, B, encode_iwant([known.id, b"never seen"])) == [
        SendMessage(known, (B,)),
        Count("iwant_unknown"),
    ]


def test_g7_all_parts_of_an_rpc() -> None:
    gossip = router()
    gossip.subscribe("t", 0.0)
    gossip.peer_joined(A, MESHSUB_12, 0.0)
    item = message()
    rpc = Rpc(subscriptions=(Subscription("t", True),), control=encode_graft("t") + encode_ihave("t", [b"x"]))
    actions = gossip.receive_rpc(A, rpc, [item], 0.0)
    assert PeerSubscribed(A, "t") in actions
    assert Authenticate(item) in actions
    assert sent(actions)[A].iwant == [b"x"]
    assert gossip.mesh("t") == (A,)


def test_malformed_control_changes_nothing() -> None:
    gossip = router()
    gossip.peer_joined(A, MESHSUB_12, 0.0)
    with pytest.raises(DecodeError):
        gossip.receive_rpc(A, Rpc(subscriptions=(Subscription("t", True),), control=b"\x0a"), (), 0.0)
    assert gossip.peers("t") == ()


def test_g3_ihave_flood() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    ids = [b"%d" % number for number in range(6000)]
    actions = control(gossip, A, encode_ihave("t", ids[:3000]))
    actions += control(gossip, A, encode_ihave("t", ids[3000:]))
    assert len(sent(actions)[A].iwant) == 5000
    floods = [control(gossip, A, encode_ihave("t", [b"x%d" % number])) for number in range(9)]
    assert floods == [[]] * 8 + [[Count("ihave_flood")]]
    beat(gossip)
    assert sent(control(gossip, A, encode_ihave("t", [b"x"])))[A].iwant == [b"x"]


def test_g3_more_ids_than_are_looked_at() -> None:
    gossip = router()
    join(gossip, [A])
    gossip.subscribe("t", 0.0)
    actions = control(gossip, A, encode_ihave("t", [b"%d" % number for number in range(5001)]))
    assert counts(actions) == {"control_ids_left_out": 1}
    assert len(sent(actions)[A].iwant) == 5000


def test_g3_a_liar_is_graylisted() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    for now in range(1, 11):
        for number in range(10):
            control(gossip, A, encode_ihave("t", [b"%d %d" % (now, number)]), now=now + 0.5)
        beat(gossip, now=now + 1.0)
    assert gossip.scores(11.0)[A] < -80
    assert gossip.scores(11.0)[B] == 0.0
    assert control(gossip, A, encode_ihave("t", [b"x"]), now=11.0) == [Count("graylisted")]


def test_g11_14_promises() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    for number, peer in ((1, A), (2, B)):
        control(gossip, peer, encode_ihave("t", [message(number).id]))
    accept(gossip, message(1, B), 1.0)  # from whomever
    assert counts(beat(gossip, 2)) == {}
    assert counts(beat(gossip, now=3.0)) == {"promises_broken": 1}
    blame(gossip, A, 1)
    blame(gossip, B, 1)
    assert [gossip.scores(3.0)[peer] < 0 for peer in (A, B)] == [False, True]


def test_a_forgery_keeps_no_promise() -> None:
    gossip = router()
    join(gossip, [A])
    gossip.subscribe("t", 0.0)
    control(gossip, A, encode_ihave("t", [message().id]))
    receive(gossip, message())
    gossip.refused(message(), Fault.BAD_SIGNATURE, 0.0)
    assert counts(beat(gossip, now=3.0)) == {"promises_broken": 1}


def test_g4_iwant_again_and_again() -> None:
    gossip = router()
    join(gossip, [A, B])
    item = message()
    accept(gossip, item)
    actions = [action for _ in range(1000) for action in control(gossip, B, encode_iwant([item.id] * 5))]
    assert actions == [SendMessage(item, (B,))] * 3 + [Count("iwant_refused")] * 997
    assert control(gossip, A, encode_iwant([item.id])) == [SendMessage(item, (A,))]


def test_g11_17_below_the_gossip_threshold() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    item = message(1, B)
    accept(gossip, item)
    blame(gossip, A, 3)
    assert control(gossip, A, encode_ihave("t", [b"x"]), encode_iwant([item.id])) == [Count("gossip_ignored")]
    assert control(gossip, A, encode_graft("u")) == [Count("graft_unknown_topic")]
    assert A not in sent(beat(gossip))


def test_long_lists_are_cut() -> None:
    """Into RPCs that rust takes, and not more of them than go takes in a heartbeat."""
    gossip = router(ihave_ids=4000, flood_publish=False)
    join(gossip, PEERS[:2])
    for number in range(5000):
        gossip.publish(message(number, US, US), 0.0)
    actions = [action for action in beat(gossip) if isinstance(action, SendControl)]
    assert all(len(action.control) <= 16 * 1024 for action in actions)
    for peer in PEERS[:2]:
        assert len([action for action in actions if action.peer == peer]) == 8
    told = [set(sent(actions)[peer].ihave["t"]) for peer in PEERS[:2]]
    assert told[0] != told[1]


# --- IDONTWANT --------------------------------------------------------------------------------------------------------


def authenticate(gossip: Gossipsub, item: Message) -> Sequence[Action]:
    receive(gossip, item)
    return gossip.authenticated(item, 0.0)


def test_g12_1_the_mesh_is_told_before_validation() -> None:
    gossip = router()
    join(gossip, [A, B])
    join(gossip, [C], protocol=MESHSUB_11)
    join(gossip, [D], protocol=FLOODSUB)
    gossip.subscribe("t", 0.0)
    item = message(1, A, size=1024)
    actions = authenticate(gossip, item)
    assert actions[0] == Validate(item)
    assert {peer: entries.idontwant for peer, entries in sent(actions).items()} == {B: [[item.id]]}


def test_g12_3_small_messages_are_not_announced() -> None:
    gossip = router()
    join(gossip, [A, B])
    gossip.subscribe("t", 0.0)
    assert not sent(authenticate(gossip, message(1, A, size=100)))


def test_g12_2_what_is_not_wanted_is_not_sent() -> None:
    gossip = router()
    join(gossip, [A, B, C])
    gossip.subscribe("t", 0.0)
    item = message(1, A)
    assert control(gossip, B, encode_idontwant([item.id])) == [Unqueue(B, (item.id,))]
    assert receivers(accept(gossip, item)) == {C}


def test_g12_3_it_holds_for_three_heartbeats() -> None:
    gossip = router()
    join(gossip, [A, B, C])
    gossip.subscribe("t", 0.0)
    control(gossip, B, encode_idontwant([message(1).id, message(2).id, message(3).id]))
    beat(gossip, 2)
    control(gossip, B, encode_idontwant([message(3).id]), now=2.5)
    assert receivers(accept(gossip, message(1))) == {C}
    beat(gossip, now=3.0)
    assert receivers(accept(gossip, message(2))) == {B, C}
    assert receivers(accept(gossip, message(3))) == {C}
    beat(gossip, 2, now=4.0)
    assert not gossip._peers[B].unwanted.until


def test_g4_idontwant_flood() -> None:
    gossip = router()
    join(gossip, [A])
    left_out = 0
    for number in range(1001):
        ids = [b"%d %d" % (number, index) for index in range(11)]
        left_out += counts(control(gossip, A, encode_idontwant(ids))).get("idontwant_left_out", 0)
    assert left_out == 1001
    assert len(gossip._peers[A].unwanted.until) == 10_000
    beat(gossip)
    for number in range(1000):
        control(gossip, A, encode_idontwant([b"more %d" % number]), now=1.5)
    assert len(gossip._peers[A].unwanted.until) == 10_000
    beat(gossip, 3, now=2.0)
    assert not gossip._peers[A].unwanted.until


# --- direct peers -----------------------------------------------------------------------------------------------------


def test_g11_13_direct_peers() -> None:
    gossip = router(direct_peers=(A, B), direct_beats=3)
    assert gossip.next_timeout() == 0.0
    assert beat(gossip, now=0.0) == [Connect(A), Connect(B)]
    join(gossip, [A, C])
    gossip.subscribe("t", 0.0)
    assert gossip.mesh("t") == (C,)
    assert control(gossip, A, encode_graft("t")) == [Count("graft_refused"), SendPrune(A, "t", 60.0)]
    blame(gossip, A, 100)
    assert receivers(accept(gossip, message(1, C))) == {A}
    assert receivers(accept(gossip, message(2, A))) == {C}
    assert receivers(gossip.publish(message(3, US, US), 0.0)) == {A, C}
    assert sent(control(gossip, A, encode_ihave("t", [b"x"])))[A].iwant == [b"x"]
    assert beat(gossip, 2) == []
    assert beat(gossip, now=3.0) == [Count("promises_broken"), Connect(B)]
    assert A not in sent(beat(gossip, now=4.0))


def test_direct_peers_are_looked_for_at_every_heartbeat() -> None:
    gossip = router(direct_peers=(A,), direct_beats=1)
    assert [beat(gossip, now=float(now)) for now in range(3)] == [[Connect(A)]] * 3


# --- any order of things ----------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, the router keeps its bounds, sends nobody what it has, and forgets who is gone."""

    topics = st.sampled_from("tu")
    people = st.sampled_from(PEERS[:12])
    numbers = st.integers(0, 8)

    def __init__(self) -> None:
        super().__init__()
        self.config = GossipsubConfig(
            degree=3,
            degree_low=2,
            degree_high=4,
            degree_score=1,
            degree_outbound=1,
            degree_lazy=2,
            prune_backoff=4.0,
            unsubscribe_backoff=2.0,
            opportunistic_beats=3,
            idontwant_size=0,
            exchange=True,
            flood_publish=False,
            direct_peers=(PEERS[11],),
        )
        self.gossip = Gossipsub(random.Random(7), self.config)
        self.now = 0.0
        self.connected: dict[PeerId, ProtocolId] = {}
        self.subscribed: dict[PeerId, set[str]] = {}
        self.ours: set[str] = set()
        self.refused: dict[tuple[PeerId, str], float] = {}
        self.seen: set[bytes] = set()
        self.validating: dict[bytes, set[PeerId]] = {}

    def note(self, actions: list[Action]) -> list[Action]:
        for action in actions:
            if isinstance(action, SendPrune):
                backoff = 4.0 if action.backoff is None else action.backoff
                key = (action.peer, action.topic)
                self.refused[key] = max(self.refused.get(key, 0.0), self.now + backoff)
        for peer, entries in sent(actions).items():
            assert peer in self.connected
            for topic in entries.graft:
                assert self.connected[peer] != FLOODSUB
                assert topic in self.subscribed[peer]
                assert self.now >= self.refused.get((peer, topic), -9.0) + self.config.backoff_slack
        for action in actions:
            if isinstance(action, SendMessage):
                assert set(action.peers) <= set(self.connected)
                assert len(set(action.peers)) == len(action.peers)
        return actions

    @rule(peer=people, protocol=st.sampled_from([FLOODSUB, MESHSUB_10, MESHSUB_11, MESHSUB_12]), dialled=st.booleans())
    def join(self, peer: PeerId, protocol: ProtocolId, dialled: bool) -> None:
        if peer not in self.connected:
            self.connected[peer], self.subscribed[peer] = protocol, set()
            self.note(self.gossip.peer_joined(peer, protocol, self.now, outbound=dialled, addresses=("1.2.3.4",)))

    @rule(peer=people)
    def leave(self, peer: PeerId) -> None:
        self.connected.pop(peer, None)
        self.subscribed.pop(peer, None)
        self.note(self.gossip.peer_left(peer, self.now))

    @rule(peer=people, topic=topics, wanted=st.booleans())
    def announce(self, peer: PeerId, topic: str, wanted: bool) -> None:
        if peer in self.connected and (self.gossip.scores(self.now)[peer] >= -80 or peer in self.config.direct_peers):
            (self.subscribed[peer].add if wanted else self.subscribed[peer].discard)(topic)
            rpc = Rpc(subscriptions=(Subscription(topic, wanted),))
            self.note(self.gossip.receive_rpc(peer, rpc, (), self.now))

    @rule(topic=topics)
    def subscribe(self, topic: str) -> None:
        if topic not in self.ours:
            self.ours.add(topic)
            self.note(self.gossip.subscribe(topic, self.now))

    @rule(topic=topics)
    def unsubscribe(self, topic: str) -> None:
        if topic in self.ours:
            self.ours.remove(topic)
            self.note(self.gossip.unsubscribe(topic, self.now))

    @rule(peer=people, topic=topics, what=st.sampled_from(["graft", "prune", "ihave", "iwant", "idontwant"]), n=numbers)
    def say(self, peer: PeerId, topic: str, what: str, n: int) -> None:
        entry = {
            "graft": encode_graft(topic),
            "prune": encode_prune(Prune(topic, float(n), (Exchanged(A),))),
            "ihave": encode_ihave(topic, [message(n).id]),
            "iwant": encode_iwant([message(n).id]),
            "idontwant": encode_idontwant([message(n).id]),
        }[what]
        if what == "prune" and topic in self.ours and peer in self.connected and self.connected[peer] != FLOODSUB:
            if self.gossip.scores(self.now)[peer] >= -80 or peer in self.config.direct_peers:
                key = (peer, topic)
                self.refused[key] = max(self.refused.get(key, 0.0), self.now + (n or 4.0))
        self.note(control(self.gossip, peer, entry, now=self.now))

    @rule(peer=people, n=numbers, topic=topics, fault=st.booleans())
    def message(self, peer: PeerId, n: int, topic: str, fault: bool) -> None:
        item = message(n, peer, topic=topic)
        actions = self.note(receive(self.gossip, item, self.now))
        if item.id in self.validating and peer in self.connected and Authenticate(item) not in actions:
            self.validating[item.id].add(peer)
        if Authenticate(item) in actions:
            assert item.id not in self.seen
            if fault:
                assert self.gossip.refused(item, Fault.BAD_SIGNATURE, self.now) == []
            else:
                actions = self.note(self.gossip.authenticated(item, self.now))
                assert Validate(item) in actions
                self.seen.add(item.id)
                self.validating[item.id] = {peer}

    @rule(data=st.data(), verdict=st.sampled_from(Verdict))
    def verdict(self, data: st.DataObject, verdict: Verdict) -> None:
        if self.validating:
            message_id = data.draw(st.sampled_from(sorted(self.validating)))
            holders = self.validating.pop(message_id)
            actions = self.note(self.gossip.validated(message_id, verdict, self.now))
            assert any(isinstance(action, Deliver) for action in actions) is (verdict is Verdict.ACCEPT)
            # Who graylisted itself meanwhile was not listened to.
            assert not receivers(actions) & {peer for peer in holders if self.gossip.scores(self.now).get(peer, 0) >= 0}

    @rule(n=st.integers(100, 104), topic=topics)
    def publish(self, n: int, topic: str) -> None:
        own = message(n, US, US, topic)
        self.seen.add(own.id)
        self.note(self.gossip.publish(own, self.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 1.0, 1.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        if (timeout := self.gossip.next_timeout()) is not None and timeout <= self.now:
            self.note(self.gossip.handle_timeout(self.now))
            for topic in self.ours:
                mesh = self.gossip.mesh(topic)
                assert len(mesh) <= self.config.degree_high + 2
                assert all(self.gossip.scores(self.now)[peer] >= 0 for peer in mesh)

    @invariant()
    def meshes(self) -> None:
        for topic in "tu":
            mesh = self.gossip.mesh(topic)
            assert topic in self.ours or not mesh
            for peer in mesh:
                assert topic in self.subscribed[peer]
                assert peer not in self.config.direct_peers
                assert self.connected[peer] != FLOODSUB

    def teardown(self) -> None:
        for peer in tuple(self.connected):
            self.gossip.peer_left(peer, self.now)
        assert not self.gossip._peers
        assert not len(self.gossip._promises)
        assert not self.gossip.peers()
        assert not self.gossip.scores(self.now)
        assert not self.gossip.mesh("t")


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


# --- repeatable -------------------------------------------------------------------------------------------------------


def test_the_same_seed_does_the_same() -> None:
    def story(seed: int) -> list[Action]:
        gossip = Gossipsub(random.Random(seed), GossipsubConfig(score=PeerScoreConfig(), exchange=True))
        actions = join(gossip, PEERS)
        actions += gossip.subscribe("t", 0.0)
        for number in range(5):
            actions += accept(gossip, message(number, PEERS[number]))
            actions += gossip.handle_timeout(number + 1.0)
        return actions

    assert story(1) == story(1)
    assert story(1) != story(2)
