"""Rules about the code itself that no linter knows: what may be caught, grown, read from outside, or kept globally."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.tree import Source, dotted, functions, report, sources

CONTAIN = "libp2p/_util/contain.py"

GLOBAL_STATE: dict[tuple[str, str], str] = {}
"""(file, name) of module-level mutable state, and why it is harmless."""

WALL_CLOCK: dict[str, str] = {}
"""Files that may read the wall clock, and why."""


# --- exceptions stop in one place -------------------------------------------------------------------------------------


def _is_broad(node: ast.expr | None) -> bool:
    if node is None:
        return True
    if isinstance(node, ast.Tuple):
        return any(_is_broad(item) for item in node.elts)
    return dotted(node).rpartition(".")[2] in {"Exception", "BaseException", "ExceptionGroup", "BaseExceptionGroup"}


def broad_excepts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Handlers that catch everything and do not end by raising it again."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
            last = node.body[-1]
            if not (isinstance(last, ast.Raise) and last.exc is None):
                yield node.lineno, "catches everything"
        elif isinstance(node, ast.Call) and any(_is_broad(argument) for argument in node.args):
            if dotted(node.func).rpartition(".")[2] == "suppress":
                yield node.lineno, "suppresses everything"


def test_only_contain_stops_everything() -> None:
    report([
        f"{source.relative}:{line}: {what}; name the exceptions, or let {CONTAIN} stop them"
        for source in sources() if source.relative != CONTAIN for line, what in broad_excepts(source.tree)
    ])  # fmt: skip


def test_no_lint_is_silenced_without_a_code() -> None:
    problems = []
    for source in sources():
        for number, text in enumerate(source.text.splitlines(), 1):
            if "noqa" in text and ("BLE" in text or "noqa:" not in text):
                problems.append(f"{source.relative}:{number}: {text.strip()}")
            if "type: ignore" in text and "type: ignore[" not in text:
                problems.append(f"{source.relative}:{number}: {text.strip()}")
    report(problems)


# --- nothing grows without a bound ------------------------------------------------------------------------------------


def unbounded_channels(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Memory channels with an infinite buffer."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2].startswith("open_memory_channel"):
            size = node.args[0] if node.args else next((k.value for k in node.keywords), None)
            infinite = size is not None and (
                dotted(size).rpartition(".")[2] == "inf"
                or (isinstance(size, ast.Call) and dotted(size.func) == "float")
            )
            if infinite:
                yield node.lineno, "a memory channel without a bound"


def _is_bytes(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bytes)
    return isinstance(node, ast.Call) and dotted(node.func) == "bytes"


def growing_bytes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """``bytes +=`` in a loop, or of what a method was given to what its object keeps: each copies all there was."""
    held: set[str] = set()
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign) and _is_bytes(node.value):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and (dotted(node.annotation) == "bytes" or _is_bytes(node.value)):
            targets = [node.target]
        held.update(dotted(target) for target in targets if dotted(target))
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.AsyncFor | ast.While)]
    repeated = {inner for loop in loops for inner in ast.walk(loop)}
    for _, function in functions(tree):
        given = {argument.arg for argument in function.args.args}
        for node in ast.walk(function):
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
                if isinstance(node.value, ast.Name) and node.value.id in given:
                    repeated.add(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add) and node in repeated:
            if name := dotted(node.target) if dotted(node.target) in held else "":
                yield node.lineno, f"{name} += bytes: collect parts and join, or use a bytearray"


@pytest.mark.parametrize("rule", [unbounded_channels, growing_bytes])
def test_bounds(rule) -> None:
    report([f"{source.relative}:{line}: {what}" for source in sources() for line, what in rule(source.tree)])


# --- no globals -------------------------------------------------------------------------------------------------------


def environment_reads(source: Source) -> Iterator[tuple[int, str]]:
    """Uses of the process environment."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and dotted(node) in {"os.environ", "os.environb", "os.getenv", "os.putenv"}:
            yield node.lineno, dotted(node)
    for found in source.imports:
        if found.module == "os" and found.name in {"environ", "environb", "getenv", "putenv"}:
            yield found.line, f"os.{found.name}"


def test_no_environment_variables() -> None:
    report([f"{source.relative}:{line}: {what}: configuration comes in as arguments"
            for source in sources() for line, what in environment_reads(source)])  # fmt: skip


_MUTABLE_CALLS = {
    "dict", "list", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter", "WeakKeyDictionary",
    "WeakValueDictionary", "WeakSet", "Random", "count", "ContextVar", "Lock", "Event", "Semaphore",
}  # fmt: skip


def _is_mutable(node: ast.expr | None) -> bool:
    if isinstance(node, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in _MUTABLE_CALLS


def _is_constant(name: str, node: ast.Assign | ast.AnnAssign) -> bool:
    """Tables are fine when they say that they stay as they are: by an upper-case name, or by ``Final``."""
    if name.startswith("__") and name.endswith("__"):
        return True
    final = isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation)
    return final or name.strip("_").isupper()


def global_state(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Mutable objects that a module keeps under a name that promises change, and ``global`` statements."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and _is_mutable(node.value) and not _is_constant(target.id, node):
                    yield node.lineno, target.id
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Global):
            yield inner.lineno, ", ".join(inner.names)


def _mutations(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Changes to what a module keeps under an upper-case name."""
    tables = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_mutable(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    verbs = {
        "append",
        "add",
        "extend",
        "insert",
        "update",
        "setdefault",
        "pop",
        "popitem",
        "remove",
        "discard",
        "clear",
    }
    for _, function in functions(tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in verbs:
                if dotted(node.func.value) in tables:
                    yield node.lineno, dotted(node.func.value)
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                name = dotted(node.value)
                if name in tables:
                    yield node.lineno, name


def test_no_mutable_state_in_modules() -> None:
    report([
        f"{source.relative}:{line}: {name}: state belongs to an object somebody owns"
        for source in sources()
        for line, name in (*global_state(source.tree), *_mutations(source.tree))
        if (source.relative, name) not in GLOBAL_STATE
    ])  # fmt: skip


# --- time and randomness come in as parameters ------------------------------------------------------------------------


def hidden_inputs(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls that read the wall clock or the process-wide random generator."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            wall = name in {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}
            chance = name.startswith("random.") and name not in {"random.Random", "random.SystemRandom"}
            if wall or chance:
                yield node.lineno, f"calls {name}; take it as a parameter (a default may name it)"


def test_no_hidden_inputs() -> None:
    report([
        f"{source.relative}:{line}: {what}"
        for source in sources() if source.relative not in WALL_CLOCK for line, what in hidden_inputs(source.tree)
    ])  # fmt: skip


# --- the rules catch what they should ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (broad_excepts, "try:\n    pass\nexcept Exception:\n    pass"),
        (broad_excepts, "try:\n    pass\nexcept:\n    pass"),
        (broad_excepts, "try:\n    pass\nexcept (ValueError, BaseException) as e:\n    raise X from e"),
        (broad_excepts, "with contextlib.suppress(Exception):\n    pass"),
        (unbounded_channels, "trio.open_memory_channel(math.inf)"),
        (unbounded_channels, "trio.open_memory_channel[int](float('inf'))"),
        (growing_bytes, "def f(x):\n    out = b''\n    for i in x:\n        out += i"),
        (
            growing_bytes,
            "class A:\n    def __init__(self):\n        self.b = b''\n    def f(self, x):\n        self.b += x",
        ),
        (global_state, "cache = {}"),
        (global_state, "cache: dict[str, int] = dict()"),
        (global_state, "def f():\n    global x\n    x = 1"),
        (_mutations, "CACHE = {}\ndef f():\n    CACHE['a'] = 1"),
        (_mutations, "CACHE = []\ndef f():\n    CACHE.append(1)"),
        (hidden_inputs, "def f():\n    return time.time()"),
        (hidden_inputs, "random.shuffle(x)"),
    ],
)
def test_a_rule_finds(rule, code) -> None:
    assert list(rule(ast.parse(code)))


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (broad_excepts, "try:\n    pass\nexcept BaseException:\n    undo()\n    raise"),
        (broad_excepts, "try:\n    pass\nexcept ValueError:\n    pass"),
        (unbounded_channels, "trio.open_memory_channel(16)"),
        (growing_bytes, "def f(x):\n    out = bytearray()\n    for i in x:\n        out += i"),
        (growing_bytes, "def f(x):\n    n = 0\n    for i in x:\n        n += i"),
        (global_state, "TABLE = {1: 2}\n__all__ = ['x']\n_TABLE: Final = {1: 2}\nlog = logging.getLogger('x')"),
        (hidden_inputs, "def f(now=time.time, rng=random.Random()):\n    return rng.random()"),
    ],
)
def test_a_rule_lets_pass(rule, code) -> None:
    assert not list(rule(ast.parse(code)))
