"""A function has at most 60 lines without its docstring, a file at most 700. Longer ones need a reason here.

A file of tests may have 1,500: its length is a list, not an argument to follow.
"""

from __future__ import annotations

import ast

from tests.architecture.tree import Source, functions, report, sources

MAX_FUNCTION = 60
MAX_FILE = 700
MAX_TEST_FILE = 1500

LONG_FUNCTIONS: dict[tuple[str, str], str] = {}
"""(file, function) to the reason why it is longer."""

LONG_FILES: dict[str, str] = {}
"""File to the reason why it is longer."""

FOLDERS = ("libp2p", "tests", "examples", "interop", "bench", "fuzz", "proto")


def _all() -> list[Source]:
    return [source for folder in FOLDERS for source in sources(folder)]


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and ast.get_docstring(node)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_functions() -> None:
    report(
        [
            f"{source.relative}:{node.lineno}: {name} has {length} lines, more than {MAX_FUNCTION}"
            for source in _all()
            for name, node in functions(source.tree)
            if (length := _length(node)) > MAX_FUNCTION and (source.relative, name) not in LONG_FUNCTIONS
        ]
    )


def _is_large(source: Source) -> bool:
    limit = MAX_TEST_FILE if source.relative.startswith("tests/") else MAX_FILE
    return source.text.count("\n") > limit


def test_files() -> None:
    large = [source for source in _all() if _is_large(source) and source.relative not in LONG_FILES]
    report([f"{source.relative}: {source.text.count(chr(10))} lines" for source in large])


def test_allowances_are_used() -> None:
    long = {(source.relative, name) for source in _all() for name, node in functions(source.tree)
            if _length(node) > MAX_FUNCTION}  # fmt: skip
    large = {source.relative for source in _all() if _is_large(source)}
    report([f"{name} is not long any more: take it off the list" for name in LONG_FUNCTIONS.keys() - long])
    report([f"{name} is not long any more: take it off the list" for name in LONG_FILES.keys() - large])
