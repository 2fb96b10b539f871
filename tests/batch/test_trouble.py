"""Full disks, folders that may not be read or written, and a device that runs out of memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sam2unet_core.batch import formats
from sam2unet_core.batch.formats import Png
from sam2unet_core.media import image

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
    write = image.write_mask

    def refuse(path, *rest):
        if "frame3" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        write(path, *rest)

    monkeypatch.setattr(image, "write_mask", refuse)
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
    class Broken(Png):
        def open(self, work, stack):
            if "frame3" in work.unit.base:
                raise ZeroDivisionError("SECRET")
            return super().open(work, stack)

    monkeypatch.setitem(formats.FORMATS, "png", Broken())
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


def test_a_frame_too_large_for_the_device_is_one_failed_line(
    images, run_batch, tmp_path, segmenter, monkeypatch
):
    def never(_images):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(segmenter.runtime, "logits", never)
    outcome = run_batch(images, tmp_path / "out")
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
