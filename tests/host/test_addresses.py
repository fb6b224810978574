"""Observed addresses and expansion of listen addresses: case I3, SPEC I10."""

from __future__ import annotations

import pytest
from multiaddr import Multiaddr

from libp2p.addressing import parse, with_peer
from libp2p.events import Reachability
from libp2p.host._addresses import ObservedAddresses, ObservedConfig, announced, expand
from libp2p.peer_id import PeerId

PEER = PeerId.parse("QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN")
LISTEN = parse("/ip4/0.0.0.0/tcp/4001")
OURS = parse("/ip4/8.8.8.8/tcp/4001")
LIE = parse("/ip4/6.6.6.6/tcp/666")


class World:
    """An ObservedAddresses with a clock and the usual arguments."""

    def __init__(self, listening: list[Multiaddr] | None = None, config: ObservedConfig | None = None) -> None:
        self.observed = ObservedAddresses(config)
        self.listening = listening or [LISTEN]
        self.now = 0.0

    def say(self, observer: str, addr: Multiaddr = OURS, local: str = "/ip4/192.168.1.5/tcp/4001") -> bool:
        remote = observer if observer.startswith("/") else f"/ip4/{observer}/tcp/5555"
        return self.observed.add(
            addr, local=parse(local), observer=parse(remote), listening=self.listening, now=self.now
        )

    def confirmed(self) -> list[str]:
        return [str(addr) for addr in self.observed.confirmed(self.now)]


def observers(count: int, first: int = 20) -> list[str]:
    """Addresses each in a /16 of its own."""
    return [f"{first + number // 200}.{number % 200}.7.7" for number in range(count)]


def test_four_neighbourhoods_must_agree() -> None:
    """I10: candidates only after several (go: 4) different observers agree."""
    world = World()
    changed = [world.say(observer) for observer in observers(5)]
    assert changed == [False, False, False, True, False]
    assert world.confirmed() == ["/ip4/8.8.8.8/tcp/4001"]


@pytest.mark.bar_c
@pytest.mark.parametrize(
    "sybils",
    [
        [f"20.30.{number}.1" for number in range(100)],
        [f"/ip6/2600:1:2:34{number:02x}::1/tcp/1" for number in range(100)],
        [f"/ip6/::ffff:20.30.{number}.1/tcp/1" for number in range(100)],
    ],
    ids=["one /16", "one /56", "one /16 in IPv6"],
)
def test_sybils_of_one_neighbourhood_are_one_witness(sybils: list[str]) -> None:
    """I3: 100 sybils in one /24 or one IPv6 /56."""
    world = World()
    for observer in sybils:
        world.say(observer)
    assert world.confirmed() == []
    for observer in observers(3, first=50):
        world.say(observer)
    assert world.confirmed() == [str(OURS)]


@pytest.mark.bar_c
def test_liars_cannot_displace_what_is_confirmed() -> None:
    """I3: 200 liars against 4 honest, some of them next door to the honest."""
    world = World()
    for observer in observers(4):
        world.say(observer)
    lies = [parse(f"/ip4/6.6.6.{number}/tcp/666") for number in range(20)]
    for round_ in range(20):
        for observer in observers(200):
            world.say(observer, lies[round_])
    assert world.confirmed()[0] == str(OURS)
    assert len(world.confirmed()) == 3, "at most three per listen address"


def test_liars_next_door_cannot_take_votes_from_what_is_confirmed() -> None:
    world = World()
    for observer in observers(4):
        world.say(observer)
    for observer in observers(4):
        world.say(observer, LIE)
    assert str(OURS) in world.confirmed()


def test_neighbourhood_votes_for_one_address_at_a_time() -> None:
    world = World()
    for observer in observers(3):
        world.say(observer, LIE)
    for observer in observers(3):
        world.say(observer, OURS)
    world.say(observers(4)[3], LIE)
    assert world.confirmed() == []
    world.say(observers(4)[3], OURS)
    assert world.confirmed() == [str(OURS)]


def test_observations_through_a_relay_count_for_nothing() -> None:
    world = World()
    for number in range(8):
        world.say(f"/ip4/{30 + number}.1.1.1/tcp/1/p2p/{PEER}/p2p-circuit")
        world.say(observers(8)[number], parse(f"/ip4/30.1.1.1/tcp/4001/p2p/{PEER}/p2p-circuit"))
    assert world.confirmed() == []


def test_port_scatter_is_never_confirmed_and_bounded() -> None:
    """I3: behind a symmetric NAT everybody sees another port."""
    world = World()
    for number, observer in enumerate(observers(2000)):
        world.say(observer, parse(f"/ip4/8.8.8.8/tcp/{10_000 + number}"))
    assert world.confirmed() == []
    assert len(world.observed._listens[LISTEN]) <= 32
    for observer in observers(4, first=100):
        world.say(observer)
    assert world.confirmed() == [str(OURS)], "scatter must not keep the truth out"


def test_votes_end_after_forty_minutes() -> None:
    world = World()
    for number, observer in enumerate(observers(4)):
        world.now = float(number)
        world.say(observer)
    assert world.observed.next_timeout() == 2400
    world.now = 2399.0
    assert world.confirmed() == [str(OURS)]
    world.say(observers(1)[0])  # repeated
    world.now = 2400.5
    assert world.confirmed() == [str(OURS)]
    world.now = 2401.5
    assert world.confirmed() == [], "never advertised with fewer than four"
    world.now = 10_000.0
    assert world.confirmed() == []
    assert world.observed.next_timeout() is None
    assert not world.observed._listens


def test_the_next_in_line_counts_when_a_place_is_free() -> None:
    world = World()
    addrs = [parse(f"/ip4/8.8.8.{number}/tcp/4001") for number in range(4)]
    for number, addr in enumerate(addrs):
        for observer in observers(4, first=20 + number):
            world.say(observer, addr)
    assert world.confirmed() == [str(addr) for addr in addrs[:3]]
    world.now += 2000
    for observer in observers(4, first=23):
        world.say(observer, addrs[3])
    for number in (0, 2):
        for observer in observers(4, first=20 + number):
            world.say(observer, addrs[number])
    world.now += 1000  # what was said of the second has ended
    assert world.confirmed() == [str(addrs[0]), str(addrs[2]), str(addrs[3])]


def test_i3_what_was_found_decides_what_is_announced() -> None:
    """First what works, last what nobody has tried; an observed address that is being tried waits."""
    listening = [parse(f"/ip4/8.8.8.8/tcp/{port}") for port in range(1, 5)]
    observed = [parse(f"/ip4/9.9.9.9/tcp/{port}") for port in range(1, 5)]
    kinds = (Reachability.UNKNOWN, Reachability.PRIVATE, Reachability.PUBLIC)
    assert announced(listening, observed, {}) == [*listening, *observed]
    verdicts = {addr: kind for addrs in (listening, observed) for addr, kind in zip(addrs, kinds, strict=False)}
    expected = [listening[2], observed[2], listening[0], listening[3], observed[3]]
    assert announced(listening, observed, verdicts) == expected


@pytest.mark.parametrize(
    ("addr", "observer"),
    [
        ("/ip4/8.8.8.8/tcp/4001", "/ip4/192.168.1.9/tcp/1"),  # a neighbour cannot know
        ("/ip4/192.168.1.5/tcp/4001", "/ip4/20.1.1.1/tcp/1"),  # a stranger cannot either
        ("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/1"),
        ("/ip4/169.254.1.1/tcp/4001", "/ip4/169.254.1.2/tcp/1"),
        ("/ip4/0.0.0.0/tcp/4001", "/ip4/20.1.1.1/tcp/1"),
        ("/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/20.1.1.1/tcp/1"),  # not what listens
        ("/ip4/8.8.8.8", "/ip4/20.1.1.1/tcp/1"),
        ("/ip4/8.8.8.8/tcp/4001/ws", "/ip4/20.1.1.1/tcp/1"),
        ("/dns4/example.com/tcp/4001", "/ip4/20.1.1.1/tcp/1"),
        ("/memory/5", "/memory/6"),
    ],
)
def test_votes_that_count_for_nothing(addr: str, observer: str) -> None:
    world = World(config=ObservedConfig(groups=1))
    assert not world.say(observer, parse(addr))
    assert world.confirmed() == []


def test_an_address_that_is_none_counts_for_nothing() -> None:
    world = World(config=ObservedConfig(groups=1))
    assert not world.say("20.1.1.1", Multiaddr(b"\xff\xff\x01"))
    assert not world.say("20.1.1.1", parse(f"/p2p/{PEER}"))


def test_on_a_private_network_every_host_is_a_witness() -> None:
    world = World()
    ours = parse("/ip4/10.0.0.1/tcp/4001")
    for number in range(4):
        world.say(f"10.0.0.{number + 10}", ours)
        world.say("10.0.0.10", ours)
    assert world.confirmed() == ["/ip4/10.0.0.1/tcp/4001"]


def test_connections_from_a_port_of_their_own_tell_nothing() -> None:
    world = World(config=ObservedConfig(groups=1))
    assert not world.say("20.1.1.1", local="/ip4/192.168.1.5/tcp/50000")
    assert not world.say("20.1.1.1", local="/memory/3")
    assert world.say("20.1.1.1", local="/ip4/192.168.1.5/tcp/4001")


def test_a_listener_on_one_address_is_matched_by_that_address() -> None:
    bound = parse("/ip4/192.168.1.5/tcp/4001")
    world = World([bound], ObservedConfig(groups=1))
    assert not world.say("20.1.1.1", local="/ip4/192.168.1.6/tcp/4001")
    assert world.say("20.1.1.1", local="/ip4/192.168.1.5/tcp/4001")


def test_rest_of_the_listen_address_is_put_back_and_the_peer_taken_off() -> None:
    world = World([parse("/ip4/0.0.0.0/tcp/4001/ws")], ObservedConfig(groups=1))
    assert world.say("20.1.1.1", with_peer(OURS, PEER), local="/ip4/192.168.1.5/tcp/4001/ws")
    assert world.confirmed() == ["/ip4/8.8.8.8/tcp/4001/ws"]


def test_votes_for_closed_listeners_are_dropped_and_listeners_bounded() -> None:
    world = World(config=ObservedConfig(groups=1, listen_addrs=2))
    world.say("20.1.1.1")
    world.listening = [parse(f"/ip4/0.0.0.0/tcp/{port}") for port in (1, 2, 3)]
    for port in (1, 2, 3):
        world.say("20.1.1.1", local=f"/ip4/192.168.1.5/tcp/{port}", addr=parse(f"/ip4/8.8.8.8/tcp/{port}"))
    assert world.confirmed() == ["/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/2"]


@pytest.mark.parametrize("wrong", [{"groups": 0}, {"expiry": 0}, {"witnesses": 2}, {"candidates": 3}])
def test_config_is_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must|small"):
        ObservedConfig(**wrong)


# --- expand -----------------------------------------------------------------------------------------------------------


def test_unspecified_hosts_become_those_of_the_interfaces() -> None:
    listening = [
        "/ip4/0.0.0.0/tcp/4001",
        "/ip6/::/udp/4001/quic-v1",
        "/ip4/9.9.9.9/tcp/1",
        "/memory/1",
        "/ip4/127.0.0.1/tcp/4001",
    ]
    interfaces = ["127.0.0.1", "192.168.1.5", "::1", "2600::5", "fe80::1%eth0", "192.168.1.5"]
    found = expand([parse(addr) for addr in listening], interfaces)
    assert [str(addr) for addr in found] == [
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/192.168.1.5/tcp/4001",
        "/ip6/::1/udp/4001/quic-v1",
        "/ip6/2600::5/udp/4001/quic-v1",
        "/ip4/9.9.9.9/tcp/1",
        "/memory/1",
    ]
    assert expand([parse("/ip4/0.0.0.0/tcp/1")], []) == []


def test_candidates_need_one_voice_and_the_loudest_come_first() -> None:
    world = World()
    other = parse("/ip4/8.8.4.4/tcp/4001")
    world.say("20.1.7.7", other)
    for observer in ("20.2.7.7", "20.3.7.7"):
        world.say(observer)
    assert world.observed.candidates(world.now) == [OURS, other]
    assert not world.confirmed()
    assert world.observed.candidates(2400.0) == []
