"""A run that was killed goes on; results made with other settings are not mixed in."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

import pytest

from sam2unet_core.batch.folder import FolderLock
from sam2unet_core.errors import LockedError, OutputError

SCRIPT = Path(__file__).parent / "killed_run.py"
FORMATS = ("png", "overlay", "probabilities")


def pictures(out: Path) -> dict[str, str]:
    """Return the hash of every result by its path."""
    found = (p for p in out.rglob("*.png"))
    return {
        p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found
    }


def results(out: Path) -> dict[str, dict]:
    """Return the last line of each id, less its times."""
    lines = {}
    for text in (out / "manifest.jsonl").read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        line.pop("ms")
        lines[line["id"]] = line
    return lines


@pytest.mark.parametrize("point", ["frame:1", "frame:4", "publish:2", "line:3", "write:4"])
def test_kill_and_rerun_give_the_bytes_of_one_clean_run(
    images, run_batch, run_python, tmp_path, point
):
    clean, out = tmp_path / "clean", tmp_path / "out"
    run_batch(images, clean, formats=FORMATS)
    assert run_python(SCRIPT, images, out, point).returncode == -9
    before = pictures(out)
    assert before.items() <= pictures(clean).items()  # nothing half-written under a final name
    run_batch(images, out, formats=FORMATS)
    assert pictures(out) == pictures(clean)
    assert len(pictures(clean)) == 15
    assert results(out) == results(clean)
    assert not list(out.glob("**/*.part*"))


def test_a_rerun_does_nothing_again(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out)
    before = (out / "manifest.jsonl").read_bytes()
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    outcome = run_batch(images, out)
    assert outcome.frames == 0
    assert outcome.statuses == {"done": 4, "empty": 1, "failed": 1, "skipped": 1}
    after = (out / "manifest.jsonl").read_bytes()
    assert after.startswith(before)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.png")} == times


def test_report_and_summary_of_a_rerun_are_those_of_the_first_run(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out)
    names = ("report.html", "summary.csv", "private/sources.csv")
    before = {name: (out / name).read_bytes() for name in names}
    run_batch(images, out)
    assert {name: (out / name).read_bytes() for name in names} == before


def test_a_result_that_was_removed_or_damaged_is_made_again(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out)
    before = pictures(out)
    (out / "p0" / "frame0.png.mask.png").unlink()
    (out / "p1" / "frame3.png.mask.png").write_bytes(b"damaged")
    assert run_batch(images, out).frames == 2
    assert pictures(out) == before


def test_an_input_that_failed_is_tried_again_once_repaired(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out)
    torn = images / "p0" / "torn.png"
    torn.write_bytes((images / "p1" / "frame3.png").read_bytes())
    outcome = run_batch(images, out)
    assert outcome.frames == 1
    assert outcome.exit_code == 0
    assert (out / "p0" / "torn.png.mask.png").is_file()


def test_another_threshold_is_refused_and_nothing_changes(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(LockedError, match=r"other settings \(threshold 0.5, now 0.6\)"):
        run_batch(images, out, threshold=0.6)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_redo_replaces_results_of_other_settings(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out)
    keys = {line["key"] for line in results(out).values()}
    outcome = run_batch(images, out, threshold=0.6, redo=True)
    assert outcome.frames == 5
    assert not keys - {None} & {line["key"] for line in results(out).values()}
    assert len(results(out)) == 7
    assert run_batch(images, out, threshold=0.6).frames == 0


def test_redo_with_fewer_formats_leaves_no_file_of_the_former_run(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out, formats=("png", "overlay"))
    run_batch(images, out, formats=("png",), redo=True)
    assert all(name.endswith(".mask.png") for name in pictures(out))
    assert len(pictures(out)) == 5


@pytest.mark.parametrize("path", ["../outside", "/outside", "a/../../outside", "C:\\outside", ""])
def test_a_manifest_that_points_outside_its_folder_is_not_followed(
    images, run_batch, tmp_path, path
):
    out, outside = tmp_path / "out", tmp_path / "outside"
    run_batch(images, out)
    outside.write_text("keep")
    book = out / "manifest.jsonl"
    line = json.loads(book.read_text().splitlines()[-1])
    line["outputs"] = [{"path": path, "sha256": "0", "kind": "mask"}]
    with book.open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    run_batch(images, out, redo=True)
    assert outside.read_text() == "keep"
    assert len(pictures(out)) == 5


def test_batch_size_and_shard_are_no_other_settings(images, run_batch, tmp_path):
    out = tmp_path / "out"
    run_batch(images, out, batch_size=1)
    assert run_batch(images, out, batch_size=8).frames == 0


def test_a_second_run_into_one_folder_is_refused(images, run_batch, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    context = multiprocessing.get_context("spawn")
    ready, finish = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(out, ready, finish))
    other.start()
    try:
        assert ready.wait(300)
        with pytest.raises(LockedError, match="another run is writing to it"):
            run_batch(images, out)
    finally:
        finish.set()
        other.join()
    assert run_batch(images, out).frames == 5


def test_a_folder_that_cannot_be_made_is_an_error_of_its_own(images, run_batch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        run_batch(images, tmp_path / "file" / "out")


def _hold(out: Path, ready, finish) -> None:
    with FolderLock(out):
        ready.set()
        finish.wait(300)
