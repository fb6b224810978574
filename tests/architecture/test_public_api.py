"""What may be imported is what is meant to be: ``__all__``, run time and static view agree, and all of it is documented
and annotated."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.architecture.tree import ROOT, Source, modules, report, sources

HEAVY = {
    *("typer", "click", "rich", "pytest", "hypothesis", "google.protobuf.json_format", "unittest.mock"),
    *("sqlite3", "nacl", "coincurve", "asyncio"),
}
"""What ``import libp2p`` must not load."""

COMMANDS = ("libp2p.cli",)
"""Programs rather than library: their functions are documented, their modules export nothing."""


def _is_library(source: Source) -> bool:
    return source.is_public and not source.module.startswith(COMMANDS)


LIBRARY = modules()
PUBLIC = [source for source in LIBRARY.values() if _is_library(source)]


def _load(source: Source) -> ModuleType:
    try:
        return importlib.import_module(source.module)
    except ImportError as exc:  # an extra that is not installed
        if (exc.name or "").startswith("libp2p"):
            raise
        pytest.skip(f"needs {exc.name}")


def _assigned(node: ast.stmt) -> list[str]:
    """Names that a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _declared(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if "__all__" in _assigned(node):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def _defined(tree: ast.Module) -> set[str]:
    """Public names that a module makes itself: classes, functions, constants, aliases."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        names.update(_assigned(node))
    return {name for name in names if not name.startswith("_") and not _is_type_variable(tree, name)}


def _is_type_variable(tree: ast.Module, name: str) -> bool:
    for node in tree.body:
        if isinstance(node, ast.Assign) and name in _assigned(node):
            return isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in {"TypeVar", "ParamSpec"}
    return False


def _gathered(source: Source) -> set[str]:
    """Public names that a package's ``__init__`` takes from the library's modules only to pass them on."""
    names: set[str] = set()
    for node in source.tree.body:
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("libp2p")):
            names.update(alias.asname or alias.name for alias in node.names)
    used = {node.id for node in ast.walk(source.tree) if isinstance(node, ast.Name)}
    return {name for name in names - used if not name.startswith("_")}


@pytest.mark.parametrize("source", PUBLIC, ids=lambda source: source.module)
def test_exports(source: Source) -> None:
    module = _load(source)
    declared = _declared(source.tree)
    is_package = source.path.name == "__init__.py"
    if is_package and _gathered(source) and declared is None:
        pytest.fail(f"{source.relative} gathers names and has no __all__")
    if declared is None:
        return
    assert len(declared) == len(set(declared)), "__all__ repeats a name"
    missing = [name for name in declared if not hasattr(module, name)]
    assert not missing, f"in __all__, but not there: {missing}"
    static = _defined(source.tree) | (_gathered(source) if is_package else set())
    unlisted = static - set(declared)
    assert not unlisted, f"public, but not in __all__: {sorted(unlisted)}"


def _exports(module: ModuleType, source: Source) -> Iterator[tuple[str, Any]]:
    names = getattr(module, "__all__", None) or sorted(_defined(source.tree))
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value


def _members(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public methods and properties that ``cls`` itself defines."""
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            for accessor in (value.fget, value.fset):
                if accessor is not None:
                    yield name, accessor
        elif isinstance(value, classmethod | staticmethod):
            yield name, value.__func__
        elif inspect.isfunction(value):
            yield name, value


def _incomplete(function: Callable[..., Any]) -> list[str]:
    """Parameters without annotation, and ``return``."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].name in {"self", "cls"}:
        parameters = parameters[1:]
    wrong = [parameter.name for parameter in parameters if parameter.annotation is inspect.Parameter.empty]
    return wrong + (["return"] if signature.return_annotation is inspect.Signature.empty else [])


def _is_ours(value: Any) -> bool:
    return (getattr(value, "__module__", "") or "").startswith("libp2p.") and "_pb2" not in value.__module__


def _inherits_contract(cls: type, name: str) -> bool:
    return any(getattr(vars(base).get(name), "__doc__", None) for base in cls.__mro__[1:])


def _problems(name: str, value: Any) -> Iterator[str]:
    doc: str = (value.__doc__ or "").strip()
    if not doc or (inspect.isclass(value) and doc.startswith(f"{name}(")):
        yield f"{name}: no docstring"  # dataclasses get a signature for a docstring when they have none
    if inspect.isfunction(value):
        yield from (f"{name}: {what} is not annotated" for what in _incomplete(value))
        return
    for member, function in _members(value):
        generated = getattr(function, "__module__", None) != value.__module__
        if generated:
            continue
        if not (function.__doc__ or "").strip() and not _inherits_contract(value, member):
            yield f"{name}.{member}: no docstring"
        yield from (f"{name}.{member}: {what} is not annotated" for what in _incomplete(function))


@pytest.mark.parametrize("source", PUBLIC, ids=lambda source: source.module)
def test_public_names_are_documented_and_annotated(source: Source) -> None:
    module = _load(source)
    assert ast.get_docstring(source.tree), f"{source.relative} has no docstring"
    report(
        [problem for name, value in _exports(module, source) if _is_ours(value) for problem in _problems(name, value)]
    )


def _undescribed(source: Source, name: str) -> str | None:
    """Where a constant or alias that ``source`` has is made, when nothing is said about it there."""
    for imported in source.imports:
        if imported.name == name and imported.module in LIBRARY:
            return _undescribed(LIBRARY[imported.module], name)
    body = source.tree.body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if name in _assigned(node) and not _is_type_variable(source.tree, name):
            described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            return None if described else f"{source.relative}:{node.lineno}: {name} has no docstring below it"
    return None


def test_public_constants_are_documented() -> None:
    """Without a docstring they are not in the reference."""
    names = [(source, name) for source in PUBLIC for name in _declared(source.tree) or sorted(_defined(source.tree))]
    found = {_undescribed(source, name) for source, name in names if not name.startswith("__")}
    report(sorted(problem for problem in found if problem))


def test_every_file_says_what_it_is() -> None:
    report([f"{source.relative}: no docstring" for source in sources() if not ast.get_docstring(source.tree)])


def test_importing_is_light() -> None:
    if not (ROOT / "libp2p" / "__init__.py").exists():
        pytest.skip("there is no facade yet")
    code = "import sys, libp2p; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(result.stdout.split())


def test_the_package_is_typed() -> None:
    assert (ROOT / "libp2p" / "py.typed").exists()
