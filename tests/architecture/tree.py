"""The source tree as the gates see it: modules, their imports, and which rules apply to which.

The layers, the pure files and the declared exceptions are written down here and nowhere else.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "libp2p"

LAYERS: list[tuple[str, ...]] = [
    ("libp2p.cli",),
    ("libp2p", "libp2p._facade", "libp2p.presets"),
    ("libp2p.testing",),
    ("libp2p.host",),
    ("libp2p.protocols.*",),
    ("libp2p.swarm",),
    ("libp2p.transports.*", "libp2p.security.*", "libp2p.muxers.*", "libp2p.multistream", "libp2p.peerstore"),
    ("libp2p.abc", "libp2p._util"),
    (
        "libp2p.events",
        "libp2p.records",
        "libp2p.crypto",
        "libp2p.peer_id",
        "libp2p.addressing",
        "libp2p.wire",
        "libp2p.errors",
        "libp2p.metrics",
    ),
    ("libp2p.pb", "libp2p._version"),
]
"""Top to bottom. A layer imports from those below it. ``x.*`` is a group of siblings, each a unit of its own; what lies
in the group's folder under an underscore is common to them."""

FRIENDS = {(a, b) for layer in (LAYERS[1], LAYERS[7], LAYERS[8]) for a in layer for b in layer}
"""Units of one layer that may import each other, without cycles: the facade's, the interfaces', and the pure ones."""

DECLARED = {
    ("libp2p.transports.websocket", "libp2p.transports.tcp"),
    ("libp2p.protocols.dcutr", "libp2p.protocols.relay"),
    ("libp2p.protocols.dcutr", "libp2p.protocols.identify"),
    ("libp2p.protocols.autonat", "libp2p.protocols.identify"),
}
"""Siblings that may import each other, in this direction."""

NEVER = {
    ("libp2p.host", "libp2p.protocols"): "the facade composes the default services",
    ("libp2p.protocols", "libp2p.swarm"): "protocols are given a Host",
    ("libp2p.protocols", "libp2p.transports"): "protocols see streams, not what carries them",
    ("libp2p.protocols", "libp2p.security"): "protocols see streams, not what carries them",
    ("libp2p.protocols", "libp2p.muxers"): "protocols see streams, not what carries them",
    ("libp2p.protocols", "libp2p.peerstore"): "protocols use the interface in libp2p.abc",
}
"""Imports downwards that are forbidden all the same, and why."""

PURE = [
    "libp2p/errors.py",
    "libp2p/events.py",
    "libp2p/metrics.py",
    "libp2p/peer_id.py",
    "libp2p/addressing.py",
    "libp2p/wire/*.py",
    "libp2p/crypto/*.py",
    "libp2p/records/*.py",
    "libp2p/transports/quic/_tls.py",
    "libp2p/swarm/_dial_rank.py",
    "libp2p/swarm/_dial_plan.py",
    "libp2p/swarm/_limits.py",
    "libp2p/swarm/_limit_table.py",
    "libp2p/peerstore/_entry.py",
    "libp2p/muxers/_table.py",
    "libp2p/muxers/yamux/_[a-z]*.py",
    "libp2p/swarm/_trim.py",
    "libp2p/host/_addresses.py",
    "libp2p/protocols/kad/_keyspace.py",
    "libp2p/protocols/kad/_routing_table.py",
    "libp2p/protocols/kad/_query.py",
    "libp2p/protocols/kad/_records.py",
    "libp2p/protocols/pubsub/_mesh.py",
    "libp2p/protocols/pubsub/_score.py",
    "libp2p/protocols/pubsub/_cache.py",
    "libp2p/protocols/pubsub/_gossipsub.py",
    "libp2p/protocols/pubsub/_floodsub.py",
    "libp2p/protocols/relay/_reservations.py",
    "libp2p/protocols/autonat/_reachability.py",
    "libp2p/protocols/rendezvous/_registrations.py",
    "*/_machine.py",
    "*/_codec.py",
]
"""Files without a clock, randomness, tasks, sockets or logging; and every file whose docstring says "Pure."."""

NOT_PURE = {"libp2p/crypto/key_file.py": "reads and writes a file; no pure file imports it"}
"""Files that a pattern of PURE covers and that are not pure, and why."""

IMPURE = {
    "trio", "asyncio", "anyio", "threading", "time", "random", "secrets", "uuid", "os", "socket", "ssl", "select",
    "selectors", "subprocess", "logging", "sqlite3",
}  # fmt: skip

PURE_MAY: dict[str, set[str]] = {"libp2p/errors.py": {"trio"}}
"""``errors.py`` imports trio for the base classes of two exceptions."""

TYPES_UPWARDS = {("libp2p/events.py", "libp2p.abc"): "an event names the connection it is about"}
"""(file, module above) that may be imported for annotations only, and why."""

LENT_TO_PURE = {
    "libp2p._util.bounded": "its maps are told the time; the channel beside them is for drivers",
    "libp2p.abc": "interfaces without implementation; trio is there for base classes",
}
"""Modules that pure files may use although they import something impure, and why."""

LAZY: dict[tuple[str, str], str] = {}
"""(file, module) that may be imported inside a function, and why."""


@dataclass(frozen=True)
class Import:
    """One import of one module, or of one name from a module."""

    module: str
    name: str | None
    line: int
    typing_only: bool
    in_function: bool

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path

    @property
    def relative(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        parts = list(self.path.relative_to(ROOT).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        """The package the file lies in: its own for an ``__init__``."""
        return self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]

    @property
    def text(self) -> str:
        return _text(self.path)

    @property
    def tree(self) -> ast.Module:
        return _parse(self.path)

    @property
    def is_pure(self) -> bool:
        if self.relative in NOT_PURE:
            return False
        claimed = re.search(r"\bPure[.;,]", ast.get_docstring(self.tree) or "")
        return claimed is not None or any(fnmatch(self.relative, pattern) for pattern in PURE)

    @property
    def is_public(self) -> bool:
        return not any(part.startswith("_") for part in self.module.split("."))

    @property
    def imports(self) -> tuple[Import, ...]:
        return _imports(self)


@functools.cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(_text(path), str(path))


@functools.cache
def _imports(source: Source) -> tuple[Import, ...]:
    found: list[Import] = []
    _collect(source, source.tree, False, False, found)
    return tuple(found)


def _collect(source: Source, node: ast.AST, typing_only: bool, in_function: bool, found: list[Import]) -> None:
    if isinstance(node, ast.Import):
        found += [Import(alias.name, None, node.lineno, typing_only, in_function) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        module = _absolute(source, node)
        for alias in node.names:
            if is_module(f"{module}.{alias.name}"):
                found.append(Import(f"{module}.{alias.name}", None, node.lineno, typing_only, in_function))
            else:
                found.append(Import(module, alias.name, node.lineno, typing_only, in_function))
    elif isinstance(node, ast.If) and _is_type_checking(node.test):
        for guarded in node.body:
            _collect(source, guarded, True, in_function, found)
        for other in node.orelse:
            _collect(source, other, typing_only, in_function, found)
    else:
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            _collect(source, child, typing_only, inside, found)


def _absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = source.package.split(".")
    base = base[: len(base) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def is_module(dotted: str) -> bool:
    """Whether ``dotted`` is a module of this repository."""
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def sources(folder: str = PACKAGE, *, generated: bool = False) -> list[Source]:
    """All Python files below ``folder``, without the generated ones unless asked for."""
    top = ROOT / folder
    paths = sorted(path for path in top.rglob("*.py") if not any(part.startswith(".") for part in path.parts))
    return [Source(path) for path in paths if generated or not path.is_relative_to(ROOT / "libp2p" / "pb")]


def modules() -> dict[str, Source]:
    """Module name to source, for the library."""
    return {source.module: source for source in sources()}


def unit_of(module: str) -> str:
    """The unit a module belongs to: the folder or file that the layers name, or the sibling in a group."""
    parts = module.split(".")
    if len(parts) == 1:
        return module
    top = ".".join(parts[:2])
    if f"{top}.*" in {unit for layer in LAYERS for unit in layer}:
        # What the siblings of a group share: the group's folder itself and its underscore modules.
        return top if len(parts) == 2 or parts[2].startswith("_") else ".".join(parts[:3])
    return top


def layer_of(module: str) -> int | None:
    """The index of the layer of a module in LAYERS, None for a module the layers do not know."""
    unit = unit_of(module)
    for index, units in enumerate(LAYERS):
        for pattern in units:
            if unit == pattern or (pattern.endswith(".*") and (unit == pattern[:-2] or fnmatch(unit, pattern))):
                return index
    return None


def functions(tree: ast.AST) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its dotted name."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{prefix}{child.name}", child
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(tree, "")


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for a chain of names, without subscripts; else the empty string."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def report(problems: list[str]) -> None:
    """Fail with all problems, one a line."""
    assert not problems, "\n" + "\n".join(problems)
