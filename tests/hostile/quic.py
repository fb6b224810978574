"""A peer of QUIC that says whatever it likes: a handshake as it should be, then frames written by hand.

The packets share no code with the library: RFC 9000, sections 12, 17.3 and 19; RFC 9001, section 5.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import trio
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from trio.testing import wait_all_tasks_blocked

from libp2p.crypto.keys import KeyType, generate
from libp2p.transports.quic._engine import Address, Engine, EngineConfig
from libp2p.transports.quic._tls import Outside, TlsIdentity
from libp2p.transports.quic._transport import QuicListener
from tests.transports.quic.net import FakeUdp, Net

ROOM = 1150
"""Bytes of frames that fit a datagram of any path."""
JOINED = 55
"""Datagrams that the kernel hands over at once, at most."""


def varint(value: int, size: int = 0) -> bytes:
    """RFC 9000, section 16; in ``size`` bytes, or as few as possible."""
    for code, length in enumerate((1, 2, 4, 8)):
        if length >= size and value < 1 << (8 * length - 2):
            return (value | code << (8 * length - 2)).to_bytes(length, "big")
    raise ValueError(value)


def stream_frame(stream_id: int, offset: int, data: bytes, *, fin: bool = False) -> bytes:
    """STREAM."""
    return bytes([0x0E | fin]) + varint(stream_id) + varint(offset) + varint(len(data)) + data


def crypto_frame(offset: int, data: bytes) -> bytes:
    """CRYPTO."""
    return b"\x06" + varint(offset) + varint(len(data)) + data


def new_connection_id(number: int, retire: int) -> bytes:
    """NEW_CONNECTION_ID."""
    return b"\x18" + varint(number) + varint(retire) + b"\x08" + number.to_bytes(8, "big") + number.to_bytes(16, "big")


def path_challenge(number: int) -> bytes:
    """PATH_CHALLENGE."""
    return b"\x1a" + number.to_bytes(8, "big")


def ack(largest: int, gaps: int) -> bytes:
    """ACK of every other packet up to ``largest``."""
    return b"\x02" + varint(largest) + varint(0) + varint(gaps) + b"\x00" + b"\x00\x00" * gaps


def datagrams(frames: Iterable[bytes]) -> Iterator[bytes]:
    """As many frames as fit each datagram."""
    payload = b""
    for frame in frames:
        if payload and len(payload) + len(frame) > ROOM:
            yield payload
            payload = b""
        payload += frame
    if payload:
        yield payload


class _Tap:
    """The engine's core, and the keys that TLS gives it."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.keys: tuple[bytes, bytes, bytes] | None = None

    def install_packet_key(self, direction: str, epoch: int, ciphers: tuple[str, str], *rest: Any) -> None:
        if (direction, epoch) == ("send", 3):
            assert ciphers == ("aes-128-gcm", "aes-128-ecb")
            self.keys = rest[:3]
        self._core.install_packet_key(direction, epoch, ciphers, *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


class RawQuic:
    """A dialler whose handshake with a listener of a network in memory is complete."""

    def __init__(self, engine: Engine, victim: FakeUdp, address: Address) -> None:
        self.address = address
        self._engine = engine
        self._victim = victim
        self._tap = _Tap(engine._core)
        engine._core = self._tap  # type: ignore[assignment]
        self._number = 1000
        self.sent = 0
        self.answers: list[bytes] = []

    def packet(self, payload: bytes) -> bytes:
        """A 1-RTT packet."""
        assert self._tap.keys is not None
        key, iv, hp = self._tap.keys
        self._number += 1
        number = self._number.to_bytes(4, "big")
        cid = self._engine._bridge.remote_initial_source_connection_id or b""
        header = b"\x43" + cid + number
        nonce = (int.from_bytes(iv, "big") ^ self._number).to_bytes(12, "big")
        sealed = AESGCM(key).encrypt(nonce, payload, header)
        mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(sealed[:16])
        first = bytes([header[0] ^ (mask[0] & 0x1F)])
        return first + cid + bytes(a ^ b for a, b in zip(number, mask[1:5], strict=True)) + sealed

    def send(self, data: bytes) -> None:
        """One datagram."""
        self.sent += len(data)
        self._victim.arrive(data, self.address)

    def send_frames(self, frames: Iterable[bytes]) -> None:
        """In as many packets as they need, all of one size and joined by the kernel as it does."""
        packets = [self.packet(payload.ljust(ROOM, b"\x00")) for payload in datagrams(frames)]
        size = len(packets[0])
        for start in range(0, len(packets), JOINED):
            data = b"".join(packets[start : start + JOINED])
            self.sent += len(data)
            self._victim.arrive(data, self.address, size)


async def dial_raw(net: Net, listener: QuicListener, address: Address = ("198.51.100.66", 666)) -> RawQuic:
    """Shake hands with ``listener``; what it says from then on is in ``answers``."""
    port = listener.endpoint.address[1]
    victim = next(sock for bound, sock in net.udp.sockets.items() if bound[1] == port)
    key = generate(KeyType.ED25519)
    engine = Engine(
        TlsIdentity.make(key, time.time()),
        EngineConfig(),
        Outside(time.time, os.urandom, time.thread_time, time.perf_counter),
        remote=("127.0.0.1", port),
        cid=os.urandom(8),
        start=None,
        expected=None,
        now=trio.current_time(),
    )
    peer = RawQuic(engine, victim, address)
    before = net.udp.filter

    def tap(data: bytes, source: Address, target: Address) -> bytes | None:
        if target == address:
            peer.answers.append(data)
            return None
        return before(data, source, target)

    net.udp.filter = tap
    for _ in range(5):
        for data, _ in engine.transmit(trio.current_time()):
            peer.send(data)
        await wait_all_tasks_blocked()
        engine.receive(peer.answers, ("127.0.0.1", port), trio.current_time())
        peer.answers.clear()
    assert engine.authenticated
    return peer
