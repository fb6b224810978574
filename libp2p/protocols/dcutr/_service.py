"""Both parts of a hole punch.

Theory of operation. Two peers are connected through a relay. The *starter* is the one that was dialled there: once it
has identified the other, it tries a plain dial, and then up to three times to meet it half-way. For that both tell each
other, through the relay, where they are seen (CONNECT); the starter measures the round trip by it, says SYNC, and lets
half a round trip pass: now the other has just received it, and both send their first packets at the same moment. Each
NAT sees its own host speak first, and lets in what comes from there.

The other, who dialled the relayed connection, is the dialer here too: the client of the handshake. The starter takes
the listener's part. On its second try it dials instead: a listener accepts it, and from behind a NAT with a port for
each destination this is the only way that leads out (go does so on the third).

The relayed connection stays as it is. New streams prefer the direct one by the swarm's order; those that are open stay
where they are, and when there are none any more, the starter closes the relayed connection.

Source: libp2p/specs relay/DCUtR; times are go's (``p2p/protocol/holepunch``) where they do not say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio
from multiaddr import Multiaddr

from ...abc import Connection, Direction, Host, ProtocolId, Service, Stream, StreamHandler
from ...addressing import is_relay
from ...errors import DecodeError, DialError, Libp2pError, RemoteProtocolError, ServiceError
from ...events import HolePunchEnded, PeerIdentified
from ...metrics import Metric, Tally
from ...peer_id import PeerId
from ...wire.framing import FrameBuffer, frame
from ._codec import MAX_MESSAGE, HolePunch, Kind, decode, encode, punchable

DCUTR: ProtocolId = "/libp2p/dcutr"
"""The protocol id."""
RESOURCE_LIMIT = 0x1002
"""Stream error code of libp2p (specs error-codes)."""
_READ_SIZE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DcutrConfig:
    """How holes are punched."""

    tries: int = 3
    """Tries for each relayed connection, whoever starts them (specs)."""
    direct_timeout: float = 1.5
    """Seconds for the plain dial before them (ours; go: 5). Mostly it fails, and then nothing answers at all."""
    exchange_timeout: float = 15.0
    """Seconds for the messages of a try (ours; go: 60)."""
    punch_timeout: float = 5.0
    """Seconds to get through, and to be connected (go)."""
    at_once: int = 16
    """Peers that are punched for at a time; others stay relayed, or ask again (ours)."""
    retire_after: float = 10.0
    """Seconds between two looks whether the relayed connection is still needed after success (ours)."""

    def __post_init__(self) -> None:
        times = (self.direct_timeout, self.exchange_timeout, self.punch_timeout, self.retire_after)
        if min(self.tries, self.at_once) < 1 or min(times) <= 0:
            raise ValueError("tries, bounds and times must be positive")


class Dcutr(Service):
    """Replaces relayed connections by direct ones, where that can be done.

    For TCP the host must dial from the ports it listens on, which ``Tcp(reuse_port=True)`` does;
    :func:`libp2p.open_host` makes it so when this service is given and no transports are. QUIC always does.

    Args:
        config: tries and times.
    """

    reuses_ports = True

    def __init__(self, config: DcutrConfig | None = None) -> None:
        self._config = config or DcutrConfig()
        self._host: Host | None = None
        # Tries on relayed connections that are open, and the peers that are punched for now.
        self._tries: dict[Connection, int] = {}
        self._busy: dict[PeerId, None] = {}
        self._outcomes = Tally()

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """DCUtR."""
        return {DCUTR: self._answer}

    @property
    def limited_protocols(self) -> frozenset[ProtocolId]:
        """DCUtR runs over relayed connections, and nowhere else."""
        return frozenset((DCUTR,))

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start with every peer that connects through a relay, until cancelled."""
        self._host = host
        try:
            with host.subscribe(PeerIdentified) as identified:
                async with trio.open_nursery() as nursery:
                    task_status.started()
                    async for event in identified:
                        relayed = self._to_upgrade(host, event)
                        if relayed is not None:
                            self._begin(host, relayed)
                            nursery.start_soon(self._start, host, relayed, event.listen_addrs)
        finally:
            self._host = None
            self._tries.clear()
            self._busy.clear()

    # --- starting

    def _to_upgrade(self, host: Host, event: PeerIdentified) -> Connection | None:
        """The relayed connection that a peer has just been identified on, when it is for us to start."""
        if DCUTR not in event.protocols or event.peer in self._busy or len(self._busy) >= self._config.at_once:
            return None
        connections = host.connections(event.peer)
        if not all(is_relay(connection.remote_addr) for connection in connections):
            return None
        ours = (connection for connection in connections if connection.direction is Direction.INBOUND)
        return next((connection for connection in ours if connection not in self._tries), None)

    async def _start(self, host: Host, relayed: Connection, known: Sequence[Multiaddr]) -> None:
        tries = 0
        connection: Connection | None = None
        try:
            with trio.move_on_after(self._config.direct_timeout), suppress(DialError):
                connection = await host.connect_directly(relayed.peer, known)
            while connection is None and tries < self._config.tries:
                tries += 1
                self._tries[relayed] = tries
                addrs = await self._agree(host, relayed)
                direction = Direction.INBOUND if tries % 2 else Direction.OUTBOUND
                connection = await self._punch(host, relayed.peer, addrs, direction)
        except (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as exc:
            reason = str(exc) or "the peer took too long to answer"
        else:
            reason = "" if connection is not None else f"{tries} tries failed"
        finally:
            self._busy.pop(relayed.peer, None)  # all are forgotten when the service ends
        self._report(host, "initiator", HolePunchEnded(relayed.peer, connection, tries, reason))
        if connection is not None:
            await self._retire(host, relayed)

    async def _agree(self, host: Host, relayed: Connection) -> tuple[Multiaddr, ...]:
        """Exchange addresses, and return those of the peer at the moment when it begins to dial."""
        own = _own_addrs(host)
        with trio.fail_after(self._config.exchange_timeout):
            async with await relayed.open_stream(DCUTR, allow_limited=True) as stream:
                messages = _Messages(stream)
                asked = trio.current_time()
                await messages.send(HolePunch(kind=Kind.CONNECT, addrs=own))
                answer = await messages.receive(Kind.CONNECT)
                round_trip = trio.current_time() - asked
                await messages.send(HolePunch(kind=Kind.SYNC))
            await trio.sleep(round_trip / 2)
        return answer.addrs

    async def _retire(self, host: Host, relayed: Connection) -> None:
        """Close the relayed connection once nothing uses it: relays have few places."""
        while relayed in host.connections(relayed.peer):
            await trio.sleep(self._config.retire_after)
            if all(is_relay(connection.remote_addr) for connection in host.connections(relayed.peer)):
                return  # the direct one has gone first
            if not relayed.stream_count:
                await relayed.aclose()

    # --- answering

    async def _answer(self, stream: Stream) -> None:
        host, relayed = self._host, stream.connection
        if host is None or not is_relay(relayed.remote_addr) or relayed.direction is Direction.INBOUND:
            return stream.reset()  # the host is closing; or it is not for the peer to start (go refuses it as well)
        tries = self._tries.get(relayed, 0) + 1
        full = relayed.peer in self._busy or len(self._busy) >= self._config.at_once
        if full or tries > self._config.tries:
            return stream.reset(RESOURCE_LIMIT)
        own = _own_addrs(host)
        self._begin(host, relayed)
        self._tries[relayed] = tries
        connection = None
        try:
            with trio.fail_after(self._config.exchange_timeout):
                messages = _Messages(stream)
                asked = await messages.receive(Kind.CONNECT)
                await messages.send(HolePunch(kind=Kind.CONNECT, addrs=own))
                await messages.receive(Kind.SYNC)
            stream.close()
            connection = await self._punch(host, relayed.peer, asked.addrs, Direction.OUTBOUND)
        finally:
            self._busy.pop(relayed.peer, None)  # all are forgotten when the service ends
        reason = "" if connection is not None else "no address that the peer is seen at could be reached"
        self._report(host, "receiver", HolePunchEnded(relayed.peer, connection, tries, reason))

    # --- both

    def _begin(self, host: Host, relayed: Connection) -> None:
        self._tries = {conn: tries for conn, tries in self._tries.items() if conn in host.connections(conn.peer)}
        self._tries.setdefault(relayed, 0)
        self._busy[relayed.peer] = None

    async def _punch(
        self, host: Host, peer: PeerId, addrs: Iterable[Multiaddr], direction: Direction
    ) -> Connection | None:
        """A direct connection, if there is one in time, whoever makes it."""
        with trio.move_on_after(self._config.punch_timeout):
            try:
                return await host.connect_directly(peer, addrs, direction=direction)
            except DialError:
                # We were refused everywhere. The peer goes on, may get through, and takes no other try meanwhile.
                return await host.connect_directly(peer, (), direction=Direction.INBOUND)
        return None

    def _report(self, host: Host, side: str, event: HolePunchEnded) -> None:
        self._outcomes.add(side, str(event.tries), "failed" if event.connection is None else "success")
        host.publish(event)

    def measure(self) -> Iterable[Metric]:
        """What became of hole punches, under the name of go-libp2p's dashboards."""
        help_text = "Hole punches that have ended"
        yield self._outcomes.metric("libp2p_holepunch_outcomes_total", help_text, "side", "num_attempts", "outcome")


def _own_addrs(host: Host) -> tuple[Multiaddr, ...]:
    """What to tell a peer. Peers take a message without addresses for an error (rust).

    Raises:
        ServiceError: nobody has said yet where this host is seen, and it listens nowhere that would do.
    """
    own = punchable((*host.observed_addrs, *host.listen_addrs()))
    if not own:
        raise ServiceError("it is not known where this host is seen")
    return own


class _Messages:
    """The messages of one stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = FrameBuffer(MAX_MESSAGE)

    async def send(self, message: HolePunch) -> None:
        await self._stream.send_all(frame(encode(message)))

    async def receive(self, wanted: Kind) -> HolePunch:
        """Wait for the next message.

        Raises:
            RemoteProtocolError: it is none, or another one than is wanted.
        """
        try:
            found = self._buffer.receive_data(b"", limit=1)
            while not found:
                data = await self._stream.receive_some(_READ_SIZE)
                if not data:
                    raise RemoteProtocolError("hole punching: the peer ended the stream before it had said all")
                found = self._buffer.receive_data(data, limit=1)
            message = decode(found[0])
        except DecodeError as exc:
            raise RemoteProtocolError(f"hole punching: {exc}") from exc
        if message.kind is not wanted:
            raise RemoteProtocolError(f"hole punching: a {message.kind.name} where a {wanted.name} was due")
        return message
