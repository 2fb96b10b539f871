"""Clips of real length: which frames are loaded, where they are kept, runs on the file itself."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
import slicer
import vtk
from numpy.typing import NDArray
from SAM2UNetLib import Handover as handover_module
from SAM2UNetLib import Inputs
from SAM2UNetLib.ClipChoice import ClipChoice, Video, everyFrame, inWords, preselected
from SAM2UNetLib.Clips import Clip
from SAM2UNetLib.Export import exported
from SAM2UNetLib.FrameFile import FrameFile
from SAM2UNetLib.FrameFollower import inRanges, lookedAt
from SAM2UNetLib.Placement import Grid
from SAM2UNetLib.Request import Request
from SAM2UNetLib.SequenceResult import framesOf

from sam2unet_core.phantom.dicom import write_studies

FRAMES, ROWS, COLUMNS = 24, 48, 64
TEN_MINUTES = Video(15000, 1080, 1920, 25.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM video."""
    folder = tmp_path_factory.mktemp("clip") / "phantom"
    write_studies(folder, frames=FRAMES, seed=4, size=(ROWS, COLUMNS))
    (path,) = (folder / "studies" / "video").rglob("*.dcm")
    return path


def read(worker: Any, path: Path, **fields: Any) -> NDArray[np.uint8]:
    """Return frames of a video `(N, H, W, 3)` as the worker reads them."""
    worker.start()
    asked = worker.request("read_frames", path=str(path), **fields)
    result = worker.wait(asked, timeout=300)[-1]["result"]
    return handover_module.Handover(worker).take(result["frames"])


@pytest.fixture
def load(scene: Any, worker: Any, video: Path) -> Callable[..., Any]:
    """Load some frames of the video, as the plug-in does, and return their browser."""

    def make(*, first: int = 0, step: int = 1, scale: int = 1, count: int | None = None) -> Any:
        frames = read(worker, video, start=first, step=step, scale=scale, count=count)
        sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "video")
        sequence.SetIndexName("time")
        sequence.SetIndexUnit("s")
        clip = Clip(first, step, scale, ROWS, COLUMNS)
        clip.mark(sequence)
        volume = slicer.vtkMRMLVectorVolumeNode()
        volume.SetName("video")
        matrix = vtk.vtkMatrix4x4()
        for axis in (0, 1):
            matrix.SetElement(axis, axis, -scale)
            matrix.SetElement(axis, 3, -(scale - 1) / 2)
        volume.SetIJKToRASMatrix(matrix)
        file = FrameFile()
        file.append(frames)
        values = [f"{clip.frame(item) / 25:.3f}" for item in range(len(frames))]
        assert list(file.fill(sequence, volume, values)) == list(range(1, len(frames) + 1))
        file.close()
        browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "video browser")
        browser.AddSynchronizedSequenceNode(sequence)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        return browser

    return make


def mappings() -> list[str]:
    """Return the files without a name that are mapped into memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if "(deleted)" in line and "/#" in line]


# which frames


def test_ten_minutes_are_offered_at_a_frame_a_second_and_half_the_size() -> None:
    every = everyFrame(TEN_MINUTES)
    assert every.bytes(TEN_MINUTES) == 15000 * 1080 * 1920 * 3
    choice = preselected(TEN_MINUTES)
    # 10^9 / (540 * 960 * 3) = 643 frames, so every 24th; at full size it would be every 94th
    assert choice == ClipChoice(0, 14999, 24, 2)
    assert choice.bytes(TEN_MINUTES) == 625 * 540 * 960 * 3 <= 10**9
    hours = preselected(Video(400_000, 1080, 1920, 25.0))
    assert hours.scale == 4
    assert 0.9e9 < hours.bytes(Video(400_000, 1080, 1920, 25.0)) <= 10**9


def test_a_short_video_is_offered_as_a_whole() -> None:
    video = Video(100, 480, 640, 25.0)
    assert preselected(video) == everyFrame(video) == ClipChoice(0, 99, 1, 1)


def test_sizes_and_times_are_as_people_write_them() -> None:
    assert [inWords(size) for size in (1, 92_160_000, 10**9, 93_312_000_000)] == [
        "1 MB",
        "92 MB",
        "1.0 GB",
        "93.3 GB",
    ]
    assert TEN_MINUTES.time(14999) == "9:59"
    assert Video(5, 8, 8).time(3) == ""


@pytest.fixture
def dialogs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The window's module, in a running Slicer."""
    import panel_cases
    import slicer_stand_ins

    with slicer_stand_ins.running_slicer(panel_cases.MODULE, tmp_path / "Slicer.ini"):
        slicer_stand_ins.qt_stand_ins.speak_pythonqt(__name__)
        yield importlib.import_module("SAM2UNetLib.ClipDialog")


def test_the_window_shows_the_room_of_each_choice(dialogs: Any, tmp_path: Path) -> None:
    dialog = dialogs.ClipDialog(TEN_MINUTES, folder=str(tmp_path))
    dialog._free = 5 * 10**9
    dialog.refresh()
    assert "15000 frames" in dialog.question.text
    assert "93.3 GB" in dialog.question.text
    assert dialog.room.text.startswith("625 frames of 960 x 540 pixels: 972 MB on the disk")
    assert dialog.choice == preselected(TEN_MINUTES)
    ok = dialog.buttons.button(dialogs.qt.QDialogButtonBox.Ok)
    assert ok.enabled
    dialog.step.value = 1
    assert dialog.room.text.startswith("15000 frames of 960 x 540 pixels: 23.3 GB")
    assert "Too much" in dialog.room.text
    assert not ok.enabled
    dialog.first.value, dialog.last.value, dialog.scale.currentIndex = 101, 200, 0
    assert dialog.choice == ClipChoice(100, 199, 1, 1)
    assert dialog.room.text.startswith("100 frames of 1920 x 1080 pixels: 622 MB")
    assert (dialog.firstTime.text, dialog.lastTime.text) == ("0:04", "0:07")
    assert ok.enabled
    dialog.last.value = 50
    assert "before the first" in dialog.room.text
    assert not ok.enabled


def test_nobody_is_asked_about_a_short_video_or_in_a_test(
    dialogs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Video(100, 480, 640, 25.0)
    assert dialogs.clipChoice(short, folder=str(tmp_path)) == everyFrame(short)
    assert dialogs.clipChoice(TEN_MINUTES, folder=str(tmp_path)) == preselected(TEN_MINUTES)
    asked: list[Video] = []

    class Window:
        def __init__(self, video: Video, **_: Any) -> None:
            asked.append(video)

        def ask(self) -> ClipChoice:
            return ClipChoice(1, 2)

    monkeypatch.setattr(dialogs, "ClipDialog", Window)
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(slicer.util, "mainWindow", SimpleNamespace)
    assert dialogs.clipChoice(TEN_MINUTES, folder=str(tmp_path)) == ClipChoice(1, 2)
    assert dialogs.clipChoice(short, folder=str(tmp_path)) == everyFrame(short)
    assert asked == [TEN_MINUTES]
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    assert dialogs.clipChoice(TEN_MINUTES, folder=str(tmp_path)) == preselected(TEN_MINUTES)


# where they are kept


def test_frames_on_the_disk_are_read_by_vtk_and_shown_by_the_browser(
    load: Callable[..., Any], worker: Any, video: Path
) -> None:
    browser, expected = load(), read(worker, video)
    sequence = browser.GetMasterSequenceNode()
    for item in (0, 7, FRAMES - 1):
        image = sequence.GetNthDataNode(item).GetImageData()
        for row, column in ((0, 0), (13, 5), (ROWS - 1, COLUMNS - 1)):
            found = [image.GetScalarComponentAsFloat(column, row, 0, c) for c in range(3)]
            assert found == expected[item, row, column].tolist()
        browser.SetSelectedItemNumber(item)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        shown = slicer.util.arrayFromVolume(browser.GetProxyNode(sequence))
        np.testing.assert_array_equal(shown[0], expected[item])


def test_an_edit_of_a_frame_stays_with_it(load: Callable[..., Any]) -> None:
    browser = load(count=3)
    sequence = browser.GetMasterSequenceNode()
    slicer.util.arrayFromVolume(sequence.GetNthDataNode(1))[:] = 7
    assert (slicer.util.arrayFromVolume(sequence.GetNthDataNode(1)) == 7).all()
    assert not (slicer.util.arrayFromVolume(sequence.GetNthDataNode(2)) == 7).all()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("how", ["scene", "sequence"])
def test_the_room_on_the_disk_is_free_again_when_the_frames_are_gone(
    load: Callable[..., Any], scene: Any, how: str
) -> None:
    before = mappings()
    browser = load(count=5)
    sequence = browser.GetMasterSequenceNode()
    kept = slicer.util.arrayFromVolume(sequence.GetNthDataNode(4))
    expected = kept.copy()
    assert len(mappings()) == len(before) + 1
    if how == "scene":
        scene.Clear(True)
    else:
        scene.RemoveNode(sequence)
    del sequence, browser
    gc.collect()
    np.testing.assert_array_equal(kept, expected)  # who holds pixels may go on reading them
    assert len(mappings()) == len(before) + 1
    del kept
    gc.collect()
    assert mappings() == before


def test_smaller_frames_lie_where_the_large_ones_do(load: Callable[..., Any]) -> None:
    bounds = []
    for scale in (1, 2, 4):
        volume = load(scale=scale, count=1).GetMasterSequenceNode().GetNthDataNode(0)
        assert volume.GetImageData().GetDimensions() == (COLUMNS // scale, ROWS // scale, 1)
        found = np.zeros(6)
        volume.GetBounds(found)
        bounds.append(found.tolist())
    assert bounds[0] == bounds[1] == bounds[2]


def test_pixels_of_the_file_are_found_in_a_smaller_frame() -> None:
    clip = Clip(0, 1, 4, 50, 70)
    for pixel, expected in ((0, -0.375), (3, 0.375), (4, 0.625), (1.5, 0.0), (5.5, 1.0)):
        found = clip.fileToItem() @ [pixel, pixel, 0, 1]
        assert found.tolist() == [expected, expected, 0, 1]  # by hand: squares of 4 x 4 pixels
    masks = np.eye(18, dtype=np.uint8)[None, :13]
    assert clip.enlarged(masks).shape == (1, 50, 70)
    assert clip.enlarged(masks)[0, 7, :9].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0]


# runs


@pytest.fixture
def threshold(bundle: Path, worker: Any, video: Path) -> float:
    """One that some frames reach and others do not."""
    from sam2unet_core.segmenter import Segmenter

    segmenter = Segmenter.open(bundle, device="cpu", runtime="exact")
    highest = segmenter.probabilities(read(worker, video)).max(axis=(1, 2, 3))
    return float(np.round(np.quantile(highest, 0.6), 5))


def dense(bundle: Path, frames: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    """Return the masks `(N, K, H, W)` that the package gives."""
    from sam2unet_core.segmenter import Segmenter

    segmenter = Segmenter.open(bundle, device="cpu", runtime="exact")
    return segmenter.probabilities(frames) >= threshold


def request(browser: Any, bundle: Path, video: Path, **options: Any) -> Request:
    fields = {"what": "sequence", "putFile": lambda: video, **options}
    return Request(browser, bundle=str(bundle), device="cpu", runtime="exact", **fields)


def held(node: Any, browser: Any, task: Any) -> dict[int, NDArray[np.uint8]]:
    """Return the masks `(K, H, W)` of the frames that have a segmentation."""
    from mask_cases import findSegment

    volumes = browser.GetMasterSequenceNode()
    clip, found = Clip.of(volumes), {}
    for item, frame in framesOf(node, browser):
        if frame is not None:
            ids = [findSegment(frame.GetSegmentation(), task, each) for each in task["classes"]]
            placement = importlib.import_module("SAM2UNetLib.Placement")
            volume = volumes.GetNthDataNode(item)
            found[item] = placement.masksOf(frame, volume, ids, transform=False, clip=clip)[0]
    return found


@pytest.mark.parametrize("loaded", [{}, {"first": 3, "step": 2, "scale": 2, "count": 8}])
def test_a_run_on_the_file_gives_what_the_frames_give_and_no_pixel_passes_through_slicer(
    session: Any,
    load: Callable[..., Any],
    worker: Any,
    bundle: Path,
    video: Path,
    threshold: float,
    run: Callable[..., Any],
    *,
    monkeypatch: pytest.MonkeyPatch,
    loaded: dict[str, int],
) -> None:
    browser = load(**loaded)
    numbers = range(FRAMES)[loaded.get("first", 0) :: loaded.get("step", 1)][: loaded.get("count")]
    expected = dense(bundle, read(worker, video)[list(numbers)], threshold)
    with_findings = np.flatnonzero(expected.any(axis=(1, 2, 3))).tolist()
    assert 0 < len(with_findings) < len(expected)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pixels are passed to the worker")

    monkeypatch.setattr(handover_module.protocol, "write_array", refuse)
    monkeypatch.setattr(Inputs, "extract", refuse)
    session.start(request(browser, bundle, video, threshold=threshold))
    told = run(session)
    assert told[-1][0] == "finished", told
    node = told[-1][1]
    sequence = browser.GetSequenceNode(node)
    assert lookedAt(sequence) == set(range(len(expected)))
    assert sequence.GetNumberOfDataNodes() == len(with_findings)
    found = held(node, browser, session.task)
    assert sorted(found) == with_findings
    for item, masks in found.items():
        assert masks.shape == (1, ROWS, COLUMNS)
        assert (masks != expected[item]).mean() < 1e-3
    assert [each[0] for each in told].count("partial") == 0
    assert ("progress", len(expected), len(expected)) in [each[:3] for each in told]


def test_another_threshold_adds_frames_and_takes_others_away(
    session: Any,
    load: Callable[..., Any],
    scene: Any,
    worker: Any,
    bundle: Path,
    video: Path,
    threshold: float,
    run: Callable[..., Any],
) -> None:
    browser, frames = load(), read(worker, video)
    session.start(request(browser, bundle, video, threshold=threshold))
    node = run(session)[-1][1]
    counts = []
    lower = float(np.round(threshold * 0.97, 5))
    for value in (1.0, lower, threshold):
        assert session.rethreshold(threshold=value)
        assert run(session)[-1][0] == "finished"
        found = held(node, browser, session.task)
        expected = dense(bundle, frames, value)
        with_findings = np.flatnonzero(expected.any(axis=(1, 2, 3))).tolist()
        shown = {item for item, masks in found.items() if masks.any()}
        assert sorted(shown) == with_findings
        counts.append(len(with_findings))
    assert counts[0] == 0 < counts[2] < counts[1]
    session.undo()
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_run_whose_probabilities_are_not_kept_ends_with_its_result(
    session: Any,
    load: Callable[..., Any],
    bundle: Path,
    video: Path,
    threshold: float,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a long clip, whose probabilities are larger than what the worker keeps."""
    poll = session.worker.poll

    def without_handle() -> list[dict[str, Any]]:
        events = poll()
        for event in events:
            if "mask_frames" in event.get("result", {}):
                event["result"]["result"] = None
        return events

    monkeypatch.setattr(session.worker, "poll", without_handle)
    session.start(request(load(), bundle, video, threshold=threshold))
    assert run(session)[-1][0] == "finished"
    assert not session.canRethreshold
    assert not session.isBusy


def test_a_run_that_is_cancelled_while_its_result_is_written_leaves_nothing(
    session: Any,
    load: Callable[..., Any],
    scene: Any,
    bundle: Path,
    video: Path,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session.start(request(load(), bundle, video, threshold=0.0))
    told: list[Any] = []
    monkeypatch.setattr(sys.modules["SAM2UNetLib.Session"], "WRITE_S", 1e-9)
    while session._writing is None:
        told += session.poll()
    assert session.isBusy
    session.cancel()
    assert run(session)[-1][0] == "cancelled"
    assert not session.isBusy
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_file_that_cannot_be_put_where_the_worker_reads_it_ends_the_run(
    session: Any, load: Callable[..., Any], bundle: Path, video: Path, run: Callable[..., Any]
) -> None:
    def full() -> Path:
        raise OSError(28, "No space left on device")

    session.start(request(load(count=2), bundle, video, putFile=full))
    told = run(session)
    assert told[-1][0] == "failed"
    assert "No space left" in told[-1][1]


# the frames of the result


@pytest.fixture
def result(
    session: Any,
    load: Callable[..., Any],
    bundle: Path,
    video: Path,
    threshold: float,
    run: Callable[..., Any],
) -> SimpleNamespace:
    """The result of a run on every second frame, at half the size."""
    browser = load(first=1, step=2, scale=2)
    session.start(request(browser, bundle, video, threshold=threshold))
    node = run(session)[-1][1]
    found = {item for item, frame in framesOf(node, browser) if frame is not None}
    missing = sorted(set(range(browser.GetNumberOfItems())) - found)
    assert found
    assert len(missing) > 1
    return SimpleNamespace(browser=browser, node=node, found=sorted(found), missing=missing)


def show(browser: Any, item: int) -> None:
    browser.SetSelectedItemNumber(item)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)


def test_a_frame_without_findings_shows_none_and_can_be_drawn_in(
    result: SimpleNamespace, session: Any
) -> None:
    show(result.browser, result.found[-1])
    segmentation = result.node.GetSegmentation()
    identifier = segmentation.GetNthSegmentID(0)
    image = slicer.vtkOrientedImageData()
    assert result.node.GetBinaryLabelmapRepresentation(identifier, image)
    show(result.browser, result.missing[0])
    segmentation = result.node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 1
    volume = result.browser.GetProxyNode(result.browser.GetMasterSequenceNode())
    identifier = segmentation.GetNthSegmentID(0)
    drawn = slicer.util.arrayFromSegmentBinaryLabelmap(result.node, identifier, volume)
    assert not drawn.any()
    assert not session.isEdited
    drawn[0, 3:5, 6:9] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, result.node, identifier, volume)
    show(result.browser, result.missing[1])
    show(result.browser, result.missing[0])
    masks = held(result.node, result.browser, session.task)[result.missing[0]]
    expected = np.zeros((ROWS, COLUMNS))
    expected[6:10, 12:18] = 1  # drawn on the smaller frame
    np.testing.assert_array_equal(masks[0], expected)
    assert session.isEdited
    content = exported(result.node)
    assert [each["algorithm_type"] for each in content.segments] == ["SEMIAUTOMATIC"]
    assert result.missing[0] in [content.items[index] for index in content.maskFrames]


def test_what_is_drawn_on_belongs_to_the_grid_of_the_file(result: SimpleNamespace) -> None:
    show(result.browser, result.found[0])
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    text = result.node.GetSegmentation().GetConversionParameter(name)
    image = slicer.vtkOrientedImageData()
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False)
    assert image.GetDimensions() == (COLUMNS, ROWS, 1)
    bounds, expected = np.zeros(6), np.zeros(6)
    slicer.vtkOrientedImageData.GetBounds(image, bounds)
    volume = result.browser.GetMasterSequenceNode().GetNthDataNode(0)
    grid = Grid.of(volume, Clip.of(result.browser.GetMasterSequenceNode()))
    assert grid.toRas[:3, 3].tolist() == [0, 0, 0]
    assert np.diag(grid.toRas).tolist() == [-1, -1, 1, 1]
    volume.GetBounds(expected)


def test_the_frames_of_an_export_are_those_of_the_file(
    result: SimpleNamespace, session: Any, video: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    content = exported(result.node)
    count = result.browser.GetNumberOfItems()
    assert content.frames == [1 + 2 * item for item in range(count)]
    assert content.items == list(range(count))
    assert [content.items[index] for index in content.maskFrames] == result.found
    assert content.masks.shape == (len(result.found), 1, ROWS, COLUMNS)
    session.exportDicomSeg(result.node, source=video, output=tmp_path / "seg.dcm")
    told = run(session)
    assert told[-1][0] == "exported", told
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.Rows, seg.Columns, seg.NumberOfFrames) == (ROWS, COLUMNS, count)
    pixels = seg.pixel_array
    for number, item in enumerate(seg.PerFrameFunctionalGroupsSequence):
        (source,) = item.DerivationImageSequence[0].SourceImageSequence
        frame = int(source.ReferencedFrameNumber) - 1
        index = content.frames.index(frame)
        expected = np.zeros((ROWS, COLUMNS))
        if index in content.maskFrames:
            expected = content.masks[content.maskFrames.index(index), 0]
        np.testing.assert_array_equal(pixels[number], expected)


def test_areas_over_time_have_a_row_for_each_frame_that_was_looked_at(
    result: SimpleNamespace,
) -> None:
    table = importlib.import_module("SAM2UNetLib.Tables").areas(result.node, result.browser)
    names = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    assert names[2].endswith("[px]")  # of the file
    frames, times, areas = (
        slicer.util.arrayFromTableColumn(table, name).tolist() for name in names
    )
    count = result.browser.GetNumberOfItems()
    assert frames == [2 + 2 * item for item in range(count)]
    assert times == pytest.approx([(1 + 2 * item) / 25 for item in range(count)])
    assert [item for item, area in enumerate(areas) if area] == result.found
    content = exported(result.node)
    assert sum(areas) == content.masks.sum()


def test_a_single_frame_is_passed_to_the_worker_and_its_masks_have_the_size_of_the_file(
    session: Any,
    load: Callable[..., Any],
    bundle: Path,
    video: Path,
    run: Callable[..., Any],
) -> None:
    browser = load(step=3, scale=2)
    show(browser, 4)
    session.start(request(browser, bundle, video, what="slice", putFile=None, threshold=0.0))
    told = run(session)
    assert told[-1][0] == "finished", told
    found = held(told[-1][1], browser, session.task)
    assert sorted(found) == [4]
    assert found[4].shape == (1, ROWS, COLUMNS)
    assert found[4].all()


def test_a_clip_whose_file_is_known_is_read_by_the_worker_and_others_are_passed(
    load: Callable[..., Any], video: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {"1.2.3": str(video), "4.5": str(tmp_path / "gone.dcm")}
    database = SimpleNamespace(fileForInstance=files.get, instanceValue=lambda *_: "")
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    asked: list[Request] = []
    session = SimpleNamespace(start=asked.append, close=lambda: None)
    runs = importlib.import_module("SAM2UNetLib.Runs").Runs(lambda *_: session)
    browser = load(count=3)
    entry = SimpleNamespace(name="polyp", bundle=None, task={"name": "polyp"})
    frame = browser.GetMasterSequenceNode().GetNthDataNode(0)
    refinement = {"threshold": 0.5, "minimumSize": 0.0, "keepLargest": False, "smoothing": 0.0}

    def start(what: str) -> Request:
        chosen = {"inputNode": browser, "what": what, "sliceView": None, "force": False}
        parameter = SimpleNamespace(**chosen, outputSegmentation=None, **refinement)
        runs.start(["sam2unet"], entry=entry, parameter=parameter)
        return asked[-1]

    assert start("sequence").putFile is None  # it does not say where it came from
    for uid, known in (("1.2.3", True), ("4.5", False), ("6.7", False)):
        frame.SetAttribute("DICOM.instanceUIDs", uid)
        assert (start("sequence").putFile is not None) == known
        assert (start("range").putFile is not None) == known
        assert start("slice").putFile is None
    frame.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    put = start("sequence").putFile()
    assert put.read_bytes() == video.read_bytes()
    assert put.is_relative_to(runs.files.root)
    runs.close()
    assert not put.exists()


def test_frames_are_written_as_ranges() -> None:
    assert inRanges([9, 0, 1, 2, 3, 5, 5]) == "0-3 5 9"
    node = slicer.vtkMRMLSequenceNode()
    assert lookedAt(node) == set()
    node.SetAttribute("SAM2UNet.lookedAt", "0-3 5 9")
    assert lookedAt(node) == {0, 1, 2, 3, 5, 9}
