"""What a test program is asked to do: the environments of both suites, read into one form.

| what | unified-testing | test-plans |
| --- | --- | --- |
| names of variables | ``IS_DIALER``, ``SECURE_CHANNEL``, ... | ``is_dialer``, ``security``, ... |
| where the listener's address is | ``<TEST_KEY>_listener_multiaddr`` | ``listenerAddr`` |
| result | YAML | one line of JSON |

QUIC and its kind have their own security and muxer; those variables are then unset, empty or ``null``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_TIMEOUT = 180.0
"""Seconds a test may take in both suites."""


class ContractError(Exception):
    """The environment does not say what to do."""


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

    host, _, port = get("redis", "redis:6379").rpartition(":")
    try:
        return Contract(
            legacy=legacy,
            dialer=_flag(get("dialer")),
            redis=(host, int(port)),
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
