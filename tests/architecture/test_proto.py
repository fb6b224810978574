"""The modules in ``libp2p/pb`` are what the compiler makes of the schemas, and ask no runtime for its version."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.architecture.tree import ROOT


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCHEMAS = sorted((ROOT / "proto").glob("*.proto"))


def test_modules_are_as_generated() -> None:
    """Neither a schema nor a module changed since both were written; ``make check`` also compiles them anew."""
    generator = _generator()
    recorded = generator.SUMS.read_text(encoding="utf-8").splitlines()
    stale = sorted(set(generator.sums().splitlines()) ^ set(recorded))
    assert not stale, f"run `make proto`: {sorted({line.split()[-1] for line in stale})}"


@pytest.mark.gate
@pytest.mark.limit(300)
def test_compiling_again_gives_the_same_bytes() -> None:
    assert _generator().check() == []


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_schema(schema: Path) -> None:
    text = schema.read_text(encoding="utf-8")
    # A package of our own, so that other libp2p schemas in the same process do not clash with it.
    assert re.search(r"^package libp2p_trio\.(\w+);$", text, re.MULTILINE)
    assert f"package libp2p_trio.{schema.stem};" in text
    assert text.startswith("// "), "a schema opens by naming its specification"


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_module(schema: Path) -> None:
    text = (ROOT / "libp2p" / "pb" / f"{schema.stem}_pb2.py").read_text(encoding="utf-8")
    assert "runtime_version" not in text, "this compiler's output refuses older runtimes"
    assert f"libp2p/pb/{schema.name}" in text
