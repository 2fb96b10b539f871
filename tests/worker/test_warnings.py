"""What was guessed, left out or concealed is told with the result that it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from sam2unet_core.phantom.dicom import write_studies
from sam2unet_core.types import Caution, Frame, Instance, Series
from sam2unet_core.worker.warned import MOST, WarningLog

NOT_FINITE = {
    "code": "not_finite",
    "message": "pixels are NaN or infinite: shown as the lowest value",
}
WINDOW = {"center": 50.0, "width": 80.0}


@pytest.fixture
def endoscopy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four single-frame files in a folder that the worker may read."""
    folder = root / tmp_path_factory.mktemp("warned").name
    write_studies(folder, frames=4, size=(64, 96), video=False)
    files = sorted((folder / "studies" / "endoscopy").rglob("*.dcm"))
    return sorted(files, key=lambda file: int(pydicom.dcmread(file).InstanceNumber))


def told(result: dict[str, Any], code: str) -> list[str]:
    return [each["message"] for each in result["warnings"] if each["code"] == code]


def test_an_array_with_pixels_that_are_no_numbers_says_in_which_frames(worker: Any) -> None:
    values = np.random.default_rng(2).random((4, 40, 40)).astype("<f4") * 100
    values[1, 3, 3], values[3, 5, 5] = np.nan, -np.inf
    given = {"array": worker.give(values), "channels": "grey", "window": WINDOW}
    result = worker.result("segment", input=given)
    message = f"{NOT_FINITE['message']} (frames 2, 4)"
    assert result["warnings"] == [{"code": "not_finite", "message": message}]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_the_lowest_value(
    worker: Any, dtype: str, bad: float
) -> None:
    values = np.random.default_rng(2).integers(10, 90, (1, 40, 40)).astype(dtype)
    share = (values.astype(float) - 49.5) / 79 + 0.5  # PS3.3 C.11.2.1.2.1, by hand
    shown = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    values[0, 4:20, 4:20], shown[0, 4:20, 4:20] = bad, 0
    given = {"array": worker.give(values), "channels": "grey", "window": WINDOW}
    result = worker.result("segment", input=given, probabilities=True)
    expected = worker.segment(np.repeat(shown[..., None], 3, axis=3), probabilities=True)
    assert np.array_equal(
        worker.array(result["probabilities"]), worker.array(expected["probabilities"])
    )
    assert result["warnings"] == [NOT_FINITE]
    assert expected["warnings"] == []


def test_an_array_without_any_number_is_black(worker: Any) -> None:
    result = worker.segment(np.full((2, 40, 40), np.nan, "<f8"), probabilities=True)
    black = worker.segment(np.zeros((2, 40, 40, 3), "|u1"), probabilities=True)
    assert np.array_equal(
        worker.array(result["probabilities"]), worker.array(black["probabilities"])
    )
    assert result["warnings"] == [NOT_FINITE]


@pytest.mark.parametrize("scale", [1.0, 1e-13, 1e-300, 1.7e308])
def test_an_array_without_a_window_is_shown_over_its_range_and_says_so(
    worker: Any, scale: float
) -> None:
    values = np.random.default_rng(2).integers(-1, 2, (1, 40, 40)).astype("<f8")
    shown = np.array([128, 255, 0], "|u1")[values.astype(int)]  # 127.5 is rounded to even
    result = worker.segment(values * scale, probabilities=True)
    expected = worker.segment(np.repeat(shown[..., None], 3, axis=3), probabilities=True)
    assert np.array_equal(
        worker.array(result["probabilities"]), worker.array(expected["probabilities"])
    )
    (message,) = told(result, "window_guessed")
    assert f"shown from {-scale:g} to {scale:g}" in message


def test_a_clean_study_has_no_cautions(worker: Any, endoscopy: list[Path]) -> None:
    path = str(endoscopy[0].parent)
    (series,) = worker.result("inspect", path=path)["series"]
    for result in (series, worker.result("segment", input={"path": path})):
        assert [each for each in result["warnings"] if each["code"]] == []


def test_a_study_s_cautions_are_told_wherever_it_is_used(
    worker: Any, endoscopy: list[Path]
) -> None:
    file = pydicom.dcmread(endoscopy[1])
    assert file.PhotometricInterpretation == "RGB"
    del file.BitsStored, file.HighBit
    file.save_as(endoscopy[1])
    path = str(endoscopy[0].parent)
    (series,) = worker.result("inspect", path=path)["series"]
    found = told(series, "value_assumed")
    assert len(found) == 2
    assert all(message.endswith("(frame 2)") for message in found)
    whole = worker.result("segment", input={"path": path})
    assert told(whole, "value_assumed") == found
    some = worker.result("segment", input={"path": path, "frames": [0, 3]})
    assert told(some, "value_assumed") == []
    one = worker.result("segment", input={"path": path, "frames": [1]})
    assert told(one, "value_assumed") == found
    frames = worker.result("read_frames", path=path, start=1, count=2)
    assert told(frames, "value_assumed") == found
    masks = np.zeros((4, 1, 64, 96), "|u1")
    masks[:, :, 5:9, 7:12] = 1
    fields = {"source": path, "masks": worker.give(masks), "output": "warned.dcm"}
    assert told(worker.result("write_seg", **fields), "value_assumed") == found
    assert str(endoscopy[1].parent) not in "".join(found)


class Source:
    """Frames of which some have cautions."""


def series(count: int, instances: tuple[Instance, ...], *warnings: str) -> Series:
    return Series(
        "cine", instances, Source(), Path("x"), "x", 2, 2, frame_count=count, warnings=warnings
    )


def frame(index: int, *cautions: Caution, instance: int = 0) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), index, instance, index + 1, cautions=cautions)


CONCEALED = Caution("pixels_concealed", "the decoder has filled in")


def test_the_series_own_warnings_have_no_code_and_come_first() -> None:
    instance = Instance(Path("x"), frames=3, cautions=(Caution("value_assumed", "the middle"),))
    assert WarningLog(series(3, (instance,), "a slice is missing"), whole=True).to_list() == [
        {"code": None, "message": "a slice is missing"},
        {"code": "value_assumed", "message": "the middle"},
    ]


@pytest.mark.parametrize(
    ("numbers", "where"),
    [
        ([5], " (frame 5)"),
        ([7, 2], " (frames 2, 7)"),
        (range(1, 13), " (frames 1, 2, 3, 4, 5, 6, 7, 8 and 4 more)"),
        (range(1, 21), ""),
    ],
)
def test_a_caution_of_frames_is_told_once_with_their_numbers(numbers: Any, where: str) -> None:
    warned = WarningLog(series(20, (Instance(Path("x"), frames=20),)))
    list(warned.collect(frame(number - 1, CONCEALED) for number in numbers))
    assert warned.to_list() == [
        {"code": "pixels_concealed", "message": f"the decoder has filled in{where}"}
    ]


def test_a_caution_of_a_file_with_many_frames_names_none() -> None:
    clean, other = Path("x"), Path("y")
    instances = (Instance(clean, frames=2), Instance(other, frames=2, cautions=(CONCEALED,)))
    warned = WarningLog(series(4, instances))
    list(warned.collect([frame(0), frame(2, instance=1), frame(3, instance=1)]))
    assert [each["message"] for each in warned.to_list()] == ["the decoder has filled in"]
    none = WarningLog(series(4, instances))
    list(none.collect([frame(0), frame(1)]))
    assert none.to_list() == []


def test_frames_that_are_cut_through_a_volume_have_no_numbers() -> None:
    instances = (Instance(Path("x")), Instance(Path("y"), cautions=(CONCEALED,)))
    warned = WarningLog(series(2, instances), cut=True)
    list(warned.collect([frame(7, Caution("not_finite", "black"))]))
    assert [each["message"] for each in warned.to_list()] == ["the decoder has filled in", "black"]


def test_a_list_without_end_is_cut_and_says_so() -> None:
    warned = WarningLog(1)
    list(
        warned.collect(
            [frame(0, *(Caution("value_ignored", f"text {n}") for n in range(MOST + 7)))]
        )
    )
    found = warned.to_list()
    assert len(found) == MOST + 1
    assert found[-1] == {"code": None, "message": "7 more warnings are omitted"}
