"""``python -m tests.fuzz NAME [--seconds N] [--corpus FOLDER]``: fuzz one target; without a name, list them.

What is found stays in ``crash-...`` in the working directory; ``python -m tests.fuzz NAME --input FILE`` shows it
again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="what was found interesting so far; by default .fuzz/NAME")
    parser.add_argument("--input", type=Path, help="run this one alone, without atheris")
    options = parser.parse_args()
    atheris = None if options.input or not options.name else _atheris()
    targets = _targets(atheris)
    if options.name not in targets:
        print("targets:", ", ".join(targets))
        return 2 if options.name else 0
    target = targets[options.name]
    if options.input:
        target.run(options.input.read_bytes())
        print("nothing found")
        return 0
    if atheris is None:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    corpus: Path = options.corpus or Path(".fuzz") / options.name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    # The timeout is of wall time: less would find busy machines.
    flags = [f"-max_total_time={options.seconds}", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], _saving(target.run))
    atheris.Fuzz()  # ends the process
    return 0


def _saving(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """``run`` that leaves what it raises on in a file. libFuzzer would, too, if nothing kills it before."""

    def saving(data: bytes) -> None:
        try:
            run(data)
        except BaseException:
            Path(f"crash-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            raise

    return saving


def _atheris() -> Any:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        return None


def _targets(atheris: Any) -> dict[str, Any]:
    """The targets; with the library's own code instrumented, where there is atheris."""
    if atheris is None:
        return dict(importlib.import_module("tests.fuzz.targets").TARGETS)
    with atheris.instrument_imports(include=["libp2p"]):
        return dict(importlib.import_module("tests.fuzz.targets").TARGETS)


sys.exit(main())
