"""Full disks, folders that may not be read or written, and a device that runs out of memory."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sam2unet_core.batch import formats, outputs
from sam2unet_core.segmenter import Segmenter

SCRIPT = Path(__file__).parent / "killed_run.py"
NO_OVERRIDE = "--bounding-set=-dac_override,-dac_read_search"


def manifest(out: Path) -> list[dict]:
    lines = []
    for text in (out / "manifest.jsonl").read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def test_a_disk_that_is_full_stops_the_run_and_leaves_no_torn_result(images, run_batch, tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("needs Linux with mount namespaces")
    clean, out, kept = tmp_path / "clean", tmp_path / "small", tmp_path / "kept"
    run_batch(images, clean, formats=("png", "overlay", "probabilities"))
    out.mkdir()
    steps = (
        f"mount -t tmpfs -o size=48k tmpfs {out}; "
        f"{sys.executable} {SCRIPT} {images} {out} none; echo ended $?; cp -r {out} {kept}"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", steps],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("needs Linux with mount namespaces")
    assert "Traceback" not in done.stderr, done.stderr
    pictures = {p.relative_to(kept) for p in kept.rglob("*.png")}
    assert len(pictures) < 15  # the disk did fill up
    for name in pictures:
        assert (kept / name).read_bytes() == (clean / name).read_bytes()
    assert not list(kept.glob(".part*"))
    shutil.rmtree(out)
    shutil.copytree(kept, out)  # the same folder, on a disk with space
    run_batch(images, out, formats=("png", "overlay", "probabilities"))
    for path in clean.rglob("*.png"):
        assert (out / path.relative_to(clean)).read_bytes() == path.read_bytes()


def test_a_result_that_cannot_be_written_is_one_failed_line(
    images, run_batch, tmp_path, monkeypatch
):
    write = outputs.write_mask

    def refuse(path, *rest):
        if "frame3" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        write(path, *rest)

    monkeypatch.setattr(outputs, "write_mask", refuse)
    outcome = run_batch(images, tmp_path / "out")
    assert outcome.exit_code == 3
    assert outcome.reasons["write_failed"] == 1
    failed = next(x for x in manifest(tmp_path / "out") if x["reason"] == "write_failed")
    assert failed["message"] == "cannot be written: Input/output error"
    assert failed["outputs"] == []
    monkeypatch.undo()
    assert run_batch(images, tmp_path / "out").reasons.get("write_failed") is None


def test_a_bug_in_one_input_is_one_failed_line_and_its_traceback_stays_private(
    images, run_batch, tmp_path, monkeypatch
):
    draw = formats.OPENERS["png"]

    def broken(job, stack):
        if "frame3" in job.unit.base:
            raise ZeroDivisionError("SECRET")
        return draw(job, stack)

    monkeypatch.setitem(formats.OPENERS, "png", broken)
    outcome = run_batch(images, tmp_path / "out")
    assert outcome.reasons["internal"] == 1
    line = next(x for x in manifest(tmp_path / "out") if x["reason"] == "internal")
    assert line["message"] == "unexpected ZeroDivisionError; private/errors.log has the details"
    assert "SECRET" not in (tmp_path / "out" / "manifest.jsonl").read_text()
    assert "SECRET" in (tmp_path / "out" / "private" / "errors.log").read_text()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for their owner only."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("what", ["folder", "output"])
def test_folders_without_permission_are_named_and_the_rest_goes_on(images, open_folder, what):
    if shutil.which("setpriv") is None:
        pytest.skip("needs Linux with setpriv")
    source, out = open_folder / "in", open_folder / "out"
    shutil.copytree(images, source)
    out.mkdir()
    out.chmod(0o755 if what == "folder" else 0o555)
    if what == "folder":
        (source / "p1").chmod(0o000)
    code = (
        "import sys; sys.argv = ['sam2unet', *sys.argv[1:]]; "
        "from sam2unet_core.cli.main import main; main()"
    )
    weights = save_weights(open_folder / "weights.safetensors")
    command = [sys.executable, "-c", code, "segment", str(source), "-o", str(out)]
    command += ["--weights", str(weights), "--device", "cpu"]
    if os.geteuid() == 0:
        command = ["setpriv", NO_OVERRIDE, *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    (source / "p1").chmod(0o755)
    if what == "output":
        assert done.returncode == 2, done.stderr
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert done.returncode == 3, done.stderr
        told = Counter((line["status"], line["reason"]) for line in manifest(out))
        failed = {r: n for (status, r), n in told.items() if status == "failed"}
        assert failed == {"truncated": 1, "corrupt": 1}  # the torn image, and the folder
        assert told[("done", None)] + told[("empty", None)] == 3


def _fitting(answer, most):
    """Return `answer` for batches of so many at most, and the list of the sizes asked for."""
    sizes = []

    def limited(batch):
        sizes.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(batch)

    return limited, sizes


def test_out_of_memory_on_the_device_halves_the_batch_and_goes_on(segmenter, caplog):
    from sam2unet_core.pipeline import BatchSize, segment_frames
    from sam2unet_core.types import Frame

    frames = [Frame(_picture(side), index, 0, index + 1) for index, side in enumerate(range(1, 9))]
    expected = [r.labels.sum() for r in segment_frames(frames, segmenter, batch_size=BatchSize(1))]
    small = Segmenter(segmenter.task, segmenter.runtime.network, device="cpu")
    small.runtime.probabilities, sizes = _fitting(small.runtime.probabilities, 2)
    with caplog.at_level(logging.WARNING):
        found = [r.labels.sum() for r in segment_frames(frames, small, batch_size=BatchSize(8))]
    assert found == expected == [side * side for side in range(1, 9)]
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert [record.message for record in caplog.records] == [
        "the device ran out of memory: going on with smaller batches"
    ]


def test_a_mirror_image_that_does_not_fit_beside_its_frame_goes_after_it(segmenter):
    from sam2unet_core.pipeline import BatchSize, segment_frames
    from sam2unet_core.types import Frame

    task = replace(segmenter.task, flip_average=True)
    frames = [Frame(_picture(side), side, 0, side + 1) for side in (3, 5, 8)]
    small = Segmenter(task, segmenter.runtime.network, device="cpu")
    small.runtime.logits, sizes = _fitting(small.runtime.logits, 1)
    found = [r.labels.sum() for r in segment_frames(frames, small, batch_size=BatchSize(2))]
    assert found == [9, 25, 64]
    assert sizes == [4, 2, *[1, 1] * 3]


def test_a_frame_too_large_for_the_device_is_one_failed_line(
    images, run_batch, tmp_path, segmenter
):
    from sam2unet_core.batch import Settings, run
    from sam2unet_core.inputs import find_inputs

    def never(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    segmenter.runtime.probabilities = never
    outcome = run(
        find_inputs([images]),
        tmp_path / "out",
        Settings(),
        segmenter=segmenter,
        weights_sha256="ab" * 32,
    )
    assert outcome.reasons["out_of_memory"] == 5
    assert outcome.exit_code == 3


def save_weights(path: Path) -> Path:
    """Save a nano network for the polyp task, as a seed makes it."""
    from sam2unet_core.network import SAM2UNet
    from sam2unet_core.network.checkpoint import save_full
    from sam2unet_core.task import load_preset

    torch.manual_seed(0)
    save_full(SAM2UNet("nano"), path, task=load_preset("polyp"))
    path.chmod(0o644)
    return path


def _picture(side: int):
    import numpy as np

    pixels = np.full((64, 96, 3), 20, np.uint8)
    pixels[8 : 8 + side, 20 : 20 + side] = 250
    return pixels
