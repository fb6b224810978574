"""The connection manager: case X9 (protected and tagged peers are never trimmed)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.errors import LimitExceeded
from libp2p.swarm._trim import ConnInfo, TagLimits, Tags, TrimConfig, choose_victims

NOW = 1000.0


def conn(name: str, *, age: float = 500, peer: str | None = None, **more: object) -> ConnInfo:
    return ConnInfo(key=name, peer=peer or name, opened_at=NOW - age, **more)  # type: ignore[arg-type]


def victims(conns: list[ConnInfo], *, low: int, high: int) -> list[str]:
    return [victim.key for victim in choose_victims(conns, NOW, TrimConfig(low=low, high=high))]


def test_nothing_happens_up_to_high_and_then_low_is_left() -> None:
    """go: 160 low, 192 high."""
    config = TrimConfig()
    conns = [conn(str(number)) for number in range(192)]
    assert choose_victims(conns, NOW, config) == []
    conns.append(conn("one more"))
    assert len(choose_victims(conns, NOW, config)) == 33


def test_order_is_value_then_streams_then_youngest() -> None:
    tags = Tags()
    tags.tag("bad", "misbehaves", -5)
    tags.tag("liked", "kad", 1)
    tags.tag("loved", "kad", 5)
    tags.tag("loved", "gossip", 5)
    conns = [
        conn("loved", tags=tags),
        conn("liked", tags=tags),
        conn("busy", streams=9, tags=tags),
        conn("one stream", streams=1, tags=tags),
        conn("old", age=900, tags=tags),
        conn("young", age=100, tags=tags),
        conn("bad", streams=50, tags=tags),
    ]
    expected = ["bad", "young", "old", "one stream", "busy", "liked", "loved"]
    assert victims(conns, low=0, high=0) == expected
    assert victims(conns, low=4, high=6) == expected[:3]


def test_streams_of_a_limited_connection_do_not_count() -> None:
    conns = [conn("direct", streams=1, age=100), conn("relayed", streams=9, limited=True, age=900)]
    assert victims(conns, low=1, high=1) == ["relayed"]


def test_new_connections_are_in_grace() -> None:
    conns = [conn("new", age=59.9), conn("older", age=60), conn("newest", age=0)]
    assert victims(conns, low=0, high=0) == ["older"]


def test_protected_peers_are_never_chosen() -> None:
    tags = Tags()
    tags.protect("friend", "me")
    conns = [conn("1", peer="friend", tags=tags), conn("2", peer="friend", tags=tags), conn("3", tags=tags)]
    assert victims(conns, low=0, high=0) == ["3"]


@pytest.mark.bar_c
def test_sybil_churn_does_not_push_out_tagged_peers() -> None:
    """X9: newcomers are spared by their grace, and must not make the tagged pay for it."""
    tags = Tags()
    for number in range(180):
        tags.tag(f"useful {number}", "kad", 1)
    useful = [conn(f"useful {number}", tags=tags) for number in range(180)]
    sybils = [conn(f"sybil {number}", age=30, tags=tags) for number in range(500)]
    assert choose_victims([*useful, *sybils], NOW, TrimConfig()) == []
    settled = [conn(f"settled sybil {number}", age=70, tags=tags) for number in range(500)]
    chosen = choose_victims([*useful, *settled], NOW, TrimConfig())
    assert {victim.key.split()[0] for victim in chosen} == {"settled"}
    assert len(chosen) == 500


def test_tagged_peers_give_way_to_each_other() -> None:
    tags = Tags()
    for number in range(10):
        tags.tag(str(number), "kad", number + 1)
    conns = [conn(str(number), tags=tags) for number in range(10)]
    assert victims(conns, low=6, high=8) == ["0", "1", "2", "3"]


def test_ties_are_decided_by_order_and_the_peer_is_not_compared() -> None:
    conns = [ConnInfo(key=number, peer=object(), opened_at=0) for number in range(4)]
    assert [victim.key for victim in choose_victims(conns, NOW, TrimConfig(low=2, high=2))] == [0, 1]


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 100.0, 200.0]), st.integers(-1, 2), st.booleans(), st.integers(0, 2)),
        max_size=30,
    ),
    st.integers(0, 10),
    st.integers(0, 10),
)
def test_never_too_many_never_the_wrong_ones(drawn: list[tuple[float, int, bool, int]], low: int, more: int) -> None:
    tags = Tags()
    conns = []
    for number, (age, value, protected, streams) in enumerate(drawn):
        tags.tag(str(number), "t", value)
        if protected:
            tags.protect(str(number), "p")
        conns.append(conn(str(number), age=age, streams=streams, tags=tags))
    config = TrimConfig(low=low, high=low + more)
    chosen = choose_victims(conns, NOW, config)
    assert len({id(victim) for victim in chosen}) == len(chosen)
    assert len(conns) - len(chosen) >= low or not chosen
    for victim in chosen:
        assert not victim.protected
        assert NOW - victim.opened_at >= config.grace
    spared = [each for each in conns if each not in chosen and not each.protected and each.opened_at <= NOW - 60]
    if chosen and spared:
        assert max(victim.value for victim in chosen) <= min(each.value for each in spared)
    if len(conns) <= config.high:
        assert not chosen


def test_tags() -> None:
    tags = Tags()
    assert tags.value("a") == 0
    tags.tag("a", "kad", 3)
    tags.tag("a", "kad", 4)
    tags.tag("a", "gossip", -1)
    assert tags.value("a") == 3
    tags.untag("a", "kad")
    tags.untag("a", "never")
    assert tags.value("a") == -1
    tags.untag("a", "gossip")
    tags.untag("a", "gossip")
    tags.tag("a", "kad", 1)
    tags.forget("a")
    assert tags.value("a") == 0


def test_protection_lasts_until_the_last_reason_is_gone() -> None:
    tags = Tags()
    tags.protect("a", "relay")
    tags.protect("a", "me")
    tags.protect("a", "me")
    assert tags.unprotect("a", "relay")
    assert tags.protected("a")
    tags.forget("a")
    assert tags.protected("a")
    assert not tags.unprotect("a", "me")
    assert not tags.protected("a")
    assert not tags.unprotect("a", "me")


def test_tags_are_bounded() -> None:
    tags = Tags(TagLimits(peers=2, tags_per_peer=2, protected_peers=2))
    for peer in "abc":
        tags.tag(peer, "t", 1)
        if peer != "c":
            tags.protect(peer, "t")
    assert [tags.value(peer) for peer in "abc"] == [0, 1, 1]
    tags.tag("c", "u", 1)
    tags.tag("c", "u", 2)
    with pytest.raises(LimitExceeded, match="tags_per_peer"):
        tags.tag("c", "v", 1)
    with pytest.raises(LimitExceeded, match="protected_peers"):
        tags.protect("c", "t")
    tags.protect("a", "u")
    with pytest.raises(LimitExceeded, match="tags_per_peer"):
        tags.protect("a", "v")


@pytest.mark.parametrize("wrong", [{"low": 5, "high": 4}, {"low": -1}, {"grace": -1}, {"silence": -1}])
def test_config_is_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        TrimConfig(**wrong)
