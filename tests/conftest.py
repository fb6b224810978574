"""What every test gets without asking: a virtual clock, a time limit, and checks that it left nothing behind.

* Async tests run on a :class:`trio.testing.MockClock` that jumps ahead whenever everybody waits, so no test waits for
  real. Tests marked ``real_clock("why")`` or ``sockets`` run on the real clock: a mock clock would jump while the
  kernel is busy.
* A test may take 60 s of real time, or what ``@pytest.mark.limit(seconds)`` says. A test over its limit fails and shows
  where each of its tasks was waiting.
* After a test that passed, no file or socket is open that was not open before, no system task is left, nothing was
  garbage-collected with an unclosed resource or an unawaited coroutine (warnings are errors), and ``contain`` recorded
  no exception that means a bug. A test that provokes such an exception on purpose takes the ``expected_bugs`` fixture.
* ``--without-fast`` runs as if the extra ``fast`` were not installed.
* Hypothesis is deterministic; ``--hypothesis-profile=explore`` searches with fresh randomness and more examples.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import trio
from trio.testing import MockClock

DEFAULT_LIMIT = 60.0
_SECOND_WARNING = 5.0  # how long a test that was cancelled at its limit has to end

hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "explore", parent=hypothesis.settings.get_profile("repeatable"), derandomize=False, max_examples=2000
)
hypothesis.settings.load_profile("repeatable")


# --- exceptions that containment kept from us -------------------------------------------------------------------------


class _Bugs(logging.Handler):
    """Collects the exceptions that ``libp2p._util.contain`` reports as bugs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.found.append(record.exc_info[1])


_bugs = _Bugs()
logging.getLogger("libp2p.contain").addHandler(_bugs)


def contained_bugs() -> list[BaseException]:
    """The exceptions meaning a bug that were contained since the list was last cleared."""
    return _bugs.found


@pytest.fixture
def expected_bugs() -> Iterator[list[BaseException]]:
    """For tests that provoke contained bugs: the recorded exceptions, which then do not fail the test."""
    bugs = contained_bugs()
    yield bugs
    bugs.clear()


# --- the time limit ---------------------------------------------------------------------------------------------------


class _Watchdog:
    """Ends the running test at its limit: politely by cancelling its Trio run, then by an exception where it stands."""

    def __init__(self) -> None:
        self.report: str | None = None
        self._run: tuple[trio.lowlevel.TrioToken, trio.CancelScope] | None = None
        self._usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    def start(self, seconds: float) -> Callable[[], None]:
        """Arm it. Returns the function that disarms it."""
        self.report = None
        if not self._usable:
            return lambda: None
        previous = signal.signal(signal.SIGALRM, functools.partial(self._on_alarm, seconds))
        signal.setitimer(signal.ITIMER_REAL, seconds)

        def stop() -> None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

        return stop

    def watch(self, scope: trio.CancelScope) -> None:
        """Cancel ``scope`` of the current Trio run when time is up."""
        self._run = (trio.lowlevel.current_trio_token(), scope)

    def unwatch(self) -> None:
        self._run = None

    def _on_alarm(self, seconds: float, signum: int, frame: object) -> None:
        first = self.report is None
        self.report = f"the test took longer than {seconds:g} s; see @pytest.mark.limit in tests/conftest.py"
        if not first or self._run is None:
            pytest.fail(self.report)
        signal.setitimer(signal.ITIMER_REAL, _SECOND_WARNING)
        token, scope = self._run
        token.run_sync_soon(self._cancel, scope)

    def _cancel(self, scope: trio.CancelScope) -> None:
        self.report = f"{self.report}\n\nwhere its tasks were:\n{_describe(_all_tasks())}"
        scope.cancel()


_watchdog = _Watchdog()


def _limit_of(item: pytest.Item) -> float:
    mark = item.get_closest_marker("limit")
    return float(mark.args[0]) if mark else DEFAULT_LIMIT


# --- running async tests ----------------------------------------------------------------------------------------------


def _all_tasks() -> set[trio.lowlevel.Task]:
    root: trio.lowlevel.Task | None = trio.lowlevel.current_root_task()
    found: set[trio.lowlevel.Task] = set()
    pending = [] if root is None else [root]
    while pending:
        task = pending.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            pending.extend(nursery.child_tasks)
    return found


def _describe(tasks: set[trio.lowlevel.Task]) -> str:
    """Each task's name and the last of its own frames, without those of the machinery."""
    parts = []
    for task in sorted(tasks, key=lambda task: task.name):
        if task.name.startswith(("<init>", "<TrioToken", "trio._core", __name__)):
            continue
        frames = [(frame, line) for frame, line in task.iter_await_frames() if not _is_machinery(frame)]
        parts.append(
            f"{task.name}\n{''.join(traceback.format_list(traceback.StackSummary.extract(iter(frames[-4:]))))}"
        )
    return "\n".join(parts)


def _is_machinery(frame: Any) -> bool:
    file = str(frame.f_code.co_filename)
    return "/site-packages/" in file or file == __file__


async def _guarded(test: Callable[[], Awaitable[None]]) -> None:
    __tracebackhide__ = True
    before = _all_tasks()
    with trio.CancelScope() as scope:
        _watchdog.watch(scope)
        try:
            await test()
        finally:
            _watchdog.unwatch()
    if scope.cancelled_caught:
        pytest.fail(_watchdog.report or "cancelled")
    if left := _all_tasks() - before:
        pytest.fail(f"system tasks outlive the test:\n{_describe(left)}")


def _run(
    test: Callable[[], Awaitable[None]],
    *,
    virtual: bool,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    __tracebackhide__ = True
    if clock is None and virtual:
        clock = MockClock(autojump_threshold=0)
    trio.run(_guarded, test, clock=clock, instruments=instruments)


_run_virtual = functools.partial(_run, virtual=True)
_run_real = functools.partial(_run, virtual=False)


def _runner_of(item: pytest.Item) -> Callable[..., None]:
    real = item.get_closest_marker("real_clock") or item.get_closest_marker("sockets")
    return _run_real if real else _run_virtual


def _wrap_property(item: pytest.Item, inner: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Give an async property test the same runner as others; pytest-trio would run it on the real clock."""
    run = _runner_of(item)

    @functools.wraps(inner)
    def call(*args: Any, **kwargs: Any) -> None:
        run(functools.partial(inner, *args, **kwargs))

    call._trio_test_runner_wrapped = True  # type: ignore[attr-defined]  # pytest-trio then leaves it alone
    return call


# --- hooks ------------------------------------------------------------------------------------------------------------

_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("real_clock")
        if mark and not (mark.args and isinstance(mark.args[0], str)):
            raise pytest.UsageError(f"{item.nodeid}: real_clock needs its reason: @pytest.mark.real_clock('why')")
        if iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=_runner_of(item)), append=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-fast", action="store_true", help="run as if the extra `fast` were not installed")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("without_fast"):
        for name in ("nacl", "coincurve", "Crypto.Util.strxor"):
            sys.modules[name] = None  # type: ignore[assignment]  # importing it now fails
    # A shell without job control starts what runs in the background with SIGINT ignored, and every process started from
    # there inherits that: the programs of the tests could not be interrupted.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    # What exists now lives until the end; the collections after each test need not look at it again.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    handle = getattr(getattr(item, "obj", None), "hypothesis", None)
    if handle is not None and iscoroutinefunction(handle.inner_test):
        handle.inner_test = _wrap_property(item, handle.inner_test)
    stop = _watchdog.start(_limit_of(item))
    try:
        yield
    finally:
        stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_failed] = not report.passed
    return report


# --- nothing is left behind -------------------------------------------------------------------------------------------

_FD_DIRECTORY = Path("/proc/self/fd")


def _open_files() -> dict[str, str]:
    """Descriptor to target, for descriptors that stay open; empty where the system cannot tell."""
    if not _FD_DIRECTORY.is_dir():
        return {}
    found = {}
    for entry in _FD_DIRECTORY.iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:
            continue  # the descriptor of this very listing
    return found


def _new_files(before: dict[str, str]) -> dict[str, str]:
    return {fd: target for fd, target in _open_files().items() if before.get(fd) != target}


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    contained_bugs().clear()
    before = _open_files()
    yield
    if request.node.stash.get(_failed, True):
        return
    if request.node.get_closest_marker("trio"):
        gc.collect()  # unclosed resources and unawaited coroutines report themselves now, as errors of this test
    if left := _new_files(before):
        for _ in range(20):  # worker threads of the interpreter may be closing theirs this moment
            time.sleep(0.01)
            left = _new_files(before)
            if not left:
                break
        else:
            pytest.fail(f"still open after the test: {', '.join(f'{fd} -> {to}' for fd, to in left.items())}")
    if bugs := list(contained_bugs()):
        contained_bugs().clear()
        text = "\n".join("".join(traceback.format_exception(bug)) for bug in bugs)
        pytest.fail(f"contained, but a bug:\n{text}")


def pytest_report_header() -> str:
    return (
        f"libp2p: trio {importlib.metadata.version('trio')}, virtual clock, limit {DEFAULT_LIMIT:g} s, {sys.platform}"
    )
