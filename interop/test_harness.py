"""The programs for libp2p's own test suites, played on this machine: Redis, our program in a role, a peer in the other.

What the suites do with containers is done here with processes and the peers of CONTRACT.md, which speak no Redis: the
test leaves their address there, or takes ours from it, in each suite's way. Needs ``redis-server`` (Debian: ``apt
install redis-server``); without it the cells are absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from libp2p.testing.certificates import issue

from .conftest import Features, get_features
from .harness import resp
from .harness.local import latencies, program, result_of
from .harness.stacks import MUXERS, SECURITY, STANDALONE, TRANSPORTS, available
from .peer import Peer, start_peer

pytestmark = pytest.mark.real_clock("other processes")

KEY = "0123abcd"
LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["unified", "plans"])

Cell = tuple[str, str]
"""Who plays against our program, and the stack's names."""


def _stacks() -> list[tuple[str, ...]]:
    """All that the suites know and our names list."""
    layered = [name for name in TRANSPORTS if name not in STANDALONE]
    stacks: list[tuple[str, ...]] = [(t, s, m) for t in layered for s in SECURITY for m in MUXERS]
    return stacks + [(name,) for name in STANDALONE]


def _missing(stack: tuple[str, ...], found: Features) -> str | None:
    """What ``stack`` has that a peer has not."""
    has = {*found["transports"], *found["securities"], *found["muxers"]}
    return next((name for name in stack if name not in has), None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cells: everybody against ours, in every stack."""
    ours = {tuple(name for name in stack if name is not None) for stack in available()}
    params = []
    for name, found in [("ours", None), *get_features(metafunc.config).items()]:
        for stack in _stacks():
            reason = None
            if stack not in ours:
                reason = f"absent: {'-'.join(stack)} is not installed here"
            elif name != "ours" and found is None:
                reason = "absent: not built"
            elif found is not None and (missing := _missing(stack, found)):
                reason = f"unsupported by peer: {missing}: {found['unsupported'].get(missing, 'not offered')}"
            text = "-".join(stack)
            for role in ("dial", "listen"):
                why = reason
                if (name, role) == ("ours", "listen"):
                    continue  # both are ours in the other role
                if (name, stack[0], role) == ("rust", "wss", "listen"):
                    # The suites' listeners sign for themselves.
                    why = why or "unsupported by peer: wss: rust-libp2p always verifies certificates"
                marks = [pytest.mark.skip(reason=why)] if why else []
                params.append(pytest.param((name, text), role, id=f"{name}-{text}-{role}", marks=marks))
    metafunc.parametrize(("cell", "role"), params)


@pytest.fixture(scope="session")
def certificate_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For peers with wss; ours takes any certificate."""
    folder, found = tmp_path_factory.mktemp("harness"), issue("127.0.0.1", "localhost")
    (folder / "server.pem").write_bytes(found.server)
    (folder / "authority.pem").write_bytes(found.authority)
    return {"certificate": str(folder / "server.pem"), "authority": str(folder / "authority.pem")}


def environment(stack: list[str], port: int, *, dialer: bool, legacy: bool) -> dict[str, str]:
    """What a suite sets."""
    names = dict(zip(("transport", "security", "muxer"), stack, strict=False))
    role = "true" if dialer else "false"
    if legacy:
        return {**names, "is_dialer": role, "ip": "127.0.0.1", "redis_addr": f"127.0.0.1:{port}"}
    new = {"transport": "TRANSPORT", "security": "SECURE_CHANNEL", "muxer": "MUXER"}
    values = {new[name]: value for name, value in names.items()}
    return {
        **values,
        "IS_DIALER": role,
        "REDIS_ADDR": f"127.0.0.1:{port}",
        "TEST_KEY": KEY,
        "LISTENER_IP": "127.0.0.1",
        "DEBUG": "false",
    }


@asynccontextmanager
async def peer_of(cell: Cell, certificate_files: dict[str, str], *, listen: bool) -> AsyncIterator[Peer]:
    """The peer that plays against ours."""
    name, text = cell
    stack = split_stack(text)
    flags = dict(zip(("transport", "security", "muxer"), stack, strict=False))
    if not listen:
        flags["listen"] = "none"  # and any certificate of ours will do, as in the suites
    elif stack[0] == "wss":
        flags |= certificate_files
    async with start_peer(name, **flags) as peer:
        yield peer


def split_stack(text: str) -> list[str]:
    """The names of a cell; that of QUIC has a dash in it."""
    return [text] if text in STANDALONE else text.split("-")


@LEGACY
async def test_harness_transport(
    cell: Cell,
    role: str,
    legacy: bool,
    redis_port: int,
    certificate_files: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    """The transport test: dial, ping, and the result in the suite's words; ``role`` is our program's."""
    key = "listenerAddr" if legacy else f"{KEY}_listener_multiaddr"
    stack = split_stack(cell[1])
    dialing = environment(stack, redis_port, dialer=True, legacy=legacy)
    listening = environment(stack, redis_port, dialer=False, legacy=legacy)
    with trio.fail_after(60):
        async with resp.connect("127.0.0.1", redis_port) as redis:
            await redis("DEL", key)
            if cell[0] == "ours":
                async with program("transport", listening):
                    output = await result_of("transport", dialing)
            elif role == "dial":
                async with peer_of(cell, certificate_files, listen=True) as peer:
                    await resp.publish(redis, key, peer.addr, as_list=True)
                    output = await result_of("transport", dialing)
            else:
                async with (
                    program("transport", listening),
                    peer_of(cell, certificate_files, listen=False) as peer,
                ):
                    addr = await (resp.fetch_list if legacy else resp.fetch)(redis, key)
                    answer = await peer("dial", addr=addr)
                    # The first one takes the second message of the handshake along, or waits for it.
                    _, ping_ms = (await peer("ping", peer=answer["peer_id"], count=2))["rtts_ms"]
                    record_property("ping_ms", ping_ms)
                    return
            handshake_ms, ping_ms = latencies(output, legacy=legacy)
            record_property("handshake_ms", handshake_ms)
            record_property("ping_ms", ping_ms)


UPLOAD, DOWNLOAD = 2_000_000, 3_000_000


def check_perf(output: str) -> None:
    """Three blocks, each with its fields in order."""
    blocks = re.findall(r"^(\w+):\n((?:  .*\n)+)", output, re.MULTILINE)
    assert [name for name, _ in blocks] == ["upload", "download", "latency"]
    fields = ["iterations", "min", "q1", "median", "q3", "max", "outliers", "samples", "unit"]
    for name, text in blocks:
        found = dict(line.strip().split(": ", 1) for line in text.splitlines())
        assert list(found) == fields
        assert found["unit"] == ("ms" if name == "latency" else "Gbps")
        numbers = [float(found[field]) for field in ("q1", "median", "q3")]
        assert numbers == sorted(numbers)
        assert all(math.isfinite(number) and number >= 0 for number in numbers)


async def test_harness_perf(cell: Cell, role: str, redis_port: int, certificate_files: dict[str, str]) -> None:
    """The perf test with the framing of the specification, in small sizes."""
    key, stack = f"{KEY}_listener_multiaddr", split_stack(cell[1])
    dialing = environment(stack, redis_port, dialer=True, legacy=False) | {
        "UPLOAD_BYTES": str(UPLOAD),
        "DOWNLOAD_BYTES": str(DOWNLOAD),
        "UPLOAD_ITERATIONS": "3",
        "DOWNLOAD_ITERATIONS": "3",
        "LATENCY_ITERATIONS": "10",
    }
    listening = environment(stack, redis_port, dialer=False, legacy=False)
    with trio.fail_after(90):
        async with resp.connect("127.0.0.1", redis_port) as redis:
            await redis("DEL", key)
            if cell[0] == "ours":
                async with program("perf", listening):
                    check_perf(await result_of("perf", dialing))
            elif role == "dial":
                async with peer_of(cell, certificate_files, listen=True) as peer:
                    await resp.publish(redis, key, peer.addr, as_list=False)
                    check_perf(await result_of("perf", dialing))
            else:
                async with program("perf", listening), peer_of(cell, certificate_files, listen=False) as peer:
                    peer_id = (await peer("dial", addr=await resp.fetch(redis, key)))["peer_id"]
                    sizes: dict[str, Any] = {"upload": UPLOAD, "download": DOWNLOAD, "chunk": 65536}
                    assert (await peer("perf", peer=peer_id, total=3, parallel=1, **sizes))["seconds"] > 0
