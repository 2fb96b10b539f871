"""Translation of what a person reads; outside Slicer the English text stays."""

from __future__ import annotations

try:
    from slicer.i18n import tr as _
except ImportError:  # slicer-core, in which the tests run, brings no translations

    def _(text: str) -> str:
        return text


def minutes(seconds: float) -> str:
    """Return how long something takes, as a person would say it."""
    if seconds < 60:
        return _("{count} s").format(count=max(1, round(seconds)))
    if seconds < 3600:
        return _("{count} min").format(count=round(seconds / 60))
    return _("{hours} h {minutes} min").format(
        hours=int(seconds // 3600), minutes=round(seconds % 3600 / 60)
    )
