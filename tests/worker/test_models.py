"""Networks that stay warm, and trunks that several of them share."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from sam2unet_core.errors import MissingWeightsError
from sam2unet_core.inference.runtimes.torch_runtime import TorchRuntime
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import read_info, save_delta, save_full
from sam2unet_core.network.keys import trunk_keys
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task
from sam2unet_core.worker.fields import LoadOptions
from sam2unet_core.worker.models import Models
from sam2unet_core.worker.roots import Roots
from sam2unet_core.worker.studies import Studies


@pytest.fixture
def two_tasks(tmp_path: Path, small_task: Task) -> tuple[Path, Path, SAM2UNet]:
    """A whole network, a delta of another on the same trunk, and that other network."""
    torch.manual_seed(1)
    first = SAM2UNet("nano", train_trunk=False).eval()
    torch.manual_seed(2)
    second = SAM2UNet("nano", train_trunk=False).eval()
    shared = {key: first.state_dict()[key] for key in trunk_keys(first.state_dict())}
    second.load_state_dict(shared, strict=False)
    whole, delta = tmp_path / "whole.safetensors", tmp_path / "delta.safetensors"
    save_full(first, whole, task=small_task)
    save_delta(second, delta, task=replace(small_task, name="other"))
    return whole, delta, second


@pytest.mark.parametrize(("runtime", "tolerance"), [("exact", 1e-5), ("auto", 0.02)])
def test_a_delta_takes_the_trunk_that_is_loaded(
    two_tasks: tuple[Path, Path, SAM2UNet], runtime: str, tolerance: float
) -> None:
    whole, delta, expected = two_tasks
    models = Models(Studies(Roots([whole.parent])))
    first = models.get(LoadOptions(weights=str(whole), device="cpu", runtime=runtime))
    second = models.get(LoadOptions(weights=str(delta), device="cpu", runtime=runtime))
    one = cast("TorchRuntime", first.runtime).network
    two = cast("TorchRuntime", second.runtime).network
    assert two.encoder.trunk.patch_embed is one.encoder.trunk.patch_embed
    assert two.encoder.trunk.pos_embed is one.encoder.trunk.pos_embed
    for mine, theirs in zip(two.encoder.trunk.blocks, one.encoder.trunk.blocks, strict=True):
        assert mine.block is theirs.block
        assert mine.prompt_learn is not theirs.prompt_learn
    frame = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    wanted = Segmenter(second.task, copy.deepcopy(expected), runtime="exact")
    got = Segmenter.of(second).probabilities(frame)
    np.testing.assert_allclose(got, wanted.probabilities(frame), atol=tolerance)
    assert models.get(LoadOptions(weights=str(whole), device="cpu", runtime=runtime)) is first


def test_a_trunk_is_not_taken_for_that_of_the_file_that_replaced_it(
    two_tasks: tuple[Path, Path, SAM2UNet], small_task: Task
) -> None:
    """The model that is open has the first trunk; the delta needs that of the file there now."""
    whole, delta, second = two_tasks
    models = Models(Studies(Roots([whole.parent])))
    torch.manual_seed(3)
    save_full(SAM2UNet("nano", train_trunk=False).eval(), whole, task=small_task)
    models.get(LoadOptions(weights=str(whole), device="cpu", runtime="exact"))
    whole.unlink()
    save_full(second, whole, task=small_task)  # on the trunk of the delta
    with pytest.raises(MissingWeightsError, match="is not in the cache"):
        models.get(LoadOptions(weights=str(delta), device="cpu", runtime="exact"))


def test_runtimes_do_not_share_a_trunk(two_tasks: tuple[Path, Path, SAM2UNet]) -> None:
    whole, delta, _ = two_tasks
    models = Models(Studies(Roots([whole.parent])))
    models.get(LoadOptions(weights=str(whole), device="cpu", runtime="onnx"))
    with pytest.raises(MissingWeightsError, match="is not in the cache"):
        models.get(LoadOptions(weights=str(delta), device="cpu", runtime="exact"))


def test_types_do_not_share_a_trunk(
    two_tasks: tuple[Path, Path, SAM2UNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` takes bfloat16 for one task and float32 for the other where float16 has no units."""
    whole, delta, second = two_tasks
    monkeypatch.setattr(
        "sam2unet_core.inference.model.has_matrix_units",
        lambda dtype: dtype == torch.bfloat16,
    )
    monkeypatch.setattr(
        "sam2unet_core.inference.model.low_precision", lambda _device: torch.bfloat16
    )
    peaked = replace(read_info(delta).task, peak_threshold=0.9)
    save_delta(second, delta, task=peaked)
    models = Models(Studies(Roots([whole.parent])))
    first = models.get(LoadOptions(weights=str(whole), device="cpu", runtime="auto"))
    assert first.runtime.precision == "bfloat16"
    with pytest.raises(MissingWeightsError, match="is not in the cache"):
        models.get(LoadOptions(weights=str(delta), device="cpu", runtime="auto"))
    frame = np.zeros((1, 64, 64, 3), np.uint8)
    assert np.isfinite(Segmenter.of(first).probabilities(frame)).all()


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path, small_task: Task) -> None:
    path = tmp_path / "weights.safetensors"
    models = Models(Studies(Roots([tmp_path])))
    options = LoadOptions(weights=str(path), device="cpu")
    save_full(SAM2UNet("nano").eval(), path, task=small_task)
    first = models.get(options)
    path.unlink()
    save_full(SAM2UNet("nano").eval(), path, task=small_task)
    assert models.get(options).weights_sha256 != first.weights_sha256


def test_tasks_on_one_trunk_are_changed_without_the_trunks_file(
    start: Any, two_tasks: tuple[Path, Path, SAM2UNet]
) -> None:
    whole, delta, _ = two_tasks
    client = start("--allow-root", str(whole.parent))
    alone = client.ask("load", weights=str(delta), device="cpu")
    assert (alone["event"], alone["kind"]) == ("failed", "missing_weights")
    frame = np.full((1, 48, 48, 3), 90, np.uint8)
    load = {"weights": str(whole), "device": "cpu", "task": None, "bundle": None}
    first = client.segment(frame, load=load | {"runtime": "exact"})  # which comes first
    assert (first["task"], first["device"], first["runtime"]) == ("small", "cpu", "exact")
    seen = {}
    for file in (whole, delta, whole, delta):
        loaded = client.result("load", weights=str(file), device="cpu")
        found = client.segment(frame, probabilities=True)
        assert found["task"] == loaded["task"]["name"]
        values = client.array(found["probabilities"])
        np.testing.assert_array_equal(seen.setdefault(file, values), values)
    assert not np.array_equal(seen[whole], seen[delta])


def test_the_starter_says_that_it_is_one(worker: Any) -> None:
    result = worker.result("load", task="polyp", device="cpu")
    assert result["task"]["name"] == "polyp"
    assert "research only" in result["notice"]
    again = worker.result("load", task="polyp", device="cpu")
    assert again["weights_sha256"] == result["weights_sha256"]


def test_the_command_refuses_folders_that_are_not_there(start: Any, tmp_path: Path) -> None:
    client = start("--allow-root", str(tmp_path / "nowhere"))
    assert client.process.wait(60) == 2
    client.close()
    assert b"no such folder" in client.noise
    assert client.lines == []
