"""The results folder's own files: its lock, run.json and manifest.jsonl.

The lock allows one run at a time, and is released when the process ends.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from sam2unet_core import __version__
from sam2unet_core.errors import LockedError, OutputError, Reason
from sam2unet_core.files import write_bytes
from sam2unet_core.types import Kind

if TYPE_CHECKING:
    from sam2unet_core.batch.settings import Settings
    from sam2unet_core.inference.model import Model

LOCK = ".lock"
MERGE_S = 120.0
"""Seconds that a shard waits while another one merges."""
LOOK_S = 1.0
"""Seconds to wait for another run's lock, which other runs hold briefly while they check it."""


class FolderLock:
    """A context that locks a results folder.

    Each shard has its own lock, so shards can share a folder. A run that is not a shard shares it
    with no other run.

    Args:
        folder: the results folder, which exists.
        suffix: the shard's suffix, or empty.

    Raises:
        LockedError: another run holds the folder.
    """

    def __init__(self, folder: Path, *, suffix: str = "") -> None:
        self.folder = folder
        self.suffix = suffix
        self._held = ExitStack()

    def __enter__(self) -> FolderLock:
        """Take the lock."""
        with ExitStack() as taken:
            taken.enter_context(_locked(self.folder / f"{LOCK}{self.suffix}"))
            for path in self._of_others():
                with _locked(path, wait_s=LOOK_S):
                    pass
            self._held = taken.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._held.close()

    def _of_others(self) -> list[Path]:
        """Return the locks that no other run may hold."""
        if self.suffix:
            return [path for path in [self.folder / LOCK] if path.exists()]
        return sorted(path for path in self.folder.glob(f"{LOCK}*") if path.name != LOCK)


@contextmanager
def merging(folder: Path) -> Iterator[None]:
    """Let one shard at a time write the summary, while the others wait.

    Raises:
        LockedError: another shard takes longer than `MERGE_S`.
    """
    with _locked(folder / ".merging", wait_s=MERGE_S):
        yield


@contextmanager
def _locked(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file; the file is not deleted."""
    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockedError(
            f"{path.parent}: another run is writing to it; wait for it or give another folder "
            "with -o"
        ) from error
    try:
        yield
    finally:
        lock.release()


RUN_SCHEMA = 1
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
            "schema": RUN_SCHEMA,
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


def settings_digest(settings: Settings, model: Model) -> str:
    """Return the hash of everything that affects results, except the input."""
    return digest(
        {
            "settings": settings.that_change_results(),
            "task": model.task.to_dict(),
            "weights": model.weights_sha256,
            "runtime": model.runtime.name,
            "precision": model.runtime.precision,
            "version": __version__,
        }
    )


def digest(content: object) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hex."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


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


SCHEMA = 1
MANIFEST = "manifest.jsonl"


class Status(StrEnum):
    """The status of an input."""

    DONE = "done"
    """Segmented, with findings."""
    EMPTY = "empty"
    """Segmented, without findings."""
    SKIPPED = "skipped"
    """Not an input, or not suitable for this task."""
    FAILED = "failed"
    """No result, or an incomplete one."""


_ESCAPED = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
"""Characters that some readers take for line ends or cannot read; written as JSON escapes."""


@dataclass(frozen=True)
class Output:
    """An output file.

    Attributes:
        path: below the results folder, with `/`.
        sha256: hash of its bytes.
        kind: its kind, such as `mask` or `seg`.
    """

    path: str
    sha256: str
    kind: str


@dataclass(frozen=True)
class Line:
    """The manifest line of one input instance; see `docs/batch.md` for the keys."""

    id: str
    source_sha256: str | None
    kind: Kind
    study: str | None
    series: str | None
    status: Status
    reason: Reason | None = None
    message: str = ""
    frames: int = 0
    frames_with_findings: int = 0
    outputs: tuple[Output, ...] = ()
    key: str | None = None
    ms: dict[str, int] = field(default_factory=lambda: {"decode": 0, "network": 0, "write": 0})
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the line, without the line end."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, ensure_ascii=False)
        return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

    @classmethod
    def from_json(cls, text: str) -> Line:
        """Read a line.

        Raises:
            ValueError: it is incomplete, has an unknown schema, or has a path outside the results
                folder.
        """
        content: dict[str, Any] = json.loads(text)
        if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
            raise ValueError("not a manifest line of this version")
        try:
            outputs = tuple(Output(**each) for each in content.pop("outputs"))
            for each in outputs:
                _check_inside(each.path)
            warnings = tuple(content.pop("warnings", ()))  # older lines have none
            line = cls(**content, outputs=outputs, warnings=warnings)
            reason = None if line.reason is None else Reason(line.reason)
            return replace(line, kind=Kind(line.kind), status=Status(line.status), reason=reason)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a manifest line: {error}") from error

    def same_result(self, other: Line | None) -> bool:
        """Return whether both lines are equal, apart from the times."""
        if other is None:
            return False
        return asdict(self) | {"ms": {}} == asdict(other) | {"ms": {}}


class Manifest:
    """The manifest of a results folder.

    Args:
        folder: the results folder.
        suffix: the shard's suffix, or empty; each shard has its own file.
    """

    def __init__(self, folder: Path, *, suffix: str = "") -> None:
        self.path = folder / f"manifest{suffix}.jsonl"
        self.lines: dict[str, Line] = {}
        others = [folder / MANIFEST, *(p for p in shard_manifests(folder) if p != self.path)]
        for path in dict.fromkeys([*others, self.path]):
            self.lines.update({line.id: line for line in read_lines(path)})

    def append(self, lines: Iterable[Line]) -> None:
        """Append lines; they are passed to the operating system before this returns.

        Raises:
            OSError: the file cannot be written.
        """
        added = list(lines)
        if not added:
            return
        text = "".join(f"{line.to_json()}\n" for line in added)
        with self.path.open("a+b") as stream:
            if _ends_within_line(stream):
                text = f"\n{text}"
            stream.write(text.encode())
        self.lines.update({line.id: line for line in added})


def read_lines(path: Path) -> list[Line]:
    """Return the complete lines of a manifest; empty if there is no file."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            lines.append(Line.from_json(text))
        except ValueError:
            continue
    return lines


def shard_manifests(folder: Path) -> list[Path]:
    """Return the manifests of the shards in a results folder."""
    return sorted(folder.glob("manifest.*-of-*.jsonl"))


def merge_manifests(folder: Path, *, sources: Iterable[Path] = ()) -> dict[str, Line]:
    """Write one manifest from those of other folders and of the shards in this one.

    Within a folder, the lines of shards are newer. If two folders have the same id, the line that
    is not `failed` wins; `merge` has checked that both lines are of the same file.

    Returns:
        The lines by id, in the order of the file.
    """
    merged: dict[str, Line] = {}
    for source in dict.fromkeys([folder, *sources]):
        for line in Manifest(source).lines.values():
            before = merged.get(line.id)
            if before is None or before.status is Status.FAILED:
                merged[line.id] = line
    ordered = dict(sorted(merged.items()))
    text = "".join(f"{line.to_json()}\n" for line in ordered.values())
    write_bytes(folder / MANIFEST, text.encode())
    return ordered


def _check_inside(path: str) -> None:
    pure = PureWindowsPath(path)  # handles the separators and drives of all systems
    if not path or pure.anchor or ".." in pure.parts:
        raise ValueError("the path of an output is outside the results folder")


def _ends_within_line(stream: Any) -> bool:
    if stream.seek(0, 2) == 0:
        return False
    stream.seek(-1, 2)
    return bool(stream.read(1) != b"\n")
