"""Loads DICOM video, which Slicer cannot read: encapsulated MPEG-2, H.264 and HEVC.

The frames are decoded by the worker of the module SAM2UNet, in its own environment. They become an
RGB volume sequence, as Slicer's own reader makes of other colour cine.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from DICOMLib import DICOMLoadable, DICOMPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from SAM2UNetLib.Collaborators import WorkerControl

try:
    from slicer.i18n import tr as _
except ImportError:

    def _(text: str) -> str:
        return text


VIDEO_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.1.1": "Video endoscopic",
    "1.2.840.10008.5.1.4.1.1.77.1.2.1": "Video microscopic",
    "1.2.840.10008.5.1.4.1.1.77.1.4.1": "Video photographic",
}
"""SOP classes whose objects are always video."""
CINE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.3.1": "Ultrasound",
    "1.2.840.10008.5.1.4.1.1.7.4": "Secondary capture",
    "1.2.840.10008.5.1.4.1.1.77.1.1": "Endoscopic",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "Photographic",
}
"""SOP classes whose objects are video if their transfer syntax is."""
VIDEO_SYNTAXES = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109))
"""MPEG-2, H.264 and HEVC; the fragmentable ones add `.1` (DICOM PS3.6 Table A-1)."""
CHUNK = 32
"""Frames that are read at once."""
POLL_S = 0.02
MANY_BYTES = 2 * 2**30


class SAM2UNetDICOMVideoPluginClass(DICOMPlugin):
    """Reader of DICOM video."""

    def __init__(self) -> None:
        super().__init__()
        self.loadType = _("Video")
        self.tags["sopClassUID"] = "0008,0016"
        self.tags["transferSyntax"] = "0002,0010"
        self.tags["modality"] = "0008,0060"
        self.tags["instanceNumber"] = "0020,0013"
        self.tags["frames"] = "0028,0008"
        self.tags["rows"] = "0028,0010"
        self.tags["columns"] = "0028,0011"

    def examine(self, fileLists: list[list[str]]) -> list[Any]:
        """Return a loadable for each video among the files."""
        return [loadable for files in fileLists for loadable in self.examineFiles(files)]

    def examineForImport(self, fileLists: list[list[str]]) -> list[Any]:
        """Return a loadable for each video among the files."""
        return self.examine(fileLists)

    def examineFiles(self, files: list[str]) -> list[Any]:
        """Return a loadable for each video of a series; each object is a video of its own."""
        loadables = []
        for file in files:
            kind = self._kind(file)
            if kind is None:
                continue
            loadable = DICOMLoadable()
            loadable.files = [file]
            loadable.name = self._name(file, kind)
            loadable.tooltip = _("Loads the frames as an RGB sequence, through SAM2-UNet.")
            loadable.selected = True
            loadable.confidence = 0.95  # the other readers cannot decode it
            size = self._number(file, "frames") * self._number(file, "rows")
            size *= self._number(file, "columns") * 3
            if size > MANY_BYTES:
                loadable.warning = _("Takes about {size} GB of memory.").format(
                    size=round(size / 1e9, 1)
                )
            loadables.append(loadable)
        return loadables

    def load(self, loadable: Any) -> Any:
        """Read the frames and return the sequence; False says that it did not work."""
        try:
            reader = makeReader(loadable.files[0])
        except Exception as error:  # Slicer needs False, and the user a reason
            slicer.util.errorDisplay(str(error))
            return False
        try:
            return self._load(loadable, reader)
        except Exception as error:  # a full disk, no memory: the same
            slicer.util.errorDisplay(str(error) or type(error).__name__)
            return False
        finally:
            reader.close()

    def _load(self, loadable: Any, reader: VideoReader) -> Any:
        file = loadable.files[0]
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", loadable.name)
        frame = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", loadable.name)
        frame.SetIJKToRASMatrix(_uncalibrated())
        instance = slicer.dicomDatabase.instanceForFile(file)
        frame.SetAttribute("DICOM.instanceUIDs", instance)
        rate = 0.0
        try:
            for index, pixels in reader.frames(self._number(file, "frames")):
                if index == 0:
                    rate = reader.framesPerSecond
                    sequence.SetIndexName("time" if rate else "frame")
                    sequence.SetIndexUnit("s" if rate else "")
                slicer.util.updateVolumeFromArray(frame, pixels[None])  # (1, H, W, 3)
                value = f"{index / rate:.3f}" if rate else str(index)
                sequence.SetDataNodeAtValue(frame, value)
        except Exception:
            slicer.mrmlScene.RemoveNode(sequence)
            raise
        finally:
            slicer.mrmlScene.RemoveNode(frame)
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeSequenceStorageNode")
        sequence.SetAndObserveStorageNodeID(storage.GetID())
        sequence.SetAttribute("DICOM.instanceUIDs", instance)
        if reader.warnings:  # SAM2-UNet's panel tells them with what it makes of the frames
            sequence.SetAttribute("SAM2UNet.warnings", "\n".join(reader.warnings))
            logging.warning("SAM2-UNet: %s", "; ".join(reader.warnings))
        self._show(loadable, sequence, rate or 10.0)
        return sequence

    def _show(self, loadable: Any, sequence: Any, rate: float) -> None:
        browser = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLSequenceBrowserNode", loadable.name + " browser"
        )
        browser.SetPlaybackRateFps(rate)
        browser.AddSynchronizedSequenceNode(sequence)
        proxy = browser.GetProxyNode(sequence)
        if proxy is not None:
            self.addSeriesInSubjectHierarchy(loadable, proxy)
            slicer.util.setSliceViewerLayers(background=proxy, fit=True)
        sequences = getattr(slicer.modules, "sequences", None)
        if hasattr(sequences, "setToolBarActiveBrowserNode"):
            sequences.setToolBarActiveBrowserNode(browser)
            sequences.showSequenceBrowser(browser)

    def _kind(self, file: str) -> str | None:
        """Return what the object is if it is video, else None."""
        value = slicer.dicomDatabase.fileValue(file, self.tags["sopClassUID"])
        if value in VIDEO_CLASSES:
            return VIDEO_CLASSES[value]
        if value in CINE_CLASSES and self._syntax(file).startswith(VIDEO_SYNTAXES):
            return CINE_CLASSES[value]
        return None

    def _syntax(self, file: str) -> str:
        """Return the transfer syntax; from the file where the database does not keep it."""
        value = slicer.dicomDatabase.fileValue(file, self.tags["transferSyntax"])
        if value:
            return value
        import pydicom  # part of Slicer; slow to import

        try:
            return str(pydicom.filereader.read_file_meta_info(file).TransferSyntaxUID)
        except (OSError, AttributeError, pydicom.errors.InvalidDicomError):
            return ""

    def _name(self, file: str, kind: str) -> str:
        values = {
            key: slicer.dicomDatabase.fileValue(file, self.tags[key])
            for key in ("seriesNumber", "seriesDescription", "instanceNumber")
        }
        parts = [f"{values['seriesNumber']}:"] if values["seriesNumber"] else []
        parts.append(values["seriesDescription"] or kind)
        if values["instanceNumber"]:
            parts.append(f"({values['instanceNumber']})")  # brackets break saved scenes
        return " ".join(parts)

    def _number(self, file: str, key: str) -> int:
        value = slicer.dicomDatabase.fileValue(file, self.tags[key])
        return int(value) if value and value.strip().isdigit() else 0


class ReadingProblem(Exception):
    """A video that cannot be read; says what to do."""


class VideoReader:
    """Reads a video's frames through the worker, and keeps Slicer alive meanwhile.

    Args:
        worker: started, and allowed to read the file.
        path: the DICOM file.
        readArray: turns an array reference and a folder into an array.

    Attributes:
        framesPerSecond: 0 where it is not known.
        warnings: what was guessed, left out or concealed in the frames so far, for people.
    """

    def __init__(
        self, worker: WorkerControl, path: str, *, readArray: Callable[..., NDArray[np.uint8]]
    ) -> None:
        self.worker = worker
        self.path = path
        self.readArray = readArray
        self.framesPerSecond = 0.0
        self.warnings: list[str] = []

    def frames(self, expected: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (index, pixels); pixels `(H, W, 3)` uint8 RGB.

        Raises:
            ReadingProblem: the worker cannot read it, or it was cancelled.
        """
        start, bar = 0, slicer.util.createProgressDialog(maximum=max(1, expected))
        try:
            while True:
                result = self._ask(start, bar)
                self.framesPerSecond = float(result.get("frames_per_second") or 0.0)
                found = [str(each["message"]) for each in result.get("warnings") or ()]
                self.warnings = list(dict.fromkeys([*self.warnings, *found]))
                array = self.readArray(self.worker.exchange, result["frames"])
                for offset, pixels in enumerate(array):
                    yield start + offset, pixels
                start += len(array)
                bar.value = min(start, bar.maximum)
                if len(array) < CHUNK:  # `expected` is the header's, which may be too low
                    return
        finally:
            bar.close()

    def close(self) -> None:
        """End the worker."""
        self.worker.stop()

    def _ask(self, start: int, bar: Any) -> dict[str, Any]:
        fields = {"path": self.path, "series": 0, "start": start, "count": CHUNK}
        asked = self.worker.request("read_frames", **fields)
        while True:
            for event in self.worker.poll():
                if event.get("id") != asked or event["event"] in ("progress", "partial"):
                    continue
                if event["event"] == "finished":
                    return event["result"]
                logging.error("SAM2-UNet worker: %s", event)
                raise ReadingProblem("{message}. {remedy}".format(**_text(event)))
            slicer.app.processEvents()
            if bar.wasCanceled:
                raise ReadingProblem(_("Loading was cancelled."))
            time.sleep(POLL_S)


def makeReader(file: str) -> VideoReader:
    """Start a worker of the module's environment that may read the file's folder.

    Raises:
        EnvironmentProblem: there is no environment that can be used; says what to do.
        OSError: it cannot be started.
    """
    from SAM2UNetLib.protocol import read_array
    from SAM2UNetLib.Settings import chosenCommand, startupVariables
    from SAM2UNetLib.WorkerProcess import WorkerProcess

    worker = WorkerProcess(
        [*chosenCommand(), "worker"],
        allowRoots=[Path(file).parent],
        environment=startupVariables(),
    )
    worker.start()
    return VideoReader(worker, file, readArray=read_array)


class SAM2UNetDICOMVideoPlugin:
    """The hook through which Slicer's DICOM module finds the reader.

    Args:
        parent: the module that Slicer makes of this file.
    """

    def __init__(self, parent: Any) -> None:
        parent.title = "SAM2-UNet DICOM Video Plugin"
        parent.categories = ["Developer Tools.DICOM Plugins"]
        parent.contributors = ["The SAM2-UNet bundle contributors"]
        parent.helpText = "Loads DICOM video as RGB sequences; used by the DICOM module."
        parent.acknowledgementText = ""
        parent.hidden = True
        if not hasattr(slicer.modules, "dicomPlugins"):
            slicer.modules.dicomPlugins = {}
        slicer.modules.dicomPlugins["SAM2UNetDICOMVideoPlugin"] = SAM2UNetDICOMVideoPluginClass


def _uncalibrated() -> vtk.vtkMatrix4x4:
    """Rows to the right and columns downwards, as the DICOM patient axes; 1 mm a pixel."""
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 0, -1.0)
    matrix.SetElement(1, 1, -1.0)
    return matrix


def _text(event: dict[str, Any]) -> dict[str, str]:
    return {key: str(event.get(key, "")) for key in ("message", "remedy")}
