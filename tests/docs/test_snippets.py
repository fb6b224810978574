"""Every Python block in the README and the documentation runs.

How a block says what it is, in an HTML comment on the line before its fence (readers do not see it):

* no comment: the block is a whole program; it must end by itself, with status 0 and nothing on standard error;
* ``<!-- not-run: reason -->``: it is not run, and the reason says why; it is Python, and imports what there is;
* ``<!-- name: chat-server -->`` and ``<!-- name: chat-client; prints: hello -->``: two programs that talk. The server
  prints an address that ends in ``/p2p/...`` and runs until it is interrupted; the client gets that address as its
  first argument, ends by itself, and its output contains the text after ``prints:``.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TIME = 30
"""Seconds a program has."""

_BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<comment>[^\n]*?) -->\n+ *)?```python[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """One fenced block of Python."""

    page: str
    line: int
    code: str
    name: str | None = None
    prints: str | None = None
    not_run: str | None = None

    @property
    def label(self) -> str:
        return f"{self.page}:{self.line}{f':{self.name}' if self.name else ''}"


def blocks(page: Path) -> Iterator[Block]:
    """The Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
        place = (page.relative_to(ROOT).as_posix(), text.count("\n", 0, match.start("code")) + 1)
        said = dict(part.strip().partition(":")[::2] for part in (match["comment"] or "").split(";"))
        name, prints, not_run = (said.get(key, "").strip() or None for key in ("name", "prints", "not-run"))
        yield Block(*place, code, name, prints, not_run)


ALL = [block for page in PAGES if page.exists() for block in blocks(page)]
ALONE = [block for block in ALL if block.name is None and block.not_run is None]
NAMED = {block.name: block for block in ALL if block.name is not None}
PAIRS = sorted(name.removesuffix("-server") for name in NAMED if name.endswith("-server"))

FACADE = ROOT / "libp2p" / "__init__.py"
needs_library = pytest.mark.skipif(
    not FACADE.exists() or "open_host" not in FACADE.read_text(encoding="utf-8"),
    reason="the library has no facade to import yet",
)
pytestmark = [pytest.mark.sockets, pytest.mark.limit(2 * TIME)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _command(block: Block, folder: Path) -> list[str]:
    program = folder / f"{block.name or 'snippet'}.py"
    program.write_text(block.code, encoding="utf-8")
    return [sys.executable, "-X", "utf8", "-W", "error", "-u", str(program)]


def _finished(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME,
        check=False,
    )


@needs_library
@pytest.mark.parametrize("block", ALONE, ids=lambda block: block.label)
def test_program(block: Block, tmp_path: Path) -> None:
    result = _finished(_command(block, tmp_path), tmp_path)
    assert result.returncode == 0, f"{block.label} failed:\n{result.stdout}{result.stderr}"
    assert not result.stderr, f"{block.label} complained:\n{result.stderr}"


@pytest.mark.parametrize("block", [block for block in ALL if block.not_run], ids=lambda block: block.label)
def test_what_is_not_run_is_python(block: Block) -> None:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for node in ast.walk(compile(block.code, block.label, "exec", flags)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), {})


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        killer = threading.Timer(TIME, process.kill)
        killer.start()
        try:
            yield process
        finally:
            killer.cancel()
            process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    """The first address a server prints."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if found := re.search(r"/\S+/p2p/\w+", line):
            return found[0]
    pytest.fail(f"the server printed no address:\n{''.join(seen)}")


@needs_library
@pytest.mark.parametrize("pair", PAIRS)
def test_pair(pair: str, tmp_path: Path) -> None:
    server, client = NAMED[f"{pair}-server"], NAMED[f"{pair}-client"]
    with _running(_command(server, tmp_path), tmp_path) as process:
        command = [*_command(client, tmp_path), _address(process)]
        result = _finished(command, tmp_path)
        assert result.returncode == 0, f"{client.label} failed:\n{result.stdout}{result.stderr}"
        assert (client.prints or "") in result.stdout
        assert process.poll() is None, f"{server.label} ended before it was interrupted"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIME)
        assert "Task exception" not in output
        assert "ExceptionGroup" not in output


def test_names_are_unique_and_paired() -> None:
    assert len(NAMED) == len([block for block in ALL if block.name])
    halves = {f"{pair}-{half}" for pair in PAIRS for half in ("server", "client")}
    assert set(NAMED) == halves, "a named block is one half of a pair: NAME-server and NAME-client"


def test_blocks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\na\n```\n\n<!-- not-run: why -->\n```python\nb\n```\n\n- item\n\n"
        "    <!-- name: x-client; prints: hi -->\n    ```python\n    c\n    ```\n\n```sh\nd\n```\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    first, second, third = blocks(page)
    assert (first.code, first.line, first.name, first.not_run) == ("a\n", 2, None, None)
    assert (second.code, second.not_run) == ("b\n", "why")
    assert (third.code, third.name, third.prints) == ("c\n", "x-client", "hi")
