"""What a network segments and on which inputs: the file `task.json`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sam2unet_core.errors import TaskError

SCHEMA = 1
_INNERMOST_LIST = re.compile(r"\[[^][{}]*\]")
Code = tuple[str, str, str]
"""A coded concept (DICOM PS3.3 8.1) as scheme designator, code value and code meaning."""


@dataclass(frozen=True)
class TaskClass:
    """One structure that the network segments.

    Attributes:
        value: its value in a label map, from 1; 0 is background.
        name: short identifier, unique in the task.
        label: display name.
        category: DICOM Segmented Property Category.
        type: DICOM Segmented Property Type.
        region: DICOM Anatomic Region, or None if it varies.
        rgb: display colour, 0 to 255 each.
        min_area_px: components smaller than this many pixels are dropped.
    """

    value: int
    name: str
    label: str
    category: Code
    type: Code
    region: Code | None
    rgb: tuple[int, int, int]
    min_area_px: int = 0


@dataclass(frozen=True)
class Accepts:
    """The DICOM sources a task may run on; an empty tuple accepts any value.

    Plain images and video carry no modality, so every task accepts them.
    """

    modalities: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    photometric: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """Grey-level window in the modality's units (DICOM PS3.3 C.11.2.1.2)."""

    center: float
    width: float


@dataclass(frozen=True)
class Weights:
    """The weights file of a bundle.

    Attributes:
        file: path relative to the bundle.
        sha256: hash of that file.
        variant: row of `sam2unet_core.network.VARIANTS`.
        trunk_sha256: hash of the frozen trunk that a delta needs; None for a full network.
    """

    file: str
    sha256: str
    variant: str
    trunk_sha256: str | None = None


@dataclass(frozen=True)
class Task:
    """A segmentation task, as read from `task.json`.

    Attributes:
        image_size: (height, width) in pixels that frames are resized to for the network.
        activation: `sigmoid` (classes may overlap) or `softmax` (they exclude each other; the
            network has one more channel, for the background).
        threshold: probability at or above which a pixel belongs to a class.
        temperature: divisor of the logits before the activation.
        flip_average: average the probabilities with those of the frame's mirror image.
        peak_threshold: drop connected components whose probability stays below this (hysteresis
            thresholding); 0 keeps all.
        metrics: measured results, for the model card.
        paper: published settings and results, for the tasks of the paper.
    """

    name: str
    version: str
    title: str
    image_size: tuple[int, int]
    classes: tuple[TaskClass, ...]
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    threshold: float = 0.5
    temperature: float = 1.0
    flip_average: bool = False
    peak_threshold: float = 0.0
    accepts: Accepts = field(default_factory=Accepts)
    window: Window | None = None
    weights: Weights | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of foreground classes."""
        return len(self.classes)

    @property
    def num_channels(self) -> int:
        """Number of output channels of the network."""
        return self.num_classes + (self.activation == "softmax")

    def with_threshold(self, threshold: float) -> Task:
        """Return the same task with another threshold.

        The peak threshold was fitted to the task's own threshold; another threshold disables it.
        """
        peak = self.peak_threshold if threshold == self.threshold else 0.0
        return replace(self, threshold=threshold, peak_threshold=peak)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `task.json`."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for key, default in (("paper", {}), ("flip_average", False), ("peak_threshold", 0.0)):
            if content[key] == default:
                del content[key]
        return {"schema": SCHEMA, **content}

    def save(self, path: Path | str) -> None:
        """Write `task.json` to `path`."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        text = _INNERMOST_LIST.sub(lambda found: _one_line(found[0]), text)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Task:
        """Read `task.json`.

        Raises:
            TaskError: the file is missing, not JSON or not a task; the message names the key.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise TaskError(f"{path}: no such task file") from error
        except (OSError, ValueError) as error:
            raise TaskError(f"{path}: not a readable task file ({error})") from error
        return cls.from_dict(content, source=str(path))

    @classmethod
    def from_dict(cls, content: dict[str, Any], *, source: str = "task") -> Task:
        """Build a task from the content of `task.json`; `source` is named in errors.

        Raises:
            TaskError: a key is missing, unknown or has a wrong value.
        """
        try:
            return _parse(dict(content))
        except KeyError as error:
            raise TaskError(f"{source}: the key {error} is missing") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise TaskError(f"{source}: {error}") from error


def installed_bundle() -> Path:
    """Return the bundle installed with this package, or that of the repository in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "monai_bundle", package.parent / "monai_bundle"):
        if (folder / "configs" / "task.json").is_file():
            return folder
    raise TaskError(f"{package}: the bundle is missing; install sam2unet again")


def presets() -> dict[str, Path]:
    """Return the task files of the installed bundle, by name."""
    folder = installed_bundle() / "configs" / "tasks"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def load_preset(name: str) -> Task:
    """Return the task called `name`; raise TaskError, which lists the known tasks, if unknown."""
    known = presets()
    if name not in known:
        raise TaskError(f"unknown task {name!r}; choose from {', '.join(known)}")
    return Task.load(known[name])


def _one_line(text: str) -> str:
    """Join an indented list into one line; JSON strings contain no line breaks."""
    return "[" + re.sub(r"\n\s*", " ", text[1:-1]).strip() + "]"


def _parse(content: dict[str, Any]) -> Task:
    schema = content.pop("schema", None)
    if schema != SCHEMA:
        raise ValueError(f"schema is {schema!r}, this version reads {SCHEMA}")
    classes = tuple(_parse_class(item) for item in content.pop("classes"))
    accepts = {k: tuple(v) for k, v in content.pop("accepts", {}).items()}
    window = content.pop("window", None)
    weights = content.pop("weights", None)
    height, width = (int(v) for v in content.pop("image_size"))
    task = Task(
        classes=classes,
        accepts=Accepts(**accepts),
        window=Window(**window) if window else None,
        weights=Weights(**weights) if weights else None,
        image_size=(height, width),
        **content,
    )
    _check(task)
    return task


def _parse_class(item: dict[str, Any]) -> TaskClass:
    fields = dict(item)
    for key in ("category", "type", "region"):
        fields[key] = _code(key, fields[key])
    fields["rgb"] = tuple(int(v) for v in fields["rgb"])
    return TaskClass(**fields)


def _code(key: str, value: list[str] | None) -> Code | None:
    if value is None and key == "region":
        return None
    if not value or len(value) != 3:
        raise ValueError(f"{key} is {value!r}, expected [scheme, code, meaning]")
    return (str(value[0]), str(value[1]), str(value[2]))


def _check(task: Task) -> None:
    if not task.classes:
        raise ValueError("classes is empty, expected at least one")
    values = [c.value for c in task.classes]
    if values != list(range(1, len(values) + 1)):
        raise ValueError(f"class values are {values}, expected 1, 2, ... in order")
    if len({c.name for c in task.classes}) != len(values):
        raise ValueError("two classes have the same name")
    if task.activation not in ("sigmoid", "softmax"):
        raise ValueError(f"activation is {task.activation!r}, expected sigmoid or softmax")
    if min(task.image_size) < 32:
        raise ValueError(f"image_size is {task.image_size}, expected 32 or more")
    _check_numbers(task)
    if any(len(c.rgb) != 3 or not all(0 <= v <= 255 for v in c.rgb) for c in task.classes):
        raise ValueError("rgb: expected three values from 0 to 255")


def _check_numbers(task: Task) -> None:
    if not 0 < task.threshold < 1:
        raise ValueError(f"threshold is {task.threshold}, expected between 0 and 1")
    if not 0 <= task.peak_threshold < 1:
        raise ValueError(f"peak_threshold is {task.peak_threshold}, expected from 0 to below 1")
    if not isinstance(task.flip_average, bool):
        raise ValueError(f"flip_average is {task.flip_average!r}, expected true or false")
    if task.temperature <= 0:
        raise ValueError(f"temperature is {task.temperature}, expected above 0")
