"""run.json: settings, versions and hashes of a results folder, and an audit entry per run."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sam2unet_core import __version__
from sam2unet_core.batch.settings import Settings, settings_digest
from sam2unet_core.errors import LockedError, OutputError
from sam2unet_core.files import write_bytes
from sam2unet_core.inference.model import Model

SCHEMA = 1
NOTE = "research only, not a medical device"
PACKAGES = ("torch", "numpy", "pydicom", "highdicom", "av", "nibabel", "SimpleITK")


class RunRecord:
    """The run.json of a results folder.

    Results are dated by the start of the first run with these settings, so that a rerun writes the
    same bytes.

    Args:
        out: the results folder.
        settings: the settings of this run.
        model: the model.

    Raises:
        LockedError: the folder holds results made with other settings and `redo` is not set.
    """

    def __init__(self, out: Path, settings: Settings, model: Model) -> None:
        suffix = settings.shard.suffix if settings.shard else ""
        self._path = out / f"run{suffix}.json"
        self.digest = settings_digest(settings, model)
        before = [content for path in record_files(out) if (content := _read(path))]
        other = next((each for each in before if each.get("digest") != self.digest), None)
        if other is not None and not settings.redo:
            difference = _difference(other, settings, model)
            raise LockedError(
                f"{out}: holds results made with other settings ({difference}); "
                "give another folder with -o, or replace the results with --redo"
            )
        own = _read(self._path) or {}
        started = own.get("started") if own.get("digest") == self.digest else None
        if settings.redo or started is None:
            same = [each for each in before if each.get("digest") == self.digest]
            started = same[0]["started"] if same and not settings.redo else _now()
        self.started = datetime.fromisoformat(started)
        self._audit = {
            "who": _user(),
            "when": _now(),
            "ended": None,
            "version": __version__,
            "digest": self.digest,
            "weights_sha256": model.weights_sha256,
            "settings": settings.that_change_results(),
            "redo": settings.redo,
            "shard": settings.shard.suffix[1:] if settings.shard else None,
        }
        self._content: dict[str, Any] = {
            "schema": SCHEMA,
            "started": started,
            "digest": self.digest,
            "settings": settings.that_change_results(),
            "model": {
                "weights_sha256": model.weights_sha256,
                "runtime": model.runtime.name,
                "precision": model.runtime.precision,
                "note": NOTE,
            },
            "task": model.task.to_dict(),
            "versions": {"sam2unet": __version__, "python": platform.python_version()}
            | {name: version for name in PACKAGES if (version := _version(name))},
            "runs": [*own.get("runs", []), self._audit],
        }

    def save(self) -> None:
        """Write run.json."""
        write_bytes(self._path, _text(self._content))

    def end(self, outcome: dict[str, Any]) -> None:
        """Record how the run ended and write run.json."""
        self._audit.update({"ended": _now(), **outcome})
        self.save()


def record_files(out: Path) -> list[Path]:
    """Return the paths of a results folder's record and those of its shards."""
    return [out / "run.json", *sorted(out.glob("run.*-of-*.json"))]


def merge_records(
    out: Path, *, sources: Sequence[Path] = (), settings_hash: str | None = None
) -> None:
    """Write one run.json from those of other folders and of the shards in this one.

    Args:
        out: the results folder.
        sources: other results folders.
        settings_hash: merge only records with this hash of their settings.

    Raises:
        LockedError: the settings of the records differ.
        OutputError: there are no records.
    """
    files = [path for folder in dict.fromkeys([out, *sources]) for path in record_files(folder)]
    found = [content for path in files if (content := _read(path))]
    if settings_hash is not None:
        found = [content for content in found if content["digest"] == settings_hash]
    if not found:
        raise OutputError(
            f"{out}: no run.json to merge; give folders that `sam2unet segment` wrote"
        )
    if len({each["digest"] for each in found}) > 1:
        raise LockedError(
            f"{out}: the shards were made with different settings; rerun one of them with --redo"
        )
    runs = {json.dumps(each, sort_keys=True): each for content in found for each in content["runs"]}
    merged = min(found, key=lambda each: str(each["started"]))
    merged["runs"] = sorted(runs.values(), key=lambda each: str(each["when"]))
    write_bytes(out / "run.json", _text(merged))


def read_record(out: Path) -> dict[str, Any]:
    """Return the content of a folder's run.json; empty if there is none."""
    return _read(out / "run.json") or {}


def _difference(before: dict[str, Any], settings: Settings, model: Model) -> str:
    """Describe the differences between a record and this run."""
    now = settings.that_change_results()
    then = before.get("settings", {})
    parts = [f"{key} {then.get(key)}, now {now[key]}" for key in now if now[key] != then.get(key)]
    task, old = model.task.to_dict(), before.get("task", {})
    parts += [
        f"{key} {old.get(key)}, now {task[key]}"
        for key in ("name", "threshold", "version")
        if task[key] != old.get(key)
    ]
    if before.get("model", {}).get("weights_sha256") != model.weights_sha256:
        parts.append("different weights")
    return "; ".join(parts) or "different version, runtime or task file"


def _text(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
