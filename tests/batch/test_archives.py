"""Several archives into one results folder: what is there of one is never lost to another."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from sam2unet_core.batch import Settings, Shard, merge, run
from sam2unet_core.batch.units import _safe
from sam2unet_core.errors import LockedError
from sam2unet_core.inputs import find_inputs
from sam2unet_core.phantom.dicom import write_studies
from tests.batch.conftest import with_weights

SCRIPT = Path(__file__).parent / "killed_run.py"


@pytest.fixture
def sites(images, tmp_path) -> tuple[Path, Path]:
    """Two archives with the same names; each image of the second one is turned over."""
    other = tmp_path / "site2"
    shutil.copytree(images, other)
    for path in other.rglob("frame*.png"):
        picture = Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture.putpixel((0, 0), (9, 9, 9))
        picture.save(path)
    return images, other


def lines(out: Path) -> dict[str, dict]:
    """Return the last line of each id; one that a kill tore counts for nothing."""
    found = {}
    for text in (out / "manifest.jsonl").read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found[line["id"]] = {k: v for k, v in line.items() if k != "ms"}
    return found


def masks(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.mask.png")}


def check_results(out: Path) -> None:
    """Every file that the manifest names is there with the bytes that it had."""
    for line in lines(out).values():
        for each in line["outputs"]:
            content = (out / each["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == each["sha256"]


def test_a_second_archive_with_the_same_names_leaves_the_first_ones_results(
    sites, run_batch, tmp_path
):
    out = tmp_path / "out"
    run_batch(sites[0], out)
    first, before = masks(out), lines(out)
    assert run_batch(sites[1], out).frames == 5
    assert first.items() <= masks(out).items()
    assert before.items() <= lines(out).items()
    assert len(masks(out)) == 10
    assert (out / "p1" / "frame3.png~2.mask.png").is_file()
    check_results(out)
    for site in sites:
        assert run_batch(site, out).frames == 0  # each finds its own again
    with (out / "private" / "sources.csv").open(newline="") as stream:
        told = {row["id"]: Path(row["source"]) for row in csv.DictReader(stream)}
    for key, line in lines(out).items():
        content = told[key].read_bytes()
        assert hashlib.sha256(content).hexdigest() == line["source_sha256"]


def test_order_and_company_of_archives_do_not_change_whose_results_are_whose(
    sites, run_batch, tmp_path
):
    out = tmp_path / "out"
    run_batch(sites[1], out)
    run_batch(sites[0], out)
    before = masks(out)
    both = [*find_inputs([sites[0]]), *find_inputs([sites[1]])]
    assert run_batch(sites[0], out, items=both).frames == 0
    assert masks(out) == before
    for number in (1, 2):
        assert run_batch(sites[0], out, shard=Shard(number, 2)).frames == 0


def test_a_changed_file_at_its_path_is_replaced_and_a_moved_archive_is_known(
    sites, run_batch, tmp_path
):
    out, moved = tmp_path / "out", tmp_path / "moved"
    run_batch(sites[0], out)
    before = masks(out)
    shutil.copytree(sites[0], moved)
    assert run_batch(moved, out).frames == 0
    shutil.copy(sites[1] / "p1" / "frame3.png", sites[0] / "p1" / "frame3.png")
    assert run_batch(sites[0], out).frames == 1
    assert masks(out).keys() == before.keys()
    assert masks(out)["p1/frame3.png.mask.png"] != before["p1/frame3.png.mask.png"]
    check_results(out)


@pytest.mark.parametrize("point", ["frame:2", "publish:2", "line:3"])
def test_a_second_archive_that_was_killed_goes_on_to_the_bytes_of_one_clean_run(
    sites, run_batch, run_python, tmp_path, point
):
    clean, out = tmp_path / "clean", tmp_path / "out"
    for site in sites:
        run_batch(site, clean)
    run_batch(sites[0], out)
    (out / "run.json").unlink()  # the script names its formats
    assert run_python(SCRIPT, sites[1], out, point, "png").returncode == -9
    (out / "run.json").unlink()
    run_batch(sites[1], out)
    assert masks(out) == masks(clean)
    assert lines(out).keys() == lines(clean).keys()
    check_results(out)


def test_dicom_series_that_share_a_slice_and_all_names_keep_a_seg_each(segmenter, tmp_path):
    write_studies(tmp_path / "made", frames=3, seed=2, size=(64, 96), video=False)
    first, second = tmp_path / "site1", tmp_path / "site2"
    shutil.copytree(tmp_path / "made" / "studies" / "endoscopy", first)
    shutil.copytree(first, second)
    last = sorted(second.rglob("*.dcm"))[-1]
    changed = pydicom.dcmread(last)
    changed.ImageComments = "another one of the same UIDs"
    changed.save_as(last)
    out = tmp_path / "out"
    for site in (first, second, first, second):
        items = find_inputs([site])
        run(items, out, Settings(), model=with_weights(segmenter))
        check_results(out)
    assert len(list(out.rglob("*.seg.dcm"))) == 2
    assert len(lines(out)) == 6


def test_folders_of_different_archives_are_not_merged(sites, run_batch, tmp_path):
    for number, site in enumerate(sites):
        run_batch(site, tmp_path / f"{number}")
    with pytest.raises(LockedError, match="results of other files under the same names"):
        merge([tmp_path / "0", tmp_path / "1"], tmp_path / "all")
    assert not (tmp_path / "all" / "manifest.jsonl").exists()
    assert not masks(tmp_path / "all")


def test_a_line_that_failed_gives_way_to_that_of_the_repaired_file(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "1")
    (images / "p0" / "torn.png").write_bytes((images / "p1" / "frame3.png").read_bytes())
    run_batch(images, tmp_path / "2")
    assert merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all") == 7
    assert lines(tmp_path / "all") == lines(tmp_path / "2")


def test_no_result_goes_to_the_private_folder_or_to_anothers_name():
    taken = ["private/a", "Private/a", "_private/a", ".a", "_.a", "__.a", "a/private", "_a"]
    made = [_safe(name) for name in taken]
    assert made == [
        "_private/a",
        "_Private/a",
        "__private/a",
        "_.a",
        "__.a",
        "___.a",
        "a/private",
        "_a",
    ]
