"""Pure files are covered by tests completely, lines and branches. Run by ``make check`` with a coverage JSON report.

A line that no test can reach says so with ``# pragma: no cover - reason``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.architecture.tree import Source, sources


def gaps(files: dict[str, Any], source: Source) -> str | None:
    """What tests leave out of a pure file, None when nothing."""
    data = files.get(source.relative)
    if data is not None and data["summary"]["num_statements"] == 0:
        return None  # a docstring alone
    if data is None or not data["executed_lines"]:
        return "no test imports it"
    lines: list[int] = data["missing_lines"]
    branches = [
        f"{start}->{end if end > 0 else 'exit'}" for start, end in data["missing_branches"] if start not in lines
    ]
    parts = [f"lines {', '.join(ranges(lines))}"] if lines else []
    parts += [f"branches {', '.join(branches)}"] if branches else []
    return "; ".join(parts) or None


def ranges(numbers: list[int]) -> list[str]:
    """``[1, 2, 3, 7]`` as ``["1-3", "7"]``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in runs]


def unexplained(source: Source) -> list[int]:
    """Lines that leave themselves out without saying why."""
    return [
        number
        for number, text in enumerate(source.text.splitlines(), 1)
        if "pragma: no" in text and not any(mark in text for mark in ("cover - ", "branch - ", "cover: ", "branch: "))
    ]


def main(path: str) -> int:
    """Print what is missing; non-zero when something is."""
    result = json.loads(Path(path).read_text(encoding="utf-8"))
    pure = [source for source in sources() if source.is_pure]
    failed = False
    for source in pure:
        if gap := gaps(result["files"], source):
            failed = True
            print(f"{source.relative}: not covered: {gap}")
    for source in sources():
        for line in unexplained(source):
            failed = True
            print(f"{source.relative}:{line}: pragma without a reason")
    total = result["totals"]
    print(f"coverage: {total['percent_covered']:.1f} % of everything; {len(pure)} pure files must be at 100 %")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
