"""NATs without a network: packets, mappings, filters, hairpins, bounds. RFC 4787, RFC 5382, RFC 5508."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.testing.nat import (
    KINDS,
    Flow,
    Internet,
    Nat,
    NatConfig,
    Place,
    Protocol,
    places,
    read,
    rewrite,
)
from tests.testing.nat.packets import echo, end, ipv4, is_sound, tcp, udp

INSIDE, OUTSIDE = "10.0.0.2:4001", "5.0.0.1"
SERVER, OTHER_PORT, OTHER = "7.0.0.1:80", "7.0.0.1:81", "7.0.0.2:80"
SYN, ACK, FIN, RST = 0x02, 0x10, 0x11, 0x04


def nat(kind: str = "port-restricted", **changes: float) -> Nat:
    return Nat(IPv4Address(OUTSIDE), replace(KINDS[kind], **changes))  # type: ignore[arg-type]


def flow(packet: bytes | None) -> Flow:
    assert packet is not None and is_sound(packet)
    found = read(packet)
    assert found is not None
    return found


def seen_from(table: Nat, inside: str, target: str, now: float = 0.0) -> str:
    """The port that ``target`` sees; the address is the NAT's."""
    found = flow(table.leave(udp(inside, target), now))
    assert str(found.source.ip) == OUTSIDE and found.target == end(target)
    return f"{OUTSIDE}:{found.source.port}"


# --- packets


def test_flows() -> None:
    assert flow(udp(INSIDE, SERVER)) == Flow(protocol=Protocol.UDP, source=end(INSIDE), target=end(SERVER))
    assert flow(tcp(INSIDE, SERVER)).protocol is Protocol.TCP
    assert [flow(tcp(INSIDE, SERVER, flags)).ends for flags in (SYN, ACK, FIN, RST)] == [False, False, True, True]
    assert flow(echo("10.0.0.2", "7.0.0.1", 9)).source.port == 9
    assert flow(echo("7.0.0.1", "10.0.0.2", 9, reply=True)).target.port == 9


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(40),
        b"\x60" + bytes(60),
        b"\x41" + bytes(60),
        udp(INSIDE, SERVER)[:24],
        b"\x4f" + udp(INSIDE, SERVER)[1:24],
        ipv4(47, end(INSIDE), end(SERVER), bytes(20)),
        ipv4(1, end(INSIDE), end(SERVER), bytes([3, 3]) + bytes(30)),
        udp(INSIDE, SERVER)[:6] + b"\x20\x00" + udp(INSIDE, SERVER)[8:],
        udp(INSIDE, SERVER)[:6] + b"\x00\x10" + udp(INSIDE, SERVER)[8:],
    ],
    ids=["empty", "zeros", "ipv6", "short header", "cut", "cut options", "gre", "unreachable", "first", "fragment"],
)
def test_what_is_not_carried(packet: bytes) -> None:
    assert read(packet) is None
    assert nat().leave(packet, 0) is None and nat().enter(packet, 0) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_not(data: bytes) -> None:
    for packet in (data, b"\x45" + data, b"\x45\0\0\0\0\0\0\0\0\x11" + data):
        found = read(packet)
        assert found is None or len(rewrite(packet, found, source=end(SERVER), target=end(OTHER))) == len(packet)


@given(st.binary(max_size=9), st.integers(1, 0xFFFF), st.integers(0, 2**32 - 1))
def test_checksums_stay_right(data: bytes, port: int, ip: int) -> None:
    new = end(f"{IPv4Address(ip)}:{port}")
    for packet in (udp(INSIDE, SERVER, data), tcp(INSIDE, SERVER, data=data), udp(INSIDE, SERVER, options=bytes(4))):
        changed = rewrite(packet, flow(packet), source=new)
        assert flow(changed).source == new and flow(changed).target == end(SERVER)
        changed = rewrite(changed, flow(changed), target=end(OTHER))
        assert flow(changed).target == end(OTHER)


def test_the_end_of_an_echo_that_has_no_identifier_gets_none() -> None:
    packet = echo("7.0.0.1", "10.0.0.2", 9, reply=True)
    changed = rewrite(packet, flow(packet), source=end(OTHER))
    assert flow(changed).source == end("7.0.0.2") and flow(changed).target == end("10.0.0.2:9")


def test_udp_without_a_checksum_gets_none() -> None:
    packet = udp(INSIDE, SERVER, checksum=False)
    changed = rewrite(packet, flow(packet), source=end(OTHER))
    assert changed[26:28] == b"\0\0" and flow(changed).source == end(OTHER)


# --- mappings


@pytest.mark.parametrize(("kind", "ports"), [("port-restricted", 1), ("address-symmetric", 2), ("symmetric", 3)])
def test_rfc4787_mapping(kind: str, ports: int) -> None:
    table = nat(kind)
    seen = [seen_from(table, INSIDE, target) for target in (SERVER, OTHER_PORT, OTHER)]
    assert len(set(seen)) == ports == table.mappings
    assert [seen_from(table, INSIDE, target) for target in (SERVER, OTHER_PORT, OTHER)] == seen
    # Who has one port for all keeps its own; who has not, gives ports that tell nothing about the next.
    assert (seen[0] == f"{OUTSIDE}:4001") == (ports == 1)


def test_rfc4787_no_two_share_a_port() -> None:
    table = nat()
    seen = [seen_from(table, f"10.0.0.{host}:4001", SERVER) for host in range(2, 60)]
    seen += [seen_from(table, "10.0.0.2:7", SERVER)]
    assert len(set(seen)) == len(seen)
    assert all(int(port.partition(":")[2]) >= 1024 for port in seen)


def test_ports_of_protocols_are_their_own() -> None:
    table = nat()
    assert seen_from(table, INSIDE, SERVER) == f"{OUTSIDE}:4001"
    assert flow(table.leave(tcp("10.0.0.3:4001", SERVER), 0)).source.port == 4001


# --- filters


@pytest.mark.parametrize(
    ("kind", "let_in"),
    [
        ("full-cone", [SERVER, OTHER_PORT, OTHER]),
        ("restricted", [SERVER, OTHER_PORT]),
        ("port-restricted", [SERVER]),
        ("symmetric", [SERVER]),
    ],
)
def test_rfc4787_filtering(kind: str, let_in: list[str]) -> None:
    table = nat(kind)
    seen = seen_from(table, INSIDE, SERVER)
    for source in (SERVER, OTHER_PORT, OTHER):
        entered = table.enter(udp(source, seen), 0)
        assert (entered is not None) == (source in let_in)
        if entered is not None:
            assert flow(entered) == Flow(protocol=Protocol.UDP, source=end(source), target=end(INSIDE))
    assert table.enter(udp(SERVER, f"{OUTSIDE}:9"), 0) is None
    assert table.enter(udp(SERVER, "5.0.0.2:4001"), 0) is None


def test_udp_blocked() -> None:
    table = nat("udp-blocked")
    assert table.leave(udp(INSIDE, SERVER), 0) is None
    assert table.leave(tcp(INSIDE, SERVER), 0) is not None


def test_rfc5508_echo() -> None:
    table = nat()
    asked = flow(table.leave(echo("10.0.0.2", "7.0.0.1", 2000), 0))
    assert asked.source == end(f"{OUTSIDE}:2000")
    answer = table.enter(echo("7.0.0.1", OUTSIDE, 2000, reply=True), 0)
    assert flow(answer).target == end("10.0.0.2:2000")
    assert table.enter(echo("7.0.0.2", OUTSIDE, 2000, reply=True), 0) is None
    assert table.enter(echo("7.0.0.1", OUTSIDE, 2000, reply=True), 60) is None
    assert table.leave(echo("10.0.0.2", "7.0.0.1", 5, reply=True), 0) is None


# --- time and bounds


def test_rfc4787_two_minutes_from_the_last_packet_from_inside() -> None:
    table = nat()
    seen = seen_from(table, INSIDE, SERVER, 0)
    seen_from(table, INSIDE, SERVER, 100)
    assert table.enter(udp(SERVER, seen), 219.9) is not None
    assert table.enter(udp(SERVER, seen), 220) is None
    assert seen_from(table, INSIDE, OTHER, 300) == seen and table.mappings == 1
    assert table.enter(udp(SERVER, seen), 300) is None  # what it let in before is forgotten


def test_rfc5382_times() -> None:
    def lasts(*said: tuple[bool, int]) -> float:
        """How long after all that was said, by whoever is inside or not, an answer is let in."""
        table = nat()
        for inside, flags in said:
            if inside:
                assert table.leave(tcp(INSIDE, SERVER, flags), 0) is not None
            else:
                assert table.enter(tcp(SERVER, f"{OUTSIDE}:4001", flags), 0) is not None
        times = [time for time in (239.0, 241.0, 7439.0, 7441.0) if table.enter(tcp(SERVER, f"{OUTSIDE}:4001"), time)]
        return max(times)

    assert lasts((True, SYN)) == 7439.0  # the first answer is in time, and makes it last
    assert lasts((True, SYN), (False, SYN), (True, ACK), (True, FIN)) == 239.0
    assert lasts((True, SYN), (False, SYN), (False, RST), (True, ACK)) == 239.0
    table = nat()
    table.leave(tcp(INSIDE, SERVER), 0)
    assert table.enter(tcp(SERVER, f"{OUTSIDE}:4001"), 240) is None


def test_tables_are_bounded() -> None:
    table = nat(mappings=3)
    for number in range(3):
        assert table.leave(udp(f"10.0.0.2:{5000 + number}", SERVER), number) is not None
    assert table.leave(udp("10.0.0.2:6000", SERVER), 10) is None
    assert table.leave(udp("10.0.0.2:5001", SERVER), 10) is not None
    assert table.leave(udp("10.0.0.2:6000", SERVER), 120) is not None and table.mappings == 3


def test_what_a_mapping_lets_in_is_bounded() -> None:
    table = nat(remotes=2)
    for port in (1, 2, 1, 3):
        seen = seen_from(table, INSIDE, f"7.0.0.1:{port}")
    assert [table.enter(udp(f"7.0.0.1:{port}", seen), 0) is not None for port in (1, 2, 3)] == [True, False, True]


@pytest.mark.parametrize("wrong", [{"udp_timeout": 0}, {"mappings": 0}, {"mappings": 65_000}, {"remotes": 0}])
def test_nonsense_in_the_configuration(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        nat("full-cone", **wrong)


@given(st.lists(st.tuples(st.integers(2, 4), st.integers(4000, 4003), st.integers(80, 82), st.integers(0, 90))))
def test_what_left_lets_the_answer_in_and_nobody_elses(sent: list[tuple[int, int, int, int]]) -> None:
    """For every kind, whatever was sent before."""
    for kind in KINDS:
        if kind == "udp-blocked":
            continue
        table, now = nat(kind), 0.0
        for host, port, target, pause in sent:
            now += pause
            inside = f"10.0.0.{host}:{port}"
            seen = seen_from(table, inside, f"7.0.0.1:{target}", now)
            answered = table.enter(udp(f"7.0.0.1:{target}", seen), now)
            assert flow(answered).target == end(inside)


# --- the internet between them


def between(*kinds: str) -> Internet:
    return Internet(places({f"host-{number}": kind for number, kind in enumerate(kinds, 1)}))


def carried(net: Internet, sender: str, packet: bytes) -> tuple[str, Flow] | None:
    sent = net.send(sender, packet, 0)
    arrived = None if sent is None else net.arrive(*sent, 0)
    return None if arrived is None else (arrived[0], flow(arrived[1]))


def test_who_gets_a_packet() -> None:
    net = between("public", "port-restricted", "port-restricted")
    first = carried(net, "host-2", udp("10.0.0.2:9", "7.1.0.1:80"))
    assert first is not None and first[0] == "host-1" and str(first[1].source.ip) == "5.2.0.1"
    seen = f"5.2.0.1:{first[1].source.port}"
    assert carried(net, "host-1", udp("7.1.0.1:80", seen)) is not None
    assert carried(net, "host-1", udp("7.1.0.1:81", seen)) is None
    assert carried(net, "host-1", udp("7.1.0.1:80", "7.9.0.1:80")) is None
    assert carried(net, "host-1", udp("7.1.0.9:80", seen)) is None, "a forged source"
    assert carried(net, "host-1", bytes(20)) is None and net.arrive(None, bytes(20), 0) is None


def test_two_holes_punched_at_once() -> None:
    net = between("port-restricted", "port-restricted")
    ours, theirs = "5.1.0.1:4001", "5.2.0.1:4001"
    assert carried(net, "host-1", udp("10.0.0.2:4001", theirs)) is None
    found = carried(net, "host-2", udp("10.0.0.2:4001", ours))
    assert found is not None and found[0] == "host-1" and found[1].source == end(theirs)


@pytest.mark.parametrize("hairpin", [True, False])
def test_rfc4787_hairpin(hairpin: bool) -> None:
    table = nat("hairpin" if hairpin else "full-cone")
    hosts = {name: Place(ip=IPv4Address(ip), nat=table) for name, ip in (("a", "10.0.0.2"), ("b", "10.0.0.3"))}
    net = Internet(hosts)
    at_home = carried(net, "a", udp("10.0.0.2:1", "10.0.0.3:2"))
    assert at_home is not None and at_home[0] == "b" and at_home[1].source == end("10.0.0.2:1")
    seen = seen_from(table, "10.0.0.3:4001", f"{OUTSIDE}:4000")
    found = carried(net, "a", udp("10.0.0.2:4000", seen))
    assert (found is not None) == hairpin
    if found is not None:
        assert found[0] == "b" and found[1].source == end(f"{OUTSIDE}:4000")


def test_addresses_are_given_out_once() -> None:
    nowhere = Place(ip=IPv4Address("7.0.0.1"))
    with pytest.raises(ValueError, match="twice"):
        Internet({"a": nowhere, "b": nowhere})
    behind = Place(ip=IPv4Address("10.0.0.2"), nat=Nat(IPv4Address("7.0.0.1"), NatConfig()))
    with pytest.raises(ValueError, match="twice"):
        Internet({"a": nowhere, "b": behind})
    # A packet for somebody who is not there any more.
    net = Internet({"b": behind})
    assert behind.nat is not None
    behind.nat.leave(udp("10.0.0.9:1024", SERVER), 0)
    assert net.arrive(None, udp(SERVER, "7.0.0.1:1024"), 0) is None


def test_kinds() -> None:
    with pytest.raises(ValueError, match="no kind 'conical'; there are public, full-cone"):
        places({"a": "conical"})
    with pytest.raises(ValueError, match="too many"):
        places({str(number): "public" for number in range(300)})
    assert {place.ip for place in places({"a": "public", "b": "public"}).values()} == {
        IPv4Address("7.1.0.1"),
        IPv4Address("7.2.0.1"),
    }
    assert len(set(KINDS.values())) == len(KINDS)


def test_hosts_behind_one_nat() -> None:
    """Which is where it matters whether that hairpins."""
    found = places({"ann": "hairpin", "ben": "@ann", "cleo": "@ben", "relay": "public"})
    ann, ben, cleo, _ = found.values()
    assert ann.nat is ben.nat is cleo.nat is not None
    assert [str(place.ip) for place in (ann, ben, cleo)] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    Internet(found)
    for kind in ("@nobody", "@relay", "@", ""):
        with pytest.raises(ValueError, match="and @NAME for the NAT of an earlier host"):
            places({"relay": "public", "ann": kind})
