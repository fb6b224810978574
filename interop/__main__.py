"""``make interop``: build the peers, run the suites, print the table.

python -m interop [--peers go,js,rust,py] [--no-build] [pytest arguments]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict

import pytest

from .conftest import OTHERS, PEERS, RESULTS
from .matrix import matrix
from .peer import BUILD

NEEDS = {
    "go": ("go",),
    "js": ("node", "npm"),
    "js030": ("node", "npm"),
    "js2": ("node", "npm"),
    "rust": ("cargo", "cc"),
    "py": ("python3", "cc"),
}
"""What must be on the machine to build each peer; everything else comes from lock files."""
COMPANIONS = {"js": ("js030", "js2")}
"""What is built beside a peer for a suite of its own: js-libp2p of 2021, which knows relay version 1, and js-libp2p 2,
for which there is rendezvous."""


def missing_for(name: str) -> list[str]:
    """What the machine lacks to build a peer."""
    missing = [tool for tool in NEEDS[name] if shutil.which(tool) is None]
    if name == "py" and not missing:
        # One of its pinned dependencies comes as source only and is compiled against GMP.
        probe = subprocess.run(["cc", "-E", "-"], input=b"#include <gmp.h>\n", capture_output=True, check=False)
        missing += ["the headers of GMP"] if probe.returncode else []
    return missing


def build(peers: list[str]) -> bool:
    """Build ``peers`` whose toolchain is there; say which are not. False when a build failed."""
    BUILD.mkdir(exist_ok=True)
    here = BUILD.parent
    running = []
    for name in peers:
        if missing := missing_for(name):
            (BUILD / f"{name}-peer").unlink(missing_ok=True)
            print(f"== {name}: left out, {' and '.join(missing)} not found", flush=True)
            continue
        log = BUILD / f"{name}-build.log"
        with log.open("w") as output:
            script = str(here / "peers" / name / "build.sh")
            process = subprocess.Popen(["bash", script, str(BUILD)], stdout=output, stderr=subprocess.STDOUT)
        running.append((name, process, log, time.monotonic()))
    good = True
    for name, process, log, started in running:
        if process.wait() != 0:
            good = False
            print(f"== {name}: the build failed\n{log.read_text()[-4000:]}", flush=True)
        else:
            print(f"== {name}: built in {time.monotonic() - started:.0f} s", flush=True)
    return good


def show() -> bool:
    """Print the table of the last run. False when a cell failed."""
    rows = json.loads(RESULTS.read_text())["rows"]
    versions = {row["peer"]: row["peer_version"] for row in rows if row["peer_version"]}
    marks = {"pass": "ok", "fail": "FAIL", "unsupported-by-peer": "n/a", "absent": "absent"}
    table: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        table[row["suite"] + (f" ({row['role']})" if row["role"] else ""), row["cell"]][row["peer"]].append(
            marks[row["status"]]
        )
    peers = [peer for peer in (*PEERS, *OTHERS) if any(row["peer"] == peer for row in rows)]
    print("\n" + "  ".join(f"{peer}: {versions.get(peer, 'absent')}" for peer in peers if peer in PEERS))
    print(f"\n{'suite':34} {'cell':20} " + " ".join(f"{peer:>7}" for peer in peers))
    for (suite, cell), found in sorted(table.items()):
        print(
            f"{suite:34} {cell:20} " + " ".join(f"{'/'.join(sorted(set(found.get(peer, ['-'])))):>7}" for peer in peers)
        )
    print("\n".join(["", *lines, ""] if (lines := matrix(rows, peers)) else []))
    for reason in sorted({f"{row['peer']} {row['reason']}" for row in rows if row["status"] == "unsupported-by-peer"}):
        print("n/a:", reason)
    for row in rows:
        if row["status"] == "fail":
            print(f"FAIL: {row['suite']} {row['cell']} {row['peer']} {row['role']}: {row['reason']}")
    counts = {status: sum(row["status"] == status for row in rows) for status in marks}
    print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    return counts["fail"] == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m interop", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--no-build", action="store_true", help="use what was built before")
    options, rest = parser.parse_known_args()
    wanted = options.peers.split(",")
    if not options.no_build and not build([*wanted, *(more for name in wanted for more in COMPANIONS.get(name, ()))]):
        return 1
    RESULTS.unlink(missing_ok=True)
    # Two cells at a time: mostly they wait, for processes to start and for each other.
    parallel = ["-n", "2", "--dist", "loadgroup"]
    status = pytest.main(
        [str(BUILD.parent), "-q", "-p", "no:cacheprovider", *parallel, "--peers", options.peers, *rest]
    )
    if not RESULTS.exists():
        return int(status) or 1
    return 0 if show() and status == 0 else 1


sys.exit(main())
