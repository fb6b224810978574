"""Both peerstores against the contract of peerstores."""

from __future__ import annotations

from pathlib import Path

import pytest

from libp2p.peerstore import MemoryPeerstore, SqlitePeerstore
from libp2p.testing.conformance import PeerstoreConformance


class TestMemory(PeerstoreConformance):
    def make(self) -> MemoryPeerstore:
        return MemoryPeerstore(clock=self.now)


class TestSqlite(PeerstoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self._path = tmp_path / "peers.sqlite"

    def make(self) -> SqlitePeerstore:
        return SqlitePeerstore(self._path, clock=self.now, wall_clock=lambda: self.now() + 1e9)
