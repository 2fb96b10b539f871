"""What kind of input a node is, and which tasks are made for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import slicer
import vtk

from .Errors import InputError

_COLOUR = "RGB"
_GREY = "MONOCHROME2"
_INSTANCE_UIDS = "DICOM.instanceUIDs"
_WARNINGS = "SAM2UNet.warnings"


@dataclass(frozen=True)
class InputInfo:
    """What kind of input a node is.

    Attributes:
        kind: `scalar`, `rgb` or `sequence`.
        colour: whether its pictures have colours.
        rows, columns: size of a slice or frame in pixels.
        frames: how many slices a volume, or frames a sequence, has.
        modality: DICOM modality, or None where it is not known.
        sopClass: DICOM SOP class UID, or None where it is not known.
        photometric: as in DICOM; None where the input did not come from DICOM.
        instanceUids: SOP instance UIDs of its files, in the order of the slices.
    """

    kind: str
    colour: bool
    rows: int
    columns: int
    frames: int
    modality: str | None = None
    sopClass: str | None = None
    photometric: str | None = None
    instanceUids: tuple[str, ...] = ()


def describe(node: Any) -> InputInfo:
    """Return what kind of input a volume or sequence browser node is.

    Raises:
        InputError: it is neither, or holds no picture.
    """
    browser = isinstance(node, slicer.vtkMRMLSequenceBrowserNode)
    volume = volumeSequence(node).GetNthDataNode(0) if browser else node
    colour = isColour(volume)
    i, j, k = volume.GetImageData().GetDimensions()
    kind = "sequence" if browser else "rgb" if colour else "scalar"
    proxy = node.GetProxyNode(volumeSequence(node)) if browser else None
    uids = _instanceUids(volume) or (_instanceUids(proxy) if proxy else ())
    modality = _modality(proxy or volume) or _databaseValue(uids, "0008,0060")
    info = InputInfo(kind, colour, j, i, k, instanceUids=uids)
    if browser:
        info = replace(info, frames=node.GetNumberOfItems())
    if modality is None and not uids:
        return info
    stored = _databaseValue(uids, "0028,0004")
    return replace(
        info,
        modality=modality,
        sopClass=_databaseValue(uids, "0008,0016"),
        photometric=stored or (_COLOUR if colour else _GREY),
    )


def fits(info: InputInfo, task: dict[str, Any]) -> tuple[bool, str]:
    """Return whether a task may run on an input and, where not, why.

    What did not come from DICOM has no modality, so every task takes it; so does a property that
    is not known.

    Args:
        info: the input.
        task: the content of its `task.json`.
    """
    accepts = task.get("accepts") or {}
    rules = (
        ("modality", "modalities", info.modality),
        ("SOP class", "sop_classes", info.sopClass),
        ("photometric interpretation", "photometric", info.photometric),
    )
    for name, key, value in rules:
        allowed = accepts.get(key) or ()
        if allowed and value is not None and value not in allowed:
            return False, f"made for the {name} {', '.join(allowed)}; this is {value}"
    return True, ""


def isColour(volume: Any) -> bool:
    """Return whether a node is a volume of colours; raise for what is no picture at all."""
    image = volume.GetImageData() if isinstance(volume, slicer.vtkMRMLVolumeNode) else None
    if image is None or 0 in image.GetDimensions() or image.GetPointData().GetScalars() is None:
        name = volume.GetName() if volume is not None else "nothing"
        raise InputError(f"{name} holds no picture", "choose a volume or a sequence of volumes")
    components = image.GetNumberOfScalarComponents()
    if volume.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(f"{volume.GetName()} is a label map", "choose the picture it belongs to")
    if components not in (1, 3, 4):
        raise InputError(
            f"{volume.GetName()} has {components} values a voxel",
            "choose a volume of greys or of colours (3 or 4 values)",
        )
    return components > 1


def volumeSequence(browser: Any) -> Any:
    """Return the first sequence of volumes of a browser, its master first."""
    master = browser.GetMasterSequenceNode()
    others = vtk.vtkCollection()
    browser.GetSynchronizedSequenceNodes(others, True)
    found = [others.GetItemAsObject(n) for n in range(others.GetNumberOfItems())]
    for sequence in (master, *found):
        if sequence is not None and sequence.GetNumberOfDataNodes():
            first = sequence.GetNthDataNode(0)
            if first.IsA("vtkMRMLVolumeNode") and not first.IsA("vtkMRMLLabelMapVolumeNode"):
                return sequence
    raise InputError(f"{browser.GetName()} has no frames", "choose a sequence of volumes")


def readingWarnings(node: Any) -> list[str]:
    """Return what was guessed, left out or concealed when this module's reader loaded an image.

    Args:
        node: a volume, which may be the shown frame of a sequence, or a sequence browser.
    """
    holder = node
    if isinstance(node, slicer.vtkMRMLSequenceBrowserNode):
        holder = volumeSequence(node)
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        holder = browser.GetSequenceNode(node) or holder
    return (holder.GetAttribute(_WARNINGS) or "").splitlines()


def _instanceUids(node: Any) -> tuple[str, ...]:
    return tuple((node.GetAttribute(_INSTANCE_UIDS) or "").split())


def _modality(node: Any) -> str | None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if not item:
        return None
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return hierarchy.GetItemAttribute(item, name) or None


def _databaseValue(uids: tuple[str, ...], tag: str) -> str | None:
    """Return a value of the first instance from Slicer's DICOM database, where it knows it."""
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not uids:
        return None
    return database.instanceValue(uids[0], tag) or None
