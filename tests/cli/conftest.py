"""Commands that run no node are called in the test's own process: starting one for each takes most of a second."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.cli.program import Result


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """A function that runs ``libp2p ARGUMENTS`` here; for commands that run no node."""
    for needed in ("typer", "rich"):
        pytest.importorskip(needed)
    main = importlib.import_module("libp2p.cli.__main__").main
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    logger = logging.getLogger("libp2p")
    handlers, level = list(logger.handlers), logger.level

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["libp2p", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out.splitlines(), captured.err.splitlines())

    yield run
    logger.handlers[:] = handlers
    logger.setLevel(level)
