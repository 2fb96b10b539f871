"""Frames that are computed at once, each on cores of its own, come out as one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sam2unet_core.errors import is_out_of_memory
from sam2unet_core.inference.engine import Engine, FrameFailure, FrameResult
from sam2unet_core.inference.runtimes.onnx_runtime import OnnxRuntime
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.types import Frame
from tests.batch.conftest import images, picture, run_batch, segmenter

__all__ = ["images", "run_batch", "segmenter"]  # fixtures


@dataclass(frozen=True)
class Mark:
    """What parts the frames of a stream into units."""

    name: str


def decoded(sides: list[list[int]]) -> Iterator[Frame | Mark]:
    """Begin, frames with a square of each side, end: for each list a unit."""
    for unit in sides:
        yield Mark("begin")
        for index, side in enumerate(unit):
            yield Frame(picture(side), index, 0, index + 1)
        yield Mark("end")


def told(engine: Engine, stream: Iterator[Frame | Mark]) -> list[object]:
    """Name what an engine makes of a stream: marks, areas of results, and failures."""
    names: list[object] = []
    with engine:
        for found in engine.through(stream):
            if isinstance(found, FrameResult):
                assert found.frame.pixels[10, 22, 0] == (250 if found.labels.any() else 20)
                assert found.seconds > 0
                names.append(int(found.labels.sum()))
            elif isinstance(found, FrameFailure):
                names.append("no memory" if is_out_of_memory(found.error) else "failed")
            else:
                names.append(found.name)
    return names


def areas(images: Tensor) -> list[int]:
    """Bright pixels of each image; images are of the frames' own size here."""
    return [int((image[0] > 1.3).sum()) for image in images]


@pytest.fixture
def answer(segmenter: Segmenter):
    """What the network answers."""
    return segmenter.runtime.logits


@pytest.fixture
def computed(segmenter: Segmenter, answer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Areas of the squares of all frames that were computed."""
    seen: list[int] = []

    def counted(images: Tensor) -> Tensor:
        seen.extend(areas(images))
        time.sleep(0.005)
        return answer(images)

    monkeypatch.setattr(segmenter.runtime, "logits", counted)
    return seen


def test_results_come_in_order_and_two_are_computed_at_once(
    segmenter: Segmenter, answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame waits for another that is being computed: one after the other would not end."""
    meeting = threading.Barrier(2, timeout=300)

    def meet(images: Tensor) -> Tensor:
        meeting.wait()
        return answer(images)

    monkeypatch.setattr(segmenter.runtime, "logits", meet)
    sides = [[5, 6, 7], [8], [], [9, 0, 10, 11]]
    network = Engine(segmenter.model, at_once=2)
    assert told(network, decoded(sides)) == [
        *("begin", 25, 36, 49, "end"),
        *("begin", 64, "end"),
        *("begin", "end"),
        *("begin", 81, 0, 100, 121, "end"),
    ]


def test_a_frame_that_fails_fails_its_unit_alone(
    segmenter: Segmenter, answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: Tensor) -> Tensor:
        if 36 in areas(images):
            raise ValueError("no")
        return answer(images)

    monkeypatch.setattr(segmenter.runtime, "logits", fail)
    found = told(Engine(segmenter.model, at_once=3), decoded([[5, 6, 7, 8], [9, 10]]))
    assert found == ["begin", 25, "failed", "end", "begin", 81, 100, "end"]


def test_a_frame_for_which_memory_ran_out_is_tried_once_more(
    segmenter: Segmenter, answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def limited(images: Tensor) -> Tensor:
        area = areas(images)[0]
        tries.append(area)
        if area == 49 or (area == 36 and tries.count(36) == 1):
            raise MemoryError
        return answer(images)

    monkeypatch.setattr(segmenter.runtime, "logits", limited)
    found = told(Engine(segmenter.model, at_once=2), decoded([[6, 5], [7], [8]]))
    assert found == ["begin", 36, 25, "end", "begin", "no memory", "end", "begin", 64, "end"]
    assert (tries.count(36), tries.count(49), tries.count(64)) == (2, 2, 1)


def test_threads_are_shared_out_and_given_back(
    segmenter: Segmenter, answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(4)
    try:
        monkeypatch.setattr(
            segmenter.runtime,
            "logits",
            lambda images: (seen.append(torch.get_num_threads()), answer(images))[1],
        )
        told(Engine(segmenter.model, at_once=2), decoded([[5, 6, 7, 8]]))
        assert seen == [2, 2, 2, 2]
        seen.clear()
        meeting = threading.Barrier(3, timeout=300)  # all have their share before one computes
        monkeypatch.setattr(
            segmenter.runtime,
            "logits",
            lambda images: (meeting.wait(), seen.append(torch.get_num_threads()), answer(images))[
                2
            ],
        )
        told(Engine(segmenter.model, at_once=3), decoded([[5] * 3]))
        assert sorted(seen) == [1, 1, 2]  # of four cores none is idle
        in_a_new_thread: list[int] = []
        thread = threading.Thread(target=lambda: in_a_new_thread.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), in_a_new_thread) == (4, [4])
    finally:
        torch.set_num_threads(before)


def test_a_run_that_is_left_computes_no_more(segmenter: Segmenter, computed: list[int]) -> None:
    with Engine(segmenter.model, at_once=2) as engine:
        found = engine.through(decoded([[5] * 2000]))
        assert next(found) == Mark("begin")
        next(found)
        found.close()
    assert len(computed) < 20  # as far as the stream is read ahead
    assert not any(thread.name.startswith("network") for thread in threading.enumerate())


def test_of_a_unit_that_failed_only_what_is_being_computed_is_finished(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    unit_ended = threading.Event()

    def fail(images: Tensor) -> Tensor:
        tries.extend(areas(images))
        if 16 not in areas(images):  # the first frame's failure ends the unit, whoever starts first
            assert unit_ended.wait(300)
        raise ValueError("no")

    monkeypatch.setattr(segmenter.runtime, "logits", fail)
    kinds = []
    with Engine(segmenter.model, at_once=2) as engine:
        for found in engine.through(decoded([[4] + [5] * 299, [6]])):
            kinds.append(type(found))
            if found == Mark("end"):
                unit_ended.set()
    assert kinds == [Mark, FrameFailure, Mark] * 2
    assert len(tries) <= 4  # the first, one in each thread, and the one of the second unit


def test_inputs_without_frames_are_told_while_others_are_looked_for(segmenter: Segmenter) -> None:
    """The source waits until the first was told: held back, it would not end."""
    told_first = threading.Event()

    def source() -> Iterator[Frame | Mark]:
        yield Mark("passed")
        assert told_first.wait(300)
        yield from decoded([[5]])

    with Engine(segmenter.model, at_once=2) as engine:
        found = engine.through(source())
        assert next(found) == Mark("passed")
        told_first.set()
        assert [type(each) for each in found] == [Mark, FrameResult, Mark]


def test_what_came_before_an_error_of_the_source_is_not_lost(segmenter: Segmenter) -> None:
    def source() -> Iterator[Frame | Mark]:
        yield from decoded([[5], [6]])
        raise OSError("the share went away")

    found: list[object] = []
    with (
        Engine(segmenter.model, at_once=2) as engine,
        pytest.raises(OSError, match="went away"),
    ):
        found.extend(engine.through(source()))  # `extend` keeps what it got before the error
    assert [type(each) for each in found] == [Mark, FrameResult, Mark] * 2


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory")],
)
def test_memory_for_one_frame_is_enough(
    segmenter: Segmenter, answer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Two at a time fail; from the first failure on they come one by one."""
    one, most = threading.Lock(), []

    def limited(images: Tensor) -> Tensor:
        if not one.acquire(blocking=False):
            most.append(1)
            raise error
        try:
            time.sleep(0.01)
            return answer(images)
        finally:
            one.release()

    monkeypatch.setattr(segmenter.runtime, "logits", limited)
    found = told(Engine(segmenter.model, at_once=3), decoded([[5]] * 20))
    assert most
    assert found == ["begin", 25, "end"] * 20


def test_how_many_go_at_once(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(batch_size: int) -> int:
        with Engine.for_throughput(segmenter.model, batch_size=batch_size) as engine:
            return engine.at_once

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert [at_once(batch_size) for batch_size in (1, 2, 4)] == [1, 2, 3]
    assert not OnnxRuntime.shares_cores
    monkeypatch.setattr(segmenter.runtime, "shares_cores", False)
    assert at_once(4) == 1


def test_files_are_those_of_one_frame_at_a_time(
    images: Path, run_batch, tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for name, shares_cores in (("one", False), ("three", True)):
        monkeypatch.setattr(segmenter.runtime, "shares_cores", shares_cores)
        run_batch(images, tmp_path / name)
    one, three = (
        {
            p.relative_to(tmp_path / name): p.read_bytes()
            for p in (tmp_path / name).rglob("*.mask.png")
        }
        for name in ("one", "three")
    )
    assert len(one) == 5
    assert one == three
