"""What every test may use; and, in CI, no test is skipped for want of something installable."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

MEMORY_OF_A_WORKER = 4 * 2**30  # with the processes that its tests start
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # each with its share of the cores, before PyTorch is imported
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, CORES // WORKERS)))
ROOT = Path(__file__).resolve().parents[1]
NO_SHARED_DATA = "shared data not present"
ALLOWED_SKIPS = (NO_SHARED_DATA, "needs a GPU", "needs Windows", "needs macOS", "needs Linux")
"""Reasons, by how they begin, for which a test may be skipped where `CI` is set."""


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `../shared` with real data; a test that asks for it is skipped without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(NO_SHARED_DATA)
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run tests: one for each usable core that has its memory."""
    if sys.platform == "win32":
        return CORES
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(CORES, memory // MEMORY_OF_A_WORKER))


RunPython = Callable[..., "subprocess.CompletedProcess[Any]"]


@pytest.fixture(scope="session")
def run_python(tmp_path_factory: pytest.TempPathFactory) -> RunPython:
    """Run `python WORDS` as a process that starts at once, since it has imported MONAI already.

    It is a process like any other: exit code, streams, signals, working directory. What depends on
    the interpreter's start (its options, `sitecustomize`, what gets imported) needs
    `subprocess.run`. It returns what that does, with texts unless `text` is False.
    """
    context = multiprocessing.get_context("spawn" if sys.platform != "linux" else "forkserver")
    if sys.platform == "linux":
        from multiprocessing.forkserver import ensure_running

        context.set_forkserver_preload(["tests.preloaded"])
        ensure_running()  # before a test changes the environment or the working directory

    def run(
        *words: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        text: bool = True,
    ) -> subprocess.CompletedProcess[Any]:
        folder = tmp_path_factory.mktemp("streams")
        streams = [folder / name for name in ("stdout", "stderr")]
        for stream in streams:
            stream.touch()
        given = {
            "words": [str(word) for word in words],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "streams": [str(stream) for stream in streams],
        }
        script = str(ROOT / "tests" / "forked_python.py")
        process = context.Process(target=runpy.run_path, args=(script, {"given": given}, "forked"))
        process.start()
        process.join()
        said: list[Any] = [stream.read_bytes() for stream in streams]
        if text:
            said = [each.decode(errors="replace") for each in said]
        return subprocess.CompletedProcess(given["words"], int(process.exitcode or 0), *said)

    return run


@pytest.fixture
def sorting_time() -> Iterator[Callable[[], float]]:
    """Returns the CPU seconds that sorting 200,000 numbers takes now.

    What a test allows in CPU time is a number of these: then it holds on a machine of any speed.
    Meanwhile Python looks for no garbage, of which the other tests have left much.
    """
    numbers = random.Random(0).sample(range(10**9), 200_000)

    def measure() -> float:
        before = time.thread_time()
        sorted(numbers)
        return time.thread_time() - before

    gc.disable()
    yield measure
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


def _fail_if_skipped_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or not os.environ.get("CI"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI ({reason}): install what it needs"
