"""The command as such: that it starts, explains itself, and refuses what it does not understand."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable

import pytest

from tests.cli.program import ROOT, Program, Result, result_of

pytestmark = pytest.mark.real_clock("runs the real command in processes of its own")

needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("rich", "typer")), reason="needs the extra cli"
)
COMMANDS = ("id", "listen", "dial", "ping", "identify", "chat", "key", "pubsub")
WITHOUT_THE_EXTRA = """
import runpy, sys
sys.modules["MODULE"] = None
sys.argv = ["libp2p", "id"]
runpy.run_module("libp2p.cli", run_name="__main__")
"""


def test_the_script_is_this_function() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["libp2p"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(module: str) -> None:
    if module == "rich" and importlib.util.find_spec("typer") is None:
        pytest.skip("typer is missed first")
    code = WITHOUT_THE_EXTRA.replace("MODULE", module)
    with Program(argv=[sys.executable, "-c", code]) as program:
        assert program.out.rest() == []
        assert program.err.rest() == ["The command libp2p needs an extra: pip install 'libp2p-trio[cli]'"]
        assert program.end() == 2


@needs_extra
def test_help() -> None:
    result = result_of("--help")
    assert (result.status, result.err) == (0, "")
    text = "\n".join(result.out)
    assert all(f" {command} " in text for command in COMMANDS)
    assert "Exit status: 0 done, 1 a peer or the network failed, 2 wrong usage, 130 interrupted." in text


def test_version(call: Callable[..., Result]) -> None:
    result = call("--version")
    assert (result.status, result.out) == (0, [f"libp2p-trio {importlib.import_module('libp2p').__version__}"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["dial", "/ip4/127.0.0.1/tcp/banana", "--json"], "is no address"),
        (["dial", "nobody"], "neither an address nor a peer id"),
        (["listen", "here"], "is no address"),
        (["ping", "/ip4/127.0.0.1/tcp/1", "--count", "-1"], "--count"),
        (["ping", "/ip4/127.0.0.1/tcp/1", "--timeout", "nan"], "must be a positive number of seconds"),
        (["pubsub", "sub", "news"], "give --peer ADDR"),
        (["id"], "give either a peer id or --key FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(call: Callable[..., Result], arguments: list[str], said: str) -> None:
    result = call(*arguments)
    assert (result.status, result.out) == (2, [])
    assert said in result.err
    assert "Traceback" not in result.err
