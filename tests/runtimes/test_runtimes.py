"""Every runtime gives the probabilities of the plain network, and says how it computed them."""

from __future__ import annotations

import builtins
import copy
import functools
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.backends import cudnn

from sam2unet_core.errors import ConfigError, WeightsError
from sam2unet_core.network import SAM2UNet
from sam2unet_core.runtimes import RUNTIMES, choice, open_runtime, weights_type
from sam2unet_core.runtimes.torch_runtime import TorchRuntime
from sam2unet_core.task import Task, load_preset
from sam2unet_core.transforms import prepare, restore

CPU = torch.device("cpu")
FirstStart = Callable[[str], tuple[Path, np.ndarray[Any, Any]]]
TOLERANCE = {"exact": 1e-5, "fast": 0.02, "openvino": 1e-4, "onnx": 1e-4}
"""Largest difference of a probability; bfloat16 has 8 significant bits."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAM2UNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def network() -> SAM2UNet:
    """A network whose answers spread over 0 to 1; windows reach beyond its 96 x 64 images."""
    torch.manual_seed(3)
    network = SAM2UNet("nano", num_classes=2).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        network.head.weight.normal_(std=2)
    return network


@pytest.fixture(scope="module")
def task() -> Task:
    two = load_preset("nerve_ultrasound").classes
    plain = replace(load_preset("polyp"), name="two", classes=two, weights=None, metrics={})
    return replace(plain, image_size=(96, 64), temperature=1.3)


@pytest.fixture(scope="module")
def frames() -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(0, 256, (3, 50, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def first_start(
    network: SAM2UNet,
    task: Task,
    frames: np.ndarray[Any, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> FirstStart:
    """What the first start with a runtime leaves in a cache, and its probabilities, found once."""

    @functools.cache
    def start(name: str) -> tuple[Path, np.ndarray[Any, Any]]:
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SAM2UNET_CACHE", str(folder))
            runtime = open_runtime(name, copy.deepcopy(network), task, device=CPU)
            return folder, runtime.probabilities(frames)

    return start


def expected(network: SAM2UNet, task: Task, frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Probabilities by the network as it was built, one frame at a time."""
    found = []
    with torch.inference_mode():
        for frame in frames:
            image = prepare(torch.from_numpy(frame.transpose(2, 0, 1)[None].copy()), (96, 64))
            logits = restore(network(image), frame.shape[:2])
            found.append((logits / task.temperature).sigmoid().numpy()[0])
    return np.stack(found)


@pytest.mark.parametrize("name", ["exact", "fast", "openvino", "onnx"])
def test_probabilities_are_those_of_the_plain_network(
    name: str,
    cache: Path,
    network: SAM2UNet,
    task: Task,
    frames: np.ndarray[Any, Any],
    first_start: FirstStart,
) -> None:
    if name in ("openvino", "onnx"):
        shutil.copytree(first_start(name)[0], cache)
    wanted = expected(network, task, frames)
    assert wanted.std() > 0.1  # flat answers would agree whatever the arithmetic
    runtime = open_runtime(name, copy.deepcopy(network), task, device=CPU)
    runtime.batch_size = 2  # the last batch is smaller
    got = runtime.probabilities(frames)
    assert (got.shape, got.dtype) == ((3, 2, 50, 70), np.float32)
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE[name])
    assert runtime.name == name
    assert runtime.precision in (("float16", "bfloat16") if name == "fast" else ("float32",))


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_the_second_start_reads_what_the_first_one_made(
    name: str,
    cache: Path,
    network: SAM2UNet,
    task: Task,
    frames: np.ndarray[Any, Any],
    first_start: FirstStart,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_first, first = first_start(name)
    shutil.copytree(made_first, cache)
    (file,) = (cache / "exports").iterdir()
    module = f"sam2unet_core.runtimes.{name}_runtime"
    made = {"openvino": f"{module}._convert", "onnx": f"{module}._export"}[name]
    monkeypatch.setattr(made, lambda *_: pytest.fail("it was made again"))
    again = open_runtime(name, copy.deepcopy(network), task, device=CPU)
    np.testing.assert_array_equal(again.probabilities(frames), first)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head.bias.add_(1)
    with pytest.raises(pytest.fail.Exception, match="it was made again"):
        open_runtime(name, other, task, device=CPU)
    assert file.is_file()


@pytest.mark.parametrize("left", ["nothing", "another file", "its first half"])
def test_a_damaged_export_is_made_again(
    left: str, cache: Path, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    network = nn.Conv2d(3, 2, 1)
    first = open_runtime("openvino", copy.deepcopy(network), task, device=CPU).probabilities(frames)
    (file,) = (cache / "exports").iterdir()
    whole = file.read_bytes()
    half = whole[: len(whole) // 2]
    damaged = {"nothing": b"", "another file": b"not a network", "its first half": half}
    file.write_bytes(damaged[left])
    again = open_runtime("openvino", copy.deepcopy(network), task, device=CPU)
    np.testing.assert_array_equal(again.probabilities(frames), first)
    assert file.stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime"), ("onnx", "onnxscript")]
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    name: str, package: str, network: SAM2UNet, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def without(wanted: str, *args: Any, **kwargs: Any) -> Any:
        if wanted == package:
            raise ImportError(wanted)
        return found(wanted, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=rf"pip install sam2unet\[{name}\]"):
        open_runtime(name, network, task, device=CPU)


def test_auto_takes_16_bits_where_the_processor_has_units_for_them_and_else_says_why_not(
    network: SAM2UNet, task: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sam2unet_core")
    units: set[torch.dtype] = {torch.float16}
    monkeypatch.setattr(choice, "has_matrix_units", lambda dtype: dtype in units)
    monkeypatch.setattr(choice, "low_precision", lambda _: torch.bfloat16)
    peaked = replace(task, peak_threshold=0.9)
    assert open_runtime("auto", copy.deepcopy(network), peaked, device=CPU).name == "fast"
    assert weights_type("auto", peaked, device=CPU) == torch.bfloat16
    assert open_runtime("auto", torch.nn.Conv2d(3, 2, 1), task, device=CPU).name == "exact"
    units = {torch.bfloat16}
    assert weights_type("auto", task, device=CPU) == torch.bfloat16
    caplog.clear()
    assert open_runtime("auto", copy.deepcopy(network), peaked, device=CPU).name == "exact"
    assert weights_type("auto", peaked, device=CPU) == torch.float32
    units = set()
    assert open_runtime("auto", copy.deepcopy(network), task, device=CPU).name == "exact"
    assert [r.getMessage() for r in caplog.records] == [
        "runtime exact: in bfloat16 components near the task's peak threshold come and go",
        "runtime exact: this processor has no 16-bit matrix units (AMX)",
    ]
    assert weights_type("auto", task, device=torch.device("cuda")) == torch.float32


def test_an_unknown_runtime_is_refused_with_the_known_ones(network: SAM2UNet, task: Task) -> None:
    with pytest.raises(ConfigError, match=f"'int8': there are {', '.join(RUNTIMES)}"):
        open_runtime("int8", network, task, device=CPU)
    with pytest.raises(ConfigError, match="'int8'"):
        weights_type("int8", task, device=CPU)


@pytest.mark.parametrize("name", ["exact", "fast", "openvino", "onnx"])
def test_an_output_that_is_not_a_number_is_no_empty_mask(
    name: str, network: SAM2UNet, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    damaged = copy.deepcopy(network.head)  # the rest of it is in the next test
    damaged = nn.Sequential(nn.Conv2d(3, damaged.in_channels, 1), damaged)
    with torch.no_grad():
        damaged[1].bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="not a number"):
        open_runtime(name, damaged, task, device=CPU).probabilities(frames[:1])


@pytest.mark.parametrize("name", ["exact", "fast"])
@pytest.mark.parametrize(
    "where", ["encoder.blocks.0.block.attn.proj.bias", "rfb1.conv_cat.bn.bias"]
)
def test_what_is_not_a_number_comes_through_every_layer(
    name: str, where: str, network: SAM2UNet, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    """A fused ReLU would make 0 of it. (OpenVINO's does; the loader refuses such weights.)"""
    damaged = copy.deepcopy(network)
    with torch.no_grad():
        damaged.get_parameter(where).fill_(float("nan"))
    with pytest.raises(WeightsError, match="not a number"):
        open_runtime(name, damaged, task, device=CPU).probabilities(frames[:1])


def test_what_is_not_a_number_comes_through_every_layer_of_an_export(
    cache: Path,
    network: SAM2UNet,
    task: Task,
    frames: np.ndarray[Any, Any],
    first_start: FirstStart,
) -> None:
    """An export takes long, so the file is damaged in place of the network."""
    shutil.copytree(first_start("onnx")[0], cache)
    (file,) = (cache / "exports").iterdir()
    model = onnx.load(file)
    name = "encoder.patch_embed.proj.bias"
    (bias,) = (each for each in model.graph.initializer if each.name == name)
    values = np.full(tuple(bias.dims), np.nan, np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, file)
    with pytest.raises(WeightsError, match="not a number"):
        open_runtime("onnx", copy.deepcopy(network), task, device=CPU).probabilities(frames[:1])


def test_what_is_not_a_number_comes_through_an_exported_normalisation(
    network: SAM2UNet, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    """An export folds it into the convolution before it, and ReLU comes after it."""
    damaged = copy.deepcopy(network.rfb1)
    with torch.no_grad():
        damaged.conv_cat.bn.bias.fill_(float("nan"))
    first = nn.Conv2d(3, damaged.conv_res.conv.in_channels, 1)
    last = nn.Conv2d(damaged.conv_cat.conv.out_channels, 2, 1)
    part = nn.Sequential(first, damaged, last).eval()
    with pytest.raises(WeightsError, match="not a number"):
        open_runtime("onnx", part, task, device=CPU).probabilities(frames[:1])


def test_numbers_too_large_for_16_bits_are_no_empty_mask(
    network: SAM2UNet, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    large = copy.deepcopy(network)
    with torch.no_grad():
        large.rfb1.branch0[0].bn.weight.fill_(1e6)
    runtime = TorchRuntime(large, task, device=CPU, dtype=torch.float16)
    with pytest.raises(WeightsError, match="too large for 16 bits: try the runtime `exact`"):
        runtime.probabilities(frames[:1])


@pytest.fixture(params=["tf32", "ieee"])
def convolutions(request: pytest.FixtureRequest) -> Iterator[str]:
    """What the process has cuDNN's convolutions do."""
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = request.param
    yield request.param
    cudnn.conv.fp32_precision = before


@pytest.mark.parametrize(
    ("device", "dtype", "rounded"),
    [("cuda", torch.float32, False), ("cuda", torch.bfloat16, True), ("cpu", torch.float32, True)],
)
def test_on_cuda_convolutions_of_float32_are_not_rounded_to_tf32(
    task: Task,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    dtype: torch.dtype,
    rounded: bool,
    convolutions: str,
) -> None:
    """What the network is run under; PyTorch keeps the setting where there is no GPU, too."""
    seen: list[str] = []

    class Telling(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(cudnn.conv.fp32_precision)
            return image[:, :1]

    runtime = TorchRuntime(Telling(), task, device=torch.device("cpu"), dtype=dtype)
    monkeypatch.setattr(runtime, "device", torch.device(device))
    runtime.logits(torch.zeros(1, 3, 8, 8))
    assert seen == [convolutions if rounded else "ieee"]
    assert cudnn.conv.fp32_precision == convolutions


def test_mirror_images_are_averaged_where_the_task_says_so(
    network: SAM2UNet, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    plain = open_runtime("exact", copy.deepcopy(network), task, device=CPU)
    mirrored = np.ascontiguousarray(frames[:, :, ::-1])
    wanted = (plain.probabilities(frames) + plain.probabilities(mirrored)[..., ::-1]) / 2
    both = open_runtime(
        "exact", copy.deepcopy(network), replace(task, flip_average=True), device=CPU
    )
    for along in (True, False):
        both.mirrors_along = along
        np.testing.assert_allclose(both.probabilities(frames), wanted, atol=1e-5)
    assert np.abs(wanted - plain.probabilities(frames)).max() > 0.01
