"""Frames of a clip on the disk, from where the volumes of a sequence show them.

The operating system reads the pages that are looked at, and drops them when memory is needed. The
file has no name: it is gone when the last frame that refers to it is, even after a crash.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support


class FrameFile:
    """A file that frames are added to, and that a sequence's volumes then refer to.

    Args:
        folder: where the disk has room; the system's temporary folder by default.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self._stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `close` closes it
        self._shape: tuple[int, ...] = ()
        self._count = 0

    @property
    def count(self) -> int:
        """How many frames there are."""
        return self._count

    def append(self, frames: NDArray[np.uint8]) -> None:
        """Add frames `(N, H, W, 3)` uint8 RGB, all of one size.

        Raises:
            OSError: the disk is full.
        """
        self._stream.write(np.ascontiguousarray(frames).reshape(-1).data)
        self._shape = frames.shape[1:]
        self._count += len(frames)

    def fill(self, sequence: Any, template: Any, values: Iterable[str]) -> Iterator[int]:
        """Make a volume of each frame in a sequence of the scene; yield how many there are so far.

        Args:
            sequence: vtkMRMLSequenceNode.
            template: a volume without pixels; the others are made like it.
            values: the index value of each frame.
        """
        if not self._count:
            return
        self._stream.flush()
        frames = np.memmap(self._stream, np.uint8, "r+", shape=(self._count, *self._shape))
        held = _Held(sequence)
        for done, (pixels, value) in enumerate(zip(frames, values, strict=True), start=1):
            scalars = numpy_support.numpy_to_vtk(pixels.reshape(-1, 3))  # keeps `frames` alive
            image = vtk.vtkImageData()
            image.SetDimensions(self._shape[1], self._shape[0], 1)
            image.GetPointData().SetScalars(scalars)
            node = sequence.SetDataNodeAtValue(template, value)
            node.SetAndObserveImageData(image)
            held.add(node, image, scalars)
            yield done

    def close(self) -> None:
        """Close it; volumes that refer to it keep it."""
        self._stream.close()


class _Held:
    """Python's references to the frames of a sequence, for as long as that is in its scene.

    VTK searches all references that Python gave up each time that it gives up another, so thousands
    of them would make every script slow.
    """

    def __init__(self, sequence: Any) -> None:
        self._sequence = sequence
        self._scene = sequence.GetScene()
        self._objects: tuple[list[Any], ...] = ([], [], [])
        events = (self._scene.NodeRemovedEvent, self._scene.EndCloseEvent)
        self._tags = [self._scene.AddObserver(event, self._look) for event in events]

    def add(self, *objects: Any) -> None:
        """Keep a node, its image and the image's values."""
        for held, each in zip(self._objects, objects, strict=True):
            held.append(each)

    def _look(self, _scene: Any, _event: str) -> None:
        if self._sequence.GetScene() is not None:
            return
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._sequence.RemoveAllDataNodes()  # first, so that nothing but Python refers to them
        for held in self._objects:
            held.clear()
        self._scene = self._sequence = None
