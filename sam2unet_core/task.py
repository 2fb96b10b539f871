"""What a network's output means and what it may be used on: one file, `task.json`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sam2unet_core.errors import TaskError

SCHEMA = 1
_INNER_LIST = re.compile(r"\[[^][{}]*\]")
Code = tuple[str, str, str]
"""A coded concept (DICOM PS3.3 8.1) as scheme designator, code value and code meaning."""


@dataclass(frozen=True)
class TaskClass:
    """One structure that the network segments.

    Attributes:
        value: its value in a label map, from 1; 0 is background.
        name: short machine name, unique in the task.
        label: what a person reads.
        category: DICOM Segmented Property Category.
        type: DICOM Segmented Property Type.
        region: DICOM Anatomic Region, or None where it differs from case to case.
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
        trunk_sha256: hash of the frozen trunk a delta belongs to; None for a full network.
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
        activation: `sigmoid` (classes may overlap) or `softmax` (they exclude one another; the
            network then has one channel more than there are classes, for the background).
        threshold: a pixel belongs to a class at or above this probability.
        temperature: logits are divided by this before the activation.
        flip_average: average the probabilities with those of the frame's mirror image.
        peak_threshold: a connected component is kept where its probability reaches this somewhere
            (hysteresis thresholding); 0 keeps all.
        metrics: what was measured, for the model card.
        paper: published settings and results, where the task is one of the paper's.
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
        """Number of channels the network puts out."""
        return self.num_classes + (self.activation == "softmax")

    def with_weights(self, weights: Weights | None) -> Task:
        """Return the same task with other weights."""
        return replace(self, weights=weights)

    def with_threshold(self, threshold: float) -> Task:
        """Return the same task with another threshold.

        The peak threshold was fitted together with the task's own, and would hide what somebody
        who lowers the threshold looks for: another threshold switches it off.
        """
        peak = self.peak_threshold if threshold == self.threshold else 0.0
        return replace(self, threshold=threshold, peak_threshold=peak)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `task.json`."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for key, usual in (("paper", {}), ("flip_average", False), ("peak_threshold", 0.0)):
            if content[key] == usual:
                del content[key]
        return {"schema": SCHEMA, **content}

    def save(self, path: Path | str) -> None:
        """Write `task.json` to `path`."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        text = _INNER_LIST.sub(lambda found: _one_line(found[0]), text)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Task:
        """Read `task.json`.

        Raises:
            TaskError: the file is missing, not JSON or not a task; the message says which key.
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
            TaskError: a key is missing, unknown or holds a wrong value.
        """
        try:
            return _parse(dict(content))
        except KeyError as error:
            raise TaskError(f"{source}: the key {error} is missing") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise TaskError(f"{source}: {error}") from error


def installed_bundle() -> Path:
    """Return the bundle that came with this package (in a checkout, the repository's own)."""
    package = Path(__file__).resolve().parent
    for folder in (package / "monai_bundle", package.parent / "monai_bundle"):
        if (folder / "configs" / "task.json").is_file():
            return folder
    raise TaskError(f"{package}: the bundle is missing; install sam2unet again")


def presets() -> dict[str, Path]:
    """Return the task files that come with the installed bundle, by name."""
    folder = installed_bundle() / "configs" / "tasks"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def load_preset(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        TaskError: there is none of that name; the message lists those there are.
    """
    known = presets()
    if name not in known:
        raise TaskError(f"no task is called {name!r}; there are {', '.join(known)}")
    return Task.load(known[name])


def _one_line(text: str) -> str:
    """Return on one line a list that indentation spread; JSON's strings hold no line ends."""
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
