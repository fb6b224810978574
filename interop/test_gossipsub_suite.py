"""Scenarios of libp2p/test-plans, ``gossipsub-interop/``, on this machine and in real time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import libp2p

from .conftest import Record
from .gossipsub.local import expected, play, received
from .gossipsub.scenarios import Plan, simple_fanout, subnet_blob
from .gossipsub.script import Instruction, node_key

pytestmark = pytest.mark.real_clock

Scenario = Callable[[Plan, random.Random], list[Instruction]]
STAND_INS = ("go", "rust")
"""The languages that the suite has programs of."""


@pytest.mark.parametrize("scenario", [subnet_blob, simple_fanout])
async def test_scenario(scenario: Scenario, built: dict[str, dict[str, Any]], record: Record, tmp_path: Path) -> None:
    """Half of the nodes are ours: everybody gets every message, and our lines are as the suite reads them."""
    started, failure = time.monotonic(), ""
    names = [name for name in STAND_INS if name in built]
    nodes = ["ours", "ours", "ours", *(name for name in names for _ in range(2))]
    plan = Plan(nodes=len(nodes), connections=4, messages=4, setup=4, interval=1, settle=4)
    script = scenario(plan, random.Random(1))
    try:
        said = await play(script, nodes, tmp_path, timeout=60)
        for number, wanted in enumerate(expected(script, len(nodes))):
            assert wanted <= set(received(said[number])), f"node {number}, {nodes[number]}"
        for number in range(3):
            first, *lines = said[number]
            assert (first["msg"], first["node_id"]) == ("PeerID", number)
            assert first["id"] == str(libp2p.PeerId.from_key(node_key(number).public_key))
            assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
            assert all(line["from"] and line["topic"] and line["id"].isdigit() for line in lines)
    except Exception as exc:
        failure = repr(exc)[:300]
        raise
    finally:
        for name in names:
            status = "fail" if failure else "pass"
            record(f"suite_{scenario.__name__}", name, "yamux", "", status, failure, time.monotonic() - started)
