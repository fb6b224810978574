"""What every :class:`libp2p.abc.SecurityProtocol` must do."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ...abc import Buffer, Direction, RawConnection, SecureChannel, SecurityProtocol
from ...addressing import parse
from ...crypto.keys import PrivateKey
from ...errors import PeerIdMismatch, SecurityError
from ...peer_id import PeerId
from ...transports.memory import Memory, MemoryNetwork, Wire
from ..flaky import Dribble
from ..keys import seeded_key
from .stream import receive_exactly

__all__ = ["SecurityConformance"]

_SIZES = (1, 100, 65_518, 65_519, 65_520, 65_535, 300_000, 1_000_000)
"""Sizes of writes around everything that may cut them."""


@dataclass
class _Outcome:
    """What became of one side."""

    channel: SecureChannel | None = None
    error: Exception | None = None


@dataclass
class _Meeting:
    """A dialer and a listener, and their raw connection."""

    network: MemoryNetwork
    dialer: RawConnection
    listener: RawConnection
    outcomes: dict[Direction, _Outcome] = field(default_factory=dict[Direction, _Outcome])

    @property
    def channels(self) -> tuple[SecureChannel, SecureChannel]:
        """Both ends, which must have succeeded."""
        for outcome in self.outcomes.values():
            if outcome.error is not None:
                raise outcome.error
        ours, theirs = self.outcomes[Direction.OUTBOUND].channel, self.outcomes[Direction.INBOUND].channel
        assert ours is not None
        assert theirs is not None
        return ours, theirs


class SecurityConformance(ABC):
    """Tests of a security protocol.

    Attributes:
        proves: whether it proves identities and protects bytes; False for plaintext.
        step: cut and change every handshake at each ``step``-th byte; more than 1 for long ones.
        seconds: how long each test may take.
    """

    proves: bool = True
    step: int = 1
    seconds: float = 30.0

    @abstractmethod
    def make(self, key: PrivateKey) -> SecurityProtocol:
        """The protocol of a host with this key."""

    dialer_key: PrivateKey = seeded_key("dialer")
    listener_key: PrivateKey = seeded_key("listener")
    stranger_key: PrivateKey = seeded_key("stranger")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Meeting]:
        network = MemoryNetwork()
        transport = Memory(network)
        listener = await Memory(network).listen(parse("/memory/0"))
        dialed = await transport.dial(listener.addresses[0], peer=None)
        accepted = await listener.accept()
        await listener.aclose()
        try:
            with trio.fail_after(self.seconds):
                yield _Meeting(network, dialed, accepted)
        finally:
            with trio.CancelScope(shield=True):
                await dialed.stream.aclose()
                await accepted.stream.aclose()

    async def _secure(self, meeting: _Meeting, *, expects: PeerId | None = None, listens: PeerId | None = None) -> None:
        """Run both sides; each closes its stream when it fails, as the swarm does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._side, meeting, Direction.OUTBOUND, expects)
            nursery.start_soon(self._side, meeting, Direction.INBOUND, listens)

    async def _side(self, meeting: _Meeting, direction: Direction, peer: PeerId | None, initial: bytes = b"") -> None:
        outbound = direction is Direction.OUTBOUND
        key = self.dialer_key if outbound else self.listener_key
        stream = (meeting.dialer if outbound else meeting.listener).stream
        outcome = meeting.outcomes[direction] = _Outcome()
        try:
            outcome.channel = await self.make(key).secure(stream, direction=direction, peer=peer, initial=initial)
        except (SecurityError, trio.BrokenResourceError) as exc:
            outcome.error = exc
            await stream.aclose()

    # --- who is there

    async def test_both_sides_learn_who_is_there(self) -> None:
        """Peer and key, with and without expectations."""
        dialer, listener = (PeerId.from_key(key.public_key) for key in (self.dialer_key, self.listener_key))
        for expects, listens in ((None, None), (listener, None), (listener, dialer)):
            async with self._connected() as meeting:
                await self._secure(meeting, expects=expects, listens=listens)
                ours, theirs = meeting.channels
                assert (ours.remote_peer, ours.remote_key) == (listener, self.listener_key.public_key)
                assert (theirs.remote_peer, theirs.remote_key) == (dialer, self.dialer_key.public_key)

    async def test_another_peer_than_expected(self) -> None:
        """Is refused by name, by either side, and nothing is sent to it beyond the handshake."""
        stranger = PeerId.from_key(self.stranger_key.public_key)
        for who in Direction:
            expects, listens = (stranger, None) if who is Direction.OUTBOUND else (None, stranger)
            async with self._connected() as meeting:
                await self._secure(meeting, expects=expects, listens=listens)
                error = meeting.outcomes[who].error
                assert isinstance(error, PeerIdMismatch)
                actual = self.listener_key if who is Direction.OUTBOUND else self.dialer_key
                assert (error.expected, error.actual) == (stranger, PeerId.from_key(actual.public_key))

    # --- bytes

    async def test_bytes_pass_both_ways(self) -> None:
        """Writes of all sizes, as plain stream methods."""
        async with self._connected() as meeting:
            await self._secure(meeting)
            ours, theirs = meeting.channels
            for sender, receiver in ((ours, theirs), (theirs, ours)):
                for size in _SIZES:
                    data = random.Random(size).randbytes(size)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(sender.stream.send_all, data)
                        assert await receive_exactly(receiver.stream, size) == data

    async def test_batches(self) -> None:
        """``write`` keeps what does not fit for ``flush``, and ``receive_chunks`` returns all there is, in order."""
        buffers: list[Buffer] = [random.Random(size).randbytes(size) for size in _SIZES]
        buffers += [memoryview(b"view"), bytearray(b"array")]
        expected = b"".join(buffers)
        async with self._connected() as meeting:
            await self._secure(meeting)
            ours, theirs = (channel.stream for channel in meeting.channels)
            assert ours.write([]) is True
            assert ours.write(buffers) is False, "a megabyte fits nowhere"
            with pytest.raises(trio.BusyResourceError):
                ours.write([b"too early"])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.flush)
                got = bytearray()
                while len(got) < len(expected):
                    chunks = await theirs.receive_chunks()
                    assert chunks
                    got += b"".join(chunks)
            assert got == expected
            assert ours.write([b"again"]) is True
            assert await theirs.receive_some(2) == b"ag"
            assert b"".join(await theirs.receive_chunks()) == b"ain"
            await ours.aclose()
            assert not await theirs.receive_chunks()
            assert await theirs.receive_some() == b""

    async def test_written_memory_may_be_reused(self) -> None:
        """As soon as ``write`` returns, even if it kept some."""
        buffer = bytearray(b"a" * 700_000)
        async with self._connected() as meeting:
            await self._secure(meeting)
            ours, theirs = (channel.stream for channel in meeting.channels)
            ours.write([buffer])
            buffer[:] = b"b" * len(buffer)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.flush)
                assert await receive_exactly(theirs, len(buffer)) == b"a" * len(buffer)

    # --- pieces

    async def test_pieces_of_any_size(self) -> None:
        """The handshake and what follows it survive being cut into single bytes."""
        for size in (1, 7, 60):
            async with self._connected() as meeting:
                meeting.dialer = replace(meeting.dialer, stream=Dribble(meeting.dialer.stream, size))
                meeting.listener = replace(meeting.listener, stream=Dribble(meeting.listener.stream, size))
                await self._secure(meeting)
                ours, theirs = meeting.channels
                await ours.stream.send_all(b"cut into pieces")
                assert await receive_exactly(theirs.stream, 15) == b"cut into pieces"
                # Over such a stream what is written waits for its flush.
                data = bytes(1000 * size)
                assert theirs.stream.write([b"over a stream", data]) is False
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(theirs.stream.flush)
                    assert await receive_exactly(ours.stream, 13 + len(data)) == b"over a stream" + data

    async def test_bytes_behind_the_handshake_are_kept(self) -> None:
        """Whoever finishes first may send at once; it may all arrive in one piece with the handshake's end."""
        async with self._connected() as meeting:

            async def dialer() -> None:
                await self._side(meeting, Direction.OUTBOUND, None)
                channel = meeting.outcomes[Direction.OUTBOUND].channel
                assert channel is not None
                await channel.stream.send_all(b"right behind it")

            # The listener is late: all that the dialer can send is there before it reads its first byte.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dialer)
                await wait_all_tasks_blocked()
                nursery.start_soon(self._side, meeting, Direction.INBOUND, None)
            ours, theirs = meeting.channels
            assert await receive_exactly(theirs.stream, 15) == b"right behind it"
            await theirs.stream.send_all(b"answer")
            assert b"".join(await ours.stream.receive_chunks()) == b"answer"

    async def test_initial_bytes_come_first(self) -> None:
        """What was read from the raw stream before belongs to the handshake."""
        async with self._connected() as meeting, trio.open_nursery() as nursery:
            nursery.start_soon(self._side, meeting, Direction.OUTBOUND, None)
            initial = bytes(await meeting.listener.stream.receive_some(5))
            await self._side(meeting, Direction.INBOUND, None, initial)
            while len(meeting.outcomes) < 2 or meeting.outcomes[Direction.OUTBOUND] == _Outcome():
                await trio.lowlevel.checkpoint()
            ours, theirs = meeting.channels
            assert ours.remote_key != theirs.remote_key

    # --- what goes wrong

    async def test_cut_at_every_byte(self) -> None:
        """The other side's end, anywhere in the handshake, is an error at once."""
        for who in Direction:
            for at in range(0, await self._handshake_size(who), self.step):
                async with self._connected() as meeting:
                    lost: list[bytes] = []
                    with meeting.network.tap(_cut(who, at, lost)):
                        await self._secure(meeting)
                    victim = Direction.INBOUND if who is Direction.OUTBOUND else Direction.OUTBOUND
                    # Not every handshake is as long as the one that was measured: some signatures are shorter.
                    assert isinstance(meeting.outcomes[victim].error, SecurityError) or not lost, f"{who} cut at {at}"

    async def test_every_byte_changed(self) -> None:
        """A changed byte anywhere fails the handshake, for a protocol that proves anything."""
        if not self.proves:
            return
        for who in Direction:
            for at in range(0, await self._handshake_size(who), self.step):
                async with self._connected() as meeting:
                    with meeting.network.tap(_flip(who, at)), trio.move_on_after(1):
                        await self._secure(meeting)
                    for outcome in meeting.outcomes.values():
                        assert outcome.channel is None or await _is_dead(outcome.channel), f"{who} changed at {at}"

    async def _handshake_size(self, who: Direction) -> int:
        async with self._connected() as meeting:
            await self._secure(meeting)
            return meeting.network.connections[0].sent(dialer=who is Direction.OUTBOUND)

    async def test_garbage(self) -> None:
        """Random bytes instead of a handshake are a security error for either role, never anything else."""
        for who in Direction:
            for seed in range(60):
                rng = random.Random(seed)
                garbage = rng.randbytes(rng.choice((1, 3, 40, 500, 70_000)))
                async with self._connected() as meeting, trio.open_nursery() as nursery:
                    far = meeting.listener if who is Direction.OUTBOUND else meeting.dialer
                    nursery.start_soon(self._side, meeting, who, None)
                    nursery.start_soon(_send_and_close, far.stream, garbage)
                    while who not in meeting.outcomes or meeting.outcomes[who] == _Outcome():
                        await wait_all_tasks_blocked()
                    error = meeting.outcomes[who].error
                    assert isinstance(error, SecurityError | trio.BrokenResourceError)

    async def test_a_lost_connection(self) -> None:
        """Is not the peer's fault: Trio's own error comes out, or a security error."""
        async with self._connected() as meeting, trio.open_nursery() as nursery:
            nursery.start_soon(self._side, meeting, Direction.OUTBOUND, None)
            await wait_all_tasks_blocked()
            meeting.network.connections[0].kill()
            while meeting.outcomes[Direction.OUTBOUND].error is None:
                await trio.lowlevel.checkpoint()


def _cut(who: Direction, at: int, lost: list[bytes]) -> Callable[[Wire, bytes], bytes | None]:
    """Let the bytes of ``who`` end after the first ``at``; what is cut off goes to ``lost``."""

    def tap(wire: Wire, data: bytes) -> bytes | None:
        if wire.dialer is not (who is Direction.OUTBOUND):
            return None
        room = max(0, at - wire.sent)
        if len(data) >= room:
            wire.connection.end(dialer=wire.dialer)
            if len(data) > room:
                lost.append(data[room:])
            return data[:room]
        return None

    return tap


def _flip(who: Direction, at: int) -> Callable[[Wire, bytes], bytes | None]:
    """Change one bit of the byte at ``at`` of what ``who`` sends."""

    def tap(wire: Wire, data: bytes) -> bytes | None:
        index = at - wire.sent
        if wire.dialer is not (who is Direction.OUTBOUND) or not 0 <= index < len(data):
            return None
        return data[:index] + bytes((data[index] ^ (1 << at % 8),)) + data[index + 1 :]

    return tap


async def _is_dead(channel: SecureChannel) -> bool:
    """Whether a side that finished first finds out with the next bytes."""
    try:
        with trio.move_on_after(1):
            return not await channel.stream.receive_some()
    except (SecurityError, trio.BrokenResourceError):
        pass
    return True


async def _send_and_close(stream: trio.abc.Stream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        pass
    await stream.aclose()
