"""What the classes of a task are called and coded as in Slicer's segmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

CONTEXT = "SAM2-UNet"
REGIONS = "SAM2-UNet regions"
TERMINOLOGY_FILE = "SAM2UNet.term.json"
REGIONS_FILE = "SAM2UNet-regions.term.json"
TERMINOLOGY_TAG = "TerminologyEntry"
CLASS_TAG = "SAM2UNet.Class"
"""Marks a segment as ours: `task/class`."""
WEIGHTS_TAG = "SAM2UNet.Weights"
"""Hash of the weights that made a segment."""
THRESHOLD_TAG = "SAM2UNet.Threshold"
"""Threshold that it was made with."""
NOTE_TAG = "SAM2UNet.Note"
"""What a reader must know of it, such as that its weights are for research only."""
_TISSUE = ["SCT", "85756007", "Tissue"]
"""What Slicer's Segment Editor calls a segment that nobody named."""
_LONGEST_NAME = 64
"""Characters of a DICOM Long String."""
_NO_CODE = "^^"


def resourceFolder() -> Path:
    """Return the folder that holds the module's terminology."""
    return Path(__file__).resolve().parent.parent / "Resources" / "Terminology"


def entryOf(item: dict[str, Any]) -> str:
    """Return a class's entry as Slicer writes it: names, codes and region, parted by `~`.

    Args:
        item: one of the classes of a `task.json`.
    """
    region = item.get("region")
    return "~".join(
        (
            CONTEXT,
            "^".join(item["category"]),
            "^".join(item["type"]),
            _NO_CODE,
            REGIONS if region else "",
            "^".join(region) if region else _NO_CODE,
            _NO_CODE,
        )
    )


def classTag(task: dict[str, Any], item: dict[str, Any]) -> str:
    """Return what marks the segment of a task's class."""
    return f"{task['name']}/{item['name']}"


def algorithmName(task: dict[str, Any]) -> str:
    """Return the name of the algorithm that a DICOM SEG carries."""
    return f"SAM2-UNet {task['name']} {task['version']}"[:_LONGEST_NAME].rstrip()


def tagsOf(
    task: dict[str, Any], item: dict[str, Any], *, name: str | None = None
) -> dict[str, str]:
    """Return the tags of the segment of a task's class.

    Args:
        task: the content of its `task.json`.
        item: one of its classes.
        name: name of the algorithm; `algorithmName(task)` by default.
    """
    return {
        TERMINOLOGY_TAG: entryOf(item),
        "DICOM.SegmentAlgorithmType": "AUTOMATIC",
        "DICOM.SegmentAlgorithmName": name or algorithmName(task),
        CLASS_TAG: classTag(task, item),
    }


def codesOf(segment: Any) -> tuple[list[str], list[str], list[str] | None]:
    """Return category, type and region of a segment as [scheme, value, meaning]; region or None.

    A segment without an entry is tissue, as in Slicer.
    """
    text = vtk.reference("")
    if not segment.GetTag(TERMINOLOGY_TAG, text):
        return _TISSUE, _TISSUE, None
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.modules.terminologies.logic()
    if not logic.DeserializeTerminologyEntry(str(text), entry):
        return _TISSUE, _TISSUE, None
    category, kind = _codeOf(entry.GetCategoryObject()), _codeOf(entry.GetTypeObject())
    return category or _TISSUE, kind or _TISSUE, _codeOf(entry.GetRegionObject())


def _codeOf(code: Any) -> list[str] | None:
    if code is None or not code.GetCodeValue():
        return None
    return [code.GetCodingSchemeDesignator(), code.GetCodeValue(), code.GetCodeMeaning()]


def load(logic: Any, folder: Path | None = None) -> list[str]:
    """Make the module's terminology known to Slicer; return the names of what was loaded.

    Args:
        logic: the logic of Slicer's Terminologies module.
        folder: what holds the files; the module's own by default.
    """
    folder = folder or resourceFolder()
    return [
        logic.LoadTerminologyFromFile(str(folder / TERMINOLOGY_FILE)),
        logic.LoadRegionContextFromFile(str(folder / REGIONS_FILE)),
    ]
