"""Frames that are computed at once, each on cores of its own, come out as one after the other."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2unet_core.batch import stages
from sam2unet_core.batch.stages import Begin, End, Network, frames_at_once
from sam2unet_core.pipeline import BatchSize, FrameResult
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


def told(events: Iterator[stages.Segmented]) -> list[object]:
    """Name the events: areas of results, and the problem of an end."""
    names: list[object] = []
    for event in events:
        if isinstance(event, FrameResult):
            assert event.frame.pixels[10, 22, 0] == (250 if event.labels.any() else 20)
            names.append(int(event.labels.sum()))
        elif isinstance(event, End):
            assert event.decode_s == 0.5
            names.append(event.problem.reason if event.problem else "end")
        else:
            names.append("begin")
    return names


def test_results_come_in_order_and_two_are_computed_at_once(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame waits for another that is being computed: one after the other would not end."""
    meeting = threading.Barrier(2, timeout=20)
    answer = segmenter.probabilities

    def meet(frames: np.ndarray) -> np.ndarray:
        meeting.wait()
        return answer(frames)

    monkeypatch.setattr(segmenter, "probabilities", meet)
    sides = [[5, 6, 7], [8], [], [9, 0, 10, 11]]
    network = Network(segmenter, at_once=2)
    assert told(network.events(decoded(sides))) == [
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
    found = told(Network(segmenter, at_once=3).events(decoded([[5, 6, 7, 8], [9, 10]])))
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
    found = told(Network(segmenter, BatchSize(4), at_once=2).events(decoded([[6, 5], [7], [8]])))
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
        told(Network(segmenter, at_once=2).events(decoded([[5, 6, 7, 8]])))
        assert seen == [2, 2, 2, 2]
        in_a_new_thread: list[int] = []
        thread = threading.Thread(target=lambda: in_a_new_thread.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), in_a_new_thread) == (4, [4])
    finally:
        torch.set_num_threads(before)


def test_a_run_that_is_left_computes_no_more(segmenter: Segmenter) -> None:
    events = Network(segmenter, at_once=2).events(decoded([[5] * 50]))
    assert isinstance(next(events), Begin)
    next(events)
    events.close()
    assert not any(thread.name.startswith("network") for thread in threading.enumerate())


def test_how_many_go_at_once(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert [frames_at_once(segmenter.runtime, batch) for batch in (1, 2, 4)] == [1, 2, 3]
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
