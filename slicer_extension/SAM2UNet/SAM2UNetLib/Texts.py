"""Texts for the user, and their translation; outside Slicer they stay English."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

try:
    from slicer.i18n import tr as _
except ImportError:  # slicer-core, in which the tests run, brings no translations

    def _(text: str) -> str:
        return text


def minutes(seconds: float) -> str:
    """Return how long something takes, in words."""
    if seconds < 60:
        return _("{count} s").format(count=max(1, round(seconds)))
    if seconds < 3600:
        return _("{count} min").format(count=round(seconds / 60))
    return _("{hours} h {minutes} min").format(
        hours=int(seconds // 3600), minutes=round(seconds % 3600 / 60)
    )


def note(texts: Sequence[str]) -> str:
    """Return a line, in HTML, on what was guessed, left out or concealed; empty where nothing was.

    It holds the first of the texts, cut to `LINE`, and how many more there are.
    """
    if not texts:
        return ""
    first = texts[0]
    if len(first) > LINE:  # between words, if there are any
        first = f"{first[: LINE - 3].rpartition(' ')[0] or first[: LINE - 3]}..."
    line = _("<b>Note:</b> {text}").format(text=html.escape(first, quote=False))
    if len(texts) > 1:
        line += _(" <i>+{count} more in the log</i>").format(count=len(texts) - 1)
    return line


def counts(found: Mapping[str, int]) -> str:
    """Return how many there are of each, with codes such as `unsupported_output` as plain words."""
    return ", ".join(f"{count} {code.replace('_', ' ')}" for code, count in sorted(found.items()))


LINE = 140
"""Longest note that is shown, in characters."""
