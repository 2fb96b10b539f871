"""What the slice views show: the image that is looked at, and the view that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import slicer

IMAGES = ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")


def shownImage() -> Any:
    """Return the image that a slice view shows, else the active one, else the first; or None."""
    selection = slicer.mrmlScene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    active = selection.GetActiveVolumeID() if selection is not None else None
    wanted = [background for _, background in _views()]
    wanted += [slicer.mrmlScene.GetNodeByID(active)] if active else []
    wanted += [node for name in IMAGES for node in slicer.util.getNodesByClass(name)]
    return next((node for node in wanted if isImage(node)), None)


def viewOf(image: Any) -> Any:
    """Return the slice node of a view that shows an image, else of the first view; or None."""
    views = list(_views())
    showing = [view for view, background in views if background is image and image is not None]
    return next(iter([*showing, *(view for view, _ in views)]), None)


def isImage(node: Any) -> bool:
    """Return whether a node is an image that holds pixels, and no label map."""
    return (
        node is not None
        and node.GetClassName() in IMAGES
        and node.GetImageData() is not None
        and not node.GetHideFromEditors()
    )


def _views() -> Iterator[tuple[Any, Any]]:
    """Yield the slice views of the layout, red first, and what is in their background."""
    views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    views.sort(key=lambda view: (not view.IsMappedInLayout(), view.GetLayoutName() != "Red"))
    composites = {
        each.GetLayoutName(): each
        for each in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    }
    for view in views:
        composite = composites.get(view.GetLayoutName())
        shown = composite.GetBackgroundVolumeID() if composite is not None else None
        yield view, slicer.mrmlScene.GetNodeByID(shown) if shown else None
