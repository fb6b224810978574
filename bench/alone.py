"""What is measured on one process: its memory, its start, and what the processor needs for the bare cryptography."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from interop.peer import BUILD, PeerFailed

from .fleet import ROOT, US, Fleet, resident_bytes
from .rows import Row, make_row

RECORD = 65519
"""Bytes of plaintext in a full Noise record."""
CURVE_WORK = {"generate": 2, "exchange": 6, "sign": 2, "verify": 2}
"""What one Noise XX handshake takes, both sides together."""
QUIET = 1.0
"""Seconds a process is left alone before its memory is read."""


# --- memory -----------------------------------------------------------------------------------------------------------


async def memory(fleet: Fleet, names: Sequence[str], *, repeats: int, connections: int, streams: int) -> list[Row]:
    """Memory of an idle host, and what each idle connection and each idle stream adds, by our own hand as the client.

    Streams are ten to the hundred: ``streams`` in all, on ten connections.
    """
    found: dict[tuple[str, str], list[float]] = {}
    errors: dict[str, str] = {}
    for _ in range(repeats):
        for name in names:
            try:
                values = await _memory_once(fleet, name, connections, streams)
            except (PeerFailed, trio.TooSlowError) as exc:
                errors[name] = str(exc) or type(exc).__name__
                continue
            for metric, value in values.items():
                found.setdefault((name, metric), []).append(value)
    units = {"idle": ("MB", 1), "per_connection": ("kB", connections), "per_stream": ("kB", streams)}
    return [
        make_row(
            "memory",
            name,
            metric,
            unit,
            found.get((name, metric), []),
            size=size,
            versions={name: fleet.versions.get(name, "")},
            load_average=os.getloadavg(),
            error=errors.get(name, ""),
        )
        for name in names
        for metric, (unit, size) in units.items()
    ]


async def _memory_once(fleet: Fleet, name: str, connections: int, streams: int) -> dict[str, float]:
    async def added(count: int, each: int) -> tuple[int, int]:
        server = await fleet.fresh(name, "server")
        client = await fleet.fresh(name if name == "trio" else US, "client")
        await trio.sleep(QUIET)
        idle = resident_bytes(server)
        await client("hold", addr=server.addr, connections=count, streams=each, limit=120)
        await trio.sleep(QUIET)
        return idle, resident_bytes(server) - idle

    idle, many = await added(connections, 0)
    values = {"idle": idle / 1e6, "per_connection": many / connections / 1e3}
    if streams:
        _, bare = await added(10, 0)
        _, full = await added(10, streams // 10)
        values["per_stream"] = (full - bare) / streams / 1e3
    await fleet.end(name, "server")
    await fleet.end(name if name == "trio" else US, "client")
    return values


# --- the start --------------------------------------------------------------------------------------------------------


def imports(*, repeats: int, peers: Sequence[str]) -> list[Row]:
    """Time to import a library, above that of the bare interpreter."""
    ours, theirs = sys.executable, str(BUILD / "py-venv" / "bin" / "python")
    programs = {US: (ours, "import libp2p"), "trio": (ours, "import trio")}
    if "py" in peers:
        programs["py"] = (theirs, "import libp2p, libp2p.host.basic_host")
    found: dict[tuple[str, str], list[float]] = {}
    for repeat in range(repeats + 1):
        for name, (python, code) in programs.items():
            bare, whole = _start(python, "pass"), _start(python, code)
            if repeat:  # the first one finds cold caches
                for metric, less, more in zip(("wall", "cpu"), bare, whole, strict=True):
                    found.setdefault((name, metric), []).append((more - less) * 1000)
    versions = {"python": sys.version.split()[0]}
    return [
        make_row("import", name, metric, "ms", values, size=1, versions=versions, load_average=os.getloadavg())
        for (name, metric), values in found.items()
    ]


def _start(python: str, code: str) -> tuple[float, float]:
    """Wall and CPU seconds of a run of the interpreter. Isolated, so that each finds its own library."""
    options = ["-c", code] if python == sys.executable else ["-I", "-c", code]
    before = os.times()
    started = time.perf_counter()
    subprocess.run([python, *options], check=True, cwd=ROOT if python == sys.executable else Path("/"))
    wall = time.perf_counter() - started
    after = os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


# --- the bare cryptography --------------------------------------------------------------------------------------------


def _cpu(work: Callable[[], object], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def cipher_seconds(times: int = 1500) -> tuple[float, float]:
    """CPU seconds to encrypt and to decrypt a byte, in full records that lie in the cache."""
    cipher, nonce, plain = ChaCha20Poly1305(bytes(32)), bytes(12), bytes(RECORD)
    sealed = cipher.encrypt(nonce, plain, None)
    encrypt = _cpu(lambda: cipher.encrypt(nonce, plain, None), times)
    decrypt = _cpu(lambda: cipher.decrypt(nonce, sealed, None), times)
    return encrypt / RECORD, decrypt / RECORD


def handshake_seconds(times: int = 100) -> float:
    """CPU seconds of the curve work in one handshake, both sides together, by the library's mandatory dependency."""
    mine, theirs, key = X25519PrivateKey.generate(), X25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public, signer, signature = theirs.public_key(), key.public_key(), key.sign(b"x" * 64)
    work: dict[str, Callable[[], object]] = {
        "generate": X25519PrivateKey.generate,
        "exchange": lambda: mine.exchange(public),
        "sign": lambda: key.sign(b"x" * 64),
        "verify": lambda: signer.verify(signature, b"x" * 64),
    }
    return sum(count * _cpu(work[name], times) for name, count in CURVE_WORK.items())


def cryptography_rows(*, repeats: int) -> list[Row]:
    """Yardsticks: what the cipher and the curves alone would allow."""
    ciphers = [cipher_seconds() for _ in range(repeats)]
    curves = [handshake_seconds() for _ in range(repeats)]
    values = {
        ("cipher", "encrypt", "MB/s"): [1e-6 / encrypt for encrypt, _ in ciphers],
        ("cipher", "decrypt", "MB/s"): [1e-6 / decrypt for _, decrypt in ciphers],
        ("handshake_curves", "cpu", "ms"): [seconds * 1000 for seconds in curves],
    }
    return [
        make_row(name, "cpu", metric, unit, found, size=RECORD, versions={}, load_average=os.getloadavg())
        for (name, metric, unit), found in values.items()
    ]
