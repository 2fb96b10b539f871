"""The manifest: one line of JSON per input instance, appended during the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path, PureWindowsPath
from typing import Any

from sam2unet_core.errors import Reason
from sam2unet_core.files import write_bytes
from sam2unet_core.types import Kind

SCHEMA = 1
NAME = "manifest.jsonl"


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
        others = [folder / NAME, *(p for p in shard_manifests(folder) if p != self.path)]
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
    write_bytes(folder / NAME, text.encode())
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
