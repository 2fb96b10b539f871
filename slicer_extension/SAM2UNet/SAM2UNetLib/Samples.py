"""Example data in Slicer's Sample Data module: drawn on this computer, without a download."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer

from . import protocol
from .Environment import EnvironmentProblem, dataFolder
from .Runs import addToDatabase
from .Texts import _
from .WorkerProcess import WorkerProcess

CATEGORY = "SAM2-UNet"
SCHEME = "sam2unet"
POLL_S = 0.02
PLUGIN = "SAM2UNetDICOMVideoPlugin"


class SampleProblem(Exception):
    """A sample that cannot be made; says what to do."""


@dataclass(frozen=True)
class Sample:
    """One entry of the Sample Data module.

    Attributes:
        kind: as the worker's `make_sample` knows it.
        name: as it is shown.
        file: name of its file.
        icon: file name of its picture, among the module's icons.
    """

    kind: str
    name: str
    file: str
    icon: str


SAMPLES = (
    Sample("clip", "Drawn colonoscopy clip", "drawn-colonoscopy.dcm", "SampleClip.png"),
    Sample("volume", "Drawn volume", "drawn-volume.nrrd", "SampleVolume.png"),
)


def register(icons: Path | str) -> None:
    """Add the samples to Slicer's Sample Data module.

    Args:
        icons: the folder of the module's icons.
    """
    import SampleData  # of Slicer; it is loaded by now

    for sample in SAMPLES:
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=sample.name,
            uris=f"{SCHEME}:{sample.kind}",
            fileNames=sample.file,
            nodeNames=sample.name,
            thumbnailFileName=str(Path(icons) / sample.icon),
            customDownloader=download,
        )


def download(source: Any) -> list[Any]:
    """Make a sample where it is not there yet, and load it; return the loaded nodes.

    Args:
        source: `SampleDataSource` of the Sample Data module.
    """
    kind = source.uris[0].partition(":")[2]
    (sample,) = (each for each in SAMPLES if each.kind == kind)
    try:
        file = made(sample)
    except EnvironmentProblem as problem:
        slicer.util.selectModule("SAM2UNet")
        slicer.util.errorDisplay(
            _(
                "Sample data are drawn by the environment of this module, which is not set up: "
                "{problem} Open the tab Setup of Segment with SAM2-UNet, then try again."
            ).format(problem=problem)
        )
        return []
    except (SampleProblem, OSError) as error:
        slicer.util.errorDisplay(str(error))
        return []
    node = _loadClip(sample, file) if kind == "clip" else _loadVolume(sample, file)
    return [node] if node else []


def made(sample: Sample) -> Path:
    """Return the file of a sample, drawn by the worker where it is not there yet.

    Slicer stays usable meanwhile.

    Raises:
        EnvironmentProblem: there is no environment that can be used.
        SampleProblem: the worker cannot draw it, or it was cancelled.
        OSError: the worker cannot be started, or the disk is full.
    """
    from .Settings import chosenCommand, startupVariables  # needs Qt

    file = dataFolder() / "samples" / sample.file
    if file.is_file():
        return file
    worker = WorkerProcess([*chosenCommand(), "worker"], environment=startupVariables())
    bar = slicer.util.createProgressDialog(maximum=0, labelText=_("Drawing sample data..."))
    try:
        worker.start()
        asked = worker.request("make_sample", kind=sample.kind, output=sample.file)
        result = _wait(worker, asked, bar)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        part.write_bytes(protocol.inside(worker.exchange, result["file"]).read_bytes())
        part.replace(file)
    finally:
        bar.close()
        worker.stop()
    return file


def _wait(worker: WorkerProcess, asked: int, bar: Any) -> dict[str, Any]:
    while True:
        for event in worker.poll():
            if event.get("id") != asked or event["event"] not in protocol.TERMINAL:
                continue
            if event["event"] == "finished":
                return event["result"]
            message, remedy = (str(event.get(key, "")) for key in ("message", "remedy"))
            raise SampleProblem(f"{message}. {remedy}")
        slicer.app.processEvents()
        if bar.wasCanceled:
            raise SampleProblem(_("Drawing the sample data was cancelled."))
        time.sleep(POLL_S)


def _loadVolume(sample: Sample, file: Path) -> Any:
    return slicer.util.loadVolume(str(file), {"name": sample.name})


def _loadClip(sample: Sample, file: Path) -> Any:
    """Import the clip into the DICOM database, if one is open, and load it as any DICOM video."""
    from DICOMLib import DICOMLoadable

    addToDatabase(str(file), copy=False)
    loadable = DICOMLoadable()
    loadable.files, loadable.name = [str(file)], sample.name
    return slicer.modules.dicomPlugins[PLUGIN]().load(loadable)
