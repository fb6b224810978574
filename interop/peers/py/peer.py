"""The py-libp2p interop peer: speaks interop/CONTRACT.md around the PyPI package libp2p.

Runs in its own virtual environment with `python -I`: the package's import name is also that of this repository.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import json
import math
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from libp2p import new_host
from libp2p.abc import IHost, INetConn, INetStream, INetwork, INotifee
from libp2p.crypto import ed25519, rsa, secp256k1, x25519
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.identity.identify_push.identify_push import push_identify_to_peers
from libp2p.network.config import ConnectionConfig
from libp2p.network.stream.exceptions import StreamEOF, StreamError, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.peer.peerstore import PeerStore
from libp2p.pubsub.pb.rpc_pb2 import Message
from libp2p.pubsub.pubsub import Pubsub
from libp2p.rcmgr import ResourceManager
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.rcmgr.manager import ResourceLimits
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.mplex.mplex import MPLEX_PROTOCOL_ID, Mplex
from libp2p.stream_muxer.mplex.mplex_stream import MplexStream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr

sys.path.append(str(Path(__file__).parent))  # with -I it is not searched
import dht  # noqa: E402
import gossip  # noqa: E402

ECHO = TProtocol("/interop/echo/1.0.0")
DIGEST = TProtocol("/interop/digest/1.0.0")
RESET = TProtocol("/interop/reset/1.0.0")
WATCH = TProtocol("/interop/watch/1.0.0")
SINK = TProtocol("/interop/sink/1.0.0")
PERF = TProtocol("/perf/1.0.0")
PING = TProtocol("/ipfs/ping/1.0.0")

MARK_LENGTH = 4
"""Size of the marks that the reset and watch protocols exchange."""

HASHES_PER_BLOCK = 2048
HASH_LENGTH = 32
READ_SIZE = 64 * 1024
PERF_HEADER = 8
PERF_CHUNK = 64 * 1024
PING_LENGTH = 32
SMALL_ECHO = 100
IDENTIFY_TIMEOUT = 10
PUBSUB_TIMEOUT = 15
UNLIMITED = 100_000
"""High enough to be out of the way of every suite."""

Results = dict[str, Any] | None

KEY_TYPES: dict[str, Callable[[], KeyPair]] = {
    "ed25519": ed25519.create_new_key_pair,
    "secp256k1": secp256k1.create_new_key_pair,
    "rsa": rsa.create_new_key_pair,
}

MUXERS = {
    "yamux": {TProtocol(YAMUX): Yamux},
    "mplex": {MPLEX_PROTOCOL_ID: Mplex},
}

SECURITIES = {
    "noise": lambda keys, _: {NOISE: NoiseTransport(keys, noise_privkey=x25519.create_new_key_pair().private_key)},
    # Without muxers for ALPN: it would offer them, and negotiate the muxer again all the same.
    "tls": lambda keys, _: {TLS: TLSTransport(keys)},
    "plaintext": lambda keys, peerstore: {PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys, peerstore=peerstore)},
}

FEATURES = {
    "name": "py",
    "version": f"py-libp2p {importlib.metadata.version('libp2p')}",
    "transports": ["tcp"],
    "securities": list(SECURITIES),
    "muxers": list(MUXERS),
    "key_types": list(KEY_TYPES),
    "pubsub": ["floodsub"],
    "unsupported": {
        "ecdsa": "py-libp2p has no code to sign with ECDSA keys or to read those of others",
        "long-hold": "a py-libp2p yamux writer gives up when its window stays empty for 5 seconds",
        "mplex-back-pressure": "py-libp2p resets an mplex stream that nobody reads for 5 seconds",
        "psk": "py-libp2p's private networks are of another kind: Salsa20 with nonces of 8 bytes",
        "mplex-full-duplex": "a py-libp2p mplex stream writes nothing while a read waits: echoes write and read in turn",
    },
}


def pattern(seed: int, size: int) -> Iterator[bytes]:
    """The pattern of the contract in pieces of at most one block (64 KiB), so that its size costs no memory."""
    # A short pattern, of which there are many in `streams`, needs only the start of the block.
    hashes = min(HASHES_PER_BLOCK, math.ceil(size / HASH_LENGTH))
    block = b"".join(hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in range(hashes))
    for start in range(0, size, HASHES_PER_BLOCK * HASH_LENGTH):
        yield block[: size - start]


def emit(message: dict[str, Any]) -> None:
    """Print one line of the contract on standard output, which nothing else may use."""
    print(json.dumps(message), flush=True)


def describe(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def read_some(stream: INetStream) -> bytes:
    """Read what is there, or b"" at the end of the stream."""
    try:
        return await stream.read(READ_SIZE)
    except StreamEOF as error:
        if await was_reset(stream):
            raise StreamReset from error
        return b""


async def was_reset(stream: INetStream) -> bool:
    """Tell what the end of a stream was: a read that waits reports a reset as an end, with either muxer."""
    muxed = stream.muxed_stream
    if isinstance(muxed, MplexStream):
        # The reader is woken before the stream knows why.
        await muxed.event_remote_closed.wait()
        return muxed.event_reset.is_set()
    return muxed.reset_received


async def read_chunks(stream: INetStream) -> AsyncIterator[bytes]:
    while chunk := await read_some(stream):
        yield chunk


async def read_exactly(stream: INetStream, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = await stream.read(length - len(data))
        if not chunk:
            raise StreamEOF
        data += chunk
    return data


async def read_to_end(stream: INetStream, on_read: Callable[[bytes], None]) -> None:
    async for chunk in read_chunks(stream):
        on_read(chunk)


async def read_all(stream: INetStream) -> bytes:
    chunks: list[bytes] = []
    await read_to_end(stream, chunks.append)
    return b"".join(chunks)


async def read_outcome(stream: INetStream) -> str:
    """Tell how a read ends on a stream of which the remote is expected to say no more."""
    try:
        return "data" if await read_some(stream) else "eof"
    except StreamError:
        return "reset"


async def write_pattern(
    stream: INetStream, seed: int, size: int, on_sent: Callable[[int], None] = lambda length: None
) -> None:
    """Write the pattern, then close the writing side."""
    for piece in pattern(seed, size):
        await stream.write(piece)
        on_sent(len(piece))
    await stream.close_write()


async def echo_pattern(stream: INetStream, seed: int, size: int, on_read: Callable[[bytes], None]) -> None:
    """Write the pattern while reading back what the remote makes of it."""
    if isinstance(stream.muxed_stream, MplexStream):
        # A read that waits locks writers out of its stream, so they take turns.
        for piece in pattern(seed, size):
            await stream.write(piece)
            on_read(await read_exactly(stream, len(piece)))
        await stream.close_write()
        await read_to_end(stream, on_read)
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_pattern, stream, seed, size)
            await read_to_end(stream, on_read)


async def write_blank(stream: INetStream, first: bytes, size: int, chunk: int) -> None:
    """Write `first` and then `size` bytes more, `chunk` bytes at a time."""
    for start in range(0, len(first) + size, chunk):
        piece = bytes(min(chunk, len(first) + size - start))
        await stream.write(piece if start else first + piece[len(first) :])


async def perf_once(stream: INetStream, upload: int, download: int, chunk: int = PERF_CHUNK) -> None:
    """One measurement of the perf protocol on an open stream."""
    received = 0

    def on_read(data: bytes) -> None:
        nonlocal received
        received += len(data)

    await write_blank(stream, download.to_bytes(PERF_HEADER, "big"), upload, max(chunk, PERF_HEADER))
    await stream.close_write()
    await read_to_end(stream, on_read)
    if received != download:
        raise ValueError(f"{received} bytes came instead of {download}")


@asynccontextmanager
async def finishing(stream: INetStream) -> AsyncIterator[INetStream]:
    """Close the stream after the block; a failure must not leave it half open at the remote."""
    try:
        yield stream
    except BaseException:
        with trio.CancelScope(shield=True):
            await stream.reset()
        raise
    await stream.close()


class InteropProtocols:
    """Serves the interop protocols of the contract and keeps what `status` tells about them."""

    def __init__(self, host: IHost) -> None:
        self.sunk = 0
        self.watched: list[str] = []
        self._released = trio.Event()
        self._released.set()
        for protocol, handler in {
            ECHO: self._echo,
            DIGEST: self._digest,
            RESET: self._reset,
            WATCH: self._watch,
            SINK: self._sink,
            PERF: self._perf,
        }.items():
            host.set_stream_handler(protocol, partial(self._serve, handler))

    def hold(self) -> None:
        # A second hold must not leave the handlers that wait for the first release behind.
        self._released.set()
        self._released = trio.Event()

    def release(self) -> None:
        self._released.set()

    async def _serve(self, handler: Callable[[INetStream], Awaitable[None]], stream: INetStream) -> None:
        """Run a handler; its failure ends its stream, and must not reach the network, which would end with it."""
        try:
            async with finishing(stream):
                await handler(stream)
        except Exception as error:
            print(f"{stream.get_protocol()}: {describe(error)}", file=sys.stderr)

    async def _echo(self, stream: INetStream) -> None:
        async for chunk in read_chunks(stream):
            await stream.write(chunk)

    async def _digest(self, stream: INetStream) -> None:
        await self._answer_digest(stream, lambda chunk: None)

    async def _reset(self, stream: INetStream) -> None:
        await read_exactly(stream, MARK_LENGTH)
        await stream.reset()

    async def _watch(self, stream: INetStream) -> None:
        await stream.write(await read_exactly(stream, MARK_LENGTH))
        self.watched.append(await read_outcome(stream))

    async def _sink(self, stream: INetStream) -> None:
        self.sunk = 0
        await self._released.wait()
        await self._answer_digest(stream, self._count_sunk)

    async def _perf(self, stream: INetStream) -> None:
        size = int.from_bytes(await read_exactly(stream, PERF_HEADER), "big")
        await read_to_end(stream, lambda chunk: None)
        await write_blank(stream, b"", size, PERF_CHUNK)

    def _count_sunk(self, chunk: bytes) -> None:
        self.sunk += len(chunk)

    async def _answer_digest(self, stream: INetStream, on_read: Callable[[bytes], None]) -> None:
        digest = hashlib.sha256()
        async for chunk in read_chunks(stream):
            digest.update(chunk)
            on_read(chunk)
        await stream.write(digest.hexdigest().encode())


class ConnectionEvents(INotifee):
    """Reports connections that come and go."""

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        emit({"event": "connected", "peer": str(conn.muxed_conn.peer_id)})

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        emit({"event": "disconnected", "peer": str(conn.muxed_conn.peer_id)})

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        pass

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        pass

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass


class Commands:
    """The commands of the contract: the method `cmd_X` takes the arguments of X and returns its results."""

    def __init__(
        self,
        host: IHost,
        protocols: InteropProtocols,
        pubsub: Pubsub | None,
        nursery: trio.Nursery,
        arguments: argparse.Namespace,
    ) -> None:
        self._host = host
        self._arguments = arguments
        self._network = host.get_network()
        self._protocols = protocols
        self._pubsub = pubsub
        self._nursery = nursery
        self._pushed = 0
        self._counts: dict[str, gossip.Count] = {}
        self._meshes: dict[tuple[int, int], gossip.Mesh] = {}

    async def answer(self, command: dict[str, Any]) -> None:
        number, name = command.pop("id"), command.pop("cmd")
        try:
            method = getattr(self, f"cmd_{name}", None)
            if method is None:
                raise ValueError(f"unknown command {name}")
            emit({"id": number, "ok": True, **(await method(**command) or {})})
        except Exception as error:
            traceback.print_exc()
            emit({"id": number, "ok": False, "error": describe(error)})

    async def cmd_dial(self, addr: str) -> Results:
        peer = info_from_p2p_addr(Multiaddr(addr)).peer_id
        if not self._network.get_connections(peer):
            # Not host.connect(): it tries all addresses it has heard of, and refuses a peer that it once failed to
            # reach for a minute.
            await self._network.dial_addr(Multiaddr(addr), peer)
        return {"peer_id": str(peer)}

    async def cmd_ping(self, peer: str, count: int) -> Results:
        # The package's own client rounds to milliseconds.
        rtts = []
        async with self._open(peer, PING) as stream:
            for number in range(count):
                payload = number.to_bytes(PING_LENGTH, "big")
                start = time.perf_counter()
                await stream.write(payload)
                answer = await read_exactly(stream, PING_LENGTH)
                rtts.append((time.perf_counter() - start) * 1000)
                if answer != payload:
                    raise ValueError("the pong differs from the ping")
        return {"rtts_ms": rtts}

    async def cmd_identify(self, peer: str) -> Results:
        # The host asks by itself, but keeps only a part of what it is told.
        with trio.fail_after(IDENTIFY_TIMEOUT):
            async with self._open(peer, IDENTIFY) as stream:
                told = await read_identify(stream)
        return {
            "agent": told.agent_version,
            "protocol_version": told.protocol_version,
            "protocols": list(told.protocols),
            "listen_addrs": [str(Multiaddr(address)) for address in told.listen_addrs],
            "observed_addr": str(Multiaddr(told.observed_addr)) if told.observed_addr else None,
        }

    async def cmd_known_protocols(self, peer: str) -> Results:
        return {"protocols": self._host.get_peerstore().get_protocols(ID.from_string(peer))}

    async def cmd_add_protocol(self, protocol: str) -> Results:
        self._host.set_stream_handler(TProtocol(protocol), lambda stream: stream.close())
        await push_identify_to_peers(self._host)

    async def cmd_echo(self, peer: str, size: int, seed: int) -> Results:
        digest, received, start = hashlib.sha256(), 0, time.perf_counter()

        def on_read(chunk: bytes) -> None:
            nonlocal received
            digest.update(chunk)
            received += len(chunk)

        async with self._open(peer, ECHO) as stream:
            await echo_pattern(stream, seed, size, on_read)
        return {"sha256": digest.hexdigest(), "bytes": received, "seconds": time.perf_counter() - start}

    async def cmd_streams(self, peer: str, total: int, parallel: int) -> Results:
        numbers = iter(range(total))
        completed = 0

        async def worker() -> None:
            nonlocal completed
            for number in numbers:
                await self._small_echo(peer, number)
                completed += 1

        async with trio.open_nursery() as nursery:
            for _ in range(parallel):
                nursery.start_soon(worker)
        return {"completed": completed}

    async def cmd_half_close(self, peer: str, size: int, seed: int) -> Results:
        async with self._open(peer, DIGEST) as stream:
            await write_pattern(stream, seed, size)
            return {"response": (await read_all(stream)).decode()}

    async def cmd_expect_reset(self, peer: str) -> Results:
        async with self._open(peer, RESET) as stream:
            await stream.write(bytes(MARK_LENGTH))
            return {"outcome": await read_outcome(stream)}

    async def cmd_send_reset(self, peer: str) -> Results:
        async with self._open(peer, WATCH) as stream:
            await stream.write(bytes(MARK_LENGTH))
            await read_exactly(stream, MARK_LENGTH)
            await stream.reset()

    async def cmd_push(self, peer: str, size: int, seed: int) -> Results:
        self._pushed, start = 0, time.perf_counter()
        async with self._open(peer, SINK) as stream:
            await write_pattern(stream, seed, size, self._count_pushed)
            response = (await read_all(stream)).decode()
        return {"response": response, "seconds": time.perf_counter() - start}

    async def cmd_perf(
        self, peer: str, upload: int, download: int, total: int = 1, parallel: int = 1, chunk: int = PERF_CHUNK
    ) -> Results:
        numbers, latencies = iter(range(total)), []

        async def worker() -> None:
            for _ in numbers:
                opened = time.perf_counter()
                async with self._open(peer, PERF) as stream:
                    await perf_once(stream, upload, download, chunk)
                latencies.append((time.perf_counter() - opened) * 1000)

        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(parallel):
                nursery.start_soon(worker)
        return {"seconds": time.perf_counter() - start, "latencies_ms": latencies}

    async def cmd_connect_many(self, addr: str, total: int, parallel: int, identify: bool) -> Results:
        numbers, latencies = iter(range(total)), []

        async def worker(host: IHost) -> None:
            peer = info_from_p2p_addr(Multiaddr(addr)).peer_id
            for _ in numbers:
                dialled = time.perf_counter()
                await connect_and_use(host, Multiaddr(addr), peer, identify)
                latencies.append((time.perf_counter() - dialled) * 1000)
                # This sleeps for 0.2 s, which is why latencies are told, too.
                await host.disconnect(peer)

        async with AsyncExitStack() as stack:
            hosts = [make_host(self._arguments) for _ in range(parallel)]
            for host in hosts:
                await stack.enter_async_context(host.run([]))
                await host.get_network().event_background_nursery_created.wait()
                await host.get_network().auto_connector.stop()
            start = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for host in hosts:
                    nursery.start_soon(worker, host)
            return {"seconds": time.perf_counter() - start, "latencies_ms": latencies}

    async def cmd_status(self) -> Results:
        return {"pushed": self._pushed, "sunk": self._protocols.sunk, "watch": self._protocols.watched}

    async def cmd_sink_hold(self) -> Results:
        self._protocols.hold()

    async def cmd_sink_release(self) -> Results:
        self._protocols.release()

    async def cmd_connections(self) -> Results:
        return {"peers": [str(connection.muxed_conn.peer_id) for connection in self._network.get_connections()]}

    async def cmd_disconnect(self, peer: str) -> Results:
        await self._host.disconnect(ID.from_string(peer))

    async def cmd_subscribe(self, topic: str) -> Results:
        pubsub = self._require_pubsub()
        if topic not in pubsub.topic_ids:
            # A subscription made while py-libp2p writes its first message to a peer is never told to that peer: the
            # message was made before, and the peer is listed after.
            for connection in self._network.get_connections():
                await pubsub.wait_for_peer(connection.muxed_conn.peer_id, PUBSUB_TIMEOUT)
            subscription = await pubsub.subscribe(topic)
            self._counts[topic] = gossip.Count()
            self._nursery.start_soon(self._report_messages, topic, subscription)

    async def cmd_unsubscribe(self, topic: str) -> Results:
        await self._require_pubsub().unsubscribe(topic)

    async def cmd_publish(self, topic: str, data: str) -> Results:
        await self._require_pubsub().publish(topic, base64.b64decode(data))

    async def cmd_topic_peers(self, topic: str) -> Results:
        return {"peers": [str(peer) for peer in self._require_pubsub().peer_topics.get(topic, ())]}

    async def cmd_publish_many(self, topic: str, total: int, size: int) -> Results:
        return await gossip.publish_many(self._require_pubsub(), topic, total, size)

    async def cmd_collect(self, topic: str, total: int, patience: float) -> Results:
        return await self._counts[topic].collect(total, patience)

    async def cmd_mesh(self, nodes: int, dials: int, **load: float) -> Results:
        mesh = self._meshes.get((nodes, dials))
        if mesh is None:
            hosts = [make_host(self._arguments) for _ in range(nodes)]
            mesh = self._meshes[nodes, dials] = await self._nursery.start(gossip.run_mesh, hosts, dials)
        return await mesh.publish_many(**load)

    async def cmd_dht_many(self, nodes: int, rounds: int) -> Results:
        return await dht.dht_many([make_host(self._arguments) for _ in range(nodes)], rounds)

    def _connected(self, peer: str) -> ID:
        """The id of a connected peer. Commands never dial by themselves, as the package would."""
        peer_id = ID.from_string(peer)
        if not self._network.get_connections(peer_id):
            raise ConnectionError(f"not connected to {peer}")
        return peer_id

    @asynccontextmanager
    async def _open(self, peer: str, protocol: TProtocol) -> AsyncIterator[INetStream]:
        async with finishing(await self._host.new_stream(self._connected(peer), [protocol])) as stream:
            yield stream

    async def _small_echo(self, peer: str, seed: int) -> None:
        async with self._open(peer, ECHO) as stream:
            await write_pattern(stream, seed, SMALL_ECHO)
            if await read_all(stream) != b"".join(pattern(seed, SMALL_ECHO)):
                raise ValueError(f"echo stream {seed} came back changed")

    def _count_pushed(self, length: int) -> None:
        self._pushed += length

    def _require_pubsub(self) -> Pubsub:
        if self._pubsub is None:
            raise ValueError("started with --pubsub none")
        return self._pubsub

    async def _report_messages(self, topic: str, messages: AsyncIterator[Message]) -> None:
        count = self._counts[topic]
        async for message in messages:
            sender = ID(message.from_id)
            if sender == self._host.get_id():
                continue
            count.add()
            if not self._arguments.quiet:
                data = base64.b64encode(message.data).decode()
                emit({"event": "message", "topic": topic, "from": str(sender), "data": data})


async def read_identify(stream: INetStream) -> Identify:
    return Identify.FromString(await read_length_prefixed_protobuf(stream))


async def connect_and_use(host: IHost, addr: Multiaddr, peer: ID, identify: bool) -> None:
    await host.get_network().dial_addr(addr, peer)
    async with finishing(await host.new_stream(peer, [PERF])) as stream:
        await perf_once(stream, 0, 1)
    if identify:
        # The host does so by itself and tells nobody when it is done.
        async with finishing(await host.new_stream(peer, [IDENTIFY])) as stream:
            await read_identify(stream)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--transport", choices=FEATURES["transports"], default="tcp")
    parser.add_argument("--listen", action="append")
    parser.add_argument("--security", choices=FEATURES["securities"], default="noise")
    parser.add_argument("--muxer", choices=FEATURES["muxers"], default="yamux")
    parser.add_argument("--key-type", choices=FEATURES["key_types"], default="ed25519")
    parser.add_argument("--pubsub", choices=[*FEATURES["pubsub"], "gossipsub", "none"], default="floodsub")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--features", action="store_true")
    return parser.parse_args()


def make_host(arguments: argparse.Namespace) -> IHost:
    keys, peerstore = KEY_TYPES[arguments.key_type](), PeerStore()
    return new_host(
        key_pair=keys,
        peerstore_opt=peerstore,
        sec_opt=SECURITIES[arguments.security](keys, peerstore),
        muxer_opt=MUXERS[arguments.muxer],
        connection_config=ConnectionConfig(
            max_connections=UNLIMITED, high_watermark=UNLIMITED, max_connections_per_peer=UNLIMITED
        ),
        resource_manager=ResourceManager(
            limits=ResourceLimits(max_connections=UNLIMITED, max_streams=UNLIMITED),
            connection_limits=ConnectionLimits(),
            enable_rate_limiting=False,
            enable_circuit_breaker=False,
            enable_graceful_degradation=False,
        ),
    )


async def serve(arguments: argparse.Namespace) -> None:
    host = make_host(arguments)
    protocols = InteropProtocols(host)
    if not arguments.quiet:
        host.get_network().register_notifee(ConnectionEvents())
    listen = [Multiaddr(address) for address in arguments.listen or ["/ip4/127.0.0.1/tcp/0"] if address != "none"]

    async with host.run(listen), gossip.running_pubsub(host, arguments.pubsub) as pubsub, trio.open_nursery() as nursery:
        # The connector dials known peers to have at least 100 connections: one that a suite ended would come back.
        await host.get_network().event_background_nursery_created.wait()
        await host.get_network().auto_connector.stop()
        emit(
            {
                "event": "ready",
                "peer_id": str(host.get_id()),
                "addrs": [str(address) for address in host.get_addrs()],
                "version": FEATURES["version"],
            }
        )

        commands = Commands(host, protocols, pubsub, nursery, arguments)
        async for line in trio.wrap_file(sys.stdin):
            command = json.loads(line)
            if command["cmd"] == "shutdown":
                emit({"id": command["id"], "ok": True})
                await host.close()
                break
            nursery.start_soon(commands.answer, command)
        nursery.cancel_scope.cancel()


def main() -> None:
    arguments = parse_arguments()
    if arguments.features:
        emit(FEATURES)
    else:
        trio.run(serve, arguments)


if __name__ == "__main__":
    main()
