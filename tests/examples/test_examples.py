"""Every example runs as its description says: real processes on this machine."""

from __future__ import annotations

import re
import sys

import pytest

from tests.cli.program import ROOT, Program

pytestmark = pytest.mark.real_clock("runs real programs in processes of their own")

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LINES = {"demo.py": 200}
"""Examples that may be longer than the others."""
DEFAULT_LINES = 60


def example(name: str, *arguments: str, colour: bool = False) -> Program:
    argv = [sys.executable, "-X", "utf8", "-W", "error", str(ROOT / "examples" / name), *arguments]
    return Program(argv=argv, colour=colour)


def output_of(name: str, *arguments: str, status: int = 0, colour: bool = False) -> str:
    """Run an example to its end."""
    with example(name, *arguments, colour=colour) as program:
        out, err = program.out.rest(), program.err.rest()
        assert program.end() == status, "\n".join(err)
        assert status or not err, "\n".join(err)
        return "\n".join(out + err)


def test_echo() -> None:
    with example("echo.py") as server:
        addr = server.out.until("/p2p/").string
        assert output_of("echo.py", addr) == "hello over libp2p"
        assert server.interrupt() == 130
        assert server.err.rest() == []


def test_ping() -> None:
    with example("echo.py") as server:
        lines = output_of("ping.py", server.out.until("/p2p/").string).splitlines()
        assert re.fullmatch(r"12D3\w+ runs libp2p-trio/\S+ and serves /echo/1.0.0, /ipfs/id/.*", lines[0])
        assert [re.sub(r"[\d.]+", "N", line) for line in lines[1:]] == ["pong after N ms"] * 3


def test_ping_explains_a_failure() -> None:
    assert "/ip4/127.0.0.1/tcp/1: transport: " in output_of("ping.py", "/ip4/127.0.0.1/tcp/1", status=1)


def test_request_response() -> None:
    with example("request_response.py") as server:
        addr = server.out.until("/p2p/").string
        assert output_of("request_response.py", addr) == "6 * 7 = 42"
        assert server.interrupt() == 130
        assert server.err.rest() == []


def test_chat() -> None:
    with example("chat.py") as host:
        addr = host.out.until(r"(/ip4/\S+)$")[1]
        with example("chat.py", "--name", "ada", addr) as ada:
            ada.out.until("is here")
            ada.say("hello\n")
            host.out.until("^ada: hello$")
            host.say("hello, \x1b[31mada\n")
            ada.out.until(re.escape(r"'host: hello, \x1b[31mada'"))
            ada.hang_up()
            assert ada.end() == 0
            assert ada.err.rest() == []
        assert host.interrupt() == 130
        assert host.err.rest() == []


def test_demo() -> None:
    output = output_of("demo.py")
    names = ("ada", "brian", "chien", "dana")
    heard = re.findall(r"^ +(\w+) +heard (\w+): ", output, re.MULTILINE)
    assert len(re.findall("listens on /ip4/", output)) == len(names)
    assert {name for name, _ in heard} == set(names)
    after = output.partition("ada  is killed")[2]
    assert len(re.findall("heard", after)) == 4
    assert "\x1b" not in output
    took = float(re.findall(r"in ([\d.]+) s\.$", output)[0])
    assert took < 30, "ten seconds on a quiet machine"


def test_the_demo_has_colours() -> None:
    assert output_of("demo.py", colour=True).count("\x1b[1;36m") >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_say_how_to_run_them(path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < LINES.get(path.name, DEFAULT_LINES)
    assert f"python examples/{path.name}" in text or "make demo" in text


def test_every_example_is_run() -> None:
    run = set(re.findall(r'"(\w+\.py)"', (ROOT / "tests" / "examples" / "test_examples.py").read_text("utf-8")))
    assert {path.name for path in EXAMPLES} <= run
