"""A worker that is cancelled, asked for too much, killed or left alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2unet_core import protocol

PATIENCE_S = 300
LONG = np.zeros((2000, 64, 64), np.uint8)
"""So many frames that no cancel comes too late."""
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS: signals")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: prlimit")


@pytest.fixture
def loaded(start: Any, weights: Path) -> Any:
    """A worker of one's own with the small network."""
    client = start("--allow-root", str(weights.parent))
    client.result("load", weights=str(weights), device="cpu")
    return client


def segment_long(client: Any) -> int:
    return client.send("segment", input={"array": client.give(LONG), "channels": "grey"})


def wait_for(client: Any, identifier: int, kind: str, count: int = 1) -> None:
    """Pass over events until so many of that kind came."""
    while count:
        event = client.next()
        assert event is not None
        count -= event["id"] == identifier and event["event"] == kind


@pytest.mark.parametrize("moment", [0, 1, 2, 5, 17])
def test_a_request_is_cancelled_at_any_moment(worker: Any, moment: int) -> None:
    running = segment_long(worker)
    wait_for(worker, running, "progress", moment)
    asked = worker.send("cancel", id_to_cancel=running)
    ends: dict[int, dict[str, Any]] = {}
    while len(ends) < 2:
        event = worker.next()
        if event["event"] in ("finished", "failed", "cancelled"):
            assert event["id"] not in ends, "two ends of one request"
            ends[event["id"]] = event
    assert ends[asked]["result"] == {"cancelled": True}
    assert ends[running] == {"v": 1, "id": running, "event": "cancelled"}
    before = set(worker.files())
    assert worker.segment(LONG[:2])["frames"] == 2
    assert len(before) < 40, "files of the cancelled request are left"


def test_a_cancelled_load_or_an_unknown_one_does_no_harm(worker: Any, weights: Path) -> None:
    loading = worker.send("load", weights=str(weights), device="cpu")
    asked = worker.send("cancel", id_to_cancel=loading)
    ends = {}
    while len(ends) < 2:
        event = worker.next()
        ends[event["id"]] = event
    cancelled = ends[asked]["result"]["cancelled"]
    assert ends[loading]["event"] == ("cancelled" if cancelled else "finished")
    assert worker.result("cancel", id_to_cancel=loading) == {"cancelled": False}
    assert worker.result("cancel", id_to_cancel=10**9) == {"cancelled": False}


def test_a_cancel_without_a_number_stops_what_runs(worker: Any) -> None:
    running = segment_long(worker)
    wait_for(worker, running, "progress", 1)
    asked = worker.send("cancel")
    ends: dict[int, dict[str, Any]] = {}
    while len(ends) < 2:
        event = worker.next()
        if event["event"] in ("finished", "failed", "cancelled"):
            ends[event["id"]] = event
    assert ends[asked]["result"] == {"cancelled": True}
    assert ends[running]["event"] == "cancelled"
    assert worker.result("cancel") == {"cancelled": False}


def test_a_cancel_under_the_requests_own_number_has_one_answer(worker: Any) -> None:
    running = segment_long(worker)
    wait_for(worker, running, "progress", 1)
    worker.write(protocol.encode(protocol.request(running, "cancel")))
    after = worker.send("hello")
    ends = []
    while after not in [end["id"] for end in ends] or running not in [end["id"] for end in ends]:
        event = worker.next()
        if event["event"] in ("finished", "failed", "cancelled"):
            ends.append(event)
    assert [end["event"] for end in ends if end["id"] == running] == ["cancelled"]


def test_a_cancel_stops_within_a_frame(start: Any, weights: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
import torch
from sam2unet_core.network import SAM2UNet
from sam2unet_core.worker import serve
def slow(self, image):  # a network of so many layers that its first frame never ends
    layer = torch.nn.Identity()
    while True:
        time.sleep(0.05)
        layer(image)
SAM2UNet.forward = slow
serve(exchange=Path(sys.argv[2]), allow_roots=[Path({str(weights.parent)!r})])
"""
    client = start(command=[sys.executable, "-c", code])
    client.result("load", weights=str(weights), device="cpu")
    running = segment_long(client)
    client.result("hello")
    client.send("cancel", id_to_cancel=running)
    assert client.until_end_of(running)[0]["event"] == "cancelled"


def test_a_second_long_request_is_told_to_wait_and_short_ones_are_answered(worker: Any) -> None:
    running = segment_long(worker)
    wait_for(worker, running, "progress")
    event, between = worker.until_end_of(worker.send("rethreshold", result="r1"))
    assert (event["event"], event["kind"]) == ("failed", "busy")
    greeting, more = worker.until_end_of(worker.send("hello"))
    assert greeting["event"] == "finished"
    ended = [e for e in between + more if e["id"] == running and e["event"] == "finished"]
    assert not ended, "the long request was over too soon to show anything"
    worker.send("cancel", id_to_cancel=running)
    assert worker.until_end_of(running)[0]["event"] == "cancelled"


def test_the_number_of_a_running_request_is_not_taken_twice(worker: Any) -> None:
    running = segment_long(worker)
    wait_for(worker, running, "progress")
    line = {"v": 1, "id": running, "op": "hello"}
    worker.write(json.dumps(line).encode() + b"\n")
    event, before = worker.until_end_of(None)
    assert event["kind"] == "bad_request"
    assert all(e["event"] in ("progress", "partial") for e in before)
    worker.send("cancel", id_to_cancel=running)
    assert worker.until_end_of(running)[0]["event"] == "cancelled"


def test_shutdown_ends_what_runs_and_leaves_no_file(loaded: Any) -> None:
    running = segment_long(loaded)
    wait_for(loaded, running, "progress", 2)
    ending = loaded.send("shutdown")
    cancelled, _ = loaded.until_end_of(running)
    assert cancelled["event"] == "cancelled"
    assert loaded.until_end_of(ending)[0]["event"] == "finished"
    assert loaded.process.wait(PATIENCE_S) == 0
    assert loaded.files() == []
    assert (loaded.folder / "input.raw").exists(), "the client's own file is not ours to delete"


@needs_posix
def test_a_polite_signal_ends_it_cleanly(loaded: Any) -> None:
    running = segment_long(loaded)
    wait_for(loaded, running, "progress", 2)
    loaded.process.send_signal(signal.SIGTERM)
    assert loaded.until_end_of(running)[0]["event"] == "cancelled"
    assert loaded.process.wait(PATIENCE_S) == 0
    assert loaded.files() == []


def test_the_end_of_the_stream_ends_it_while_it_works(loaded: Any) -> None:
    running = segment_long(loaded)
    wait_for(loaded, running, "progress", 2)
    loaded.process.stdin.close()
    assert loaded.process.wait(PATIENCE_S) == 0
    assert loaded.files() == []


def test_a_request_torn_by_the_end_of_the_stream_does_no_harm(start: Any) -> None:
    client = start()
    client.write(b'{"v": 1, "id": 77, "op": "sh')
    client.process.stdin.close()
    assert client.process.wait(PATIENCE_S) == 0


@needs_posix
def test_a_killed_worker_gives_no_end_and_another_takes_its_place(
    loaded: Any, start: Any, weights: Path
) -> None:
    running = segment_long(loaded)
    wait_for(loaded, running, "progress", 2)
    loaded.process.kill()
    events = list(iter(loaded.next, None))
    assert not [e for e in events if e["event"] in ("finished", "failed", "cancelled")]
    assert loaded.process.wait(PATIENCE_S) == -signal.SIGKILL
    again = start("--allow-root", str(weights.parent), folder=loaded.folder)
    again.result("load", weights=str(weights), device="cpu")
    assert again.segment(LONG[:1])["frames"] == 1


@needs_posix
def test_it_ends_with_its_parent_and_leaves_no_file(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "exchange"
    folder.mkdir()
    code = f"""
import json, subprocess, sys
import numpy as np
worker = subprocess.Popen(
    [sys.executable, "-m", "sam2unet_core.cli", "worker", "--exchange", {str(folder)!r},
     "--allow-root", {str(weights.parent)!r}],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def send(**message):
    worker.stdin.write(json.dumps({{"v": 1, **message}}).encode() + b"\\n")
    worker.stdin.flush()
np.zeros((2000, 64, 64), np.uint8).tofile({str(folder / "input.raw")!r})
send(id=1, op="load", weights={str(weights)!r}, device="cpu")
worker.stdout.readline()
array = {{"file": "input.raw", "dtype": "|u1", "shape": [2000, 64, 64], "order": "C"}}
send(id=2, op="segment", input={{"array": array, "channels": "grey"}})
worker.stdout.readline()
print("segmenting", flush=True)
worker.wait()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe) as parent:
        assert parent.stdout.readline() == b"segmenting\n"
        assert [path for path in folder.iterdir() if path.name != "input.raw"]
        parent.kill()
        parent.stderr.read()  # the worker has it too: it ends when both are gone
    assert [path.name for path in folder.iterdir()] == ["input.raw"]


@needs_posix
def test_it_ends_with_the_process_it_was_told_of_though_the_stream_stays_open(
    start: Any,
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as told:
        client = start("--parent", str(told.pid))
        client.result("hello")
        told.kill()
        told.wait()
        assert client.process.wait(PATIENCE_S) == 0


@needs_posix
def test_what_a_killed_client_left_in_the_exchange_folder_goes_with_it(tmp_path: Path) -> None:
    """The client's own arrays are pictures of patients, and it cannot remove them any more."""
    folder, other = tmp_path / "exchange", tmp_path / "shared"
    for each in (folder, other):
        each.mkdir()
        (each / "input.raw").write_bytes(b"pixels")
    (other / "notes.txt").write_text("not ours")
    code = f"""
import os, subprocess, sys
for folder in ({str(folder)!r}, {str(other)!r}):
    worker = subprocess.Popen(
        [sys.executable, "-m", "sam2unet_core.cli", "worker", "--exchange", folder,
         "--parent", str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    worker.stdin.write(b'{{"v": 1, "id": 1, "op": "hello"}}\\n')
    worker.stdin.flush()
    worker.stdout.readline()
print("ready", flush=True)
worker.wait()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe) as client:
        assert client.stdout.readline() == b"ready\n", client.stderr.read()
        client.kill()
        client.wait()
        client.stderr.read()  # the workers have it too: it ends when all are gone
    assert not folder.exists()
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


@needs_linux
def test_out_of_memory_is_a_failure_and_work_goes_on(loaded: Any) -> None:
    import resource

    loaded.segment(LONG[:1])
    status = Path(f"/proc/{loaded.process.pid}/status").read_text()
    used = next(int(line.split()[1]) for line in status.splitlines() if "VmSize" in line)
    limit = (used + 60_000) * 1024
    resource.prlimit(loaded.process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    big = np.zeros((1, 6000, 6000, 3), np.uint8)
    given = {"array": loaded.give(big), "channels": "rgb"}
    event = loaded.ask("segment", input=given)
    assert (event["event"], event["kind"]) == ("failed", "out_of_memory"), event
    assert "cpu" in event["remedy"]
    free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(loaded.process.pid, resource.RLIMIT_AS, free)
    assert loaded.segment(LONG[:1])["frames"] == 1


@needs_linux
def test_a_full_disk_is_a_failure_and_work_goes_on(loaded: Any) -> None:
    import resource

    given = {"array": loaded.give(LONG), "channels": "grey"}
    small = (100_000, resource.RLIM_INFINITY)  # a file cannot grow beyond it: EFBIG
    resource.prlimit(loaded.process.pid, resource.RLIMIT_FSIZE, small)
    event = loaded.ask("segment", input=given)
    assert (event["event"], event["kind"]) == ("failed", "disk_full"), event
    assert loaded.files() == []
    free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(loaded.process.pid, resource.RLIMIT_FSIZE, free)
    assert loaded.segment(LONG[:1])["frames"] == 1
