"""Printing to consoles that cannot show every character."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

from sam2unet_core.errors import SAM2UNetError

if TYPE_CHECKING:
    from rich.console import Console


def escape_what_cannot_be_shown() -> None:
    """Make standard output and error escape characters that the console cannot show.

    Without this, printing an unusual path would fail a run that has done its work.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def error_line(error: BaseException) -> str | None:
    """Return the message for an error that the user can act on, or None.

    These are our own errors, and system errors about a file or folder.
    """
    if isinstance(error, SAM2UNetError):
        return f"Error: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"Error: {error.filename}: {(error.strerror or 'cannot be used').lower()}"
    return None


def to_json(content: object) -> str:
    """Return JSON for standard output: as UTF-8 if the console can show it, else with escapes."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    is_utf8 = encoding.lower().replace("-", "") == "utf8"
    return json.dumps(content, indent=2, ensure_ascii=not is_utf8)


def console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """Return a console without markup, since paths may contain `[bold]` or `:ok:`."""
    from rich.console import Console  # noqa: PLC0415 - not every importer prints tables

    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False)
