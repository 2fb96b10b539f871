"""Phantom endoscopy as DICOM: single frames, a multi-frame object and a video, with exact masks.

UIDs and pixels depend only on the seed; no real patient is involved.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG4HP41, UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

from sam2unet_core.errors import DataError, MissingExtraError
from sam2unet_core.phantom.frame import SMALLEST, draw_frame

ENDOSCOPIC = UID("1.2.840.10008.5.1.4.1.1.77.1.1")
VIDEO_ENDOSCOPIC = UID("1.2.840.10008.5.1.4.1.1.77.1.1.1")
TRUE_COLOUR_CAPTURE = UID("1.2.840.10008.5.1.4.1.1.7.4")
STUDIES = ("endoscopy", "cine", "video")
FRAMES_PER_SECOND = 25
_DATE, _TIME = "20200102", "030405"

FrameAndMask = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class WrittenStudy:
    """One study.

    Attributes:
        name: one of `STUDIES`.
        files: its DICOM files, in the order of their frames.
        masks: the mask of each frame, a grey PNG of 0 and 255, in the same order.
    """

    name: str
    files: tuple[Path, ...]
    masks: tuple[Path, ...]


def has_video() -> bool:
    """Whether the library that encodes video is installed (extra `video`)."""
    return importlib.util.find_spec("av") is not None


def write_studies(
    out: Path | str,
    *,
    frames: int = 20,
    seed: int = 0,
    size: tuple[int, int] = (256, 256),
    video: bool = True,
) -> list[WrittenStudy]:
    """Write three studies to `out/studies`, and their masks to `out/masks`, with the same names.

    `endoscopy` holds single VL Endoscopic frames, uncompressed; `cine` one multi-frame true colour
    secondary capture in JPEG baseline; `video` one Video Endoscopic object in H.264.

    Args:
        out: folder to write; new or empty.
        frames: frames per study, from 1.
        seed: from 0; the same seed gives the same studies.
        size: (height, width) in pixels, even and at least 32.
        video: also write the video, which needs the extra `video`.

    Raises:
        DataError: the folder is not empty or a number is out of range; nothing is written.
        MissingExtraError: `video` is set and PyAV is not installed; nothing is written.
    """
    out = Path(out)
    _check(out, frames=frames, seed=seed, size=size)
    if video and not has_video():
        raise MissingExtraError(
            "the video study needs PyAV, which is not installed: pip install 'sam2unet[video]'"
        )
    writers: dict[str, Callable[[Path, list[FrameAndMask], int], tuple[Path, ...]]] = {
        "endoscopy": _write_single_frames,
        "cine": _write_cine,
        "video": _write_video,
    }
    written = []
    for number, name in enumerate(STUDIES if video else STUDIES[:2]):
        pictures = list(_clip(np.random.default_rng((seed, number)), frames=frames, size=size))
        folder = out / "studies" / name
        folder.mkdir(parents=True)
        files = writers[name](folder, pictures, seed)
        written.append(WrittenStudy(name, files, _write_masks(out / "masks" / name, pictures)))
    return written


def write_video(
    path: Path | str, *, frames: int = 100, seed: int = 0, size: tuple[int, int] = (480, 640)
) -> Path:
    """Write one Video Endoscopic object in H.264, as the study `video` of `write_studies` is.

    Arguments as there.

    Raises:
        DataError: the file is there already, or a number is out of range.
        MissingExtraError: PyAV is not installed.
    """
    path = Path(path)
    if path.exists():
        raise DataError(f"{path}: exists already; name a new file")
    _check(path, frames=frames, seed=seed, size=size)
    if not has_video():
        raise MissingExtraError(
            "the video needs PyAV, which is not installed: pip install 'sam2unet[video]'"
        )
    rng = np.random.default_rng((seed, STUDIES.index("video")))
    _write_video_file(path, list(_clip(rng, frames=frames, size=size)), seed)
    return path


def _check(out: Path, *, frames: int, seed: int, size: tuple[int, int]) -> None:
    if frames < 1 or seed < 0:
        raise DataError(f"frames is {frames} and seed is {seed}: expected from 1 and from 0")
    if min(size) < SMALLEST or size[0] % 2 or size[1] % 2:
        raise DataError(
            f"phantom studies of {size[0]} x {size[1]} pixels: the minimum is {SMALLEST} x "
            f"{SMALLEST}, and both numbers must be even"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: not an empty folder; name a new one")


def _clip(
    rng: np.random.Generator, *, frames: int, size: tuple[int, int]
) -> Iterator[FrameAndMask]:
    """Yield the frames and masks of a camera that moves across a larger scene."""
    height, width = size
    wide, mask = draw_frame(rng, size=(height * 3 // 2, width * 3 // 2), polyps=1)
    spare = (wide.shape[0] - height, wide.shape[1] - width)
    for index in range(frames):
        share = index / max(1, frames - 1)
        top = round(spare[0] * (0.5 - 0.5 * np.cos(2 * np.pi * share)))
        left = round(spare[1] * share)
        part = (slice(top, top + height), slice(left, left + width))
        yield np.ascontiguousarray(wide[part]), np.ascontiguousarray(mask[part])


def _write_masks(folder: Path, pictures: list[FrameAndMask]) -> tuple[Path, ...]:
    folder.mkdir(parents=True)
    paths = []
    for number, (_, mask) in enumerate(pictures, start=1):
        paths.append(folder / f"{number:04d}.png")
        Image.fromarray(mask * np.uint8(255)).save(paths[-1])
    return tuple(paths)


def _write_single_frames(folder: Path, pictures: list[FrameAndMask], seed: int) -> tuple[Path, ...]:
    paths = []
    for number, (pixels, _) in enumerate(pictures, start=1):
        dataset = _dataset("endoscopy", pixels.shape, seed=seed, number=number, sop=ENDOSCOPIC)
        dataset.PhotometricInterpretation = "RGB"
        dataset.LossyImageCompression = "00"
        _add_endoscopy(dataset)
        dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
        paths.append(folder / f"{number:04d}.dcm")
        _save(dataset, paths[-1], syntax=ExplicitVRLittleEndian)
    return tuple(paths)


def _write_cine(folder: Path, pictures: list[FrameAndMask], seed: int) -> tuple[Path, ...]:
    coded = []
    for pixels, _ in pictures:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG", quality=92, subsampling="4:2:2")
        coded.append(stream.getvalue())
    shape = pictures[0][0].shape
    dataset = _dataset("cine", shape, seed=seed, number=1, sop=TRUE_COLOUR_CAPTURE)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.ConversionType, dataset.Laterality = "DV", ""
    _mark_lossy(dataset, raw=len(pictures) * pictures[0][0].size, coded=sum(map(len, coded)))
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    dataset.BurnedInAnnotation = "NO"
    _add_clock(dataset, len(pictures))
    dataset.PixelData = encapsulate(coded)
    dataset["PixelData"].VR = "OB"
    _save(dataset, folder / "cine.dcm", syntax=JPEGBaseline8Bit)
    return (folder / "cine.dcm",)


def _write_video(folder: Path, pictures: list[FrameAndMask], seed: int) -> tuple[Path, ...]:
    _write_video_file(folder / "video.dcm", pictures, seed)
    return (folder / "video.dcm",)


def _write_video_file(path: Path, pictures: list[FrameAndMask], seed: int) -> None:
    stream = _h264([pixels for pixels, _ in pictures])
    shape = pictures[0][0].shape
    dataset = _dataset("video", shape, seed=seed, number=1, sop=VIDEO_ENDOSCOPIC)
    dataset.PhotometricInterpretation = "YBR_PARTIAL_420"
    _add_endoscopy(dataset)
    _mark_lossy(dataset, raw=len(pictures) * pictures[0][0].size, coded=len(stream))
    dataset.LossyImageCompressionMethod = "ISO_14496_10"
    _add_clock(dataset, len(pictures))
    dataset.PixelData = encapsulate([stream], has_bot=False)
    dataset["PixelData"].VR = "OB"
    _save(dataset, path, syntax=MPEG4HP41)


def _h264(frames: list[NDArray[np.uint8]]) -> bytes:
    """Encode `(H, W, 3)` RGB frames as H.264 in MP4: BT.709 in video range, with B-frames."""
    av: Any = importlib.import_module("av")
    from av.video.reformatter import ColorRange, Colorspace  # noqa: PLC0415 - the extra `video`

    encoded = io.BytesIO()
    with av.open(encoded, "w", format="mp4") as container:
        options = {"crf": "12", "bf": "2", "profile": "high", "threads": "1"}
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = int(Colorspace.ITU709), int(ColorRange.MPEG)
        for pixels in frames:
            coloured = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p",
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            container.mux(stream.encode(coloured))
        container.mux(stream.encode())
    return encoded.getvalue()


def _dataset(study: str, shape: tuple[int, ...], *, seed: int, number: int, sop: UID) -> Dataset:
    """Return a data set without the pixels and the attributes of their encoding."""
    dataset = Dataset()
    dataset.SOPClassUID = sop
    dataset.SOPInstanceUID = _uid(seed, study, number)
    dataset.StudyInstanceUID = _uid(seed, study, "study")
    dataset.SeriesInstanceUID = _uid(seed, study, "series")
    dataset.PatientName, dataset.PatientID = "Phantom^Drawn", f"PHANTOM{seed}"
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.StudyDate = dataset.ContentDate = _DATE
    dataset.StudyTime = dataset.ContentTime = _TIME
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID = "PHANTOM"
    dataset.Modality = "ES"
    dataset.Manufacturer = "sam2unet"
    dataset.SeriesDescription = f"Drawn colonoscopy, {study}"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number
    dataset.PatientOrientation = ""
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    return dataset


def _uid(*parts: object) -> UID:
    digest = hashlib.sha256("\0".join(map(str, ("phantom", *parts))).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def _add_endoscopy(dataset: Dataset) -> None:
    region = Dataset()
    region.CodingSchemeDesignator, region.CodeValue, region.CodeMeaning = "SCT", "71854001", "Colon"
    dataset.AnatomicRegionSequence = [region]
    dataset.AcquisitionContextSequence = []


def _mark_lossy(dataset: Dataset, *, raw: int, coded: int) -> None:
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = f"{raw / coded:.4g}"


def _add_clock(dataset: Dataset, count: int) -> None:
    dataset.NumberOfFrames = count
    dataset.FrameTime = 1000 / FRAMES_PER_SECOND
    dataset.CineRate = FRAMES_PER_SECOND
    dataset.FrameIncrementPointer = 0x00181063  # Frame Time


def _save(dataset: Dataset, path: Path, *, syntax: UID) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
