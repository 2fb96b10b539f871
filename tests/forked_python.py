"""Runs a Python command line in this process, which was forked from one that has imported a lot.

The fixture `run_python` has `multiprocessing`'s fork server run this file, as `forked`.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def become(
    words: Sequence[str], *, cwd: str, env: Mapping[str, str], streams: Sequence[str]
) -> None:
    """Be `python WORDS`, as far as the program can tell.

    Args:
        words: `-m MODULE ...`, or a script and its arguments.
        cwd: the working directory.
        env: the whole environment.
        streams: the files that standard output and standard error go to.
    """
    for target, path in zip((1, 2), streams, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, target)
        os.close(file)
    gc.freeze()  # what is imported already is never garbage
    if "coverage" in sys.modules:
        _leave_to_the_fork_server()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    multiprocessing.set_start_method(None, force=True)  # as in any new process
    encoding, _, errors = env.get("PYTHONIOENCODING", "").partition(":")
    if encoding:
        sys.stdout.reconfigure(encoding=encoding, errors=errors or "strict")
        sys.stderr.reconfigure(encoding=encoding, errors="backslashreplace")
    is_module = words[0] == "-m"
    sys.argv = list(words[is_module:])
    first = cwd if is_module else str(Path(words[0]).parent)
    sys.path[:0] = [first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    try:
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()


def _leave_to_the_fork_server() -> None:
    """Don't end the measurement of coverage that the fork server began for itself.

    That of this process was begun by `multiprocessing`, which ends it after this process's work.
    """
    from coverage import process_startup

    if (inherited := getattr(process_startup, "coverage", None)) is not None:
        atexit.unregister(inherited._atexit)


if __name__ == "forked":
    become(**given)  # type: ignore[name-defined]  # noqa: F821
