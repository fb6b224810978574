"""Addresses (checklist A1 to A5, A9, A11; reliability case T9 for the ranges)."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiaddr import Multiaddr

from libp2p import addressing
from libp2p.addressing import (
    Part,
    Scope,
    canonical_ws,
    from_parts,
    host_port,
    ip_addr,
    ip_group,
    is_relay,
    names,
    parse,
    parts,
    scope,
    split_peer,
    to_text,
    with_peer,
)
from libp2p.errors import DecodeError
from libp2p.peer_id import PeerId
from libp2p.wire import multihash

ONE = PeerId.parse("12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq")
OTHER = PeerId.parse("QmVMT29id3TUASyfZZ6k9hmNyc2nYabCo4uMSpDw4zrgDk")
RELAYED = f"/ip4/1.2.3.4/tcp/4001/p2p/{ONE}/p2p-circuit"


# --- parse, print -----------------------------------------------------------------------------------------------------

TEXTS = [
    "/ip4/1.2.3.4/tcp/80",
    "/ip4/1.2.3.4/udp/4001/quic-v1",
    "/ip4/1.2.3.4/udp/4001/quic-v1/webtransport/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ",
    "/ip6/::1/udp/9/webrtc-direct",
    "/dns4/example.com/tcp/443/tls/sni/example.com/ws",
    "/dnsaddr/bootstrap.example",
    f"{RELAYED}/p2p/{OTHER}",
    f"/p2p/{ONE}",
    "/p2p-circuit",
    "/memory/7",
    "/unix/tmp/socket",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a1_all_forms_parse_to_the_same(text: str) -> None:
    addr = parse(text)
    assert isinstance(addr, Multiaddr)
    assert str(addr) == to_text(addr) == text
    assert repr(addr) == f"<Multiaddr {text}>"
    assert parse(addr.to_bytes()) == parse(addr) == parse(Multiaddr(text)) == addr
    assert hash(parse(Multiaddr(text))) == hash(addr)


@pytest.mark.parametrize("text", [text for text in TEXTS if "unix" not in text])
def test_a1_the_package_agrees_on_the_bytes(text: str) -> None:
    assert parse(text).to_bytes() == Multiaddr(text).to_bytes()


def test_a3_ipfs_becomes_p2p() -> None:
    assert parse(f"/ip4/1.2.3.4/tcp/1/ipfs/{ONE}") == parse(f"/ip4/1.2.3.4/tcp/1/p2p/{ONE}")
    assert str(parse(f"/ipfs/{ONE}")) == f"/p2p/{ONE}"


def test_a4_every_form_of_a_peer_gives_the_same_bytes() -> None:
    cid = ONE.to_cid()
    assert Multiaddr(f"/p2p/{cid}").to_bytes() != parse(f"/p2p/{ONE}").to_bytes()  # the package keeps the CID
    for addr in (f"/p2p/{cid}", Multiaddr(f"/p2p/{cid}"), Multiaddr(f"/p2p/{cid}").to_bytes()):
        assert parse(addr) == parse(f"/p2p/{ONE}")
        assert split_peer(parse(addr))[1] == ONE
    assert split_peer(Multiaddr(f"/ip4/1.2.3.4/p2p/{cid}")) == (parse("/ip4/1.2.3.4"), ONE)


@pytest.mark.parametrize(
    "addr",
    [
        "",
        "/",
        b"",
        Multiaddr(b""),
        Multiaddr(b"\x04\x01"),
        b"\x04\x01",
        "1.2.3.4",
        "/ip4/1.2.3.4/nope",
        "/ip4/" + "1" * 5000,
    ],
)
def test_a10_a11_what_is_no_address(addr: addressing.AddrLike) -> None:
    for _ in range(2):  # also from the cache
        with pytest.raises(DecodeError):
            parse(addr)


@pytest.mark.parametrize("data", [b"\x04\x01", b"\x80", b"\x36\x03a/b"])
def test_unchecked_addresses_give_the_typed_error(data: bytes) -> None:
    addr = Multiaddr(data)
    for function in (to_text, parts, names, split_peer, is_relay, host_port, canonical_ws, scope, ip_group):
        with pytest.raises(DecodeError):
            function(addr)
    with pytest.raises(DecodeError):
        with_peer(addr, ONE)


def test_names_that_the_package_cannot_print() -> None:
    addr = parse("/dns4/go_libp2p_1/tcp/80")
    assert str(addr) == "/dns4/go_libp2p_1/tcp/80"
    assert f"{addr!r}" == "<Multiaddr /dns4/go_libp2p_1/tcp/80>"
    with pytest.raises(ValueError, match="_"):
        str(Multiaddr(addr.to_bytes()))


def test_the_package_still_works_on_parsed_addresses() -> None:
    addr = parse("/ip4/1.2.3.4").encapsulate("/tcp/80")
    assert str(addr) == "/ip4/1.2.3.4/tcp/80"
    assert [str(part) for part in addr.split()] == ["/ip4/1.2.3.4", "/tcp/80"]
    assert addr["tcp"] == "80"


def test_parts_and_names() -> None:
    addr = parse("/ip4/1.2.3.4/udp/4001/quic-v1")
    assert names(addr) == ("ip4", "udp", "quic-v1")
    assert parts(addr) == (Part("ip4", b"\x01\x02\x03\x04"), Part("udp", b"\x0f\xa1"), Part("quic-v1", b""))
    assert [part.text for part in parts(addr)] == ["1.2.3.4", "4001", ""]
    assert from_parts(parts(addr)) == addr
    assert names(Multiaddr(b"")) == ()


def test_replacing_a_part() -> None:
    name, *rest = parts(parse(f"/dns4/example.com/tcp/443/wss/p2p/{ONE}"))
    assert name.text == "example.com"
    assert str(from_parts((Part("ip4", bytes(4)), *rest))) == f"/ip4/0.0.0.0/tcp/443/wss/p2p/{ONE}"
    with pytest.raises(ValueError, match="no part"):
        from_parts((Part("ip4", b""), *rest))


# --- peers ------------------------------------------------------------------------------------------------------------


def test_a5_only_the_last_peer_is_split_off() -> None:
    relay, none = split_peer(parse(RELAYED))
    assert (str(relay), none) == (RELAYED, None)
    addr, peer = split_peer(parse(f"{RELAYED}/p2p/{OTHER}"))
    assert (str(addr), peer) == (RELAYED, OTHER)


def test_split_peer_of_a_peer_alone() -> None:
    addr, peer = split_peer(parse(f"/p2p/{ONE}"))
    assert (addr.to_bytes(), str(addr), peer) == (b"", "", ONE)
    assert split_peer(addr) == (addr, None)
    assert with_peer(addr, ONE) == parse(f"/p2p/{ONE}")


def test_with_peer() -> None:
    addr = parse("/ip4/1.2.3.4/tcp/80")
    full = with_peer(addr, ONE)
    assert str(full) == f"/ip4/1.2.3.4/tcp/80/p2p/{ONE}"
    assert with_peer(full, ONE) == full
    assert split_peer(full) == (addr, ONE)
    with pytest.raises(ValueError, match="another peer"):
        with_peer(full, OTHER)


def test_a9_relayed_addresses() -> None:
    assert str(with_peer(parse(RELAYED), OTHER)) == f"{RELAYED}/p2p/{OTHER}"
    assert is_relay(parse(RELAYED))
    assert is_relay(parse(f"/p2p-circuit/p2p/{ONE}"))
    assert not is_relay(parse(f"/ip4/1.2.3.4/tcp/80/p2p/{ONE}"))


# --- hosts and ports --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "transport", "text"),
    [
        ("1.2.3.4", 80, "tcp", "/ip4/1.2.3.4/tcp/80"),
        ("0.0.0.0", 0, "udp", "/ip4/0.0.0.0/udp/0"),
        ("::1", 65535, "tcp", "/ip6/::1/tcp/65535"),
        ("::ffff:1.2.3.4", 1, "tcp", "/ip6/::ffff:1.2.3.4/tcp/1"),
        ("fe80::1%eth0", 1, "udp", "/ip6zone/eth0/ip6/fe80::1/udp/1"),
        ("1.2.3.4", 443, "ws", "/ip4/1.2.3.4/tcp/443/ws"),
        ("::", 443, "quic-v1", "/ip6/::/udp/443/quic-v1"),
    ],
)
def test_ip_addr(host: str, port: int, transport: str, text: str) -> None:
    addr = ip_addr(host, port, transport)
    assert str(addr) == text
    assert addr == parse(text)
    assert host_port(addr) == (host, port)


@pytest.mark.parametrize(
    "host", ["", "example.com", "1.2.3", "1.2.3.4/tcp/1", "fe80::1%", "fe80::1%a/b", "fe80::1%\ud800", "::1%a b"]
)
def test_ip_addr_without_an_ip(host: str) -> None:
    with pytest.raises(DecodeError):
        ip_addr(host, 1)


@pytest.mark.parametrize(("port", "transport"), [(-1, "tcp"), (65536, "tcp"), (1, "sctp"), (1, "")])
def test_ip_addr_misused(port: int, transport: str) -> None:
    with pytest.raises(ValueError, match=r"not a port|unknown transport"):
        ip_addr("1.2.3.4", port, transport)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"/ip4/1.2.3.4/tcp/80/ws/p2p/{ONE}", ("1.2.3.4", 80)),
        ("/ip6/2001:db8::1/udp/9/quic-v1", ("2001:db8::1", 9)),
        ("/dns/example.com/tcp/443/wss", ("example.com", 443)),
        ("/dns4/example.com/udp/1", ("example.com", 1)),
        ("/dns6/example.com/tcp/1", ("example.com", 1)),
        (f"{RELAYED}/p2p/{OTHER}", ("1.2.3.4", 4001)),
        ("/dnsaddr/example.com/tcp/1", None),
        ("/ip4/1.2.3.4", None),
        ("/ip4/1.2.3.4/sctp/1", None),
        ("/tcp/1", None),
        ("/tcp/1/tcp/2", None),
        ("/ip6zone/eth0", None),
        ("/ip6zone/eth0/ip4/1.2.3.4/tcp/1", None),
        ("/p2p-circuit", None),
        ("/memory/1", None),
    ],
)
def test_host_port(text: str, expected: tuple[str, int] | None) -> None:
    assert host_port(parse(text)) == expected


def test_host_port_of_nothing() -> None:
    assert host_port(Multiaddr(b"")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dns4/example.com/tcp/443/wss", "/dns4/example.com/tcp/443/tls/ws"),
        (f"/ip4/1.2.3.4/tcp/443/wss/p2p/{ONE}", f"/ip4/1.2.3.4/tcp/443/tls/ws/p2p/{ONE}"),
        ("/ip4/1.2.3.4/tcp/443/tls/ws", "/ip4/1.2.3.4/tcp/443/tls/ws"),
        ("/ip4/1.2.3.4/tcp/443/ws", "/ip4/1.2.3.4/tcp/443/ws"),
    ],
)
def test_wss_is_tls_and_ws(text: str, expected: str) -> None:
    assert str(canonical_ws(parse(text))) == expected


# --- where an address leads -------------------------------------------------------------------------------------------

SCOPES = {
    Scope.LOOPBACK: ["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"],
    Scope.LINK_LOCAL: ["169.254.0.0", "169.254.169.254", "fe80::1", "febf::1", "::ffff:169.254.169.254"],
    Scope.PRIVATE: [
        "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255",
        "100.64.0.0", "100.127.255.255", "fc00::", "fdff:ffff::1", "::ffff:10.1.2.3", "64:ff9b::a01:203",
    ],
    Scope.PUBLIC: [
        "1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
        "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255", "2000::1", "2a00::1",
        "2001:db7::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
    ],
    Scope.UNSPECIFIED: ["0.0.0.0", "::", "::ffff:0.0.0.0"],
    Scope.OTHER: [
        "0.0.0.1", "0.255.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "ff02::1", "ff0e::1",
        "2001:db8::1", "3fff::1", "100::1", "fec0::1", "::2", "4000::1", "::ffff:224.0.0.1",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("expected", "host"), [(found, host) for found in SCOPES for host in SCOPES[found]])
def test_t9_scope_of_ip_addresses(expected: Scope, host: str) -> None:
    for transport in ("tcp", "quic-v1"):
        assert scope(ip_addr(host, 80, transport)) is expected
    assert scope(with_peer(ip_addr(host, 80), ONE)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dns/example.com/tcp/80", Scope.NAME),
        ("/dns4/localhost/tcp/80", Scope.NAME),
        ("/dns6/example.com/tcp/80", Scope.NAME),
        ("/dnsaddr/example.com", Scope.NAME),
        (f"{RELAYED}/p2p/{OTHER}", Scope.RELAY),
        (f"/dns4/example.com/tcp/1/p2p/{ONE}/p2p-circuit", Scope.RELAY),
        ("/p2p-circuit", Scope.RELAY),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/80", Scope.LINK_LOCAL),
        ("/ip6zone/eth0", Scope.OTHER),
        ("/tcp/80/ip4/127.0.0.1", Scope.OTHER),
        ("/memory/1", Scope.OTHER),
        ("/unix/run/socket", Scope.OTHER),
        (f"/p2p/{ONE}", Scope.OTHER),
    ],
)
def test_scope_of_other_addresses(text: str, expected: Scope) -> None:
    assert scope(parse(text)) is expected


def test_scope_of_nothing() -> None:
    assert scope(Multiaddr(b"")) is Scope.OTHER


@given(st.ip_addresses())
def test_t9_what_python_does_not_call_global_is_never_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    found = scope(ip_addr(str(ip), 80))
    if found is Scope.PUBLIC and isinstance(ip, ipaddress.IPv4Address):
        assert ip.is_global
    assert (found is Scope.LOOPBACK) == ip.is_loopback or not isinstance(ip, ipaddress.IPv4Address)


GROUPS = [
    ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.255.255/udp/2/quic-v1", f"/ip4/1.2.0.0/p2p/{ONE}", "/ip6/::ffff:1.2.9.9/tcp/1"],
    ["/ip4/1.3.3.4/tcp/1"],
    ["/ip6/2a00:1:2:3400::1/tcp/1", "/ip6/2a00:1:2:34ff::/tcp/1"],
    ["/ip6/2a00:1:2:3500::1/tcp/1"],
    ["/dns4/Example.com/tcp/1", "/dns/example.COM/tcp/2"],
    ["/memory/1", f"/p2p/{ONE}", "/p2p-circuit"],
    [f"/ip4/9.9.9.9/tcp/1/p2p/{ONE}/p2p-circuit/p2p/{OTHER}", "/ip4/9.9.0.1/tcp/1"],
]  # fmt: skip


def test_ip_group() -> None:
    keys = [{ip_group(parse(text)) for text in group} for group in GROUPS]
    assert all(len(key) == 1 for key in keys)
    for one, other in itertools.combinations(keys, 2):
        assert one != other
    assert ip_group(parse("/memory/1")) == b""


def test_ip_group_of_chosen_width() -> None:
    one, other = parse("/ip4/1.2.3.4/tcp/1"), parse("/ip4/1.2.4.4/tcp/1")
    assert ip_group(one, ip4_bits=24) != ip_group(other, ip4_bits=24)
    assert ip_group(one, ip4_bits=0) == ip_group(parse("/ip4/255.2.4.4/tcp/1"), ip4_bits=0)
    assert ip_group(one, ip4_bits=32) == b"4\x01\x02\x03\x04"
    assert ip_group(parse("/ip6/2a00::1/tcp/1"), ip6_bits=48) == ip_group(parse("/ip6/2a00:0:0:1::/tcp/1"), ip6_bits=48)


# --- caches and fuzz --------------------------------------------------------------------------------------------------


def test_caches_are_bounded() -> None:
    cached = [value for value in vars(addressing).values() if hasattr(value, "cache_info")]
    assert len(cached) >= 5
    assert all(value.cache_info().maxsize == addressing._CACHED for value in cached)


peer_values = st.binary(min_size=32, max_size=32).map(lambda digest: multihash.sha2_256(digest))
part = st.one_of(
    st.binary(min_size=4, max_size=4).map(lambda value: Part("ip4", value)),
    st.binary(min_size=16, max_size=16).map(lambda value: Part("ip6", value)),
    st.binary(min_size=2, max_size=2).map(lambda value: Part("tcp", value)),
    st.binary(min_size=2, max_size=2).map(lambda value: Part("udp", value)),
    peer_values.map(lambda value: Part("p2p", value)),
    st.text("abc_-.XYZü", min_size=1, max_size=20).map(lambda value: Part("dns4", value.encode())),
    st.sampled_from(["ws", "wss", "tls", "quic-v1", "p2p-circuit", "webtransport"]).map(Part),
)


@given(st.lists(part, min_size=1, max_size=8).map(tuple))
def test_every_function_answers_for_every_address(found: tuple[Part, ...]) -> None:
    addr = from_parts(found)
    assert parts(addr) == found
    assert parse(str(addr)) == parse(addr.to_bytes()) == addr
    rest, peer = split_peer(addr)
    if peer is None or split_peer(rest)[1] is None:
        assert (rest if peer is None else with_peer(rest, peer)) == addr
    assert scope(addr) in Scope
    assert is_relay(addr) == (Part("p2p-circuit") in found)
    assert isinstance(ip_group(addr), bytes)
    assert Part("wss") not in parts(canonical_ws(addr))
    assert canonical_ws(canonical_ws(addr)) == canonical_ws(addr)
    if (pair := host_port(addr)) is not None:
        assert parse(f"/{found[0].name}/{pair[0]}/{found[1].name}/{pair[1]}") == from_parts(found[:2])


@settings(max_examples=300)
@given(st.binary(max_size=80) | st.text(max_size=80) | st.text("/ip4tcpdns16.:%", max_size=40))
def test_a11_anything_gives_an_address_or_the_typed_error(data: bytes | str) -> None:
    try:
        addr = parse(data)
    except DecodeError:
        return
    assert parse(str(addr)) == addr
    assert scope(addr) in Scope
    host_port(addr)
    ip_group(addr)
    split_peer(addr)
