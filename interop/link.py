"""Two hosts on a link that has IPv6 and no IPv4: network namespaces, and a pair of virtual interfaces between them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from libp2p.testing.nat import Unavailable

Enter = list[str]
"""The words before a command that run it on a host."""
ADDRS = ("fd00:1::1", "fd00:1::2")
_SETUP = """\
link add eth0 netns {a} type veth peer name eth0 netns {b}
-n {a} addr add {0}/64 dev eth0 nodad
-n {b} addr add {1}/64 dev eth0 nodad
-n {a} link set eth0 up
-n {b} link set eth0 up
"""


@contextmanager
def ipv6_link() -> Iterator[tuple[Enter, Enter]]:
    """Have the link while the block is open; how to run something on each of its hosts.

    Raises:
        Unavailable: this machine, or this user, cannot have namespaces or such interfaces.
    """
    if shutil.which("ip") is None:
        raise Unavailable("the program ip is not installed")
    names = [f"libp2p-{os.getpid()}-{each}" for each in "ab"]
    made: list[str] = []
    try:
        for name in names:
            _ip("netns", "add", name)
            made.append(name)
            # Addresses are there at once, without seeing first whether somebody has them.
            _ip("netns", "exec", name, "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
        a, b = names
        for line in _SETUP.format(*ADDRS, a=a, b=b).splitlines():
            _ip(*line.split())
        yield ["ip", "netns", "exec", a], ["ip", "netns", "exec", b]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as exc:
        raise Unavailable(f"ip {' '.join(words)}: {exc.stderr.strip()}") from exc
