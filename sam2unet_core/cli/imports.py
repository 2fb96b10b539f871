"""Slow imports made faster."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing_torch() -> Iterator[None]:
    """Import without garbage collection.

    PyTorch's import makes some 160,000 objects that stay until the end. To look through them again
    and again takes a tenth of a second while they come and a fifth when the process ends. Does
    nothing where PyTorch is there already, as in a program that calls the command.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
