"""Turns every test into one row of the result table."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from .harness.local import redis_server
from .ours import MUXERS, STACKS
from .peer import features

RESULTS = Path(__file__).parent / "results" / "latest.json"
PEERS = ("go", "js", "rust", "py")
OTHERS = ("ours", "browser", "js030", "js2")
"""Who else has a column: this library's own program, where two of them play, a page, and older lines of js-libp2p."""

Record = Callable[[str, str, str, str, str, str, float], None]
"""``record(suite, peer, muxer, role, status, reason, seconds)``"""

_rows = pytest.StashKey[list[dict[str, Any]]]()
_features = pytest.StashKey[dict[str, dict[str, Any] | None]]()

Features = dict[str, Any]
"""What a peer says it can do."""


def get_features(config: pytest.Config) -> dict[str, Features | None]:
    """Name and features of each wanted peer; None for those that are not built."""
    return config.stash[_features]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kad-nodes", type=int, default=8, help="how many nodes the DHT has")
    parser.addoption("--peers", default=",".join(PEERS), help="which peers to test against")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "all_key_types: run with every key type of the peer")
    config.addinivalue_line("markers", "needs(kind, what): what the peer's program has to offer")
    config.stash[_rows] = []
    wanted = config.getoption("--peers").split(",")
    config.stash[_features] = {name: features(name) for name in wanted}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``cell`` is (peer, stack, key type); suites that do not vary the key type take Ed25519 alone."""
    if "cell" not in metafunc.fixturenames or hasattr(metafunc.module, "pytest_generate_tests"):
        return  # none, or the module has cells of its own
    all_keys = metafunc.definition.get_closest_marker("all_key_types") is not None
    key_types = ("ed25519", "secp256k1", "ecdsa", "rsa") if all_keys else ("ed25519",)
    metafunc.parametrize("cell", cells(metafunc.config, "key_types", key_types, stacks=STACKS))


def cells(config: pytest.Config, kind: str, values: Sequence[str], stacks: Iterable[str] = tuple(MUXERS)) -> list[Any]:
    """Parameters (peer, muxer, value), with what the peer does not do marked as such.

    Args:
        kind: the list in a peer's features that ``values`` are looked up in.
        stacks: below that; by default the muxers over TCP and Noise.
    """
    found_cells = []
    for name, found in config.stash[_features].items():
        if found is None:
            reason = "not built: its toolchain is absent, see above"
            found_cells.append(pytest.param((name, "", ""), id=name, marks=pytest.mark.skip(reason=reason)))
            continue
        for muxer in stacks:
            for value in values:
                able = found["muxers"] + found["transports"] + found.get(kind, [])
                missing = next((what for what in (muxer, value) if what not in able), None)
                marks = []
                if missing is not None:
                    reason = f"unsupported by peer: {missing}: {found['unsupported'].get(missing, 'not offered')}"
                    marks = [pytest.mark.skip(reason=reason)]
                found_cells.append(pytest.param((name, muxer, value), id=f"{name}-{muxer}-{value}", marks=marks))
    return found_cells


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield
    if "record" in item.fixturenames:
        return report  # it has written its own rows
    if report.when == "call" or (report.when == "setup" and not report.passed):
        cell = item.callspec.params.get("cell", ("", "", "")) if hasattr(item, "callspec") else ("", "", "")
        peer = item.config.stash[_features].get(cell[0])
        status, reason = "pass", ""
        if report.skipped:
            reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reason = reason.removeprefix("Skipped: ")
            status = "unsupported-by-peer" if "unsupported" in reason else "absent"
        elif report.failed:
            status, reason = "fail", str(call.excinfo.value)[:300] if call.excinfo else ""
        role = item.callspec.params.get("role", "") if hasattr(item, "callspec") else ""
        item.config.stash[_rows].append(
            {
                "suite": item.originalname.removeprefix("test_") if isinstance(item, pytest.Function) else item.name,
                "cell": "-".join(part for part in cell[1:] if part),
                "peer": cell[0],
                "peer_version": peer["version"] if peer else "",
                "role": role,
                "status": status,
                "reason": reason,
                "seconds": round(report.duration, 2),
                **dict(item.user_properties),
            }
        )
    return report


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Adds a row, for a test that runs several cells at the same time."""
    found = request.config.stash[_features]

    def add(suite: str, peer: str, muxer: str, role: str, status: str, reason: str, seconds: float) -> None:
        version = found[peer]
        row = {
            "suite": suite,
            "cell": f"{muxer}-ed25519",
            "peer": peer,
            "peer_version": version["version"] if version else "",
            "role": role,
            "status": status,
            "reason": reason,
            "seconds": round(seconds, 2),
        }
        request.config.stash[_rows].append(row)

    return add


@pytest.fixture
def built(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Name and features of each peer that is built."""
    return {name: found for name, found in request.config.stash[_features].items() if found is not None}


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """Of a Redis server that keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("absent: no redis-server on this machine (Debian: apt install redis-server)")
    with redis_server(program) as port:
        yield port


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the rows of a process of tests that has ended."""
    node.config.stash[_rows] += getattr(node, "workeroutput", {}).get("rows", [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash[_rows]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["rows"] = rows  # the process that started this one writes those of all
    elif rows:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(
            json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "rows": rows}, indent=1)
        )
