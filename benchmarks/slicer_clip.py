"""Peak memory of a ten-minute clip in 3D Slicer: `python benchmarks/slicer_clip.py`.

It draws a DICOM video of 1920 x 1080 pixels (H.264, 25 frames a second), opens it with the DICOM
plug-in at the choice that is offered first, and runs a network on all frames, with Slicer's own
MRML (`slicer-core`) and the real worker. It prints, for this process and for the worker, the peak
of the resident memory and how much of it was in no file (Linux).

    python benchmarks/slicer_clip.py [--minutes 10] [--file VIDEO.dcm] [--bundle DIR]

With `--threshold 0` every pixel of every frame is a finding.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pydicom
import slicer
import slicer.util

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.slicer_click import make_scene
from sam2unet_core.phantom.dicom import write_studies
from sam2unet_core.phantom.frame import draw_frame

EXTENSION = Path(__file__).resolve().parents[1] / "slicer_extension"


class Plugin:
    """Base of DICOM plug-ins, as far as ours uses it."""

    def __init__(self) -> None:
        self.tags = {"seriesDescription": "0008,103E", "seriesNumber": "0020,0011"}
        self.addSeriesInSubjectHierarchy = lambda *_: None


def take_slicers_place() -> None:
    """Give the plug-in what it needs of Slicer's application."""
    library = types.ModuleType("DICOMLib")
    library.DICOMPlugin, library.DICOMLoadable = Plugin, SimpleNamespace
    sys.modules["DICOMLib"], sys.modules["qt"] = library, types.ModuleType("qt")
    bar = SimpleNamespace(wasCanceled=False, value=0, maximum=0, close=lambda: None)
    slicer.util.createProgressDialog = lambda **_: bar
    slicer.util.setSliceViewerLayers = lambda **_: None
    slicer.app = SimpleNamespace(
        temporaryPath=tempfile.gettempdir(),
        testingEnabled=lambda: True,
        processEvents=lambda: None,
    )


take_slicers_place()
sys.path.insert(0, str(EXTENSION / "SAM2UNetDICOMVideoPlugin"))
from SAM2UNetDICOMVideoPlugin import SAM2UNetDICOMVideoPluginClass, VideoReader  # noqa: E402
from SAM2UNetLib.Handover import Handover  # noqa: E402
from SAM2UNetLib.Request import Request  # noqa: E402
from SAM2UNetLib.Session import Session  # noqa: E402
from SAM2UNetLib.WorkerProcess import WorkerProcess  # noqa: E402

COMMAND = [sys.executable, "-m", "sam2unet_core.cli", "worker"]
SIZE = (1080, 1920)
RATE = 25
POLL_S = 0.01


class Memory:
    """Peak memory of this process and of its children.

    Attributes:
        peaks: MB, by what was done and by whom: all that was resident since the process began, and
            what of it was in no file.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, tuple[float, float]] = {}

    @contextmanager
    def watched(self, phase: str) -> Iterator[None]:
        """Watch while something is done, and print how long it takes."""
        before, end = time.perf_counter(), threading.Event()
        thread = threading.Thread(target=self._watch, args=(phase, end), daemon=True)
        thread.start()
        yield
        end.set()
        thread.join()
        print(f"{phase}: {time.perf_counter() - before:.0f} s", flush=True)

    def _watch(self, phase: str, end: threading.Event) -> None:
        me = str(os.getpid())
        while not end.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/status"):
                try:
                    lines = [line.partition(":") for line in path.read_text().splitlines()]
                except OSError:  # it has just ended
                    continue
                values = {name: text.split() for name, _, text in lines}
                if "VmHWM" not in values or me not in (values["Pid"][0], values["PPid"][0]):
                    continue
                name = f"{phase}: {'Slicer' if values['Pid'] == [me] else 'worker'}"
                peak, anonymous = (int(values[key][0]) / 1024 for key in ("VmHWM", "RssAnon"))
                before = self.peaks.get(name, (0.0, 0.0))
                self.peaks[name] = (max(before[0], peak), max(before[1], anonymous))


def draw(path: Path, *, minutes: float) -> None:
    """Write a DICOM video of a camera that moves across a drawn scene."""
    with tempfile.TemporaryDirectory() as scratch:
        write_studies(Path(scratch) / "phantom", frames=1, size=(64, 64))
        dataset = pydicom.dcmread(Path(scratch) / "phantom/studies/video/video.dcm")
        minute, encoded = Path(scratch) / "minute.mp4", Path(scratch) / "video.mp4"
        count = round(min(minutes, 1) * 60 * RATE)
        _encode(minute, count)
        times = max(1, round(minutes))
        _repeat(minute, encoded, times=times, count=count)
        dataset.PixelData = pydicom.encaps.encapsulate([encoded.read_bytes()], has_bot=False)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = *SIZE, times * count
    dataset.save_as(path, enforce_file_format=True)


def _encode(path: Path, count: int) -> None:
    """Write an MP4 with a polyp in every other half minute."""
    rows, columns = SIZE
    larger = (rows * 3 // 2, columns * 3 // 2)
    scenes = [
        draw_frame(np.random.default_rng(seed), size=larger, polyps=seed)[0] for seed in (0, 1)
    ]
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "23"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = rows, columns, "yuv420p"
        for index in range(count):
            angle = 2 * np.pi * index / (20 * RATE)
            top = round(rows / 4 * (1 - np.cos(angle)))
            left = round(columns / 4 * (1 - np.sin(angle)))
            scene = scenes[index // (30 * RATE) % 2]
            pixels = np.ascontiguousarray(scene[top : top + rows, left : left + columns])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _repeat(source: Path, target: Path, *, times: int, count: int) -> None:
    """Write a video several times, one after the other, as one video."""
    with av.open(str(target), "w") as out:
        stream = None
        for number in range(times):
            with av.open(str(source)) as container:
                given = container.streams.video[0]
                stream = stream or out.add_stream_from_template(given)
                shift = round(number * count / RATE / given.time_base)
                for packet in container.demux(given):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        out.mux(packet)


def database(file: Path) -> SimpleNamespace:
    """Return `slicer.dicomDatabase` with one file."""
    header = pydicom.dcmread(file, stop_before_pixels=True)

    def value_of(_name: str, tag: str) -> str:
        value = header.get(tuple(int(part, 16) for part in tag.split(",")))
        return "" if value is None else str(value.value)

    return SimpleNamespace(
        fileValue=value_of,
        instanceValue=value_of,
        instanceForFile=lambda _file: str(header.SOPInstanceUID),
        fileForInstance=lambda _uid: str(file),
    )


def open_clip(file: Path) -> Any:
    """Return the browser of the clip that the plug-in loads."""
    worker = WorkerProcess(COMMAND, allowRoots=[file.parent], environment=dict(os.environ))
    worker.start()
    reader = VideoReader(worker, str(file), takeArray=Handover(worker).take)
    loadable = SimpleNamespace(files=[str(file)], name="clip")
    sequence = SAM2UNetDICOMVideoPluginClass()._load(loadable, reader)
    reader.close()
    columns, rows, _ = sequence.GetNthDataNode(0).GetImageData().GetDimensions()
    print(f"loaded: {sequence.GetNumberOfDataNodes()} frames of {columns} x {rows}")
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")


def segment(browser: Any, file: Path, bundle: Path | None, threshold: float | None) -> None:
    """Run a network on all frames of the clip."""
    worker = WorkerProcess(COMMAND, allowRoots=[file.parent, *([bundle] if bundle else [])])
    session = Session(worker)
    chosen = {"task": "polyp"} if bundle is None else {"bundle": str(bundle)}
    chosen |= {"device": "cpu", "threshold": threshold, "putFile": lambda: file}
    session.start(Request(browser, "sequence", **chosen))
    longest, told = 0.0, []
    while not told or told[-1][0] not in ("finished", "failed"):
        time.sleep(POLL_S)
        before = time.perf_counter()
        told += session.poll()
        longest = max(longest, time.perf_counter() - before)
    if told[-1][0] == "failed":
        raise SystemExit(str(told[-1]))
    sequence = browser.GetSequenceNode(told[-1][1])
    print(f"frames with findings: {sequence.GetNumberOfDataNodes()}")
    print(f"longest block of the main thread: {1000 * longest:.0f} ms")
    session.close()


def main() -> None:
    """Measure, and print MB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--file", type=Path, help="a DICOM video; drawn where it is not there")
    parser.add_argument("--bundle", type=Path, help="the network; the polyp starter by default")
    parser.add_argument("--threshold", type=float, help="the task's by default")
    parser.add_argument("--only-draw", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_draw:
        draw(given.file, minutes=given.minutes)
        return
    with tempfile.TemporaryDirectory() as scratch:
        file = given.file or Path(scratch) / "clip.dcm"
        if not file.is_file():  # drawn by another process, so that this one's peak is Slicer's
            words = ["--only-draw", "--minutes", str(given.minutes), "--file", str(file)]
            subprocess.run([sys.executable, __file__, *words], check=True)
        print(f"file: {file.stat().st_size / 1e6:.0f} MB", flush=True)
        make_scene()
        slicer.dicomDatabase = database(file)
        memory = Memory()
        with memory.watched("open"):
            browser = open_clip(file)
        with memory.watched("all frames"):
            segment(browser, file, given.bundle, given.threshold)
    for name, (peak, anonymous) in memory.peaks.items():
        print(f"{name}: peak {peak:.0f} MB, of which in no file {anonymous:.0f} MB")


if __name__ == "__main__":
    main()
