"""What the library logs while a command runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest

from libp2p.cli._logs import configure

LOG = logging.getLogger("libp2p.swarm")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    logger = logging.getLogger("libp2p")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def _say_everything() -> None:
    LOG.debug("detail")
    LOG.info("note")
    LOG.warning("agent \x1b[2J says\nhello")
    try:
        raise ValueError("oops")
    except ValueError:
        LOG.exception("bug in validator")


@pytest.mark.parametrize(("verbose", "lines"), [(0, 2), (1, 3)])
def test_quiet(verbose: int, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    configure(verbose)
    _say_everything()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert said[-2].endswith("WARNING libp2p.swarm: agent \\x1b[2J says\\nhello")
    assert said[-1].endswith("ERROR   libp2p.swarm: bug in validator: ValueError: oops")


def test_everything(capsys: pytest.CaptureFixture[str]) -> None:
    configure(2)
    _say_everything()
    said = capsys.readouterr().err
    assert "DEBUG   libp2p.swarm: detail" in said
    assert "Traceback (most recent call last)" in said
    assert said.count("ValueError: oops") == 1


def test_an_exception_that_nobody_expected(capsys: pytest.CaptureFixture[str]) -> None:
    configure(0)
    bugs = ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    sys.excepthook(type(bugs), bugs, None)
    assert capsys.readouterr().err.splitlines() == [
        "bug: ValueError: one; -vv shows where, please report it",
        "bug: KeyError: 'two'; -vv shows where, please report it",
    ]
