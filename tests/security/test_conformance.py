"""Every security protocol against the contract of security protocols."""

from __future__ import annotations

import functools

from libp2p.crypto.keys import PrivateKey
from libp2p.security.noise import Noise
from libp2p.security.plaintext import Plaintext
from libp2p.security.tls import Tls
from libp2p.testing.conformance import SecurityConformance

tls = functools.cache(lambda key, *muxers: Tls(key, muxers))
"""Hosts keep theirs too: making one costs as much as a handshake."""


class TestNoise(SecurityConformance):
    def make(self, key: PrivateKey) -> Noise:
        return Noise(key)


class TestNoiseWithEarlyMuxers(SecurityConformance):
    def make(self, key: PrivateKey) -> Noise:
        return Noise(key, ["/yamux/1.0.0", "/mplex/6.7.0"])


class TestPlaintext(SecurityConformance):
    proves = False

    def make(self, key: PrivateKey) -> Plaintext:
        return Plaintext(key)


class TestTls(SecurityConformance):
    step = 3

    def make(self, key: PrivateKey) -> Tls:
        return tls(key)


class TestTlsWithEarlyMuxers(SecurityConformance):
    step = 17

    def make(self, key: PrivateKey) -> Tls:
        return tls(key, "/yamux/1.0.0", "/mplex/6.7.0")
