"""Layers import downwards only; pure files stay pure; protobuf stays behind its codecs; private paths stay private."""

from __future__ import annotations

from tests.architecture.tree import (
    DECLARED,
    FRIENDS,
    IMPURE,
    LAYERS,
    LAZY,
    LENT_TO_PURE,
    NEVER,
    PACKAGE,
    PURE_MAY,
    TYPES_UPWARDS,
    Import,
    Source,
    layer_of,
    modules,
    report,
    sources,
    unit_of,
)


def _internal(source: Source) -> list[Import]:
    return [found for found in source.imports if found.root == PACKAGE]


def test_every_module_has_a_layer() -> None:
    report([f"{source.relative}: no layer of tests/architecture/tree.py holds it" for source in sources()
            if layer_of(source.module) is None])  # fmt: skip


def _wrong_direction(source: Source, found: Import) -> str | None:
    mine, theirs = unit_of(source.module), unit_of(found.module)
    if mine == theirs or (mine, theirs) in DECLARED or (mine, theirs) in FRIENDS or theirs == "libp2p._version":
        return None
    if found.typing_only and (source.relative, found.module) in TYPES_UPWARDS:
        return None
    for (upper, lower), why in NEVER.items():
        if f"{mine}.".startswith(f"{upper}.") and f"{theirs}.".startswith(f"{lower}."):
            return why
    my_layer, their_layer = layer_of(source.module), layer_of(found.module)
    if my_layer is None or their_layer is None or their_layer > my_layer:
        return None
    if their_layer < my_layer:
        return "that lies above"
    if mine.rpartition(".")[0] == theirs:  # a sibling, and what its group has in common
        private = any(part.startswith("_") for part in found.module.split(".")[2:])
        return None if private else "siblings use the underscore modules of their group, not its facade"
    if theirs.rpartition(".")[0] == mine and source.path.name == "__init__.py":
        return None  # a group's facade may gather its siblings
    return "siblings are independent"


def test_layers() -> None:
    report([
        f"{source.relative}:{found.line}: imports {found.module}: {why}"
        for source in sources() for found in _internal(source) if (why := _wrong_direction(source, found))
    ])  # fmt: skip


def test_declared_exceptions_name_siblings() -> None:
    for mine, theirs in DECLARED:
        assert mine.rpartition(".")[0] == theirs.rpartition(".")[0]
        assert f"{mine.rpartition('.')[0]}.*" in {unit for layer in LAYERS for unit in layer}


def test_pure_files_import_nothing_impure() -> None:
    report([
        f"{source.relative}:{found.line}: a pure file imports {found.module}"
        for source in sources() if source.is_pure
        for found in source.imports
        if found.root in IMPURE and not found.typing_only and found.root not in PURE_MAY.get(source.relative, ())
    ])  # fmt: skip


def test_pure_files_import_only_pure_files() -> None:
    known = modules()
    report([
        f"{source.relative}:{found.line}: a pure file imports {found.module}, which is not pure"
        for source in sources() if source.is_pure
        for found in _internal(source)
        if not found.typing_only and found.module in known and found.module not in LENT_TO_PURE
        and not known[found.module].is_pure and _is_effectful(known[found.module])
    ])  # fmt: skip


def _is_effectful(source: Source) -> bool:
    """Whether importing this file brings in something impure, directly or through the library's own modules."""
    known, seen, pending = modules(), {source.module}, [source]
    while pending:
        current = pending.pop()
        for found in current.imports:
            if found.typing_only or found.in_function:
                continue
            if found.root in IMPURE and found.root not in PURE_MAY.get(current.relative, ()):
                return True
            if found.module in known and found.module not in seen:
                seen.add(found.module)
                pending.append(known[found.module])
    return False


def test_protobuf_stays_in_codecs() -> None:
    report([
        f"{source.relative}:{found.line}: only _codec.py files know protobuf"
        for source in sources() if source.path.name != "_codec.py"
        for found in source.imports
        if found.module.startswith(("google.protobuf", "libp2p.pb"))
    ])  # fmt: skip


def test_no_import_inside_a_function() -> None:
    report([
        f"{source.relative}:{found.line}: imports {found.module} inside a function"
        for source in sources() for found in source.imports
        if found.in_function and (source.relative, found.root) not in LAZY
    ])  # fmt: skip


def _trespass(source: Source, found: Import) -> str | None:
    """The private part of an import, when the importer lies outside the package it belongs to."""
    path = found.module.split(".")
    if found.name is not None:
        path.append(found.name)
    for index, part in enumerate(path):
        if part.startswith("_") and not part.startswith("__"):
            owner = ".".join(path[:index])
            if index == len(path) - 1 and found.name is not None and not source.module.startswith("libp2p.testing"):
                owner = owner.rpartition(".")[0]  # a private name: for the modules of the same package
            if not f"{source.package}.".startswith(f"{owner}."):
                return ".".join(path)
    return None


def test_private_paths_stay_in_their_package() -> None:
    report([
        f"{source.relative}:{found.line}: {private} is private to another package"
        for source in sources() for found in _internal(source) if (private := _trespass(source, found))
    ])  # fmt: skip


def test_outsiders_use_public_names() -> None:
    report([
        f"{source.relative}:{found.line}: {found.module}{f'.{found.name}' if found.name else ''} is not public"
        for folder in ("examples", "interop", "bench")
        for source in sources(folder)
        for found in _internal(source)
        if found.module.startswith("libp2p.pb") or f".{found.module}.{found.name or ''}".find("._") >= 0
    ])  # fmt: skip


def test_no_cycles() -> None:
    known = modules()
    graph = {
        name: sorted(
            {f.module for f in _internal(source) if not (f.typing_only or f.in_function) and f.module in known}
        )
        for name, source in known.items()
    }
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, "import cycle: " + " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                if other != name:
                    visit(other, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
