"""Names in addresses: ``/dns``, ``/dns4``, ``/dns6`` through the system's resolver, ``/dnsaddr`` through TXT records.

Theory of operation. The first name of an address is looked up and the address becomes several, each of which may hold
further names. All of that is one *resolution* with one deadline and shared budgets: depth, lookups, results. Within it
no name is looked up twice, so a loop of TXT records costs nothing and ends empty. Junk costs only itself; it is an
error when nothing at all is left, or when all answers were too late.

Only the name gives way, what is around it stays (specification, addressing); a secure WebSocket keeps the name as its
``/sni``, for which the certificate must be. A TXT record, which holds a whole address,
replaces ``/dnsaddr/<name>``; when ``/p2p/<peer>`` follows the name, only records of that peer count (dnsaddr).

What comes out is not fit for dialling as it is: anybody's name may point to anybody's private network. That is the
gater's business, which judges the very addresses returned here.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias

import trio
from multiaddr import Multiaddr

from ..abc import Resolver
from ..addressing import Part, from_parts, parse, parts, with_sni
from ..errors import DecodeError, ResolveError

LookupIp: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Takes a host name and an IP version, 4 or 6; returns IP addresses as text. Raises OSError when there are none."""
LookupTxt: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]
"""Takes a domain name; returns the texts of its TXT records. Raises OSError when there are none."""

_VERSIONS = {"dns": (6, 4), "dns4": (4,), "dns6": (6,)}
"""IPv6 first (specification, addressing)."""
_PREFIX = "dnsaddr="


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsConfig:
    """How far a resolution goes."""

    timeout: float = 10.0
    """Seconds for all lookups of one address together (ours)."""
    max_depth: int = 4
    """``/dnsaddr`` within ``/dnsaddr`` (go ``maxDNSRecursionDepth``; at most 8 by case T9)."""
    max_results: int = 100
    """Addresses returned (go)."""
    max_records: int = 16
    """TXT records used of one name (rust)."""
    max_lookups: int = 32
    """Names looked up (rust)."""

    def __post_init__(self) -> None:
        if self.timeout <= 0 or min(self.max_depth, self.max_results, self.max_records, self.max_lookups) < 1:
            raise ValueError("the limits of a resolution must be positive")


class DnsResolver(Resolver):
    """The resolver of a host.

    Args:
        config: how far a resolution goes.
        lookup_ip: asks for addresses; the system's resolver by default.
        lookup_txt: asks for TXT records; dnspython by default.
    """

    def __init__(
        self,
        config: DnsConfig | None = None,
        *,
        lookup_ip: LookupIp | None = None,
        lookup_txt: LookupTxt | None = None,
    ) -> None:
        self._config = config or DnsConfig()
        self._lookup_ip = lookup_ip or _system_lookup
        self._lookup_txt = lookup_txt or functools.partial(_dnspython_lookup, timeout=self._config.timeout)

    async def resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        """Replace names in ``addr``; an address without any comes back as it is.

        Raises:
            ResolveError: nothing was found in time and within the limits.
        """
        if _find_name(parts(addr)) is None:
            await trio.lowlevel.checkpoint()
            return (addr,)
        resolution = _Resolution(self._config, self._lookup_ip, self._lookup_txt)
        with trio.move_on_after(self._config.timeout) as scope:
            await resolution.expand(parts(addr), 0, resolution.root)
        if scope.cancelled_caught:
            resolution.problems.insert(0, f"no answer within {self._config.timeout:g} s")
        found = list(dict.fromkeys(resolution.root.addresses()))[: self._config.max_results]
        if not found:
            problems = list(dict.fromkeys(resolution.problems))[:3] or ["the names lead in a circle"]
            raise ResolveError(addr, "; ".join(problems))
        return found


class _Found:
    """What became of one address: itself, or what its name led to, in the order of the answer."""

    __slots__ = ("addr", "children")

    def __init__(self) -> None:
        self.addr: Multiaddr | None = None
        self.children: list[_Found] = []

    def addresses(self) -> Sequence[Multiaddr]:
        if self.addr is not None:
            return (self.addr,)
        return [addr for child in self.children for addr in child.addresses()]


class _Resolution:
    """One call of ``resolve``. Answers are kept as they arrive, so that a deadline loses only what is missing."""

    def __init__(self, config: DnsConfig, lookup_ip: LookupIp, lookup_txt: LookupTxt) -> None:
        self._config = config
        self._lookup_ip = lookup_ip
        self._lookup_txt = lookup_txt
        self._lookups: dict[tuple[str, str], _Lookup] = {}
        # What was expanded already: records that name each other would otherwise multiply with every step of depth.
        self._seen: set[tuple[Part, ...]] = set()
        self._results = 0
        self.root = _Found()
        self.problems: list[str] = []

    async def expand(self, found: tuple[Part, ...], depth: int, into: _Found) -> None:
        """Put what ``found`` leads to into ``into``."""
        if found in self._seen:
            return
        self._seen.add(found)
        index = _find_name(found)
        if index is None:
            into.addr = from_parts(found)
            self._results += 1
            return
        found = with_sni(found)
        before, name, after = found[:index], found[index], found[index + 1 :]
        if name.name == "dnsaddr":
            if depth >= self._config.max_depth:
                self.problems.append(f"/dnsaddr nested deeper than {self._config.max_depth}")
                return
            depth += 1
            ways = await self._records(name.text, after)
        else:
            ways = [(ip, *after) for ip in await self._ips(name)]
        async with trio.open_nursery() as nursery:
            for way in ways:
                if self._results + len(into.children) >= self._config.max_results:
                    break
                child = _Found()
                into.children.append(child)
                nursery.start_soon(self.expand, (*before, *way), depth, child)

    async def _ips(self, name: Part) -> list[Part]:
        host = name.text
        answers: dict[int, Sequence[str]] = {}

        async def ask(version: int) -> None:
            answers[version] = await self._once(f"ip{version}", host)

        async with trio.open_nursery() as nursery:
            for version in _VERSIONS[name.name]:
                nursery.start_soon(ask, version)
        ips: list[Part] = []
        for version in _VERSIONS[name.name]:
            for text in answers[version][: self._config.max_results]:
                try:
                    ip = ip_address(text)
                except ValueError:
                    continue
                if ip.version == version:
                    ips.append(Part(f"ip{version}", ip.packed))
        return ips

    async def _records(self, domain: str, after: tuple[Part, ...]) -> list[tuple[Part, ...]]:
        """The addresses in the TXT records of ``domain``, each continued by what followed the name."""
        wanted = after[:1]
        ways: list[tuple[Part, ...]] = []
        texts = await self._once("txt", f"_dnsaddr.{domain}")
        for text in texts[: self._config.max_records]:
            if not text.startswith(_PREFIX):
                continue
            try:
                record = parts(parse(text[len(_PREFIX) :].strip()))
            except DecodeError:
                continue
            if record[len(record) - len(wanted) :] == wanted:
                ways.append((*record, *after[1:]))
        if texts and not ways:
            self.problems.append(f"no usable TXT record at _dnsaddr.{domain}")
        return ways

    async def _once(self, kind: str, name: str) -> Sequence[str]:
        """Look ``name`` up, or wait for, or repeat, the answer of whoever did. Empty when there is none."""
        key = (kind, name.lower())
        lookup = self._lookups.get(key)
        if lookup is not None:
            await lookup.done.wait()
            return lookup.answer
        if len(self._lookups) >= self._config.max_lookups:
            self.problems.append(f"more than {self._config.max_lookups} names to look up")
            return ()
        lookup = self._lookups[key] = _Lookup()
        try:
            if kind == "txt":
                lookup.answer = await self._lookup_txt(name)
            else:
                lookup.answer = await self._lookup_ip(name, int(kind[-1]))
        except (OSError, UnicodeError) as exc:  # UnicodeError: a name that no DNS query can hold
            self.problems.append(f"{name}: {exc}")
        finally:
            lookup.done.set()
        return lookup.answer


class _Lookup:
    """One name being looked up, or its answer."""

    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Sequence[str] = ()


def _find_name(found: tuple[Part, ...]) -> int | None:
    return next((index for index, part in enumerate(found) if part.name == "dnsaddr" or part.name in _VERSIONS), None)


async def _system_lookup(host: str, version: int) -> Sequence[str]:
    family = trio.socket.AF_INET6 if version == 6 else trio.socket.AF_INET
    answers = await trio.socket.getaddrinfo(host, None, family=family, type=trio.socket.SOCK_STREAM)
    return [str(answer[4][0]) for answer in answers]


async def _dnspython_lookup(name: str, *, timeout: float) -> Sequence[str]:
    # Loaded when it is first needed, in a thread: it takes a tenth of a second, and most hosts never ask.
    resolver: Any = await trio.to_thread.run_sync(importlib.import_module, "dns.asyncresolver")
    exceptions: Any = await trio.to_thread.run_sync(importlib.import_module, "dns.exception")
    try:
        answer = await resolver.resolve(name, "TXT", lifetime=timeout)
    except exceptions.DNSException as exc:
        raise OSError(str(exc)) from exc
    # A long text comes in strings of 255 bytes, which belong together (RFC 7208 says it of SPF, everybody does it).
    return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]
