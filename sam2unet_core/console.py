"""What is printed, on consoles that cannot show every character."""

from __future__ import annotations

import io
import json
import sys


def escape_what_cannot_be_shown() -> None:
    """Have standard output and error write escapes for characters that the console lacks.

    A path may hold letters of any script, and bytes that are no letters at all; to print it never
    fails a run that has done its work.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def to_json(content: object) -> str:
    """Return JSON for standard output: readable letters in UTF-8, else escapes that JSON knows."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    is_utf8 = encoding.lower().replace("-", "") == "utf8"
    return json.dumps(content, indent=2, ensure_ascii=not is_utf8)
