"""What is printed, on consoles that cannot show every character."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

from sam2unet_core.errors import SAM2UNetError

if TYPE_CHECKING:
    from rich.console import Console


def escape_what_cannot_be_shown() -> None:
    """Have standard output and error write escapes for characters that the console lacks.

    A path may hold letters of any script, and bytes that are no letters at all; to print it never
    fails a run that has done its work.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def error_line(error: BaseException) -> str | None:
    """Return the line that tells of an error, or None for one that only a programmer can act on.

    A file or folder that the system refuses is the person's to mend, as is every error of ours.
    """
    if isinstance(error, SAM2UNetError):
        return f"Error: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"Error: {error.filename}: {(error.strerror or 'cannot be used').lower()}"
    return None


def to_json(content: object) -> str:
    """Return JSON for standard output: readable letters in UTF-8, else escapes that JSON knows."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    is_utf8 = encoding.lower().replace("-", "") == "utf8"
    return json.dumps(content, indent=2, ensure_ascii=not is_utf8)


def console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """Return a console that shows texts as they are: `[bold]` and `:ok:` may be parts of a path."""
    from rich.console import Console  # noqa: PLC0415 - not all that import this print tables

    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False)
