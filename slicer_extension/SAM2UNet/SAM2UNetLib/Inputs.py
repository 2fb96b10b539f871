"""What the user chose to segment, as pictures for the network and the places they came from.

Slices as they were acquired (along a volume's third axis) keep the order in which they are stored;
other planes are oriented as the slice view shows them; see `Slices`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from .Clips import Clip
from .Errors import InputError
from .InputInfo import InputInfo, describe, isColour, sourceOf, volumeSequence
from .Slices import SliceView
from .Voxels import Oblique, Place, Planes

__all__ = ["Extraction", "InputInfo", "Part", "describe", "extract", "sourceOf", "volumeSequence"]
WHAT = ("slice", "range", "volume", "sequence")


@dataclass(frozen=True)
class Part:
    """Pictures of one volume node.

    Attributes:
        node: the volume; for a sequence, the frame's volume in it.
        place: where the pictures lie in it.
        item: index in the sequence; None for a volume by itself.
    """

    node: Any
    place: Place
    item: int | None = None


@dataclass(frozen=True)
class Extraction:
    """Pictures for the network.

    Attributes:
        array: `(N, H, W)` of the volume's own type, or `(N, H, W, 3)` uint8.
        channels: `grey` or `rgb`.
        sourceNode: the volume, or the sequence browser.
        parts: where the pictures came from, in order.
        whole: whether every slice or frame of the input is there.
        window: {"center", "width"} that maps grey values as they are shown, or None.
    """

    array: NDArray[np.generic]
    channels: str
    sourceNode: Any
    parts: tuple[Part, ...]
    whole: bool = False
    window: dict[str, float] | None = None

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return len(self.array)

    @property
    def isSequence(self) -> bool:
        """Whether the pictures are frames of a sequence."""
        return self.parts[0].item is not None

    @property
    def pixelArea(self) -> float | None:
        """Area of a picture's pixel in mm2; None where the spacing is not known."""
        clip = self.clip
        scale = 1 if clip is None else clip.scale
        return pixelArea(self.parts[0].node, self.parts[0].place, scale=scale)

    @property
    def clip(self) -> Clip | None:
        """Of which video file the frames are, if this module's reader loaded them."""
        return Clip.of(volumeSequence(self.sourceNode)) if self.isSequence else None

    def partOf(self, picture: int) -> tuple[Part, int]:
        """Return the part that a picture belongs to, and which picture of that part it is."""
        for part in self.parts:
            if picture < part.place.count:
                return part, picture
            picture -= part.place.count
        raise IndexError("there are fewer pictures")

    def ofFile(self, clip: Clip) -> Extraction:
        """Return the same with an empty array of the shape of the file's frames."""
        shape = (len(self.parts), clip.rows, clip.columns, 3)
        return replace(self, array=np.broadcast_to(np.uint8(0), shape), channels="rgb")

    def withoutPixels(self) -> Extraction:
        """Return the same with an empty array of the same shape, to free the memory."""
        return replace(self, array=np.broadcast_to(self.array.dtype.type(0), self.array.shape))


def extract(
    node: Any,
    what: str,
    *,
    sliceNode: Any = None,
    between: tuple[int, int] | None = None,
) -> Extraction:
    """Return the pictures to segment.

    Args:
        node: scalar volume, RGB vector volume or sequence browser.
        what: `slice`, what a slice view shows; `range`, slices across that view's plane (without
            one, slices as acquired) or frames of a sequence; `volume`; `sequence`, all frames.
        sliceNode: the slice view; needed for `slice`.
        between: for `range`: first and last index, both in it, from 0; all by default.

    Raises:
        InputError: the node has no such pictures; the message says why.
    """
    found = places(node, what, sliceNode=sliceNode, between=between)
    if isinstance(found.parts[0].place, Oblique):
        picture, _ = SliceView.of(sliceNode, node).cut(node.GetImageData())
        return replace(found, array=_asPictures(picture[None], node))
    cuts = [part.place.cut(arrayOfVolume(part.node)) for part in found.parts]
    array = cuts[0] if len(cuts) == 1 else np.concatenate(cuts)
    return replace(found, array=_asPictures(array, found.parts[0].node))


def places(
    node: Any,
    what: str,
    *,
    sliceNode: Any = None,
    between: tuple[int, int] | None = None,
) -> Extraction:
    """Return where the pictures lie that `extract` returns, without a pixel of them.

    Arguments and errors as there.
    """
    if what not in WHAT:
        raise InputError(f"{what!r} cannot be segmented", f"choose one of {', '.join(WHAT)}")
    if isinstance(node, slicer.vtkMRMLSequenceBrowserNode):
        return _framePlaces(node, what, between)
    describe(node)
    if what == "sequence":
        raise InputError(
            f"{node.GetName()} is a single volume",
            "choose the whole volume, or a sequence as input",
        )
    if what == "slice":
        return _slicePlace(node, sliceNode)
    view = SliceView.of(sliceNode, node) if sliceNode is not None and what == "range" else None
    if view is not None and view.plane() is None:
        raise InputError(
            "the slice view is oblique, and a range needs slices along an axis of the volume",
            "align the view (Rotate to volume plane), or segment the current slice only",
        )
    dimensions = node.GetImageData().GetDimensions()
    count = dimensions[view.steepest if view else 2]
    first, last = _checked(between, count, "slices") if what == "range" else (0, count - 1)
    place = (
        view.planes(first, last)
        if view
        else Planes((0, dimensions[0] - 1, 0, dimensions[1] - 1, first, last))
    )
    whole = (first, last) == (0, count - 1)
    return _without(node, (Part(node, place),), whole=whole)


def pixelArea(volumeNode: Any, place: Place | None = None, *, scale: int = 1) -> float | None:
    """Return the area in mm2 of a pixel of pictures cut from a volume; None if it is not known.

    Colours without a size of their own, as in endoscopy, have pixels of 1 x 1 mm in Slicer.

    Args:
        volumeNode: the volume.
        place: where the pictures lie; slices as acquired by default.
        scale: by how much the size of a clip's frames was divided; the area is that of a pixel of
            its file.
    """
    i, j, k = volumeNode.GetSpacing()
    spacing = (i / scale, j / scale, k)
    if isColour(volumeNode) and tuple(spacing[:2]) == (1.0, 1.0):
        return None
    if isinstance(place, Oblique):
        return float(min(spacing)) ** 2
    order = place.order if isinstance(place, Planes) else (0, 1, 2)
    return float(spacing[2 - order[1]] * spacing[2 - order[2]])


def windowOf(volumeNode: Any) -> dict[str, float] | None:
    """Return the grey window that is shown; None for colours and for 8-bit values.

    8-bit greys go to the network as they are.
    """
    image = volumeNode.GetImageData()
    if isColour(volumeNode) or image.GetScalarType() == vtk.VTK_UNSIGNED_CHAR:
        return None
    display = volumeNode.GetDisplayNode()
    if display is not None and display.IsA("vtkMRMLScalarVolumeDisplayNode"):
        width = float(display.GetWindow())
        if width > 0:
            return {"center": float(display.GetLevel()), "width": width}
    low, high = image.GetScalarRange()
    return {"center": (low + high) / 2, "width": max(high - low, 1e-6)}


def _slicePlace(node: Any, sliceNode: Any) -> Extraction:
    if sliceNode is None:
        raise InputError("no slice view is chosen", "choose the slice view to segment")
    view = SliceView.of(sliceNode, node)
    index = view.plane()
    if index is not None:
        whole = node.GetImageData().GetDimensions()[view.steepest] == 1
        return _without(node, (Part(node, view.planes(index, index)),), whole=whole)
    _, oblique = view.cut(node.GetImageData())
    return _without(node, (Part(node, oblique),), whole=False)


def _framePlaces(browser: Any, what: str, chosen: tuple[int, int] | None) -> Extraction:
    if what not in ("sequence", "range", "slice"):
        raise InputError(
            f"{browser.GetName()} is a sequence", "choose all frames, a range, or the shown frame"
        )
    sequence, count = volumeSequence(browser), browser.GetNumberOfItems()
    first, last = 0, count - 1
    if what == "range":
        first, last = _checked(chosen, count, "frames")
    elif what == "slice":
        first = last = max(0, browser.GetSelectedItemNumber())
    parts = []
    for item in range(first, last + 1):
        volume = sequence.GetNthDataNode(item)
        i, j, k = size = volume.GetImageData().GetDimensions()
        if parts and size != parts[0].node.GetImageData().GetDimensions():
            raise InputError(
                f"frame {item + 1} has a different size than frame {first + 1}",
                "choose a range of frames of one size",
            )
        parts.append(Part(volume, Planes((0, i - 1, 0, j - 1, 0, k - 1)), item))
    return _without(browser, tuple(parts), whole=(first, last) == (0, count - 1))


def _without(node: Any, parts: tuple[Part, ...], *, whole: bool) -> Extraction:
    """Return an extraction whose array is empty."""
    first = parts[0].node
    channels = "rgb" if isColour(first) else "grey"
    return Extraction(np.empty(0), channels, node, parts, whole, windowOf(first))


def arrayOfVolume(volumeNode: Any) -> NDArray[np.generic]:
    """Return a view of the voxels, `(k, j, i)` or `(k, j, i, components)`."""
    image = volumeNode.GetImageData()
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    return values.reshape(*reversed(image.GetDimensions()), *values.shape[1:])


def _asPictures(array: NDArray[np.generic], volumeNode: Any) -> NDArray[np.generic]:
    """Return `(N, H, W)` or, of colours, `(N, H, W, 3)` uint8; alpha is left out."""
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim == 3:
        return array
    if array.dtype == np.uint16:
        highest = int(array[..., :3].max(initial=0))
        if 0 < highest < 1 << 12:  # 8 bits of 16 would leave next to nothing of these
            raise InputError(
                f"{volumeNode.GetName()} has 16-bit colours with a maximum of only {highest}",
                "convert it to 8 bits per channel, scaled to its range of values",
            )
        return np.ascontiguousarray((array[..., :3] >> 8).astype(np.uint8))
    if array.dtype != np.uint8:
        raise InputError(
            f"{volumeNode.GetName()} has colours of type {array.dtype}",
            "convert it to 8 bits per channel",
        )
    return np.ascontiguousarray(array[..., :3])


def _checked(chosen: tuple[int, int] | None, count: int, name: str) -> tuple[int, int]:
    if chosen is None:
        return 0, count - 1
    first, last = (int(v) for v in chosen)
    if not 0 <= first <= last < count:
        raise InputError(
            f"{name} {first + 1} to {last + 1} are not among the {count} {name}",
            f"choose a range from 1 to {count}",
        )
    return first, last
