"""The executable contracts notice when they are broken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import trio
from multiaddr import Multiaddr

from libp2p._util.stream import MachineStream
from libp2p.abc import Direction, SecureChannel
from libp2p.crypto.keys import PrivateKey
from libp2p.muxers.yamux import Yamux
from libp2p.peer_id import PeerId
from libp2p.peerstore import MemoryPeerstore
from libp2p.security.plaintext import Plaintext
from libp2p.testing import Memory, MemoryNetwork
from libp2p.testing.conformance import (
    MuxerConformance,
    PeerstoreConformance,
    SecurityConformance,
    TransportConformance,
)


class _Forgetful(MemoryPeerstore):
    """Keeps the last life of an address, not the longest."""

    def add_addrs(self, peer: PeerId, addrs: Iterable[Multiaddr], *, ttl: float) -> None:
        self.set_addrs(peer, addrs, ttl=ttl)


class _ForgetfulSuite(PeerstoreConformance):
    __test__ = False

    def make(self) -> _Forgetful:
        return _Forgetful(clock=self.now)


def test_a_forgetful_peerstore_is_found() -> None:
    suite = _ForgetfulSuite()
    suite.test_protocols_are_replaced()
    with pytest.raises(AssertionError):
        suite.test_the_longer_life_is_kept()


class _Credulous(Plaintext):
    """Does not look who answers."""

    async def secure(self, stream, *, direction: Direction, peer: PeerId | None, initial: bytes = b"") -> SecureChannel:
        found = await super().secure(stream, direction=direction, peer=None, initial=initial)
        return replace(found, remote_peer=peer or found.remote_peer)


class _CredulousSuite(SecurityConformance):
    __test__ = False
    proves = False

    def make(self, key: PrivateKey) -> _Credulous:
        return _Credulous(key)


async def test_a_credulous_security_protocol_is_found() -> None:
    suite = _CredulousSuite()
    await suite.test_bytes_pass_both_ways()
    with pytest.raises(AssertionError):
        await suite.test_another_peer_than_expected()


class _Sticky(Memory):
    """Its listeners go on listening when they are closed."""

    async def listen(self, addr: Multiaddr):
        listener = await super().listen(addr)
        listener.aclose = trio.lowlevel.checkpoint  # type: ignore[method-assign]
        return listener


class _StickySuite(TransportConformance):
    __test__ = False
    listen_addr = "/memory/0"
    nobody_addr = "/memory/99"
    seconds = 1.0

    def __init__(self) -> None:
        self.network = MemoryNetwork()

    def make(self) -> _Sticky:
        return _Sticky(self.network)


async def test_a_sticky_listener_is_found() -> None:
    await _StickySuite().test_addresses()
    with pytest.raises((trio.TooSlowError, BaseExceptionGroup)):
        await _StickySuite().test_closing_a_listener()


class _SuiteOfYamux(MuxerConformance):
    __test__ = False
    seconds = 5.0

    def make(self) -> Yamux:
        return Yamux()


async def test_a_stream_that_loses_its_reset_is_found(monkeypatch) -> None:
    suite = _SuiteOfYamux()
    await suite.test_reset_by_remote()
    monkeypatch.setattr(MachineStream, "fail_reset", lambda self, code, remote: self.feed_eof())
    with pytest.raises((AssertionError, pytest.fail.Exception, BaseExceptionGroup)):
        await suite.test_reset_by_remote()


async def test_a_muxer_that_forgets_who_waits_is_found(monkeypatch) -> None:
    suite = _SuiteOfYamux()
    await suite.test_a_waiting_reader_is_woken()
    monkeypatch.setattr(MachineStream, "_wake", lambda self: None)
    with pytest.raises((trio.TooSlowError, BaseExceptionGroup)):
        await suite.test_a_waiting_reader_is_woken()


async def test_a_muxer_that_loses_bytes_is_found(monkeypatch) -> None:
    suite = _SuiteOfYamux()
    feed, fed = MachineStream.feed, []

    def lossy(self: MachineStream, data: bytes) -> None:
        fed.append(data)
        feed(self, data if len(fed) % 40 else data[:-1])

    monkeypatch.setattr(MachineStream, "feed", lossy)
    with pytest.raises((AssertionError, trio.TooSlowError, BaseExceptionGroup)):
        await suite.test_big_transfers_are_whole()
