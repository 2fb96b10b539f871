"""What kind of input a node is, and what Slicer knows of the DICOM source it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import slicer
import vtk

from .Collaborators import Source
from .Errors import InputError
from .Texts import _

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
        modality: DICOM modality, or None where Slicer does not know it.
        sopClass: DICOM SOP class UID, or None where Slicer's DICOM database does not know the file.
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

    def sourceFor(self, task: dict[str, Any]) -> Source | None:
        """Return what the worker compares with a task; None where there is nothing to compare.

        That is so where the input did not come from DICOM, and where Slicer does not know what
        the task asks for: the worker would refuse what is only unknown here.

        Args:
            task: the content of its `task.json`.
        """
        if (self.modality is None and not self.instanceUids) or self._unknown(task):
            return None
        return {
            "modality": self.modality,
            "sop_class_uid": self.sopClass,
            "photometric": self.photometric,
        }

    def unchecked(self, task: dict[str, Any]) -> str:
        """Return a note on what the task asks for and Slicer does not know; empty if nothing."""
        names = self._unknown(task)
        if not names:
            return ""
        return _(
            "Slicer does not know the {names} of this image, so it was not checked whether the "
            "task is made for it."
        ).format(names=_(" and the ").join(names))

    def _unknown(self, task: dict[str, Any]) -> list[str]:
        """Return what the task asks for and Slicer does not know.

        A file that the DICOM database knows has a SOP class; what else is missing then is missing
        in the file as well, and is not unknown.
        """
        if self.sopClass is not None or (self.modality is None and not self.instanceUids):
            return []
        accepts = task.get("accepts") or {}
        asked = (("modality", "modalities", self.modality), ("SOP class", "sop_classes", None))
        return [name for name, key, value in asked if accepts.get(key) and value is None]


def describe(node: Any) -> InputInfo:
    """Return what kind of input a volume or sequence browser node is.

    Raises:
        InputError: it is neither, or contains no image.
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


def sourceOf(node: Any) -> Any:
    """Return the browser of the sequence whose frames a volume shows; other nodes as they are."""
    if node is None or node.IsA("vtkMRMLSequenceBrowserNode"):
        return node
    browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(node)
    if browser is None or browser.GetSequenceNode(node) is not _volumesOf(browser):
        return node
    return browser


def _volumesOf(browser: Any) -> Any:
    try:
        return volumeSequence(browser)
    except InputError:
        return None


def isColour(volume: Any) -> bool:
    """Return whether a node is a volume of colours; raise for what is no picture at all."""
    image = volume.GetImageData() if isinstance(volume, slicer.vtkMRMLVolumeNode) else None
    if image is None or 0 in image.GetDimensions() or image.GetPointData().GetScalars() is None:
        name = volume.GetName() if volume is not None else "nothing"
        raise InputError(f"{name} contains no image", "choose a volume or a sequence of volumes")
    components = image.GetNumberOfScalarComponents()
    if volume.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(f"{volume.GetName()} is a label map", "choose the image it belongs to")
    if components not in (1, 3, 4):
        raise InputError(
            f"{volume.GetName()} has {components} values per voxel",
            "choose a grey or colour volume (1, 3 or 4 values per voxel)",
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
            if first is None:  # the scene is being loaded or closed
                continue
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
