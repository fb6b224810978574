"""Names in addresses: SPEC A6 to A8, case T9."""

from __future__ import annotations

import importlib
import socket
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import trio

from libp2p.addressing import parse
from libp2p.errors import ResolveError
from libp2p.transports.dns import DnsConfig, DnsResolver

P1 = "QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN"
P2 = "QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa"


class Zone:
    """A pretend DNS that remembers what it was asked."""

    def __init__(
        self, ips: Mapping[str, Sequence[str]] | None = None, txt: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.ips = ips or {}
        self.txt = txt or {}
        self.asked: list[str] = []
        self.slow: dict[str, float] = {}

    async def lookup_ip(self, host: str, version: int) -> Sequence[str]:
        self.asked.append(f"ip{version} {host}")
        await trio.sleep(self.slow.get(host, 0.1))
        if host not in self.ips:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [ip for ip in self.ips[host] if (":" in ip) == (version == 6) or ip == "junk"]

    async def lookup_txt(self, name: str) -> Sequence[str]:
        self.asked.append(f"txt {name}")
        await trio.sleep(self.slow.get(name, 0.1))
        if name not in self.txt:
            raise OSError("no such name")
        return self.txt[name]

    async def resolve(self, addr: str, config: DnsConfig | None = None) -> list[str]:
        resolver = DnsResolver(config, lookup_ip=self.lookup_ip, lookup_txt=self.lookup_txt)
        return [str(found) for found in await resolver.resolve(parse(addr))]


BOTH = {"example.com": ["1.2.3.4", "2600::1", "1.2.3.5"]}


@pytest.mark.parametrize(
    ("addr", "expected"),
    [
        ("/dns/example.com/tcp/1", ["/ip6/2600::1/tcp/1", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.5/tcp/1"]),
        ("/dns4/example.com/tcp/1", ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.5/tcp/1"]),
        ("/dns6/example.com/tcp/1", ["/ip6/2600::1/tcp/1"]),
        (
            f"/dns6/example.com/udp/1/quic-v1/p2p/{P1}/p2p-circuit/p2p/{P2}",
            [f"/ip6/2600::1/udp/1/quic-v1/p2p/{P1}/p2p-circuit/p2p/{P2}"],
        ),
        ("/dns6/example.com/tcp/443/tls/sni/example.com/ws", ["/ip6/2600::1/tcp/443/tls/sni/example.com/ws"]),
    ],
)
async def test_only_the_name_is_replaced_and_ipv6_comes_first(addr: str, expected: list[str]) -> None:
    """A6."""
    assert await Zone(BOTH).resolve(addr) == expected


async def test_dns4_and_dns6_ask_only_for_their_kind_and_dns_for_both_at_once() -> None:
    """A6."""
    zone = Zone(BOTH)
    await zone.resolve("/dns4/example.com/tcp/1")
    assert zone.asked == ["ip4 example.com"]
    began = trio.current_time()
    await zone.resolve("/dns/example.com/tcp/1")
    assert trio.current_time() - began == pytest.approx(0.1)


async def test_one_family_is_enough() -> None:
    assert await Zone({"example.com": ["1.2.3.4", "junk"]}).resolve("/dns/example.com/tcp/1") == ["/ip4/1.2.3.4/tcp/1"]


async def test_answers_of_the_wrong_kind_are_left_out() -> None:
    async def confused(host: str, version: int) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return ["1.2.3.4", "2600::1", "nonsense", "2600::1"]

    found = await DnsResolver(lookup_ip=confused).resolve(parse("/dns/example.com/tcp/1"))
    assert [str(addr) for addr in found] == ["/ip6/2600::1/tcp/1", "/ip4/1.2.3.4/tcp/1"]


async def test_addresses_without_names_come_back_as_they_are() -> None:
    zone = Zone()
    for text in ["/ip4/1.2.3.4/tcp/1", "/memory/1", f"/p2p/{P1}/p2p-circuit"]:
        with trio.testing.assert_checkpoints():
            assert await zone.resolve(text) == [text]
    assert zone.asked == []


# --- dnsaddr ----------------------------------------------------------------------------------------------------------


async def test_dnsaddr_keeps_only_the_asked_peer_and_skips_junk() -> None:
    """A7: stub with 3 TXT entries, one junk, one other peer."""
    zone = Zone(
        txt={
            "_dnsaddr.example.com": [
                f"dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/{P1}",
                f"dnsaddr=/ip4/5.6.7.8/tcp/1/p2p/{P2}",
                "v=spf1 -all",
                "dnsaddr=/nonsense",
                "dnsaddr=",
                f"DNSADDR=/ip4/9.9.9.9/tcp/1/p2p/{P1}",
            ]
        }
    )
    assert await zone.resolve(f"/dnsaddr/example.com/p2p/{P1}") == [f"/ip4/1.2.3.4/tcp/1/p2p/{P1}"]
    assert await zone.resolve("/dnsaddr/example.com") == [
        f"/ip4/1.2.3.4/tcp/1/p2p/{P1}",
        f"/ip4/5.6.7.8/tcp/1/p2p/{P2}",
    ]
    with pytest.raises(ResolveError, match=r"_dnsaddr\.example\.com"):
        await zone.resolve("/dnsaddr/example.com/p2p/12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5mV")


async def test_dnsaddr_may_lead_to_names_and_further_dnsaddr() -> None:
    """A8, as the public bootstrap nodes do it."""
    zone = Zone(
        ips={"sv15.example.com": ["1.2.3.4"]},
        txt={
            "_dnsaddr.example.com": [
                f"dnsaddr=/dnsaddr/sv15.example.com/p2p/{P1}",
                f"dnsaddr=/dnsaddr/ny5.example.com/p2p/{P2}",
            ],
            "_dnsaddr.sv15.example.com": [
                f"dnsaddr=/dns4/sv15.example.com/tcp/443/wss/p2p/{P1}",
                f"dnsaddr=/ip6/2600::1/tcp/4001/p2p/{P1}",
            ],
        },
    )
    assert await zone.resolve(f"/dnsaddr/example.com/p2p/{P1}") == [
        f"/ip4/1.2.3.4/tcp/443/tls/sni/sv15.example.com/ws/p2p/{P1}",
        f"/ip6/2600::1/tcp/4001/p2p/{P1}",
    ]
    assert "txt _dnsaddr.ny5.example.com" not in zone.asked


async def test_dnsaddr_of_a_relay_keeps_the_way_behind_it() -> None:
    zone = Zone(
        txt={"_dnsaddr.relay": [f"dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/{P1}", f"dnsaddr=/ip4/5.5.5.5/tcp/1/p2p/{P2}"]}
    )
    assert await zone.resolve(f"/dnsaddr/relay/p2p/{P1}/p2p-circuit/p2p/{P2}") == [
        f"/ip4/1.2.3.4/tcp/1/p2p/{P1}/p2p-circuit/p2p/{P2}"
    ]


@pytest.mark.bar_c
@pytest.mark.parametrize(
    "records",
    [
        {"_dnsaddr.a": ["dnsaddr=/dnsaddr/a"]},
        {"_dnsaddr.a": ["dnsaddr=/dnsaddr/b"], "_dnsaddr.b": ["dnsaddr=/dnsaddr/a"]},
        {"_dnsaddr.a": ["dnsaddr=/dnsaddr/A", "dnsaddr=/dnsaddr/a/p2p/" + P1] * 8},
    ],
    ids=["itself", "two", "sixteen"],
)
async def test_loops_end_with_an_error(records: dict[str, Sequence[str]]) -> None:
    """A8, T9: a loop in TXT records ends with an error, and costs one look-up per name."""
    zone = Zone(txt=records)
    with pytest.raises(ResolveError):
        await zone.resolve("/dnsaddr/a")
    assert len(zone.asked) == len(set(zone.asked)) <= 2


@pytest.mark.bar_c
@pytest.mark.parametrize(("levels", "works"), [(4, True), (5, False), (40, False)])
async def test_depth_is_bounded(levels: int, works: bool) -> None:
    """A8 (go: 4), T9: depth 40."""
    records = {f"_dnsaddr.n{level}": [f"dnsaddr=/dnsaddr/n{level + 1}"] for level in range(1, levels)}
    records[f"_dnsaddr.n{levels}"] = ["dnsaddr=/ip4/1.2.3.4/tcp/1"]
    zone = Zone(txt=dict(records))
    if works:
        assert await zone.resolve("/dnsaddr/n1") == ["/ip4/1.2.3.4/tcp/1"]
    else:
        with pytest.raises(ResolveError, match="deeper than 4"):
            await zone.resolve("/dnsaddr/n1")
        assert len(zone.asked) == 4


async def test_a_branch_that_is_too_deep_costs_only_itself() -> None:
    zone = Zone(txt={"_dnsaddr.a": ["dnsaddr=/dnsaddr/a", "dnsaddr=/ip4/1.2.3.4/tcp/1", "dnsaddr=/dnsaddr/gone"]})
    assert await zone.resolve("/dnsaddr/a") == ["/ip4/1.2.3.4/tcp/1"]


@pytest.mark.bar_c
async def test_fan_out_is_bounded() -> None:
    """T9: fan-out 1,000; at most 16 records per name, 100 results, 32 look-ups."""
    wide = Zone(txt={"_dnsaddr.a": [f"dnsaddr=/ip4/1.2.3.4/tcp/{port}" for port in range(1, 1001)]})
    assert len(await wide.resolve("/dnsaddr/a")) == 16
    addresses = [f"1.2.{number // 250}.{number % 250}" for number in range(1000)]
    many = Zone(ips={"a": [*addresses, *(f"2600::{number:x}" for number in range(1000))]})
    assert len(await many.resolve("/dns4/a/tcp/1")) == 100
    assert len(await many.resolve("/dns/a/tcp/1")) == 100
    tree = Zone(
        txt={
            "_dnsaddr.a": [f"dnsaddr=/dnsaddr/a{number}" for number in range(16)],
            **{
                f"_dnsaddr.a{number}": [f"dnsaddr=/dns4/h{number}.{host}/tcp/1" for host in range(16)]
                for number in range(16)
            },
        },
        ips={f"h{number}.{host}": addresses for number in range(16) for host in range(16)},
    )
    found = await tree.resolve("/dnsaddr/a")
    assert len(found) == 100
    assert len(tree.asked) <= 32
    barren = Zone(txt={name: value for name, value in tree.txt.items() if name != "x"})
    with pytest.raises(ResolveError):
        await barren.resolve("/dnsaddr/a")
    assert len(barren.asked) <= 32


# --- failures and time ------------------------------------------------------------------------------------------------


async def test_unknown_name_is_an_error_that_says_so() -> None:
    addr = parse("/dns4/nowhere.example/tcp/1")
    zone = Zone()
    with pytest.raises(ResolveError, match=r"nowhere\.example: .*no such name") as caught:
        await DnsResolver(lookup_ip=zone.lookup_ip).resolve(addr)
    assert caught.value.addr == addr


async def test_name_that_cannot_be_asked_for_is_an_error() -> None:
    async def strict(host: str, version: int) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return [host.encode("idna").decode()]

    with pytest.raises(ResolveError):
        await DnsResolver(lookup_ip=strict).resolve(parse(f"/dns4/{'x' * 80}.com/tcp/1"))


async def test_one_deadline_for_everything() -> None:
    """One absolute deadline: answers that arrive one by one must not extend it."""
    records = {f"_dnsaddr.n{level}": [f"dnsaddr=/dnsaddr/n{level + 1}"] for level in range(1, 4)}
    zone = Zone(txt=dict(records))
    zone.slow = dict.fromkeys(records, 4.0)
    began = trio.current_time()
    with pytest.raises(ResolveError, match="10 s"):
        await zone.resolve("/dnsaddr/n1")
    assert trio.current_time() - began == pytest.approx(10)


async def test_what_arrived_before_the_deadline_counts() -> None:
    zone = Zone(
        ips={"slow": ["1.1.1.1"], "quick": ["2.2.2.2"]},
        txt={"_dnsaddr.a": ["dnsaddr=/dns4/slow/tcp/1", "dnsaddr=/dns4/quick/tcp/1"]},
    )
    zone.slow = {"slow": 99.0}
    began = trio.current_time()
    assert await zone.resolve("/dnsaddr/a", DnsConfig(timeout=2)) == ["/ip4/2.2.2.2/tcp/1"]
    assert trio.current_time() - began == pytest.approx(2)


async def test_same_name_is_asked_once_and_waited_for_by_all() -> None:
    zone = Zone(
        ips={"h": ["1.1.1.1"]},
        txt={"_dnsaddr.a": [f"dnsaddr=/dns4/h/tcp/{port}" for port in range(1, 9)]},
    )
    assert len(await zone.resolve("/dnsaddr/a")) == 8
    assert zone.asked == ["txt _dnsaddr.a", "ip4 h"]


async def test_cancelled_resolution_is_cancelled() -> None:
    zone = Zone(BOTH)
    zone.slow = {"example.com": 5.0}
    with trio.move_on_after(1) as scope:
        await zone.resolve("/dns/example.com/tcp/1")
    assert scope.cancelled_caught


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"max_depth": 0}, {"max_results": 0}, {"max_lookups": 0}])
def test_config_is_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        DnsConfig(**wrong)


# --- the default look-ups ---------------------------------------------------------------------------------------------


@pytest.mark.sockets
async def test_system_resolver_knows_localhost() -> None:
    found = await DnsResolver().resolve(parse("/dns4/localhost/tcp/1"))
    assert [str(addr) for addr in found] == ["/ip4/127.0.0.1/tcp/1"]


class _DnsException(Exception):
    pass


@pytest.mark.real_clock("modules are loaded in a thread")
async def test_dnspython_gives_the_texts_and_its_errors_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, float]] = []

    async def resolve(name: str, kind: str, *, lifetime: float) -> list[Any]:
        asked.append((name, kind, lifetime))
        await trio.lowlevel.checkpoint()
        if name != "_dnsaddr.example.com":
            raise _DnsException("NXDOMAIN")
        return [types.SimpleNamespace(strings=(b"dnsaddr=/ip4/1.2.3.4/", b"tcp/1"))]

    modules = {
        "dns.asyncresolver": types.SimpleNamespace(resolve=resolve),
        "dns.exception": types.SimpleNamespace(DNSException=_DnsException),
    }
    monkeypatch.setattr(importlib, "import_module", lambda name: modules[name])
    resolver = DnsResolver(DnsConfig(timeout=7))
    assert [str(addr) for addr in await resolver.resolve(parse("/dnsaddr/example.com"))] == ["/ip4/1.2.3.4/tcp/1"]
    assert asked == [("_dnsaddr.example.com", "TXT", 7)]
    with pytest.raises(ResolveError, match="NXDOMAIN"):
        await resolver.resolve(parse("/dnsaddr/example.org"))


def test_dnspython_is_loaded_only_when_needed() -> None:
    code = "import sys; import libp2p.transports.dns; sys.exit(any(name.startswith('dns.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
