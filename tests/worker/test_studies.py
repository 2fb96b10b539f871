"""DICOM studies through the worker: found, read, segmented and written as SEG."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from sam2unet_core.phantom.dicom import has_video, write_studies
from sam2unet_core.protocol import ProtocolError
from sam2unet_core.task import load_preset
from sam2unet_core.worker.roots import Roots
from sam2unet_core.worker.studies import Studies

FRAMES, SIZE = 4, (64, 96)


@pytest.fixture(scope="session")
def studies(root: Path) -> Path:
    """Phantom endoscopy: single frames, a multi-frame object, a video."""
    folder = root / "phantom"
    write_studies(folder, frames=FRAMES, size=SIZE, video=has_video())
    return folder / "studies"


def study(studies: Path, name: str) -> Path:
    return next(path for path in studies.iterdir() if path.stem == name)


def some_masks(count: int = FRAMES) -> NDArray[np.uint8]:
    """Masks `(N, 1, H, W)` that are neither symmetric nor like one another."""
    masks = np.zeros((count, 1, *SIZE), np.uint8)
    for index in range(count):
        masks[index, 0, 3 : 20 + index, 5 + 4 * index : 9 + 4 * index] = 1
        masks[index, 0, 17 + index : 21 + index, 5 + 4 * index : 31] = 1
    masks[1] = 0
    return masks


def test_series_are_listed_with_what_they_are(worker: Any, studies: Path) -> None:
    path = study(studies, "endoscopy")
    (series,) = worker.result("inspect", path=str(path))["series"]
    assert (series["rows"], series["columns"], series["frames"]) == (*SIZE, FRAMES)
    assert (series["modality"], series["photometric"]) == ("ES", "RGB")
    assert series["sop_class_uid"] == "1.2.840.10008.5.1.4.1.1.77.1.1"
    assert (series["fits"], series["why_not"]) == (True, None)
    (unfit,) = worker.result("inspect", path=str(path), task="breast_ultrasound")["series"]
    assert unfit["fits"] is False
    assert "this is an endoscopic image (ES)" in unfit["why_not"]
    assert "--" not in unfit["why_not"], "an option of the command line means nothing here"


def test_tasks_are_held_against_a_source_that_the_client_describes(worker: Any) -> None:
    """By name or by content; the answer is that of `inspect`, reason and words."""
    video = {
        "modality": "ES",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.77.1.1.1",
        "photometric": "YBR_PARTIAL_420",
    }
    content = load_preset("breast_ultrasound").to_dict()
    tasks = ["polyp", "breast_ultrasound", content]
    polyp, named, given = worker.result("fits", source=video, tasks=tasks)["rejections"]
    assert polyp is None
    assert named == given
    assert named["reason"] == "task_mismatch"
    assert "'breast_ultrasound' is made for ultrasound (US)" in named["message"]
    (unknown,) = worker.result("fits", source={}, tasks=["polyp"])["rejections"]
    assert "does not state its modality" in unknown["message"]
    for wrong in ({"tasks": ["polyp"]}, {"source": video}, {"source": video, "tasks": [7]}):
        assert worker.ask("fits", **wrong)["kind"] == "bad_request"
    assert worker.ask("fits", source=video, tasks=["no such"])["kind"] == "bad_request"


def test_an_array_of_a_source_that_the_task_is_not_made_for_is_refused_unless_forced(
    worker: Any, pictures: NDArray[np.uint8]
) -> None:
    ct = {"modality": "CT", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "photometric": None}
    load = {"task": "polyp", "device": "cpu"}
    given = {"array": worker.give(pictures), "channels": "rgb", "source": ct}
    refused = worker.ask("segment", input=given, load=load)
    assert (refused["event"], refused["kind"]) == ("failed", "task_mismatch")
    assert refused["message"].startswith("this is a CT image (CT)")
    forced = worker.ask("segment", input=given, load=load, force_task=True)
    assert forced["event"] == "finished"
    plain = {"array": worker.give(pictures), "channels": "rgb"}
    assert worker.ask("segment", input=plain, load=load)["event"] == "finished"


def test_frames_are_read_as_they_are(worker: Any, studies: Path) -> None:
    path = study(studies, "endoscopy")
    files = [pydicom.dcmread(each) for each in sorted(path.rglob("*.dcm"))]
    files.sort(key=lambda file: int(file.InstanceNumber))
    expected = np.stack([file.pixel_array for file in files])
    result = worker.result("read_frames", path=str(path))
    np.testing.assert_array_equal(worker.array(result["frames"]), expected)
    assert (result["rows"], result["columns"]) == SIZE
    assert result["source"]["study_uid"] == str(files[0].StudyInstanceUID)
    assert result["source"]["series_uid"] == str(files[0].SeriesInstanceUID)
    some = worker.result("read_frames", path=str(path), start=1, count=2)
    np.testing.assert_array_equal(worker.array(some["frames"]), expected[1:3])
    none = worker.result("read_frames", path=str(path), start=9)
    assert none["frames"]["shape"] == [0, *SIZE, 3]


def test_frames_of_a_video_are_read(worker: Any, studies: Path) -> None:
    path = next(study(studies, "video").rglob("*.dcm"), None) or study(studies, "video")
    result = worker.result("read_frames", path=str(path))
    assert result["frames"]["shape"] == [FRAMES, *SIZE, 3]
    assert result["frames_per_second"] == 25
    assert result["source"]["kind"] == "video"
    frames = worker.array(result["frames"])
    for start in (0, 2, 0, 3, 1):  # one piece after another, and back again
        piece = worker.result("read_frames", path=str(path), start=start, count=2)
        np.testing.assert_array_equal(worker.array(piece["frames"]), frames[start : start + 2])
    masks = worker.result("segment", input={"path": str(path), "frames": [1, 3]})
    assert masks["masks"]["shape"] == [2, 1, *SIZE]


def test_a_study_by_path_has_the_masks_of_its_frames(worker: Any, studies: Path) -> None:
    for name in ("endoscopy", "cine"):
        path = study(studies, name)
        frames = worker.array(worker.result("read_frames", path=str(path))["frames"])
        probed = worker.segment(frames, probabilities=True)
        middle = float(np.median(worker.array(probed["probabilities"]).astype(float)))
        expected = worker.array(worker.segment(frames, threshold=middle)["masks"])
        assert 0.1 < expected.mean() < 0.9
        whole = worker.result("segment", input={"path": str(path)}, threshold=middle)
        np.testing.assert_array_equal(worker.array(whole["masks"]), expected)
        given = {"path": str(path), "frames": [1, 3]}
        some = worker.result("segment", input=given, threshold=middle)
        np.testing.assert_array_equal(worker.array(some["masks"]), expected[[1, 3]])


def test_a_task_is_not_run_on_what_it_is_not_made_for_unless_forced(
    worker: Any, studies: Path, root: Path, weights: Path
) -> None:
    load = {"task": "breast_ultrasound", "weights": str(weights), "device": "cpu"}
    given = {"path": str(study(studies, "endoscopy"))}
    event = worker.ask("segment", load=load, input=given)
    assert (event["event"], event["kind"]) == ("failed", "task_mismatch")
    assert worker.result("segment", load=load, input=given, force_task=True)["frames"] == FRAMES


@pytest.mark.parametrize("name", ["endoscopy", "cine"])
def test_seg_holds_each_mask_on_its_frame(
    worker: Any, studies: Path, name: str, dciodvfy: Callable[[Path], list[str]]
) -> None:
    path, masks = study(studies, name), some_masks()
    fields = {"source": str(path), "masks": worker.give(masks), "output": f"{name}.dcm"}
    result = worker.result("write_seg", **fields, threshold=0.5, algorithm="edited by hand")
    file = worker.folder / result["file"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == result["sha256"]
    assert dciodvfy(file) == []
    seg = highdicom.seg.segread(file)
    pixels = _by_frame(seg, path)
    assert pixels.sum() == masks.sum() > 0
    np.testing.assert_array_equal(pixels, masks[:, 0])
    (segment,) = seg.SegmentSequence
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentAlgorithmName
    assert segment.SegmentLabel == "Polyp"
    assert "edited by hand" in seg.ImageComments


POLYP = ["SCT", "68496003", "Polyp of colon"]
ABNORMAL = ["SCT", "49755003", "Morphologically Abnormal Structure"]


def test_segments_that_a_person_drew_or_edited_say_so(
    worker: Any, studies: Path, dciodvfy: Any
) -> None:
    """As from a scene of yesterday: no network is known, and the codes are anybody's."""
    path, masks = study(studies, "endoscopy"), np.concatenate([some_masks()] * 3, axis=1)
    masks[:, 1] = 1 - masks[:, 0]
    masks[1:, 2] = 0
    segments = [
        {"label": "Polyp", "algorithm_type": "AUTOMATIC", "algorithm_name": "SAM2-UNet polyp 1"},
        {"label": "Polyp, corrected", "algorithm_type": "SEMIAUTOMATIC", "algorithm_name": "X 2"},
        {"label": "Fold", "algorithm_type": "MANUAL", "region": ["SCT", "71854001", "Colon"]},
    ]
    codes = {"category": ABNORMAL, "type": POLYP, "rgb": [10, 200, 90]}
    result = worker.result(
        "write_seg",
        source=str(path),
        masks=worker.give(masks),
        output="drawn.dcm",
        segments=[{**codes, **each} for each in segments],
        title="Corrected",
        weights_sha256="ab" * 32,
    )
    file = worker.folder / result["file"]
    assert dciodvfy(file) == []
    seg = highdicom.seg.segread(file)
    found = seg.SegmentSequence
    assert [each.SegmentLabel for each in found] == ["Polyp", "Polyp, corrected", "Fold"]
    kinds = [each.SegmentAlgorithmType for each in found]
    assert kinds == ["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]
    assert [each.get("SegmentAlgorithmName") for each in found] == [
        "SAM2-UNet polyp 1",
        "X 2",
        None,
    ]
    assert "SegmentationAlgorithmIdentificationSequence" not in found[2]
    (identification,) = found[0].SegmentationAlgorithmIdentificationSequence
    assert "ab" * 32 in str(identification.AlgorithmParameters)
    assert "Corrected" in seg.SeriesDescription
    for number, mask in enumerate(np.moveaxis(masks, 1, 0)):
        files = sorted(_files(path), key=lambda each: int(pydicom.dcmread(each).InstanceNumber))
        uids = [pydicom.dcmread(each).SOPInstanceUID for each in files]
        pixels = seg.get_pixels_by_source_instance(uids, segment_numbers=[number + 1])[..., 0]
        np.testing.assert_array_equal(pixels, mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": ["SCT", "68496003"]}, "type is"),
        ({"algorithm_type": "BY_HAND"}, "algorithm_type: expected one of"),
        ({"label": ""}, "label: expected"),
        ({"rgb": [300, 0, 0]}, "rgb: expected"),
        ({"colour": "red"}, "unknown fields: colour"),
    ],
)
def test_a_segment_that_is_not_described_right_is_refused(
    worker: Any, studies: Path, change: dict[str, Any], message: str
) -> None:
    described = {"label": "Polyp", "category": ABNORMAL, "type": POLYP, "rgb": [1, 2, 3], **change}
    source, masks = str(study(studies, "endoscopy")), worker.give(some_masks())
    event = worker.ask(
        "write_seg", source=source, masks=masks, output="no.dcm", segments=[described]
    )
    assert (event["event"], event["kind"]) == ("failed", "bad_request")
    assert message in event["message"]


def test_seg_has_empty_masks_for_frames_without_findings_that_are_not_sent(
    worker: Any, studies: Path
) -> None:
    path, masks = study(studies, "cine"), some_masks()
    whole = np.zeros((3, *SIZE), np.uint8)
    whole[1] = masks[3, 0]
    fields = {"source": str(path), "frames": [0, 2, 3], "output": "sparse.dcm"}
    sent = worker.give(masks[[3]])
    result = worker.result("write_seg", **fields, masks=sent, mask_frames=[1])
    assert result["frames"] == 3
    seg = pydicom.dcmread(worker.folder / result["file"])
    np.testing.assert_array_equal(seg.pixel_array, whole)
    numbers = [
        int(each.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        for each in seg.PerFrameFunctionalGroupsSequence
    ]
    assert numbers == [1, 3, 4]
    for wrong in ([0, 1], [3], []):
        asked = worker.ask("write_seg", **fields, masks=worker.give(masks[[3]]), mask_frames=wrong)
        assert asked["kind"] == "bad_request"


def test_seg_of_some_frames_refers_to_those(worker: Any, studies: Path) -> None:
    path, masks = study(studies, "cine"), some_masks()[[0, 3]]
    fields = {"source": str(path), "masks": worker.give(masks), "output": "some.dcm"}
    worker.result("write_seg", **fields, frames=[0, 3])
    seg = highdicom.seg.segread(worker.folder / "some.dcm")
    uid = seg.get_source_image_uids()[0][2]
    pixels = seg.get_pixels_by_source_frame(uid, [1, 4])
    np.testing.assert_array_equal(pixels[..., 0], masks[:, 0])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"frames": [0, 1]}, "bad_request"),
        ({"frames": [0, 1, 2, 9]}, "bad_request"),
        ({"series": 3}, "not_found"),
        ({"output": "../seg.dcm"}, "not_allowed"),
        ({"output": "/tmp/seg.dcm"}, "not_allowed"),
        ({"plane": "coronal"}, None),
        ({"task": "no_such"}, "bad_request"),
        ({"task": {"schema": 1}}, "bad_request"),
    ],
)
def test_seg_requests_that_do_not_fit_are_refused(
    worker: Any, studies: Path, change: dict[str, Any], kind: str | None
) -> None:
    fields = {
        "source": str(study(studies, "endoscopy")),
        "masks": worker.give(some_masks()),
        "output": "refused.dcm",
        **change,
    }
    event = worker.ask("write_seg", **fields)
    assert event["event"] == "failed"
    assert event["kind"] == (kind or "unreadable")
    assert not (worker.folder / "refused.dcm").exists()


def test_masks_of_another_size_are_refused(worker: Any, studies: Path) -> None:
    masks = worker.give(some_masks()[..., :-1].copy())
    fields = {"source": str(study(studies, "cine")), "masks": masks, "output": "wrong.dcm"}
    event = worker.ask("write_seg", **fields)
    assert event["kind"] == "bad_request"
    assert "64 x 95" in event["message"]


def _by_frame(seg: Any, path: Path) -> NDArray[Any]:
    """The masks `(N, H, W)` in the order of the frames, as highdicom finds them."""
    files = [pydicom.dcmread(each, stop_before_pixels=True) for each in _files(path)]
    if len(files) == 1:
        numbers = list(range(1, FRAMES + 1))
        return seg.get_pixels_by_source_frame(files[0].SOPInstanceUID, numbers)[..., 0]
    files.sort(key=lambda file: int(file.InstanceNumber))
    uids = [file.SOPInstanceUID for file in files]
    return seg.get_pixels_by_source_instance(uids)[..., 0]


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.dcm")) if path.is_dir() else [path]


def test_a_real_ct_by_path_has_the_masks_of_its_array(
    worker: Any, root: Path, shared_data: Path
) -> None:
    folder = root / "ct"
    folder.mkdir()
    for file in (shared_data / "data" / "dicom" / "ct_gantry_tilt_ge").rglob("*"):
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    first = worker.result("read_frames", path=str(folder), count=1)["source"]["sop_instance_uid"]
    headers = [pydicom.dcmread(each, force=True) for each in folder.iterdir()]
    file = next(each for each in headers if each.get("SOPInstanceUID") == first)
    units = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
    center, width = (np.atleast_1d(file[key].value)[0] for key in ("WindowCenter", "WindowWidth"))
    window = {"center": float(center), "width": float(width)}
    array = worker.give(units[None].astype("<i2"))
    given = {"array": array, "channels": "grey", "window": window}
    by_array = worker.result("segment", input=given, probabilities=True, threshold=0.5)
    by_path = worker.result(
        "segment",
        input={"path": str(folder), "frames": [0]},
        probabilities=True,
        threshold=0.5,
        force_task=True,
    )
    one, other = (worker.array(each["probabilities"]) for each in (by_array, by_path))
    assert np.ptp(one) > 0.05
    np.testing.assert_array_equal(one, other)


def test_another_file_of_the_same_size_and_time_under_the_same_name_is_read_anew(
    studies: Path, tmp_path: Path
) -> None:
    """Archives keep times to two seconds, and pictures of one device have one size."""
    source = sorted(study(studies, "endoscopy").rglob("*.dcm"))[0]
    dataset, files = pydicom.dcmread(source), []
    for number in "12":
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.777{number}"
        files.append(tmp_path / f"{number}.dcm")
        dataset.save_as(files[-1])
        os.utime(files[-1], (1_600_000_000, 1_600_000_000))
    assert files[0].stat().st_size == files[1].stat().st_size
    opened, name = Studies(Roots([tmp_path])), tmp_path / "000000.dcm"
    for file in files:
        name.unlink(missing_ok=True)
        os.link(file, name)
        (series,) = opened.scan(str(name), check=lambda: None).series
        assert series.instances[0].sop_instance_uid == f"2.25.777{file.stem}"


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS: links for everyone")
def test_a_folder_that_leads_out_without_being_a_link_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So do junctions of Windows; here, links that say they are none."""
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    allowed.mkdir()
    outside.mkdir()
    (allowed / "way").symlink_to(outside, target_is_directory=True)
    monkeypatch.setattr(Path, "is_symlink", lambda _self: False)
    with pytest.raises(ProtocolError, match="leads out"):
        Roots([allowed]).check_tree(allowed)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        (
            "v.mhd",
            "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
            "ElementDataFile = {}\n",
        ),
        (
            "v.nhdr",
            "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: {}\n",
        ),
    ],
)
def test_voxels_of_a_volume_lie_in_the_allowed_folders_too(
    tmp_path: Path, name: str, header: str
) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    for folder in (allowed, outside):
        folder.mkdir()
        (folder / "voxels.raw").write_bytes(bytes(range(64)))
    opened = Studies(Roots([allowed]))
    for way in (
        str(outside / "voxels.raw"),
        "../outside/voxels.raw",
        "LIST\n../outside/voxels.raw",
    ):
        (allowed / name).write_text(header.format(way))
        for path in (allowed / name, allowed):
            with pytest.raises(ProtocolError, match="leads out"):
                opened.series(str(path), 0, check=lambda: None)
    (allowed / name).write_text(header.format("voxels.raw"))
    series = opened.series(str(allowed / name), 0, check=lambda: None)
    assert [frame.pixels.shape for frame in series.frames()] == [(4, 4, 3)] * 4
