"""The QUIC engine, qh3, behind the narrow interface that the rest of this package knows.

An :class:`Engine` is one end of one connection without any input or output: datagrams go in, events come out, datagrams
to send come out. qh3's core (packets, recovery, streams, in Rust) does not know TLS, and its TLS does not know packets;
this class carries between the two, as qh3's own ``QuicConnection`` does, with our TLS (:mod:`._tls`), our limits, and
without what libp2p does not use: datagrams, resumption, version 2, unidirectional streams.

Everything that touches the insides of qh3 is in this file and in ``_tls.py``, so the version is pinned.

*Flow control.* The core gives the peer credit for stream data when the event that carries it is taken from its queue.
Whoever stops calling :meth:`Engine.next_event` therefore holds the peer back, and bounds what the core keeps; but the
queue is one for all streams. See ``_machine.py`` for what is made of it.

*Work.* What packets of a proved peer cost the core is measured, because nobody outside of it can tell what is in them.

Pure; ``now`` is a parameter, in seconds of a clock that only moves forward and is never negative. Specification:
RFC 9000, 9001.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, TypeAlias

from qh3 import tls
from qh3._hazmat import Buffer as QuicBuffer
from qh3._hazmat import CryptoError, QuicConnectionCore
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.crypto import CIPHER_SUITES
from qh3.quic.packet import (
    QuicErrorCode,
    QuicTransportParameters,
    get_retry_integrity_tag,
    push_quic_transport_parameters,
)
from qh3.quic.tls_bridge import QuicTlsBridge, QuicTlsBridgeError

from ...abc import Buffer
from ...crypto.keys import PublicKey
from ...errors import ConnectionClosed, SecurityError
from ...peer_id import PeerId
from ._ends import LateEnds
from ._packets import CID_SIZE, VERSION_1, PacketKind, read_header, read_retry
from ._tls import MutualContext, Outside, TlsIdentity

Address: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"
"""Of a UDP socket, as the socket module has it."""
Event: TypeAlias = "tuple[Any, ...]"
"""Its name and its fields; those that matter here::

    ("stream_data", id, data, fin)          ("connection_id_issued", cid)
    ("stream_reset", id, code, final size)  ("connection_id_retired", cid)
    ("stop_sending", id, code)              ("handshake_complete",)
    ("stream_finished", id)                 ("handshake_failed", code, reason)
    ("streams_available", uni, maximum)     ("peer_closed", by its application, code, frame type, reason)
    ("protocol_error", code, frame type, reason)
    ("connection_terminated", code, frame type, reason)
"""

MAX_HELLO = 16 * 1024
"""Bytes of a peer that has not shown yet that it receives at its address, a ClientHello half a dozen times; it is heard
no more above. What comes out of order the core keeps byte by byte, each in some 18."""
MAX_HANDSHAKE = 32 * 1024
"""Bytes of a peer that has not proved its identity, likewise. And those it tells TLS, ever."""
MAX_CONNECTION_IDS = 4
"""Connection ids of the peer kept at a time; it may ask us to use others."""
ACK_DELAY = 0.025
"""Seconds that an acknowledgement may wait."""
EXCESSIVE_WORK = 0x1003
"""Error code of a connection that costs too much (libp2p connections specification, error codes: rate limited)."""
PIECE = 4
"""Joined datagrams worked on in one go, if nothing was wrong with their sender's so far."""
WORK_PER_PIECE, WORK_PER_BYTE, WORK_PER_ACKNOWLEDGED = 100e-6, 0.2e-6, 10e-9
"""Seconds of the processor that a peer may cost the core: for what it sends, and for each byte that is in flight no
more, which may be megabytes at once. Some ten times what honest peers cost."""
WORK_LIMIT = 0.050
"""Seconds above that at which a peer is given up. The core looks through all connection ids there ever were for each
that comes or goes (qh3 2.1.0), so a megabyte of those alone would take minutes."""
WORK_ONCE = 0.6 * WORK_LIMIT
"""What one piece may be charged with: the collector of garbage may have run just then, which is nobody's fault."""
BURST = 44
"""Datagrams made at a time: as many as the kernel takes in one call."""
KEY_LIFE = 1 << 22
"""Packets made with one key; AES-GCM allows twice as many (RFC 9001, section 6.6). The core counts none."""
UNANSWERED = 64 * 1024
"""Bytes that may be unacknowledged above what congestion control ever allowed: the core answers every PATH_CHALLENGE
with a packet, and keeps some 300 bytes for each that its peer does not acknowledge."""

_DATA_AND_ADDRESS = itemgetter(0, 1)

# What qh3 raises for bytes that do not parse, besides its alerts; found by fuzzing, and by reading.
_FAULTS = (ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, CryptoError)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What one end allows the other.

    Attributes:
        idle_timeout: seconds without a packet after which the connection is over.
        stream_window: bytes the peer may send on a stream ahead of what was taken.
        connection_window: the same over all streams.
        max_streams: streams the peer may have open.
        datagram_size: bytes of a datagram before the path is known to take more.
        initial_rtt: seconds assumed for the first round trip.
    """

    idle_timeout: float = 30.0
    stream_window: int = 1024 * 1024
    connection_window: int = 4 * 1024 * 1024
    max_streams: int = 256
    datagram_size: int = 1280
    initial_rtt: float = 0.333


@dataclass(frozen=True, slots=True)
class Start:
    """How a server's connection began.

    Attributes:
        cid: the connection id its client sent its first packet of this connection to.
        original_cid: the same before a Retry, if there was one.
        retried: whether there was.
    """

    cid: bytes
    original_cid: bytes
    retried: bool


class _Bridge(QuicTlsBridge):
    """qh3's handling of TLS for QUIC, around a context of ours."""

    def __init__(
        self, context: MutualContext, config: EngineConfig, configuration: QuicConfiguration, **ids: Any
    ) -> None:
        self._engine_config = config
        super().__init__(configuration, version=VERSION_1, **ids)  # pyright: ignore[reportUnknownMemberType]
        # The context it has made for itself was never used.
        context.handshake_extensions = self.tls.handshake_extensions
        context.alpn_cb = self._on_alpn
        context.update_traffic_key_cb = self._on_traffic_secret
        self.tls = context

    def serialize_transport_parameters(self) -> bytes:
        config, is_client = self._engine_config, self.configuration.is_client
        parameters = QuicTransportParameters(
            max_idle_timeout=int(config.idle_timeout * 1000),
            initial_max_data=config.connection_window,
            initial_max_stream_data_bidi_local=config.stream_window,
            initial_max_stream_data_bidi_remote=config.stream_window,
            initial_max_stream_data_uni=0,
            initial_max_streams_bidi=config.max_streams,
            initial_max_streams_uni=0,
            initial_source_connection_id=self.local_initial_source_connection_id,
            active_connection_id_limit=MAX_CONNECTION_IDS,
            max_ack_delay=int(ACK_DELAY * 1000),
            stateless_reset_token=None if is_client else self.stateless_reset_token,
            original_destination_connection_id=None if is_client else self.original_destination_connection_id,
            retry_source_connection_id=None if is_client else self.retry_source_connection_id,
        )
        buf = QuicBuffer(capacity=512)
        push_quic_transport_parameters(buf, parameters)
        return bytes(buf.data)


class Engine:
    """One end of a connection.

    Args:
        remote: the other end's address.
        cid: this end's first connection id, :data:`~._packets.CID_SIZE` random bytes.
        start: how it began, for a server; None for a client.
        expected: the peer that must answer, None when anyone may.

    Attributes:
        is_client: whether this end dialled.
        initial_cid: what a client calls its server before that has chosen an id of its own.
        authenticated: whether the handshake is complete on this end and has proved who the peer is.
        waiting: how many events arrived since :meth:`next_event` said that there were no more.
    """

    def __init__(
        self,
        identity: TlsIdentity,
        config: EngineConfig,
        outside: Outside,
        *,
        remote: Address,
        cid: bytes,
        start: Start | None,
        expected: PeerId | None,
        now: float,
    ) -> None:
        self._identity = identity
        self._config = config
        self._outside = outside
        self._remote = remote
        self._cid = cid
        self.is_client: bool = start is None
        self._expected = expected
        first = outside.entropy(CID_SIZE)
        self._start = start or Start(first, first, False)
        self.initial_cid: bytes = self._start.cid
        self._received = self._told = self._made = 0
        self._may_send = MAX_HANDSHAKE if start is None or start.retried else MAX_HELLO
        self._work = 0.0
        self.waiting: int = 0
        self._in_flight: int = 0
        self._widest: float = 0
        self._remote_parameters: QuicTransportParameters | None = None
        self._pending: list[Event] = []
        self._failure: str | None = None
        self.authenticated: bool = False
        self._create(self._start.cid, None, now)
        if self.is_client:
            self._bridge.start()
            self._drain_tls()

    def _create(self, destination: bytes, retry_cid: bytes | None, now: float) -> None:
        config = self._config
        self._core = QuicConnectionCore(
            self.is_client,
            VERSION_1,
            ("::" if ":" in self._remote[0] else "0.0.0.0", 0),
            self._remote,
            self._cid,
            destination,
            self.is_client or self._start.retried,
            MAX_CONNECTION_IDS,
            config.datagram_size,
            True,  # probe for larger datagrams (the core does it for clients only)
            config.idle_timeout,
            3,  # ack delay exponent, the default of RFC 9000
            None,
            None,
            config.connection_window,
            0,
            config.stream_window,
            0,
            0,
            0,
            config.stream_window,
            config.max_streams,
            0,
            0,
            0,
            config.initial_rtt,
            ACK_DELAY,
            now,
        )
        self._ends = LateEnds(self._core)
        self._context = MutualContext(
            self._identity, is_client=self.is_client, expected=self._expected, outside=self._outside
        )
        configuration = QuicConfiguration(alpn_protocols=[], is_client=self.is_client, verify_mode=0)
        configuration.certificate = self._context.certificate
        configuration.private_key = self._context.certificate_private_key
        if self._start.retried:
            retry_cid = self._start.cid
        self._bridge = _Bridge(
            self._context,
            config,
            configuration,
            local_initial_source_connection_id=self._cid,
            original_destination_connection_id=self._start.original_cid,
            retry_source_connection_id=retry_cid,
        )

    # --- who is there

    @property
    def remote_key(self) -> PublicKey | None:
        """The peer's identity key, once it is proved."""
        return self._context.proved_key if self.authenticated else None

    @property
    def identity_failure(self) -> SecurityError | None:
        """Why the peer's identity was refused, if it was."""
        return self._context.failure

    @property
    def idle_timeout(self) -> float:
        """Seconds of silence after which one end or the other gives up."""
        theirs = self._remote_parameters.max_idle_timeout if self._remote_parameters is not None else None
        return min(self._config.idle_timeout, theirs / 1000 if theirs else math.inf)

    # --- inputs from the world

    def receive(self, datagrams: Iterable[bytes], remote: Address, now: float) -> None:
        """Take datagrams of one address. What they are not is their sender's problem: nothing is raised."""
        busy = self._outside.processor()
        for datagram in datagrams:
            if self.authenticated:
                self._receive(busy, self._core.receive_datagram, datagram, remote, now)
            else:
                self._receive_early(datagram, remote, now)

    def receive_segments(self, data: bytes, size: int, remote: Address, now: float) -> None:
        """Take datagrams of ``size`` bytes each, the last one maybe shorter, that the kernel has joined."""
        busy = self._outside.processor()
        start = 0
        while start < len(data):
            step = size * PIECE if self.authenticated and not self._work else size
            piece = data[start : start + step]
            if self.authenticated:
                self._receive(busy, self._core.receive_gro_buffer, piece, size, remote, now)
            else:
                self._receive_early(piece, remote, now)
            start += step

    def _receive(self, busy: float, call: Callable[..., tuple[int, ...]], data: bytes, *rest: object) -> None:
        """Have the core work on ``data``, until the peer has cost too much.

        Args:
            busy: the processor's time some moment before.
        """
        if self._work > WORK_LIMIT:
            return
        began = self._outside.stopwatch()
        self.waiting += call(data, *rest)[-1]
        took, allowed = self._outside.stopwatch() - began, WORK_PER_PIECE + len(data) * WORK_PER_BYTE
        if took > allowed:  # maybe because others had the processor; to look at its own time each time would be dear
            took = min(took, self._outside.processor() - busy)
        work = min(took, WORK_ONCE) - allowed
        if work > 0:
            work -= max(0, self._in_flight - self._core.bytes_in_flight) * WORK_PER_ACKNOWLEDGED
        self._work = max(0.0, self._work + work)
        if self._work > WORK_LIMIT:
            self._work = math.inf
            self._pending.append(("protocol_error", EXCESSIVE_WORK, None, "its packets take too much work"))
            self.close(EXCESSIVE_WORK, "")

    def _receive_early(self, datagram: bytes, remote: Address, now: float) -> None:
        """Before the handshake is complete: packet by packet, because keys come from the packets before."""
        self._received += len(datagram)
        if self._received > self._may_send:
            return
        offset = 0
        while offset < len(datagram):
            header = read_header(datagram, offset)
            if header is None:
                return
            if header.kind is PacketKind.RETRY:
                self._take_retry(datagram, now)
                return
            if header.kind is PacketKind.VERSION_NEGOTIATION:
                self._take_version_negotiation(header.source_cid, header.versions)
                return
            packet = datagram[offset : header.end]
            report = self._core.receive_datagram(packet, remote, now, len(datagram))
            if report[2] and header.source_cid:  # it was authentic
                self._bridge.remote_initial_source_connection_id = header.source_cid
                if header.kind is PacketKind.HANDSHAKE:
                    self._may_send = MAX_HANDSHAKE
            self._drain_core()
            offset = header.end

    def _take_retry(self, datagram: bytes, now: float) -> None:
        """Begin again with the server's token (RFC 9000, section 17.2.5). Once, and before anything else was heard."""
        if not self.is_client or self._core.received_authenticated_packet or self._start.retried:
            return
        retry = read_retry(datagram)
        if retry is None or retry.destination_cid != self._cid:
            return
        tag = get_retry_integrity_tag(datagram[:-16], self._start.original_cid, version=VERSION_1)
        if tag != retry.tag:
            return
        self._start = Start(retry.source_cid, self._start.original_cid, True)
        self._create(retry.source_cid, retry.source_cid, now)
        self._core.set_initial_token(retry.token)
        self._bridge.start()
        self._drain_tls()

    def _take_version_negotiation(self, source_cid: bytes, versions: tuple[int, ...]) -> None:
        """The server does not speak version 1, unless the packet is a lie (RFC 9000, section 6.2)."""
        if self.is_client and not self._core.received_authenticated_packet and source_cid == self._start.cid:
            if VERSION_1 not in versions:
                self._fail("the peer speaks other versions of QUIC only")

    def _fail(self, reason: str) -> None:
        """End the connection without a word."""
        if self._failure is None:
            self._failure = reason
            self._pending.append(("connection_terminated", 0, None, reason.encode()))

    def handle_timeout(self, now: float) -> None:
        """Do what is due. Harmless when nothing is."""
        self._core.handle_timer(now)
        self._drain_core()

    def next_timeout(self) -> float | None:
        """When to call :meth:`handle_timeout`, or None."""
        timer = self._core.get_timer() if self._failure is None else None
        return None if timer is None else timer[1]

    # --- outputs

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """What is to be sent now, and where to, as far as congestion control lets it go: some :data:`BURST` datagrams.
        When there are as many, there may be more.

        Raises:
            ConnectionClosed: the engine failed, or the peer has it send without end, and the connection is over; the
                peer is told by the next call.
        """
        found = self._poll(now)
        if len(found) < BURST and self._ends and self._core.state == "connected":
            due = self._ends.due(now)
            for stream_id in due:
                self._send(stream_id, b"", True)
            if due or self._ends.asked:  # each look uses up what pacing allows, and then asks for another one
                found += self._poll(now)
        self._made += len(found)
        if self._made >= KEY_LIFE:
            self._change_keys()
        self._in_flight = self._core.bytes_in_flight
        self._widest = max(self._widest, self._core.congestion_window)
        if self._in_flight > self._widest + UNANSWERED:
            self._widest = math.inf
            self.close(EXCESSIVE_WORK, "")
            raise ConnectionClosed("the peer acknowledges nothing", code=EXCESSIVE_WORK)
        return found

    @property
    def repeats(self) -> bool:
        """Whether something was sent again on this connection. From then on :meth:`transmit` before taking events: the
        engine fails when it has prepared a repetition for a stream that an event then ends (qh3 2.1.0)."""
        return self._core.loss_total > 0 or self._core.pto_total > 0

    def _change_keys(self) -> None:
        try:
            self._core.request_key_update()
        except ValueError:
            return  # the peer has not answered the last change: this is tried again with the next packets
        self._made = 0

    def _poll(self, now: float) -> list[tuple[bytes, Address]]:
        found: list[tuple[bytes, Address]] = []
        try:
            found.extend(map(_DATA_AND_ADDRESS, islice(iter(partial(self._core.poll_transmit, now), None), BURST)))
        except RuntimeError:
            pass  # what an unproved address may still be sent has no room for a packet: more comes when it has spoken
        except ValueError as exc:
            # See ``repeats``, which makes it rare. What was to be sent beside the repetition is lost for good.
            self._core.close(QuicErrorCode.INTERNAL_ERROR, 0, b"")
            raise ConnectionClosed(f"the QUIC engine failed: {exc}", code=QuicErrorCode.INTERNAL_ERROR) from exc
        return found

    def next_event(self) -> Event | None:
        """The next event, None when there is none. Taking stream data gives the peer credit for more."""
        while True:
            if self._pending:
                return self._pending.pop(0)
            event: Event | None = self._core.next_event() if self.authenticated else None
            if event is None:
                self.waiting = 0
                return None
            if event[0] == "crypto_data":
                self._take_crypto(event)
            elif event[0] == "handshake_done":
                self._core.handshake_confirmed()
            else:
                return event

    def _drain_core(self) -> None:
        """While there is no identity, the core speaks to TLS and about ends only; afterwards it is left to be asked."""
        while not self.authenticated and (event := self._core.next_event()) is not None:
            if event[0] == "crypto_data":
                self._take_crypto(event)
            else:
                self._pending.append(event)

    def _take_crypto(self, event: Event) -> None:
        _, epoch, offset, data = event
        self._told += len(data)
        if self._told > MAX_HANDSHAKE:
            self._refuse(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, "the peer does not come to an end")
            return
        try:
            self._bridge.receive_crypto(tls.Epoch(epoch), data, offset)
            self._drain_tls()
        except QuicTlsBridgeError as exc:
            self._refuse(exc.error_code, exc.reason_phrase)
        except tls.Alert as exc:  # from a signature or a key that does not fit
            self._refuse(QuicErrorCode.CRYPTO_ERROR + exc.description, str(exc))
        except _FAULTS as exc:
            self._refuse(QuicErrorCode.CRYPTO_ERROR + tls.AlertDescription.decode_error, f"{type(exc).__name__}: {exc}")

    def _refuse(self, code: int, reason: str) -> None:
        self._pending.append(("handshake_failed", code, reason))
        self._core.close(code, 6, b"")  # 6: it was a CRYPTO frame. The reason may say whom we wanted: it stays here.

    def _drain_tls(self) -> None:
        """Carry what TLS has made to the core: keys, bytes for the peer, the peer's parameters, the end."""
        core, bridge = self._core, self._bridge
        while (secret := bridge.next_traffic_secret()) is not None:
            hp_name, aead_name = CIPHER_SUITES[secret.cipher_suite]
            core.install_packet_key(
                "send" if secret.direction == tls.Direction.ENCRYPT else "receive",
                int(secret.epoch),
                (aead_name.decode(), hp_name.decode()),
                secret.key,
                secret.iv,
                secret.hp,
                0,
                secret.secret,
                secret.version,
            )
        while (crypto := bridge.next_crypto_data()) is not None:
            core.send_crypto(int(crypto.epoch), crypto.offset, crypto.data)
        if bridge.remote_transport_parameters is not None and self._remote_parameters is None:
            self._remote_parameters = bridge.remote_transport_parameters
            self._apply(self._remote_parameters)
        while bridge.next_event() is not None:
            pass
        if not self.authenticated and self._context.proved_key is not None:
            self.authenticated = True
            core.handshake_complete()
            self._pending.append(("handshake_complete",))

    def _apply(self, found: QuicTransportParameters) -> None:
        self._core.apply_peer_transport_parameters(
            found.initial_max_data or 0,
            found.initial_max_stream_data_bidi_local or 0,
            found.initial_max_stream_data_bidi_remote or 0,
            0,
            found.initial_max_streams_bidi or 0,
            0,
            3 if found.ack_delay_exponent is None else found.ack_delay_exponent,
            0.025 if found.max_ack_delay is None else found.max_ack_delay / 1000,
            found.max_idle_timeout / 1000 if found.max_idle_timeout else None,
            None,
            found.stateless_reset_token,
            found.active_connection_id_limit or 2,
            bool(found.disable_active_migration),
            found.max_udp_payload_size,
        )

    # --- commands; on a stream or connection that is gone they do nothing

    @property
    def can_open(self) -> bool:
        """Whether the peer allows another stream."""
        allowed, _, opened, _ = self._core.stream_limits
        return self.authenticated and opened < allowed and self._core.state == "connected"

    def open_stream(self) -> int:
        """Open a stream, which :attr:`can_open` allows; its id."""
        stream_id: int = self._core.open_stream(False)
        return stream_id

    def send(self, stream_id: int, data: Buffer) -> bool:
        """Queue ``data``, which is copied. False when the stream takes none any more."""
        return self._send(stream_id, data, False)

    def finish(self, stream_id: int) -> None:
        """End a stream after what was queued for it."""
        if self.unsent(stream_id):
            self._send(stream_id, b"", True)
        else:
            self._ends.add(stream_id)

    def forget(self, stream_id: int) -> None:
        """The peer wants no end of a stream any more, or the stream is gone."""
        self._ends.discard(stream_id)

    @property
    def needs_calm(self) -> bool:
        """Whether nothing should be queued for a while, so that streams can end."""
        return self._ends.overdue

    def _send(self, stream_id: int, data: Buffer, fin: bool) -> bool:
        try:
            self._core.send_stream(stream_id, data, fin)
        except (ValueError, RuntimeError):
            return False
        return True

    def unsent(self, stream_id: int) -> int:
        """Bytes of a stream that were never sent yet."""
        size: int = self._core.get_send_buffer_size(stream_id)
        return size

    @property
    def settled(self) -> bool:
        """Whether the peer has all that it was sent, or is to be."""
        core = self._core
        return not (self._ends or core.get_send_buffer_size() or core.bytes_in_flight)

    def reset(self, stream_id: int, code: int) -> None:
        """Send no more on a stream, and say so."""
        self._ends.discard(stream_id)
        try:
            self._core.reset_stream(stream_id, code)
        except (ValueError, RuntimeError):
            pass

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to send no more on a stream."""
        try:
            self._core.stop_sending(stream_id, code)
        except (ValueError, RuntimeError):
            pass

    def ping(self) -> None:
        """Have the peer answer, which keeps the connection and its way through a NAT alive."""
        try:
            self._core.send_ping(0)
        except RuntimeError:
            pass

    def close(self, code: int, reason: str) -> None:
        """End the connection and tell the peer."""
        self._core.close(code, None, reason.encode()[:200])

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip, None before the first was measured."""
        rtt: float | None = self._core.smoothed_rtt
        return rtt
