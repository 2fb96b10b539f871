"""Shards share the inputs among them, and their manifests come together again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sam2unet_core.batch import Shard, folder, merge
from sam2unet_core.batch.folder import FolderLock
from sam2unet_core.errors import ConfigError, LockedError, OutputError


def lines(out: Path) -> dict[str, dict]:
    found = [json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines()]
    return {line["id"]: {k: v for k, v in line.items() if k != "ms"} for line in found}


def masks(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.mask.png")}


def test_shards_into_one_folder_give_what_one_run_gives(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "whole")
    for number in (1, 2, 3):
        run_batch(images, tmp_path / "out", shard=Shard(number, 3))
    assert lines(tmp_path / "out") == lines(tmp_path / "whole")
    assert masks(tmp_path / "out") == masks(tmp_path / "whole")
    assert len(json.loads((tmp_path / "out" / "run.json").read_text())["runs"]) == 3


def test_a_whole_run_takes_over_from_shards(images, run_batch, tmp_path):
    out = tmp_path / "out"
    for number in (1, 2):
        run_batch(images, out, shard=Shard(number, 2))
    (images / "p0" / "torn.png").write_bytes((images / "p0" / "frame0.png").read_bytes())
    assert run_batch(images, out).frames == 1
    assert not list(out.glob("manifest.*-of-*"))
    assert {line["status"] for line in lines(out).values()} == {"done", "empty", "skipped"}
    assert run_batch(images, out, shard=Shard(1, 2)).frames == 0


def test_shards_redo_one_after_the_other(images, run_batch, tmp_path):
    out = tmp_path / "out"
    for number in (1, 2):
        run_batch(images, out, shard=Shard(number, 2))
    old = {line["key"] for line in lines(out).values() if line["key"]}
    for number in (1, 2):
        run_batch(images, out, shard=Shard(number, 2), threshold=0.7, redo=True)
    assert not old & {line["key"] for line in lines(out).values()}
    assert len(lines(out)) == 7
    record = json.loads((out / "run.json").read_text())
    assert record["task"]["threshold"] == 0.7
    assert len(record["runs"]) == 4


def test_each_shard_takes_a_part_and_none_is_taken_twice(images, run_batch, tmp_path):
    for number in (1, 2):
        run_batch(images, tmp_path / f"{number}", shard=Shard(number, 2))
    first, second = lines(tmp_path / "1"), lines(tmp_path / "2")
    assert first
    assert second
    assert not first.keys() & second.keys()
    assert len(first) + len(second) == 7


def test_folders_of_shards_are_merged_into_one(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "whole")
    for number in (1, 2):
        run_batch(images, tmp_path / f"{number}", shard=Shard(number, 2))
    assert merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all") == 7
    assert lines(tmp_path / "all") == lines(tmp_path / "whole")
    assert masks(tmp_path / "all") == masks(tmp_path / "whole")
    for name in ("summary.csv", "private/sources.csv"):
        assert (tmp_path / "all" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert (tmp_path / "all" / "report.html").is_file()


def test_shards_of_other_settings_are_not_merged(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "1", shard=Shard(1, 2))
    run_batch(images, tmp_path / "2", shard=Shard(2, 2), threshold=0.7)
    with pytest.raises(LockedError, match="different settings"):
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")


def test_a_folder_without_results_is_not_merged(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError, match=r"no run\.json"):
        merge([tmp_path / "empty"], tmp_path / "all")


def test_shards_may_share_a_folder_at_a_time_and_a_whole_run_may_not(tmp_path):
    with FolderLock(tmp_path, suffix=".1-of-2"):
        with FolderLock(tmp_path, suffix=".2-of-2"):
            pass
        with pytest.raises(LockedError, match="another run"), FolderLock(tmp_path):
            pass
        with (
            pytest.raises(LockedError, match="another run"),
            FolderLock(tmp_path, suffix=".1-of-2"),
        ):
            pass


def test_a_folder_of_a_running_shard_is_not_merged(images, run_batch, tmp_path):
    run_batch(images, tmp_path / "1", shard=Shard(1, 2))
    with (
        FolderLock(tmp_path / "1", suffix=".1-of-2"),
        pytest.raises(LockedError, match="another run"),
    ):
        merge([tmp_path / "1"], tmp_path / "all")
    assert merge([tmp_path / "1", tmp_path / "1"], tmp_path / "all") > 0


def test_shards_that_look_at_once_wait_for_one_another(tmp_path, monkeypatch):
    held = threading.Event()

    def look():
        with FolderLock(tmp_path):
            held.set()
            while not (tmp_path / ".lock.1-of-2").exists():
                pass

    monkeypatch.setattr(folder, "LOOK_S", 60.0)
    other = threading.Thread(target=look)
    other.start()
    held.wait()
    with FolderLock(tmp_path, suffix=".1-of-2"):
        other.join()


def test_a_lock_goes_with_its_process(tmp_path):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from sam2unet_core.batch.folder import FolderLock\n"
        "with FolderLock(Path(sys.argv[1])): os._exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 7
    assert (tmp_path / ".lock").exists()
    with FolderLock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["3/2", "0/2", "a/b", "1"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="--shard"):
        Shard.parse(text)
