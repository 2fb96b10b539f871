"""What a worker answers to lines that no client of good will sends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GREETING = {"v": 1, "op": "hello"}
BEYOND_THE_SCHEMA = (
    {"device": "cuda:99"},
    {"task": "no_such_task"},
    {"input": {"path": "x", "frames": [2, 1]}},
)
"""Wrong fields that only the worker can know to be wrong."""


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"not json\n", "bad_request"),
        (b'{"v": 1, "id": 5, "op"\n', "bad_request"),
        (b"[]\n", "bad_request"),
        (b'{"op": "\xff"}\n', "bad_request"),
        (b"[" * 100_000 + b"\n", "bad_request"),
        (b'{"v": 1, "id": NaN, "op": "hello"}\n', "bad_request"),
        (b'{"x": "' + b"x" * 2**20 + b'"}\n', "too_large"),
        (b"x" * (5 * 2**20) + b"\n", "too_large"),
    ],
)
def test_a_line_that_is_no_request_fails_without_a_number_and_work_goes_on(
    worker: Any, line: bytes, kind: str
) -> None:
    worker.write(line)
    event, before = worker.until_end_of(None)
    assert (event["event"], event["kind"], before) == ("failed", kind, [])
    assert event["message"]
    assert event["remedy"]
    assert worker.ask("hello")["event"] == "finished"


def test_empty_lines_are_passed_over(worker: Any) -> None:
    worker.write(b"\n  \n\r\n")
    assert worker.ask("hello")["event"] == "finished"


@pytest.mark.parametrize("number", [None, True, -1, 2**53, 1.0, "7", [1]])
def test_a_request_without_a_usable_number_fails_without_one(worker: Any, number: Any) -> None:
    worker.write(json.dumps({**GREETING, "id": number}).encode() + b"\n")
    event, _ = worker.until_end_of(None)
    assert event["kind"] == "bad_request"
    assert "id" in event["message"]


@pytest.mark.parametrize("change", [{"v": 2}, {"v": True}, {"v": None}, {"op": "eval"}, {"op": []}])
def test_other_versions_and_operations_fail_under_their_number(
    worker: Any, change: dict[str, Any]
) -> None:
    worker.write(json.dumps({**GREETING, "id": 900, **change}).encode() + b"\n")
    event, _ = worker.until_end_of(900)
    assert event["kind"] == "bad_request"


@pytest.mark.parametrize(
    ("operation", "fields", "match"),
    [
        ("hello", {"extra": 1}, "extra"),
        ("load", {"weight": "x"}, "weight"),
        ("load", {"device": 3}, "device"),
        ("load", {"device": "cuda:99"}, "device"),
        ("load", {"device": "toaster"}, "device"),
        ("load", {"runtime": "quick"}, "runtime"),
        ("load", {"task": "no_such_task"}, "no task is called"),
        ("segment", {}, "input"),
        ("segment", {"input": []}, "input"),
        ("segment", {"input": {}}, "array is given as"),
        ("segment", {"input": {"path": "x"}, "threshold": 1.5}, "threshold"),
        ("segment", {"input": {"path": "x"}, "threshold": True}, "threshold"),
        ("segment", {"input": {"path": "x"}, "smoothing_px": 1e9}, "smoothing_px"),
        ("segment", {"input": {"path": "x"}, "min_area_px": 1.5}, "min_area_px"),
        ("segment", {"input": {"path": "x"}, "plane": "oblique"}, "plane"),
        ("segment", {"input": {"path": "x", "frames": [2, 1]}}, "ascending"),
        ("segment", {"input": {"path": "x", "frames": [0.5]}}, "ascending"),
        ("rethreshold", {}, "result"),
        ("read_frames", {"path": 5}, "path"),
        ("read_frames", {"path": "x\0y"}, "path"),
        ("cancel", {"id_to_cancel": "x"}, "id_to_cancel"),
    ],
)
def test_wrong_fields_are_named(
    worker: Any, request_fits: Any, operation: str, fields: dict[str, Any], match: str
) -> None:
    event = worker.ask(operation, **fields)
    assert (event["event"], event["kind"]) == ("failed", "bad_request")
    assert match in event["message"]
    request = {"v": 1, "id": 1, "op": operation, **fields}
    assert request_fits(request) == (fields in BEYOND_THE_SCHEMA)


@pytest.mark.parametrize(
    ("shape", "dtype", "channels", "extra"),
    [
        ((1, 8, 8), "|u1", "rgb", {}),
        ((1, 8, 8, 4), "|u1", "rgb", {}),
        ((1, 8, 8, 3), "<u2", "rgb", {}),
        ((8, 8), "|u1", "grey", {}),
        ((0, 8, 8), "|u1", "grey", {}),
        ((1, 8, 8), "|b1", "grey", {}),
        ((1, 8, 8), "|u1", "cmyk", {}),
        ((1, 8, 8), "|u1", "grey", {"window": {"center": 1, "width": 0}}),
        ((1, 8, 8), "|u1", "grey", {"window": {"center": 1}}),
        ((1, 8, 8, 3), "|u1", "rgb", {"window": {"center": 1, "width": 2}}),
    ],
)
def test_arrays_that_are_no_frames_are_refused(
    worker: Any, shape: tuple[int, ...], dtype: str, channels: str, extra: dict[str, Any]
) -> None:
    given = {"array": worker.give(np.zeros(shape, dtype)), "channels": channels, **extra}
    event = worker.ask("segment", input=given)
    assert (event["event"], event["kind"]) == ("failed", "bad_request"), event


def test_an_array_file_that_is_shorter_than_said_is_refused(worker: Any) -> None:
    reference = worker.give(np.zeros((1, 8, 8), np.uint8))
    given = {"array": {**reference, "shape": [2, 8, 8]}, "channels": "grey"}
    event = worker.ask("segment", input=given)
    assert (event["kind"], "64 bytes" in event["message"]) == ("bad_request", True)


@pytest.mark.parametrize("operation", ["inspect", "read_frames", "segment", "write_seg", "load"])
def test_no_path_leads_out_of_the_allowed_folders(
    worker: Any, root: Path, tmp_path: Path, operation: str
) -> None:
    secret = tmp_path / "Muster^Erika.png"
    secret.write_bytes(b"x")
    paths = [str(secret), f"{root}/../{tmp_path.name}", "/etc/passwd", "relative.png", "/nowhere"]
    if sys.platform != "win32":
        link, folder = root / f"link_{operation}", root / f"folder_{operation}"
        link.symlink_to(secret)
        folder.symlink_to(tmp_path)
        paths += [str(link), str(folder / secret.name), str(folder)]
    masks = worker.give(np.zeros((1, 1, 8, 8), np.uint8))
    for path in paths:
        fields: dict[str, Any] = {"path": path}
        if operation == "segment":
            fields = {"input": {"path": path}}
        elif operation == "write_seg":
            fields = {"source": path, "masks": masks, "output": "seg.dcm"}
        elif operation == "load":
            fields = {"weights": path}
        event = worker.ask(operation, **fields)
        assert (event["event"], event["kind"]) == ("failed", "not_allowed"), path
        assert "Erika" not in json.dumps(event)
    for name in (f"link_{operation}", f"folder_{operation}"):
        (root / name).unlink(missing_ok=True)


@pytest.mark.skipif(sys.platform == "win32", reason="needs Linux or macOS: links")
def test_a_folder_with_a_link_out_of_the_allowed_folders_is_refused(
    worker: Any, root: Path, tmp_path: Path
) -> None:
    study = root / "linked"
    (study / "deep").mkdir(parents=True)
    (tmp_path / "outside.dcm").write_bytes(b"x")
    (study / "deep" / "one.dcm").symlink_to(tmp_path / "outside.dcm")
    event = worker.ask("inspect", path=str(study))
    assert event["kind"] == "not_allowed"
    (study / "deep" / "one.dcm").unlink()
    assert worker.ask("inspect", path=str(study))["event"] == "finished"


def test_what_is_not_there_is_not_found(worker: Any, root: Path) -> None:
    event = worker.ask("inspect", path=str(root / "Muster^Erika"))
    assert event["kind"] == "not_found"
    assert "Erika" not in json.dumps(event)


def test_broken_files_are_told_without_their_names(worker: Any, root: Path) -> None:
    broken = root / "Muster^Erika.safetensors"
    broken.write_bytes(b"\x00" * 64)
    event = worker.ask("load", weights=str(broken))
    assert (event["event"], event["kind"]) == ("failed", "bad_weights")
    assert "Erika" not in json.dumps(event)
    assert str(root) not in json.dumps(event)


def test_a_task_without_weights_says_what_to_do(worker: Any) -> None:
    event = worker.ask("load", task="skin_lesion")
    assert (event["event"], event["kind"]) == ("failed", "missing_weights")
    assert "fetch" in event["remedy"]


def test_a_result_that_was_never_made_is_none(worker: Any) -> None:
    assert worker.ask("rethreshold", result="r999", threshold=0.5)["kind"] == "no_such_result"


def test_greeting_names_the_tasks_and_needs_no_torch(start: Any) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; "  # an import of it would fail
        "from sam2unet_core.cli.main import main; sys.argv[1:1] = ['worker']; main()"
    )
    client = start(command=[sys.executable, "-c", code])
    result = client.result("hello")
    assert result["protocol"] == 1
    assert result["pid"] == client.process.pid
    assert result["tasks"][0]["name"] == "polyp"
    assert result["tasks"][0]["has_weights"] is True
    assert result["tasks"][0]["task"]["classes"][0]["label"] == "Polyp"
    assert {each["name"]: each["has_weights"] for each in result["tasks"]}["mirror"] is False


def test_what_libraries_print_never_reaches_the_protocol(start: Any, weights: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from sam2unet_core.worker import operations, serve
do = operations.Operations.do
def noisy(*arguments):
    print("noise from Python")
    os.write(1, b"noise from C\\n")
    os.system("echo noise from a child")
    print(repr(sys.stdin.readline()), "was read")
    return do(*arguments)
operations.Operations.do = noisy
serve(exchange=Path(sys.argv[2]), allow_roots=[Path({str(weights.parent)!r})])
"""
    client = start(command=[sys.executable, "-c", code])
    client.result("load", weights=str(weights), device="cpu")
    client.result("shutdown")
    client.process.wait()
    client.close()
    assert len(client.lines) == 2
    assert [sorted(json.loads(line)) for line in client.lines] == [
        ["event", "id", "result", "v"]
    ] * 2
    for words in (b"from Python", b"from C", b"from a child", b"'' was read"):
        assert words in client.noise
