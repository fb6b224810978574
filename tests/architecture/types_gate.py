"""Every type that a user of the library can see is known to a type checker. Run by ``make check``, with pyright."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NOT_OURS = ("libp2p.pb.",)
"""Generated, and not for users."""


def symbols() -> list[dict[str, Any]]:
    """What pyright knows about each public symbol."""
    scripts = str(Path(sys.executable).parent)
    # pyright looks for the installed package with the first python of the path.
    environment = {**os.environ, "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")])}
    command = [str(Path(scripts) / "pyright"), "--verifytypes", "libp2p", "--ignoreexternal", "--outputjson"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(result.stdout)["typeCompleteness"]["symbols"]
    except (ValueError, KeyError):
        sys.exit(f"pyright --verifytypes did not work:\n{result.stdout}\n{result.stderr}")
    return found


def problems(symbol: dict[str, Any]) -> list[str]:
    """What is wrong with a symbol, with its place."""
    if symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]:
        return []
    found = []
    for diagnostic in symbol["diagnostics"]:
        line = diagnostic.get("range", {}).get("start", {}).get("line", -1) + 1
        place = os.path.relpath(diagnostic["file"]) if diagnostic.get("file") else "?"
        found.append(f"{place}:{line}: {symbol['name']}: {diagnostic['message'].splitlines()[0]}")
    return found or [f"{symbol['name']}: the type is not known"]


def main() -> int:
    """Print what is missing; non-zero when something is."""
    ours = [symbol for symbol in symbols() if not symbol["name"].startswith(NOT_OURS)]
    wrong = [problem for symbol in ours for problem in problems(symbol)]
    # An attribute without annotation makes everything that mentions its class incomplete: show the causes first.
    causes = [problem for problem in wrong if "missing type annotation" in problem]
    print("\n".join([*(causes or wrong), f"{len(ours)} public symbols, {len(wrong)} without a complete type"]))
    return 1 if wrong or not ours else 0


if __name__ == "__main__":
    sys.exit(main())
