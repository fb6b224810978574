"""Limits: case X9, table-driven, and random sequences against a model; cases T1, T2, C6."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from libp2p.errors import LimitExceeded
from libp2p.swarm._limits import (
    IpNetworkLimit,
    LimitsConfig,
    OnFull,
    PendingToken,
    Scopes,
    StreamToken,
    Token,
    limit_table,
)

PING = "/ipfs/ping/1.0.0"


def public_ip(number: int) -> str:
    """An address of its own, in a /16 of its own."""
    return f"{20 + number // 256}.{number % 256}.0.1"


# --- X9: every limit of the table, N and N + 1 ------------------------------------------------------------------------


def _pending(scopes: Scopes, number: int) -> Token:
    return scopes.reserve_pending(public_ip(number), 0.0)


def _inbound(scopes: Scopes, number: int) -> Token:
    return scopes.reserve_connection(f"peer {number}", public_ip(number), inbound=True)


def _outbound(scopes: Scopes, number: int) -> Token:
    return scopes.reserve_connection(f"peer {number}", public_ip(number), inbound=False)


def _one_peer(scopes: Scopes, number: int) -> Token:
    return scopes.reserve_connection("peer", public_ip(number), inbound=bool(number % 2))


def _one_ip(scopes: Scopes, number: int) -> Token:
    return scopes.reserve_connection(f"peer {number}", "9.9.9.9", inbound=True)


def _one_56(scopes: Scopes, number: int) -> Token:
    return scopes.reserve_connection(f"peer {number}", f"2600:1:2:1{number % 256:02x}::1", inbound=True)


def _one_48(scopes: Scopes, number: int) -> Token:
    return scopes.reserve_connection(f"peer {number}", f"2600:1:2:{number % 256:02x}00::1", inbound=True)


def _stream(scopes: Scopes, number: int, *, inbound: bool, conn: str, peer: str, protocol: str | None = None) -> Token:
    return scopes.reserve_stream(
        conn.format(number), peer.format(number), inbound=inbound, protocol=protocol and protocol.format(number)
    )


def _rate(address: str) -> Callable[[Scopes, int], Token]:
    def reserve(scopes: Scopes, number: int) -> Token:
        token = scopes.reserve_pending(address.format(number), 0.0)
        token.release()  # the rate is what counts, not how many are open
        return token

    return reserve


Reserve = Callable[[Scopes, int], Token]

DRIVERS: dict[str, Reserve] = {
    "connections": _outbound,
    "connections_inbound": _inbound,
    "connections_per_peer": _one_peer,
    "connections_per_ip": _one_ip,
    "connections_per_ip6_56": _one_56,
    "connections_per_ip6_48": _one_48,
    "pending_inbound": _pending,
    "dials": lambda scopes, number: scopes.reserve_dial(f"peer {number}"),
    "dials_per_peer": lambda scopes, _: scopes.reserve_dial("peer"),
    "dial_queue": lambda scopes, _: scopes.reserve_queued_dial(),
    "streams_inbound": lambda scopes, number: _stream(scopes, number, inbound=True, conn="c{}", peer="p{}"),
    "streams_inbound_per_connection": lambda scopes, number: _stream(scopes, number, inbound=True, conn="c", peer="p"),
    "streams_outbound_per_connection": lambda scopes, number: _stream(
        scopes, number, inbound=False, conn="c", peer="p"
    ),
    "streams_inbound_per_protocol": lambda scopes, number: _stream(
        scopes, number, inbound=True, conn="c{}", peer="p", protocol="/chat/1"
    ),
    "streams_outbound_per_protocol": lambda scopes, number: _stream(
        scopes, number, inbound=False, conn="c{}", peer="p", protocol="/chat/1"
    ),
}
RATES: dict[str, tuple[str, str]] = {
    # The burst's name, an address, and the rate's name, which the refusal gives.
    "connection_burst_per_ip": ("9.9.9.9", "connection_rate_per_ip"),
    "connection_burst_per_ip6_48": ("2600:1:2:{:02x}00::1", "connection_rate_per_ip6_48"),
}
TABLE = limit_table(LimitsConfig())
COUNTED = [row for row in TABLE if row.counted]


@pytest.mark.bar_c
@pytest.mark.parametrize("row", COUNTED, ids=lambda row: row.name)
def test_n_passes_and_n_plus_1_is_refused_by_name(row: object) -> None:
    """X9, C6: every limit is reachable, and trips."""
    name, value = row.name, int(row.value)  # type: ignore[attr-defined]
    scopes = Scopes(LimitsConfig())
    tokens = [DRIVERS[name](scopes, number) for number in range(value)]
    assert scopes.usage()[name] == value
    with pytest.raises(LimitExceeded) as caught:
        DRIVERS[name](scopes, value)
    assert (caught.value.scope, caught.value.limit) == (name, value)
    assert name in str(caught.value)
    assert scopes.refusals()[name] == 1
    tokens.pop().release()
    tokens.append(DRIVERS[name](scopes, value))  # room again
    for token in tokens:
        token.release()
        token.release()
    assert not any(scopes.usage().values()), "something was not given back"
    assert not any(scopes._tables.values()), "an entry of somebody who has gone"


@pytest.mark.bar_c
@pytest.mark.parametrize("name", list(RATES))
def test_burst_passes_and_then_the_rate_refuses(name: str) -> None:
    """X9, T2: 0.2/s burst 16 per address, 0.5/s burst 80 per /48."""
    address, rate_name = RATES[name]
    config = LimitsConfig()
    burst, rate = getattr(config, name), getattr(config, rate_name)
    scopes = Scopes(config)
    reserve = _rate(address)
    for number in range(burst):
        reserve(scopes, number)
    with pytest.raises(LimitExceeded) as caught:
        reserve(scopes, burst)
    assert (caught.value.scope, caught.value.limit) == (rate_name, rate)
    later = 1 / rate
    probe = address.format(burst)
    with pytest.raises(LimitExceeded):
        scopes.reserve_pending(probe, later - 0.01)
    scopes.reserve_pending(probe, later + 0.01).release()
    with pytest.raises(LimitExceeded):
        scopes.reserve_pending(probe, later + 0.02)


def test_table_has_a_test_a_policy_and_a_source_for_every_limit() -> None:
    """X9: no limit without a test; no queue without a policy."""
    tested_elsewhere = {"rate_entries", "dial_addresses_per_peer"}  # below; in test_dial_plan
    rates = {name for pair in RATES.items() for name in (pair[0], pair[1][1])}
    assert {row.name for row in TABLE} == DRIVERS.keys() | rates | tested_elsewhere
    assert {row.name for row in COUNTED} == DRIVERS.keys()
    for row in TABLE:
        assert isinstance(row.on_full, OnFull)
        assert row.source
    assert {row.name: row.value for row in TABLE}["connections_per_peer"] == 8


def test_table_shows_the_values_in_force() -> None:
    config = LimitsConfig(dials=3)
    assert {row.name: row.value for row in limit_table(config)}["dials"] == 3
    assert Scopes(config).config.dials == 3


# --- connections ------------------------------------------------------------------------------------------------------


def test_connection_takes_over_what_the_pending_token_held() -> None:
    scopes = Scopes()
    pending = scopes.reserve_pending("9.9.9.9", 0)
    assert scopes.usage()["pending_inbound"] == 1
    assert scopes.usage()["connections_per_ip"] == 1
    token = scopes.reserve_connection("peer", "9.9.9.9", inbound=True, pending=pending)
    usage = scopes.usage()
    assert usage["pending_inbound"] == 0
    assert usage["connections"] == usage["connections_inbound"] == usage["connections_per_ip"] == 1
    assert usage["connections_per_peer"] == 1
    assert pending.released
    pending.release()
    assert scopes.usage()["connections_per_ip"] == 1
    token.release()
    assert not any(scopes.usage().values())


def test_refused_connection_leaves_the_pending_token_alone() -> None:
    scopes = Scopes(LimitsConfig(connections_per_peer=0))
    pending = scopes.reserve_pending("9.9.9.9", 0)
    with pytest.raises(LimitExceeded):
        scopes.reserve_connection("peer", "9.9.9.9", inbound=True, pending=pending)
    assert scopes.usage()["pending_inbound"] == 1
    pending.release()
    assert not any(scopes.usage().values())


def test_connection_whose_pending_token_was_evicted_is_charged_in_full() -> None:
    scopes = Scopes()
    pending = scopes.reserve_pending("9.9.9.9", 0)
    assert scopes.evict_pending(1) is pending
    with scopes.reserve_connection("peer", "9.9.9.9", inbound=True, pending=pending):
        assert scopes.usage()["connections_inbound"] == 1
        assert scopes.usage()["connections_per_ip"] == 1
    assert not any(scopes.usage().values())


def test_many_counters_are_taken_together_or_not_at_all() -> None:
    scopes = Scopes(LimitsConfig(pending_inbound=0))
    with pytest.raises(LimitExceeded):
        scopes.reserve_pending("2600::1", 0)
    assert not any(scopes.usage().values())


def test_a_flood_cannot_take_the_room_for_our_own_dials() -> None:
    scopes = Scopes()
    for number in itertools.count():
        try:
            _inbound(scopes, number)
        except LimitExceeded:
            break
    assert scopes.config.connections - scopes.usage()["connections"] == 256
    _outbound(scopes, 5_000)


def test_outbound_connections_are_not_counted_per_address() -> None:
    scopes = Scopes()
    for number in range(20):
        scopes.reserve_connection(f"peer {number}", "9.9.9.9", inbound=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_exempt_unless_configured_otherwise(address: str) -> None:
    scopes = Scopes()
    for number in range(40):
        scopes.reserve_pending(address, 0)
        scopes.reserve_connection(f"peer {number}", address, inbound=True)
    strict = Scopes(LimitsConfig(exempt_loopback=False))
    with pytest.raises(LimitExceeded):
        for _ in range(40):
            strict.reserve_pending(address, 0)


def test_connections_without_an_address_are_counted_in_all_only() -> None:
    scopes = Scopes()
    for _ in range(20):
        scopes.reserve_pending(None, 0)
        scopes.reserve_pending("no address", 0)
    assert scopes.usage()["connections_inbound"] == 40
    assert scopes.usage()["connections_per_ip"] == 0


def test_ipv4_inside_ipv6_is_ipv4() -> None:
    """A dual-stack listener must not put the whole of IPv4 into one /56."""
    scopes = Scopes()
    for number in range(20):
        scopes.reserve_pending(f"::ffff:{public_ip(number)}", 0)
    assert scopes.usage()["connections_per_ip"] == 1
    assert scopes.usage()["connections_per_ip6_56"] == 0


def test_zone_of_a_link_local_address_is_ignored() -> None:
    scopes = Scopes()
    scopes.reserve_pending("fe80::1%eth0", 0)
    scopes.reserve_pending("fe80::1%eth1", 0)
    assert scopes.usage()["connections_per_ip6_56"] == 2


def test_hopping_inside_a_56_does_not_help() -> None:
    """T2: IPv6 hopping inside /56 and /48."""
    scopes = Scopes()
    opened = 0
    for number in range(200):
        try:
            scopes.reserve_pending(f"2600:1:2:34{number:02x}::{number}", 0)
            opened += 1
        except LimitExceeded:
            pass
    assert opened == 8
    for number in range(200):
        try:
            scopes.reserve_pending(f"2600:1:2:{number:02x}00::1", 0)
            opened += 1
        except LimitExceeded as exc:
            last = exc
    assert opened == 64
    assert last.scope in ("connections_per_ip6_48", "pending_inbound")


@pytest.mark.bar_c
def test_one_address_gets_few_connections_and_few_handshakes() -> None:
    """T2: 1,000/s for 10 s from one address: at most 8 open, 18 let through."""
    scopes = Scopes()
    held: list[Token] = []
    through = 0
    for step in range(10_000):
        now = step / 1000
        try:
            token = scopes.reserve_pending("9.9.9.9", now)
        except LimitExceeded:
            continue
        through += 1
        if len(held) < 7:
            held.append(token)
        else:
            token.release()
        assert scopes.usage()["connections_per_ip"] <= 8
    assert through <= 18


def test_a_refusal_for_another_reason_does_not_use_up_the_rate() -> None:
    scopes = Scopes(LimitsConfig(connections_per_ip=1))
    token = scopes.reserve_pending("9.9.9.9", 0)
    for _ in range(100):
        with pytest.raises(LimitExceeded, match="connections_per_ip"):
            scopes.reserve_pending("9.9.9.9", 0)
    token.release()
    scopes.reserve_pending("9.9.9.9", 0)


def test_rate_survives_a_clock_that_does_not_move() -> None:
    scopes = Scopes()
    for _ in range(16):
        scopes.reserve_pending("9.9.9.9", 5).release()
    with pytest.raises(LimitExceeded):
        scopes.reserve_pending("9.9.9.9", 4)


def test_rate_table_is_bounded() -> None:
    scopes = Scopes(LimitsConfig(rate_entries=10))
    for number in range(1000):
        scopes.reserve_pending(public_ip(number), 0).release()
    assert len(scopes._rates) == 10


def test_a_network_may_have_its_own_limits() -> None:
    """X10: 50 peers behind one NAT address, with the prefix option."""
    nat = IpNetworkLimit(network="9.9.9.9/32", connections=50, rate=10, burst=50)
    wide = IpNetworkLimit(network="9.0.0.0/8", connections=3, rate=10, burst=50)
    six = IpNetworkLimit(network="2600::/32", connections=30, rate=10, burst=50)
    scopes = Scopes(LimitsConfig(networks=(wide, nat, six)))
    for number in range(50):
        pending = scopes.reserve_pending("9.9.9.9", 0)
        scopes.reserve_connection(f"peer {number}", "9.9.9.9", inbound=True, pending=pending)
    with pytest.raises(LimitExceeded, match="connections_per_ip = 50"):
        scopes.reserve_pending("9.9.9.9", 0)
    for number in range(3):
        scopes.reserve_pending(f"9.1.1.{number}", 0)
    with pytest.raises(LimitExceeded, match="connections_per_ip = 3"):
        scopes.reserve_pending("9.2.2.2", 0)
    for number in range(30):
        scopes.reserve_pending(f"2600::{number}", 0)
    fast = Scopes(LimitsConfig(networks=(replace(nat, burst=2),)))
    fast.reserve_pending("9.9.9.9", 0)
    fast.reserve_pending("9.9.9.9", 0)
    with pytest.raises(LimitExceeded, match="connection_rate_per_ip = 10"):
        fast.reserve_pending("9.9.9.9", 0)


# --- eviction of pending connections ----------------------------------------------------------------------------------


def test_evicts_the_oldest_that_made_the_least_progress() -> None:
    """T1: the oldest without progress makes room for an honest newcomer."""
    scopes = Scopes()
    tokens = [scopes.reserve_pending(public_ip(number), number / 100) for number in range(4)]
    tokens[0].stage = 2
    tokens[1].stage = 1
    assert scopes.evict_pending(5) is tokens[2]
    assert tokens[2].released
    assert scopes.evict_pending(5) is tokens[3]
    assert scopes.evict_pending(5) is tokens[1]
    assert scopes.evict_pending(5) is tokens[0]
    assert scopes.evict_pending(5) is None
    assert scopes.refusals()["pending_inbound"] == 4
    assert not any(scopes.usage().values())


def test_young_and_finished_ones_are_not_evicted() -> None:
    scopes = Scopes()
    token = scopes.reserve_pending(public_ip(1), 10)
    assert scopes.evict_pending(10.05) is None
    assert scopes.evict_pending(10.05, min_age=0) is token
    done = scopes.reserve_pending(public_ip(2), 10)
    scopes.reserve_connection("peer", public_ip(2), inbound=True, pending=done)
    failed = scopes.reserve_pending(public_ip(3), 10)
    failed.release()
    assert scopes.evict_pending(99) is None


def test_the_list_of_pending_connections_does_not_grow() -> None:
    scopes = Scopes()
    for number in range(500):
        scopes.reserve_pending(public_ip(number), 0).release()
    assert len(scopes._pending) <= 1


# --- streams ----------------------------------------------------------------------------------------------------------


def test_protocol_is_charged_when_it_is_known() -> None:
    scopes = Scopes()
    tokens = [scopes.reserve_stream("conn", "peer", inbound=True) for _ in range(3)]
    scopes.assign_protocol(tokens[0], PING)
    scopes.assign_protocol(tokens[1], PING)
    scopes.assign_protocol(tokens[1], "/other")  # only once
    assert scopes.usage()["streams_inbound_per_protocol"] == 2
    with pytest.raises(LimitExceeded) as caught:
        scopes.assign_protocol(tokens[2], PING)
    assert (caught.value.scope, caught.value.limit) == ("streams_inbound_per_protocol", 2)
    tokens[0].release()
    scopes.assign_protocol(tokens[0], PING)  # too late, and harmless
    scopes.assign_protocol(tokens[2], PING)
    for token in tokens:
        token.release()
    assert not any(scopes.usage().values())


def test_a_protocol_limit_is_per_peer_over_all_its_connections() -> None:
    """I5: a third ping stream of a peer is refused."""
    scopes = Scopes()
    scopes.reserve_stream("conn 1", "peer", inbound=True, protocol=PING)
    scopes.reserve_stream("conn 2", "peer", inbound=True, protocol=PING)
    with pytest.raises(LimitExceeded):
        scopes.reserve_stream("conn 3", "peer", inbound=True, protocol=PING)
    scopes.reserve_stream("conn 4", "another", inbound=True, protocol=PING)
    scopes.reserve_stream("conn 1", "peer", inbound=False, protocol=PING)
    assert scopes.usage()["streams_inbound"] == 3


def test_dials_of_addresses_without_a_peer_are_not_counted_as_one_peers() -> None:
    scopes = Scopes()
    for _ in range(160):
        scopes.reserve_dial(None)
    with pytest.raises(LimitExceeded, match="dials = 160"):
        scopes.reserve_dial(None)


# --- configuration ----------------------------------------------------------------------------------------------------


def test_limits_are_lowered_to_what_the_machine_carries_and_never_raised() -> None:
    config = LimitsConfig()
    assert config.fitted() == config
    assert config.fitted(memory=64 << 30, file_descriptors=1_000_000) == config
    usual = config.fitted(file_descriptors=1024)
    assert (usual.connections, usual.connections_inbound, usual.dials) == (512, 409, 160)
    small = config.fitted(memory=128 << 20, file_descriptors=256)
    assert (small.connections, small.connections_inbound, small.dials) == (128, 102, 64)
    tiny = config.fitted(memory=1, file_descriptors=1)
    assert tiny.connections == 8
    assert tiny.dials == 8


@pytest.mark.parametrize(
    "wrong",
    [{"dials": -1}, {"connections": 10, "connections_inbound": 11}, {"rate_entries": 0}],
)
def test_config_is_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        LimitsConfig(**wrong)  # type: ignore[arg-type]


def test_network_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        IpNetworkLimit(network="nonsense", connections=1, rate=1, burst=1)
    with pytest.raises(ValueError, match="negative"):
        IpNetworkLimit(network="9.0.0.0/8", connections=-1, rate=1, burst=1)


# --- random sequences -------------------------------------------------------------------------------------------------

SMALL = LimitsConfig(
    connections=12,
    connections_inbound=8,
    connections_per_peer=3,
    connections_per_ip=4,
    connections_per_ip6_56=2,
    connections_per_ip6_48=3,
    connection_burst_per_ip=1000,
    connection_burst_per_ip6_48=1000,
    pending_inbound=4,
    dials=5,
    dials_per_peer=2,
    dial_queue=3,
    streams_inbound=12,
    streams_inbound_per_connection=6,
    streams_outbound_per_connection=5,
    streams_inbound_per_protocol=4,
    streams_outbound_per_protocol=3,
)
IPS = ["9.9.9.9", "8.8.8.8", "2600:1:2:100::1", "2600:1:2:101::1", "2600:1:2:200::1", "127.0.0.1", None]
KEYS = {  # which counters an address has
    "9.9.9.9": ["connections_per_ip"],
    "8.8.8.8": ["connections_per_ip"],
    "2600:1:2:100::1": ["connections_per_ip6_56", "connections_per_ip6_48"],
    "2600:1:2:101::1": ["connections_per_ip6_56", "connections_per_ip6_48"],
    "2600:1:2:200::1": ["connections_per_ip6_56", "connections_per_ip6_48"],
    "127.0.0.1": [],
    None: [],
}


def _ip_charges(ip: str | None) -> list[tuple[str, str]]:
    groups = {"connections_per_ip": ip, "connections_per_ip6_48": "48"}
    groups["connections_per_ip6_56"] = "1" if ip in ("2600:1:2:100::1", "2600:1:2:101::1") else "2"
    return [(name, groups[name] or "") for name in KEYS[ip]]


class Accounts(RuleBasedStateMachine):
    """X9: the sum of scopes is the live objects, whatever is opened, refused, handed over and released."""

    live = Bundle("live")
    pending = Bundle("pending")
    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.scopes = Scopes(SMALL)
        self.model: dict[Token, list[tuple[str, object]]] = {}
        self.limits = {row.name: row.value for row in limit_table(SMALL)}
        self.now = 0.0

    def counts(self) -> Counter[tuple[str, object]]:
        return Counter(charge for charges in self.model.values() for charge in charges)

    def attempt(self, charges: list[tuple[str, object]], reserve: Callable[[], Token]) -> Token | None:
        counts = self.counts()
        full = [name for name, key in charges if counts[name, key] >= self.limits[name]]
        try:
            token = reserve()
        except LimitExceeded as exc:
            assert exc.scope in full
            assert exc.limit == self.limits[exc.scope]
            return None
        assert not full
        self.model[token] = self.model.get(token, []) + charges
        return token

    @rule(target=pending, ip=st.sampled_from(IPS))
    def accept(self, ip: str | None) -> object:
        self.now += 1
        charges: list[tuple[str, object]] = [("connections", None), ("connections_inbound", None)]
        charges += [*_ip_charges(ip), ("pending_inbound", None)]
        token = self.attempt(charges, lambda: self.scopes.reserve_pending(ip, self.now))
        return multiple() if token is None else (token, ip)

    @rule(target=live, given=consumes(pending), peer=st.integers(0, 3))
    def promote(self, given: tuple[PendingToken, str | None], peer: int) -> object:
        token, ip = given
        held = self.model.pop(token)
        if not held:
            return multiple()  # it was evicted
        counts = self.counts()
        try:
            conn = self.scopes.reserve_connection(peer, ip, inbound=True, pending=token)
        except LimitExceeded as exc:
            assert exc.scope == "connections_per_peer"
            assert counts["connections_per_peer", peer] >= SMALL.connections_per_peer
            token.release()
            return multiple()
        self.model[conn] = [charge for charge in held if charge[0] != "pending_inbound"]
        self.model[conn].append(("connections_per_peer", peer))
        return conn

    @rule(given=consumes(pending))
    def fail_upgrade(self, given: tuple[PendingToken, str | None]) -> None:
        given[0].release()
        self.model.pop(given[0])

    @rule()
    def evict(self) -> None:
        self.now += 1
        waiting = [token for token, held in self.model.items() if isinstance(token, PendingToken) and held]
        victim = self.scopes.evict_pending(self.now)
        assert victim is (waiting[0] if waiting else None)
        if victim is not None:
            self.model[victim] = []

    @rule(target=live, peer=st.integers(0, 3))
    def dialled(self, peer: int) -> object:
        charges: list[tuple[str, object]] = [("connections_per_peer", peer), ("connections", None)]
        token = self.attempt(charges, lambda: self.scopes.reserve_connection(peer, "9.9.9.9", inbound=False))
        return multiple() if token is None else token

    @rule(target=live, peer=st.integers(0, 3), kind=st.sampled_from(["dial", "queue"]))
    def other(self, peer: int, kind: str) -> object:
        token = {
            "dial": lambda: self.attempt(
                [("dials", None), ("dials_per_peer", peer)], lambda: self.scopes.reserve_dial(peer)
            ),
            "queue": lambda: self.attempt([("dial_queue", None)], self.scopes.reserve_queued_dial),
        }[kind]()
        return multiple() if token is None else token

    @rule(target=streams, conn=st.integers(0, 1), peer=st.integers(0, 1), inbound=st.booleans())
    def open_stream(self, conn: int, peer: int, inbound: bool) -> object:
        charges: list[tuple[str, object]] = (
            [("streams_inbound", None), ("streams_inbound_per_connection", conn)]
            if inbound
            else [("streams_outbound_per_connection", conn)]
        )
        token = self.attempt(charges, lambda: self.scopes.reserve_stream(conn, peer, inbound=inbound))
        return multiple() if token is None else (token, peer, inbound)

    @rule(target=live, given=consumes(streams), protocol=st.sampled_from(["/a", "/b"]))
    def negotiate(self, given: tuple[StreamToken, int, bool], protocol: str) -> object:
        token, peer, inbound = given
        name = "streams_inbound_per_protocol" if inbound else "streams_outbound_per_protocol"

        def assign() -> Token:
            self.scopes.assign_protocol(token, protocol)
            return token

        self.attempt([(name, (peer, protocol))], assign)
        return token

    @rule(token=consumes(live))
    def release(self, token: Token) -> None:
        token.release()
        assert token.released
        token.release()
        self.model.pop(token)

    @invariant()
    def sums_agree(self) -> None:
        expected = dict.fromkeys(self.scopes.usage(), 0)
        for (name, _), count in self.counts().items():
            expected[name] = max(expected[name], count)
        assert self.scopes.usage() == expected
        for name, used in expected.items():
            assert used <= self.limits[name]

    def teardown(self) -> None:
        for token in self.model:
            token.release()
        assert not any(self.scopes.usage().values())
        assert not any(self.scopes._tables.values())


Accounts.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestAccounts = Accounts.TestCase
