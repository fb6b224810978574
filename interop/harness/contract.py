"""What a test program is asked to do: the environments of the suites, read into one form.

| what | unified-testing | test-plans |
| --- | --- | --- |
| names of variables | ``IS_DIALER``, ``SECURE_CHANNEL``, ... | ``is_dialer``, ``security``, ... |
| where the listener's address is | ``<TEST_KEY>_listener_multiaddr`` | ``listenerAddr`` |
| result | YAML | one line of JSON |

QUIC and its kind have their own security and muxer; those variables are then unset, empty or ``null``.

The suite ``kad-dht`` of unified-testing says less: ``ROLE``, ``REDIS_ADDR`` and ``TEST_KEY``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

DEFAULT_TIMEOUT = 180.0
"""Seconds a test may take in both suites."""


class ContractError(Exception):
    """The environment does not say what to do."""


class Part(Protocol):
    """What every contract says."""

    @property
    def debug(self) -> bool:
        """Whether to log everything."""
        ...

    @property
    def patience(self) -> float:
        """Seconds until it has failed: all of them for those whom the suite ends, at the same time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One program's part in one test.

    Attributes:
        legacy: whether it is that of test-plans.
        dialer: whether to dial, or to listen.
        redis: host and port of the Redis server through which the two find each other.
        key: where in it the listener's address is.
        listener_ip: what to listen on.
        security: None where the transport brings its own; likewise the muxer.
        timeout: seconds until the test has failed.
    """

    legacy: bool
    dialer: bool
    redis: tuple[str, int]
    key: str
    transport: str
    security: str | None
    muxer: str | None
    listener_ip: str
    timeout: float
    debug: bool

    @property
    def patience(self) -> float:
        return self.timeout if self.dialer else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class KadContract:
    """One program's part in one test of the DHT.

    Attributes:
        role: ``bootstrap``, ``provider`` or ``querier``.
        redis: host and port of the Redis server through which the three find each other.
        key: what everything begins with that this test leaves there, and part of the names in the DHT.
    """

    role: str
    redis: tuple[str, int]
    key: str
    debug: bool = False

    @property
    def patience(self) -> float:
        return DEFAULT_TIMEOUT if self.role == "querier" else math.inf


ROLES = ("bootstrap", "provider", "querier")


def read_kad(environ: Mapping[str, str]) -> KadContract:
    """Read a contract of the suite ``kad-dht``.

    Raises:
        ContractError: a variable is missing or wrong.
    """
    role, key = environ.get("ROLE", ""), environ.get("TEST_KEY", "")
    if role not in ROLES:
        raise ContractError(f"ROLE is {role!r}, not one of {', '.join(ROLES)}")
    if not key:
        raise ContractError("TEST_KEY is not set")
    return KadContract(role=role, redis=_host_and_port(environ.get("REDIS_ADDR", "")), key=key)


def read(environ: Mapping[str, str]) -> Contract:
    """Read a contract.

    Raises:
        ContractError: a variable is missing or wrong.
    """
    legacy = "IS_DIALER" not in environ
    names = _OLD if legacy else _NEW

    def get(name: str, default: str | None = None) -> str:
        value = environ.get(names[name], default)
        if value is None:
            raise ContractError(f"{names[name]} is not set")
        return value

    try:
        return Contract(
            legacy=legacy,
            dialer=_flag(get("dialer")),
            redis=_host_and_port(get("redis", "redis:6379")),
            key="listenerAddr" if legacy else f"{get('key')}_listener_multiaddr",
            transport=get("transport"),
            security=_optional(get("security", "")),
            muxer=_optional(get("muxer", "")),
            listener_ip=get("ip", "0.0.0.0"),
            timeout=float(get("timeout", str(DEFAULT_TIMEOUT))),
            debug=_flag(get("debug", "false")),
        )
    except ValueError as exc:
        raise ContractError(str(exc)) from exc


_NEW = {
    "dialer": "IS_DIALER", "redis": "REDIS_ADDR", "key": "TEST_KEY", "transport": "TRANSPORT",
    "security": "SECURE_CHANNEL", "muxer": "MUXER", "ip": "LISTENER_IP", "timeout": "TEST_TIMEOUT_SECS",
    "debug": "DEBUG",
}  # fmt: skip
_OLD = {
    "dialer": "is_dialer", "redis": "redis_addr", "transport": "transport", "security": "security", "muxer": "muxer",
    "ip": "ip", "timeout": "test_timeout_seconds", "debug": "debug",
}  # fmt: skip


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        return host, int(port)
    except ValueError as exc:
        raise ContractError(f"{text!r} is no host and port") from exc


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ContractError(f"{text!r} is neither true nor false")
    return text == "true"


def _optional(text: str) -> str | None:
    return None if text in ("", "null") else text


def iterations(environ: Mapping[str, str], name: str, default: int) -> int:
    """A number of the perf suite, which may say ``null`` for the default."""
    text = environ.get(name, "null")
    try:
        return default if text in ("", "null") else int(text)
    except ValueError as exc:
        raise ContractError(f"{name}: {exc}") from exc
