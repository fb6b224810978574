"""Tests do not sleep, implementations have their conformance class, and failing tests are not hidden."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.tree import Source, dotted, report, sources

# --- the clock --------------------------------------------------------------------------------------------------------

REAL = {"real_clock", "sockets"}


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
    return {
        dotted(decorator.func if isinstance(decorator, ast.Call) else decorator).rpartition(".")[2]
        for decorator in node.decorator_list
    }


def _module_marks(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(dotted(target) == "pytestmark" for target in node.targets):
            return {part.attr for part in ast.walk(node.value) if isinstance(part, ast.Attribute)}
    return set()


def real_sleeps(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Waiting for real time: ``time.sleep`` anywhere, ``trio.sleep`` where a test has the real clock.

    Asking again and again whether something has happened, under a ``fail_after``, waits for that and not for time.
    """
    polls = {id(inner) for scope in ast.walk(tree) if _is_deadline(scope)
             for loop in ast.walk(scope) if isinstance(loop, ast.While) and not isinstance(loop.test, ast.Constant)
             for inner in ast.walk(loop)}  # fmt: skip

    def walk(node: ast.AST, real: bool) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            real = real or bool(REAL & _marks(node))
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            zero = bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            if name == "time.sleep":
                yield node.lineno, "time.sleep: wait for what you wait for, or use the virtual clock"
            elif real and name in {"trio.sleep", "sleep"} and not zero and id(node) not in polls:
                yield node.lineno, "trio.sleep on the real clock: wait for an event"
            elif name == "trio.run" and not real and not any(keyword.arg == "clock" for keyword in node.keywords):
                yield node.lineno, "trio.run without a clock: write an async test, or pass a MockClock"
        for child in ast.iter_child_nodes(node):
            yield from walk(child, real)

    yield from walk(tree, bool(REAL & _module_marks(tree)))


def _is_deadline(node: ast.AST) -> bool:
    return isinstance(node, ast.With | ast.AsyncWith) and any(
        isinstance(item.context_expr, ast.Call) and dotted(item.context_expr.func).endswith("fail_after")
        for item in node.items
    )


def _tests() -> list[Source]:
    return [source for source in sources("tests") if source.path.name.startswith("test_")]


def test_no_test_sleeps_on_the_real_clock() -> None:
    """Where real time itself is the subject, the line says so: ``# real time: why``."""
    report([
        f"{source.relative}:{line}: {what}"
        for source in _tests() for line, what in real_sleeps(source.tree)
        if "# real time: " not in source.text.splitlines()[line - 1]
    ])  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "def test_a():\n    time.sleep(1)",
        "@pytest.mark.sockets\nasync def test_a():\n    await trio.sleep(0.1)",
        "pytestmark = [pytest.mark.real_clock('why')]\nasync def test_a():\n    await trio.sleep(1)",
        "def test_a():\n    trio.run(main)",
    ],
)
def test_the_clock_rule_finds(code: str) -> None:
    assert list(real_sleeps(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "async def test_a():\n    await trio.sleep(1000)",
        "@pytest.mark.sockets\nasync def test_a():\n    await trio.sleep(0)",
        "@pytest.mark.sockets\nasync def test_a():\n    with trio.fail_after(5):\n        while not x():\n"
        "            await trio.sleep(0.01)",
        "def test_a():\n    trio.run(main, clock=MockClock())",
    ],
)
def test_the_clock_rule_lets_pass(code: str) -> None:
    assert not list(real_sleeps(ast.parse(code)))


# --- conformance ------------------------------------------------------------------------------------------------------

ROLES = {
    "Transport": ("dial", "listen"),
    "SecurityProtocol": ("secure",),
    "Muxer": ("mux",),
    "Peerstore": ("add_addrs", "add_envelope"),
}
"""A role to the methods by which one recognises a class that plays it."""

SUITES = {role: f"{'Security' if role == 'SecurityProtocol' else role}Conformance" for role in ROLES}

UNTESTED: dict[str, str] = {
    "libp2p.protocols.relay._transport.Circuit": "it needs three running hosts; tests/protocols/relay has them",
}
"""``module.Class`` without a conformance class of its own, and why."""


def _players() -> Iterator[tuple[str, Source, str]]:
    for source in sources():
        if source.module.startswith(("libp2p.abc", "libp2p.testing")):
            continue
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef):
                methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
                for role, needed in ROLES.items():
                    if methods.issuperset(needed):
                        yield role, source, node.name


def _suites_by_tested_class() -> set[tuple[str, str]]:
    """(conformance class, name that its file uses)."""
    found: set[tuple[str, str]] = set()
    for source in sources("tests"):
        suites = {
            dotted(base).rpartition(".")[2]
            for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)
            for base in node.bases if dotted(base).endswith("Conformance")
        }  # fmt: skip
        names = {node.id for node in ast.walk(source.tree) if isinstance(node, ast.Name)}
        found |= {(suite, name) for suite in suites for name in names}
    return found


def test_every_implementation_has_its_conformance_class() -> None:
    written = {
        node.name
        for source in sources("libp2p/testing")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    }
    covered = _suites_by_tested_class()
    report([
        f"{source.relative}: {name} plays {role}, and no {SUITES[role]} tests it"
        for role, source, name in _players()
        if SUITES[role] in written and (SUITES[role], name) not in covered
        and f"{source.module}.{name}" not in UNTESTED
    ])  # fmt: skip


# --- no test is hidden ------------------------------------------------------------------------------------------------


def bare_marks(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """``xfail`` and ``skip`` that do not say why."""
    explained = {
        id(call.func)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and any(keyword.arg == "reason" for keyword in call.keywords)
    }
    for node in ast.walk(tree):
        if dotted_mark(node) in {"pytest.mark.xfail", "pytest.mark.skip"} and id(node) not in explained:
            yield getattr(node, "lineno", 0), f"{dotted_mark(node)} without a reason"


def dotted_mark(node: ast.AST) -> str:
    return dotted(node) if isinstance(node, ast.Attribute) else ""


def test_expected_failures_have_a_reason() -> None:
    report([f"{source.relative}:{line}: {what}" for source in _tests() for line, what in bare_marks(source.tree)])
