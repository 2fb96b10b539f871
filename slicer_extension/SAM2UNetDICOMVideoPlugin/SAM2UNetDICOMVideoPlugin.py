"""Loads DICOM video, which Slicer cannot read: encapsulated MPEG-2, H.264 and HEVC.

The frames are decoded by the worker of the module SAM2UNet, in its own environment. They become an
RGB volume sequence, as Slicer's own reader makes of other colour cine, whose pixels stay on the
disk. Of a long video some frames can be loaded, and smaller ones.
"""

from __future__ import annotations

import contextlib
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
    from SAM2UNetLib.ClipChoice import ClipChoice, Video
    from SAM2UNetLib.Collaborators import WorkerControl
    from SAM2UNetLib.FrameFile import FrameFile

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
"""Frames that are read at once, at most."""
CHUNK_BYTES = 2**26
POLL_S = 0.02
LARGE_BYTES = 10**9
"""As in SAM2UNetLib.ClipChoice, which is not imported until a video is loaded."""


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
            if size > LARGE_BYTES:
                loadable.warning = _(
                    "Takes about {size} GB as a whole. You will be asked which frames to load."
                ).format(size=round(size / 1e9, 1))
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
        from SAM2UNetLib.ClipChoice import everyFrame, inWords
        from SAM2UNetLib.ClipDialog import clipChoice
        from SAM2UNetLib.FrameFile import FrameFile

        video, folder = reader.video(), slicer.app.temporaryPath
        Path(folder).mkdir(parents=True, exist_ok=True)
        choice = clipChoice(video, folder=folder)
        if choice is None:
            raise ReadingProblem(_("Loading was cancelled."))
        if choice != everyFrame(video):
            logging.info(
                "SAM2-UNet: %s: every frame of %d at full size would take %s; loading %d frames "
                "(%d to %d, every %d), size 1/%d, %s",
                *(loadable.name, video.frames, inWords(everyFrame(video).bytes(video))),
                *(len(choice.frames), choice.first + 1, choice.last + 1, choice.step),
                *(choice.scale, inWords(choice.bytes(video))),
            )
        with contextlib.closing(FrameFile(folder)) as file:
            for pixels in reader.frames(choice, video):
                file.append(pixels)
            sequence = self._sequence(loadable, file, choice=choice, video=video)
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeSequenceStorageNode")
        sequence.SetAndObserveStorageNodeID(storage.GetID())
        if reader.warnings:  # SAM2-UNet's panel tells them with what it makes of the frames
            sequence.SetAttribute("SAM2UNet.warnings", "\n".join(reader.warnings))
            logging.warning("SAM2-UNet: %s", "; ".join(reader.warnings))
        self._show(loadable, sequence, (video.framesPerSecond or 10.0) / choice.step)
        return sequence

    def _sequence(self, loadable: Any, file: FrameFile, *, choice: ClipChoice, video: Video) -> Any:
        """Return a sequence of the frames in a file."""
        from SAM2UNetLib.Clips import Clip

        rate = video.framesPerSecond
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", loadable.name)
        sequence.SetIndexName("time" if rate else "frame")
        sequence.SetIndexUnit("s" if rate else "")
        frame = slicer.vtkMRMLVectorVolumeNode()
        frame.SetName(loadable.name)
        frame.SetIJKToRASMatrix(_uncalibrated(choice.scale))
        instance = slicer.dicomDatabase.instanceForFile(loadable.files[0])
        for node in (frame, sequence):
            node.SetAttribute("DICOM.instanceUIDs", instance)
        clip = Clip(choice.first, choice.step, choice.scale, video.rows, video.columns)
        clip.mark(sequence)
        numbers = (clip.frame(item) for item in range(file.count))
        values = (f"{number / rate:.3f}" if rate else str(number) for number in numbers)
        try:
            for done in file.fill(sequence, frame, values):
                if done % CHUNK == 0:
                    slicer.app.processEvents()
        except Exception:
            slicer.mrmlScene.RemoveNode(sequence)
            raise
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
        takeArray: returns the array of a reference and removes its file.

    Attributes:
        warnings: what was guessed, left out or concealed in the frames so far, for people.
    """

    def __init__(
        self, worker: WorkerControl, path: str, *, takeArray: Callable[..., NDArray[np.uint8]]
    ) -> None:
        self.worker = worker
        self.path = path
        self.takeArray = takeArray
        self.warnings: list[str] = []

    def video(self) -> Video:
        """Return what the file holds; its header may be wrong.

        Raises:
            ReadingProblem: the worker cannot read it.
        """
        from SAM2UNetLib.ClipChoice import Video

        result = self._ask("inspect")
        if not result["series"]:
            raise ReadingProblem("; ".join(result["skipped_because"]))
        found = result["series"][0]
        rate = float(found["frames_per_second"] or 0.0)
        return Video(found["frames"], found["rows"], found["columns"], rate)

    def frames(self, choice: ClipChoice, video: Video) -> Iterator[NDArray[np.uint8]]:
        """Yield some frames at a time, `(N, H, W, 3)` uint8 RGB.

        Raises:
            ReadingProblem: the worker cannot read it, or it was cancelled.
        """
        numbers = choice.frames
        rows, columns = choice.size(video)
        most = max(1, min(CHUNK, CHUNK_BYTES // max(1, rows * columns * 3)))
        bar = slicer.util.createProgressDialog(maximum=max(1, len(numbers)))
        try:
            for done in range(0, len(numbers), most):
                part = numbers[done : done + most]
                fields = {"start": part.start, "count": len(part), "step": choice.step}
                result = self._ask("read_frames", bar, series=0, scale=choice.scale, **fields)
                found = [str(each["message"]) for each in result.get("warnings") or ()]
                self.warnings = list(dict.fromkeys([*self.warnings, *found]))
                array = self.takeArray(result["frames"])
                if not len(array):
                    return
                yield array
                bar.value = done + len(array)
        finally:
            bar.close()

    def close(self) -> None:
        """End the worker."""
        self.worker.stop()

    def _ask(self, operation: str, bar: Any = None, **fields: Any) -> dict[str, Any]:
        asked = self.worker.request(operation, path=self.path, **fields)
        while True:
            for event in self.worker.poll():
                if event.get("id") != asked or event["event"] in ("progress", "partial"):
                    continue
                if event["event"] == "finished":
                    return event["result"]
                logging.error("SAM2-UNet worker: %s", event)
                raise ReadingProblem("{message}. {remedy}".format(**_text(event)))
            slicer.app.processEvents()
            if bar is not None and bar.wasCanceled:
                raise ReadingProblem(_("Loading was cancelled."))
            time.sleep(POLL_S)


def makeReader(file: str) -> VideoReader:
    """Start a worker of the module's environment that may read the file's folder.

    Raises:
        EnvironmentProblem: there is no environment that can be used; says what to do.
        OSError: it cannot be started.
    """
    from SAM2UNetLib.Handover import Handover
    from SAM2UNetLib.Settings import chosenCommand, startupVariables
    from SAM2UNetLib.WorkerProcess import WorkerProcess

    worker = WorkerProcess(
        [*chosenCommand(), "worker"],
        allowRoots=[Path(file).parent],
        environment=startupVariables(),
    )
    worker.start()
    return VideoReader(worker, file, takeArray=Handover(worker).take)


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


def _uncalibrated(scale: int = 1) -> vtk.vtkMatrix4x4:
    """Rows to the right and columns downwards, as the DICOM patient axes; 1 mm a pixel of the file.

    Args:
        scale: by how much height and width are divided; the place in space stays the same.
    """
    matrix = vtk.vtkMatrix4x4()
    for axis in (0, 1):
        matrix.SetElement(axis, axis, -float(scale))
        matrix.SetElement(axis, 3, -(scale - 1) / 2)
    return matrix


def _text(event: dict[str, Any]) -> dict[str, str]:
    return {key: str(event.get(key, "")) for key in ("message", "remedy")}
