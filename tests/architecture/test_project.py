"""The project's own papers: a change log that speaks, commands that exist, settings that agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_HEADING = re.compile(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def _version() -> str:
    found = re.search(r'__version__\S* = "([^"]+)"', (ROOT / "libp2p" / "_version.py").read_text(encoding="utf-8"))
    assert found
    return found[1]


def test_change_log_has_something_to_say() -> None:
    """Either changes wait under Unreleased, or the newest release is this version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = _HEADING.split(text)
    sections = dict(zip(parts[1::3], parts[3::3], strict=True))
    assert next(iter(sections)) == "Unreleased"
    entries = [line for line in sections["Unreleased"].splitlines() if line.startswith("- ")]
    assert entries or _version() in sections, "write under [Unreleased] what changed for users"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = re.findall(r"(?:^|`)(?:\$ )?make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(commands) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_files_exist(page: Path) -> None:
    """A path in code style that starts with one of our folders is there; patterns and placeholders are not paths."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`((?:libp2p|tests|proto|docs|interop)/[\w./-]+)`", text)
    planned = {"libp2p/protocols/echo.py", "tests/protocols/test_echo.py"}  # the reader's own
    gone = [path for path in named if path not in planned and not (ROOT / path).exists()]
    assert not gone


def test_dependencies_are_the_declared_ones() -> None:
    """A new base dependency is a decision, not an accident."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[><=;\[ ]", item)[0] for item in project["dependencies"]}
    assert names == {"trio", "cryptography", "protobuf", "multiaddr", "base58"}


def test_constraints_pin_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if line and not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert not wrong
