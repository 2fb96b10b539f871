"""Frames that are computed at once, each on cores of its own, come out as one after the other."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2unet_core.batch import stages
from sam2unet_core.batch.network import Network, frames_at_once
from sam2unet_core.batch.stages import Begin, End, Passed
from sam2unet_core.pipeline import FrameResult, in_background
from sam2unet_core.runtimes.onnx_runtime import OnnxRuntime
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.types import Frame
from tests.batch.conftest import picture


class _Unit:
    """What a stage asks of a unit whose frames fail."""

    class series:  # noqa: N801 - an attribute
        instances = ()


def decoded(sides: list[list[int]]) -> Iterator[stages.Decoded]:
    """Begin, frames with a square of each side, end: for each list a unit."""
    for unit in sides:
        yield Begin(_Unit(), "key")
        for index, side in enumerate(unit):
            yield Frame(picture(side), index, 0, index + 1)
        yield End(decode_s=0.5)


def told(network: Network, events: Iterator[stages.Decoded], *, ahead: int = 9) -> list[object]:
    """Name what a network makes of events: areas of results, and the problem of an end."""
    names: list[object] = []
    with network, in_background(network.begin(events), limit=ahead) as begun:
        for event in network.events(begun):
            if isinstance(event, FrameResult):
                assert event.frame.pixels[10, 22, 0] == (250 if event.labels.any() else 20)
                names.append(int(event.labels.sum()))
            elif isinstance(event, End):
                assert event.decode_s == 0.5
                names.append(event.problem.reason if event.problem else "end")
            else:
                names.append("begin" if isinstance(event, Begin) else "passed")
    return names


@pytest.fixture
def computed(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Areas of the squares of all frames that were computed."""
    areas: list[int] = []
    answer = segmenter.runtime.probabilities

    def counted(frames: np.ndarray) -> np.ndarray:
        areas.append(int((frames[..., 0] > 200).sum()))
        time.sleep(0.005)
        return answer(frames)

    monkeypatch.setattr(segmenter.runtime, "probabilities", counted)
    return areas


def test_results_come_in_order_and_two_are_computed_at_once(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame waits for another that is being computed: one after the other would not end."""
    meeting = threading.Barrier(2, timeout=300)
    answer = segmenter.probabilities

    def meet(frames: np.ndarray) -> np.ndarray:
        meeting.wait()
        return answer(frames)

    monkeypatch.setattr(segmenter, "probabilities", meet)
    sides = [[5, 6, 7], [8], [], [9, 0, 10, 11]]
    network = Network(segmenter, at_once=2)
    assert told(network, decoded(sides)) == [
        *("begin", 25, 36, 49, "end"),
        *("begin", 64, "end"),
        *("begin", "end"),
        *("begin", 81, 0, 100, 121, "end"),
    ]


def test_a_frame_that_fails_fails_its_unit_alone(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = segmenter.probabilities

    def fail(frames: np.ndarray) -> np.ndarray:
        if (frames[..., 0] > 200).sum() == 36:
            raise ValueError("no")
        return answer(frames)

    monkeypatch.setattr(segmenter, "probabilities", fail)
    found = told(Network(segmenter, at_once=3), decoded([[5, 6, 7, 8], [9, 10]]))
    assert found == ["begin", 25, "internal", "begin", 81, 100, "end"]


def test_a_frame_for_which_memory_ran_out_is_tried_once_more(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = segmenter.runtime
    answer, tries = runtime.probabilities, []

    def limited(frames: np.ndarray) -> np.ndarray:
        area = int((frames[..., 0] > 200).sum())
        tries.append(area)
        if area == 49 or (area == 36 and tries.count(36) == 1):
            raise MemoryError
        return answer(frames)

    monkeypatch.setattr(runtime, "probabilities", limited)
    found = told(Network(segmenter, at_once=2), decoded([[6, 5], [7], [8]]))
    assert found == ["begin", 36, 25, "end", "begin", "out_of_memory", "begin", 64, "end"]
    assert (tries.count(36), tries.count(49), tries.count(64)) == (2, 2, 1)


def test_threads_are_shared_out_and_given_back(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(4)
    try:
        answer = segmenter.probabilities
        monkeypatch.setattr(
            segmenter,
            "probabilities",
            lambda frames: (seen.append(torch.get_num_threads()), answer(frames))[1],
        )
        told(Network(segmenter, at_once=2), decoded([[5, 6, 7, 8]]))
        assert seen == [2, 2, 2, 2]
        seen.clear()
        meeting = threading.Barrier(3, timeout=300)  # all have their share before one computes
        monkeypatch.setattr(
            segmenter,
            "probabilities",
            lambda frames: (meeting.wait(), seen.append(torch.get_num_threads()), answer(frames))[
                2
            ],
        )
        told(Network(segmenter, at_once=3), decoded([[5] * 3]))
        assert sorted(seen) == [1, 1, 2]  # of four cores none is idle
        in_a_new_thread: list[int] = []
        thread = threading.Thread(target=lambda: in_a_new_thread.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), in_a_new_thread) == (4, [4])
    finally:
        torch.set_num_threads(before)


def test_a_run_that_is_left_computes_no_more(segmenter: Segmenter, computed: list[int]) -> None:
    network = Network(segmenter, at_once=2)
    with network, in_background(network.begin(decoded([[5] * 2000])), limit=3000) as begun:
        events = network.events(begun)
        assert isinstance(next(events), Begin)
        next(events)
    assert len(computed) < 1000
    assert not any(thread.name.startswith("network") for thread in threading.enumerate())


def test_of_a_unit_that_failed_little_more_is_computed(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def fail(frames: np.ndarray) -> np.ndarray:
        tries.append(len(frames))
        time.sleep(0.01)
        raise ValueError("no")

    monkeypatch.setattr(segmenter.runtime, "probabilities", fail)
    events = decoded([[5] * 1000, [6]])
    assert told(Network(segmenter, at_once=2), events) == ["begin", "internal"] * 2
    assert len(tries) < 500


def test_inputs_without_frames_are_told_while_others_are_looked_for(segmenter: Segmenter) -> None:
    """The source waits until the first was told: held back, it would not end."""
    told_first = threading.Event()

    def source() -> Iterator[stages.Decoded]:
        yield Passed(())
        assert told_first.wait(300)
        yield from decoded([[5]])

    network = Network(segmenter, at_once=2)
    with network, in_background(network.begin(source()), limit=9) as begun:
        events = network.events(begun)
        assert isinstance(next(events), Passed)
        told_first.set()
        assert [type(event) for event in events] == [Begin, FrameResult, End]


def test_what_came_before_an_error_of_the_source_is_not_lost(segmenter: Segmenter) -> None:
    def source() -> Iterator[stages.Decoded]:
        yield from decoded([[5], [6]])
        raise OSError("the share went away")

    found: list[object] = []
    network = Network(segmenter, at_once=2)
    with (
        network,
        in_background(network.begin(source()), limit=20) as begun,
        pytest.raises(OSError, match="went away"),
    ):
        found.extend(network.events(begun))
    # `extend` keeps what it got before the error
    assert [type(event) for event in found] == [Begin, FrameResult, End] * 2


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory")],
)
def test_memory_for_one_frame_is_enough(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Two at a time fail; from the first failure on they come one by one."""
    one, most = threading.Lock(), []
    answer = segmenter.runtime.probabilities

    def limited(frames: np.ndarray) -> np.ndarray:
        if not one.acquire(blocking=False):
            most.append(1)
            raise error
        try:
            time.sleep(0.01)
            return answer(frames)
        finally:
            one.release()

    monkeypatch.setattr(segmenter.runtime, "probabilities", limited)
    found = told(Network(segmenter, at_once=3), decoded([[5]] * 20))
    assert most
    assert found == ["begin", 25, "end"] * 20


def test_how_many_go_at_once(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert [frames_at_once(segmenter.runtime, batch) for batch in (1, 2, 4)] == [1, 2, 3]
    onnx = OnnxRuntime(segmenter.runtime.network, segmenter.task)
    assert (onnx.device.type, frames_at_once(onnx, 4)) == ("cpu", 1)
    monkeypatch.setattr(segmenter.runtime, "device", torch.device("cuda"))
    assert frames_at_once(segmenter.runtime, 4) == 1


def test_files_are_those_of_one_frame_at_a_time(
    images: Path, run_batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, at_once in (("one", 1), ("three", 3)):
        module = sys.modules["sam2unet_core.batch.run"]  # the package calls a function so
        monkeypatch.setattr(module, "frames_at_once", lambda *_, n=at_once: n)
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
