"""This library in the role of an interop peer: the stream protocols of CONTRACT.md, on a host in this process."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

import libp2p
from libp2p.abc import Muxer, SecurityFactory, Transport, TransportFactory
from libp2p.muxers.mplex import Mplex
from libp2p.muxers.yamux import Yamux
from libp2p.protocols.pubsub import Floodsub, Message, MessageId, Pubsub, Router, SignaturePolicy
from libp2p.security.noise import Noise
from libp2p.security.pnet import PreSharedKey
from libp2p.security.tls import Tls
from libp2p.swarm import SwarmConfig
from libp2p.transports.quic import Quic
from libp2p.transports.tcp import Tcp

from .peer import Peer

ECHO = "/interop/echo/1.0.0"
DIGEST = "/interop/digest/1.0.0"
RESET = "/interop/reset/1.0.0"
WATCH = "/interop/watch/1.0.0"
SINK = "/interop/sink/1.0.0"

MUXERS: dict[str, type[Yamux] | type[Mplex]] = {"yamux": Yamux, "mplex": Mplex}
STACKS = (*MUXERS, "quic-v1")
"""What a connection is made of: a muxer over Noise and TCP, or QUIC."""
SECURITIES: dict[str, SecurityFactory] = {"noise": Noise, "tls": Tls}
KEY_TYPES = {key_type.name.lower(): key_type for key_type in libp2p.KeyType}


def block(seed: int) -> bytes:
    """64 KiB that both sides can make."""
    return b"".join(hashlib.sha256(f"{seed}:{index}".encode()).digest() for index in range(2048))


def pattern(seed: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of the pattern, in pieces."""
    piece = block(seed)
    whole, rest = divmod(size, len(piece))
    yield from itertools.repeat(piece, whole)
    if rest:
        yield piece[:rest]


def pattern_digest(seed: int, size: int) -> str:
    """Hex SHA-256 of the pattern."""
    digest = hashlib.sha256()
    for piece in pattern(seed, size):
        digest.update(piece)
    return digest.hexdigest()


@dataclass
class Ours:
    """A host with the contract's protocols.

    Attributes:
        hold: while True, sinks read nothing.
        sunk: bytes the last sink read.
        watched: how the streams of the watch protocol ended.
    """

    host: libp2p.Host
    pubsub: Pubsub
    hold: bool = False
    released: trio.Event = field(default_factory=trio.Event)
    sunk: int = 0
    watched: list[str] = field(default_factory=list)

    @property
    def peer_id(self) -> str:
        return str(self.host.local_peer)

    @property
    def addr(self) -> str:
        return str(self.host.addrs[0])

    def serve(self) -> None:
        """Install the handlers."""
        self.host.handle(ECHO, self._echo)
        self.host.handle(DIGEST, self._digest)
        self.host.handle(RESET, self._reset)
        self.host.handle(WATCH, self._watch)
        self.host.handle(SINK, self._sink)

    async def _echo(self, stream: libp2p.Stream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async def _digest(self, stream: libp2p.Stream) -> None:
        digest = hashlib.sha256()
        async for chunk in stream:
            digest.update(chunk)
        await stream.send_all(digest.hexdigest().encode())

    async def _reset(self, stream: libp2p.Stream) -> None:
        await stream.receive_some(4)
        stream.reset()

    async def _watch(self, stream: libp2p.Stream) -> None:
        await stream.receive_some(4)
        await stream.send_all(b"seen")
        try:
            data = await stream.receive_some()
        except libp2p.StreamReset:
            self.watched.append("reset")
        else:
            self.watched.append("data" if data else "eof")

    async def _sink(self, stream: libp2p.Stream) -> None:
        self.sunk = 0
        if self.hold:
            await self.released.wait()
        digest = hashlib.sha256()
        async for chunk in stream:
            digest.update(chunk)
            self.sunk += len(chunk)
        await stream.send_all(digest.hexdigest().encode())

    # --- as the client

    async def echo(self, peer: libp2p.PeerId, size: int, seed: int) -> str:
        """Echo the pattern through ``peer``; the hex digest of what came back."""
        digest = hashlib.sha256()
        async with await self.host.open_stream(peer, ECHO) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._write, stream, size, seed)
            async for chunk in stream:
                digest.update(chunk)
        return digest.hexdigest()

    async def push(self, peer: libp2p.PeerId, size: int, seed: int, progress: list[int]) -> str:
        """Push the pattern into the peer's sink; appends what was accepted so far to ``progress``."""
        async with await self.host.open_stream(peer, SINK) as stream:
            for piece in pattern(seed, size):
                await stream.send_all(piece)
                progress.append(len(piece))
            await stream.send_eof()
            return b"".join([chunk async for chunk in stream]).decode()

    async def half_close(self, peer: libp2p.PeerId, size: int, seed: int) -> str:
        """Send the pattern, half-close, read the digest."""
        async with await self.host.open_stream(peer, DIGEST) as stream:
            await self._write(stream, size, seed)
            return b"".join([chunk async for chunk in stream]).decode()

    async def streams(self, peer: libp2p.PeerId, total: int, parallel: int) -> int:
        """Small echoes, ``parallel`` at a time; how many came back whole."""
        completed = 0
        limiter = trio.CapacityLimiter(parallel)

        async def one(seed: int) -> None:
            nonlocal completed
            async with limiter:
                if await self.echo(peer, 100, seed) == pattern_digest(seed, 100):
                    completed += 1

        async with trio.open_nursery() as nursery:
            for seed in range(total):
                nursery.start_soon(one, seed)
        return completed

    @staticmethod
    async def _write(stream: libp2p.Stream, size: int, seed: int) -> None:
        for piece in pattern(seed, size):
            await stream.send_all(piece)
        await stream.send_eof()


def first_bytes(message: Message) -> MessageId:
    """What tells anonymous messages apart, here and for the peers."""
    return message.data[:8]


def flags(stack: str) -> dict[str, str]:
    """What a peer is started with to speak ``stack``."""
    if stack == "quic-v1":
        return {"transport": stack, "listen": _listen(stack)}
    return {"muxer": stack}


def _listen(stack: str) -> str:
    return "/ip4/127.0.0.1/udp/0/quic-v1" if stack == "quic-v1" else "/ip4/127.0.0.1/tcp/0"


@asynccontextmanager
async def open_ours(
    *,
    stack: str,
    key_type: str = "ed25519",
    security: str = "noise",
    psk: str | None = None,
    listen: bool | str = False,
    transports: Sequence[Transport | TransportFactory] | None = None,
    router: Router | None = None,
    anonymous: bool = False,
    pubsub: Pubsub | None = None,
) -> AsyncIterator[Ours]:
    """Run our side.

    ``listen`` says whether, over TCP or QUIC, or where; ``psk`` is the key of a private network, in hexadecimal;
    the router is floodsub unless another one, or all of pubsub, is given; ``anonymous`` is pubsub without authors and
    signatures.
    """
    muxers: list[Muxer] = [MUXERS[stack]()] if stack in MUXERS else []
    if transports is None:
        transports = [Quic] if stack == "quic-v1" else [Tcp()]
    if anonymous:
        policy = SignaturePolicy.STRICT_NO_SIGN
        pubsub = Pubsub(router or Floodsub(), signature_policy=policy, message_id=first_bytes)
    pubsub = pubsub or Pubsub(router or Floodsub())
    async with libp2p.open_host(
        key=libp2p.generate_key(KEY_TYPES[key_type]),
        listen=[listen if isinstance(listen, str) else _listen(stack)] if listen else [],
        transports=transports,
        muxers=muxers,
        security=[SECURITIES[security]],
        psk=PreSharedKey(bytes.fromhex(psk)) if psk else None,
        services=[pubsub],
        # What peers tell of each other here is all on this machine.
        config=libp2p.HostConfig(swarm=SwarmConfig(allow_private=True)),
    ) as host:
        ours = Ours(host, pubsub)
        ours.serve()
        yield ours


async def join(ours: Ours, peer: Peer, role: str = "dial") -> libp2p.PeerId:
    """Connect the two, ``role`` being ours. Returns who the peer is, when each side knows what the other one serves.

    The dialer is done a moment before the listener is, who would refuse what it needs a connection or an address for.
    """
    if role == "dial":
        await ours.host.connect(peer.addr)
    else:
        await peer("dial", addr=ours.addr)
    peer_id = libp2p.PeerId.parse(peer.peer_id)
    while not ours.host.peerstore.protocols(peer_id):
        await trio.sleep(0.01)
    return peer_id
