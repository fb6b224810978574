"""What a test program is asked to do: the environments of the suites, read into one form.

| what | unified-testing | test-plans |
| --- | --- | --- |
| names of variables | ``IS_DIALER``, ``SECURE_CHANNEL``, ... | ``is_dialer``, ``security``, ... |
| where the listener's address is | ``<TEST_KEY>_listener_multiaddr`` | ``listenerAddr`` |
| result | YAML | one line of JSON |

QUIC and its kind have their own security and muxer; those variables are then unset, empty or ``null``. In the
hole-punch suite, which is unified-testing's, there is a relay too, and each part has a name of its own for its address:
``DIALER_IP``, ``LISTENER_IP``, ``RELAY_IP``. The last one, and no ``IS_DIALER``, is what makes a program the relay.

The suite ``kad-dht`` of unified-testing says less: ``ROLE``, ``REDIS_ADDR`` and ``TEST_KEY``.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

DEFAULT_TIMEOUT = 180.0
"""Seconds a test may take in both suites."""
LISTENER = "listener_multiaddr"
"""The key under which a listener leaves its address."""


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


class Role(enum.Enum):
    """What a program is in a test; the value names its address."""

    DIALER = "DIALER_IP"
    LISTENER = "LISTENER_IP"
    RELAY = "RELAY_IP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One program's part in one test.

    Attributes:
        legacy: whether it is that of test-plans.
        role: whether to dial, to listen, or to be the relay.
        redis: host and port of the Redis server through which the programs find each other.
        test_key: what sets apart the test's keys there.
        ip: what to listen on.
        security: None where the transport brings its own; likewise the muxer.
        timeout: seconds until the test has failed.
    """

    legacy: bool
    role: Role
    redis: tuple[str, int]
    test_key: str
    transport: str
    security: str | None
    muxer: str | None
    ip: str
    timeout: float
    debug: bool

    @property
    def dialer(self) -> bool:
        """Whether to dial: that program ends the test."""
        return self.role is Role.DIALER

    @property
    def patience(self) -> float:
        return self.timeout if self.dialer else math.inf

    def key(self, what: str) -> str:
        """Where ``what`` is in Redis."""
        return "listenerAddr" if self.legacy else f"{self.test_key}_{what}"


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


KAD_ROLES = ("bootstrap", "provider", "querier")


def read_kad(environ: Mapping[str, str]) -> KadContract:
    """Read a contract of the suite ``kad-dht``.

    Raises:
        ContractError: a variable is missing or wrong.
    """
    role, key = environ.get("ROLE", ""), environ.get("TEST_KEY", "")
    if role not in KAD_ROLES:
        raise ContractError(f"ROLE is {role!r}, not one of {', '.join(KAD_ROLES)}")
    if not key:
        raise ContractError("TEST_KEY is not set")
    return KadContract(role=role, redis=_host_and_port(environ.get("REDIS_ADDR", "")), key=key)


def read(environ: Mapping[str, str]) -> Contract:
    """Read a contract.

    Raises:
        ContractError: a variable is missing or wrong.
    """
    relay = Role.RELAY.value in environ and "IS_DIALER" not in environ
    legacy = not relay and "IS_DIALER" not in environ
    names = _OLD if legacy else _NEW

    def get(name: str, default: str | None = None) -> str:
        value = environ.get(names[name], default)
        if value is None:
            raise ContractError(f"{names[name]} is not set")
        return value

    try:
        role = Role.RELAY if relay else Role.DIALER if _flag(get("dialer")) else Role.LISTENER
        return Contract(
            legacy=legacy,
            role=role,
            redis=_host_and_port(get("redis", "redis:6379")),
            test_key="" if legacy else get("key"),
            transport=get("transport"),
            security=_optional(get("security", "")),
            muxer=_optional(get("muxer", "")),
            ip=environ.get("ip" if legacy else role.value, "0.0.0.0"),
            timeout=float(get("timeout", str(DEFAULT_TIMEOUT))),
            debug=_flag(get("debug", "false")),
        )
    except ValueError as exc:
        raise ContractError(str(exc)) from exc


_NEW = {
    "dialer": "IS_DIALER", "redis": "REDIS_ADDR", "key": "TEST_KEY", "transport": "TRANSPORT",
    "security": "SECURE_CHANNEL", "muxer": "MUXER", "timeout": "TEST_TIMEOUT_SECS", "debug": "DEBUG",
}  # fmt: skip
_OLD = {
    "dialer": "is_dialer", "redis": "redis_addr", "transport": "transport", "security": "security", "muxer": "muxer",
    "timeout": "test_timeout_seconds", "debug": "debug",
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
