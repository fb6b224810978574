"""Both stores keep the contract of ``libp2p.abc.Peerstore``."""

from __future__ import annotations

from pathlib import Path

import pytest

from libp2p.abc import Peerstore
from libp2p.peerstore import MemoryPeerstore
from libp2p.peerstore.sqlite import SqlitePeerstore
from libp2p.testing.conformance.peerstore import PeerstoreConformance


class TestMemoryPeerstore(PeerstoreConformance):
    def make(self) -> Peerstore:
        return MemoryPeerstore(clock=self.now)


class TestSqlitePeerstore(PeerstoreConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "peers.db"

    def make(self) -> Peerstore:
        return SqlitePeerstore(self.path, clock=self.now)
