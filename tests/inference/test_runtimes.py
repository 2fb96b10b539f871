"""Every runtime gives the probabilities of the plain network, and says how it computed them."""

from __future__ import annotations

import builtins
import copy
import functools
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from filelock import FileLock
from torch import nn
from torch.backends import cudnn

from sam2unet_core.errors import ConfigError, WeightsError
from sam2unet_core.inference.engine import Engine
from sam2unet_core.inference.model import Model, Plan, choose_runtime
from sam2unet_core.inference.runtimes import RUNTIME_NAMES
from sam2unet_core.inference.runtimes.torch_runtime import TorchRuntime
from sam2unet_core.inference.transforms import prepare, restore
from sam2unet_core.network import SAM2UNet
from sam2unet_core.task import Task, load_preset

CPU = torch.device("cpu")
FirstStart = Callable[[str], tuple[Path, np.ndarray[Any, Any]]]
TOLERANCE = {"exact": 1e-5, "fast": 0.02, "openvino": 1e-4, "onnx": 1e-4}
"""Largest difference of a probability; bfloat16 has 8 significant bits."""


def opened(name: str, network: nn.Module, task: Task, *, batch_size: int = 4) -> Engine:
    """An engine that runs a network in the way of that name."""
    model = Model.of_network(task, network, device="cpu", runtime=name)
    return Engine(model, batch_size=batch_size)


def chosen_type(name: str, task: Task, device: str = "cpu") -> torch.dtype:
    return choose_runtime(name, task, device=torch.device(device)).dtype


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
    """What the first start with a runtime leaves in a cache, and its probabilities.

    The network is exported once for all processes that run tests: each makes the same one.
    """

    @functools.cache
    def start(name: str) -> tuple[Path, np.ndarray[Any, Any]]:
        folder = tmp_path_factory.mktemp(name)
        if "PYTEST_XDIST_WORKER" in os.environ:
            folder = tmp_path_factory.getbasetemp().parent / f"first-start-{name}"
            folder.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
            patch.setenv("SAM2UNET_CACHE", str(folder))
            runtime = opened(name, copy.deepcopy(network), task)
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
    engine = opened(name, copy.deepcopy(network), task, batch_size=2)  # the last batch is smaller
    got = engine.probabilities(frames)
    runtime = engine.model.runtime
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
    module = f"sam2unet_core.inference.runtimes.{name}_runtime"
    made = {"openvino": f"{module}._convert", "onnx": f"{module}._export"}[name]
    monkeypatch.setattr(made, lambda *_: pytest.fail("it was made again"))
    again = opened(name, copy.deepcopy(network), task)
    np.testing.assert_array_equal(again.probabilities(frames), first)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head.bias.add_(1)
    with pytest.raises(pytest.fail.Exception, match="it was made again"):
        opened(name, other, task)
    assert file.is_file()


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
        opened("onnx", copy.deepcopy(network), task).probabilities(frames[:1])


UNREPORTED = """
import sys
calls = []
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        calls.append(f"{event} {arguments[:2]}")
        raise OSError("no network here")
sys.addaudithook(note)
from sam2unet_core.inference.runtimes.openvino_runtime import OpenVINORuntime
from torch import nn
OpenVINORuntime(nn.Conv2d(3, 1, 1), size=(64, 64))
assert not calls, calls
"""


def test_openvino_reports_nothing_to_its_makers(tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    ci = ("CI", "TF_BUILD", "JENKINS_URL")  # where OpenVINO reports nothing anyway
    environment = {k: v for k, v in os.environ.items() if k not in ci} | variables
    subprocess.run([sys.executable, "-c", UNREPORTED], env=environment, check=True)
    written = [file for file in tmp_path.rglob("*") if "openvino_telemetry" in file.name]
    assert not written + list(tmp_path.glob("[iI]ntel*"))


@pytest.mark.parametrize("left", ["nothing", "another file", "its first half"])
def test_a_damaged_export_is_made_again(
    left: str, cache: Path, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    network = nn.Conv2d(3, 2, 1)
    first = opened("openvino", copy.deepcopy(network), task).probabilities(frames)
    (file,) = (cache / "exports").iterdir()
    whole = file.read_bytes()
    half = whole[: len(whole) // 2]
    damaged = {"nothing": b"", "another file": b"not a network", "its first half": half}
    file.write_bytes(damaged[left])
    again = opened("openvino", copy.deepcopy(network), task)
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
        opened(name, network, task)


def test_auto_takes_16_bits_where_the_processor_has_units_for_them_and_else_says_why_not(
    network: SAM2UNet, task: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sam2unet_core")
    units: set[torch.dtype] = {torch.float16}
    monkeypatch.setattr(
        "sam2unet_core.inference.model.has_matrix_units", lambda dtype: dtype in units
    )
    monkeypatch.setattr("sam2unet_core.inference.model.low_precision", lambda _: torch.bfloat16)
    peaked = replace(task, peak_threshold=0.9)
    assert opened("auto", copy.deepcopy(network), peaked).model.runtime.name == "fast"
    assert chosen_type("auto", peaked) == torch.bfloat16
    assert opened("auto", torch.nn.Conv2d(3, 2, 1), task).model.runtime.name == "exact"
    units = {torch.bfloat16}
    assert chosen_type("auto", task) == torch.bfloat16
    caplog.clear()
    assert opened("auto", copy.deepcopy(network), peaked).model.runtime.name == "exact"
    assert chosen_type("auto", peaked) == torch.float32
    units = set()
    assert opened("auto", copy.deepcopy(network), task).model.runtime.name == "exact"
    assert list(dict.fromkeys(r.getMessage() for r in caplog.records)) == [
        "runtime exact: bfloat16 changes which components reach the task's peak threshold",
        "runtime exact: this processor has no 16-bit matrix units (AMX)",
    ]
    assert chosen_type("auto", task, "cuda") == torch.float32


def test_an_unknown_runtime_is_refused_with_the_known_ones(network: SAM2UNet, task: Task) -> None:
    with pytest.raises(ConfigError, match=f"'int8'; choose from {', '.join(RUNTIME_NAMES)}"):
        opened("int8", network, task)
    with pytest.raises(ConfigError, match="'int8'"):
        chosen_type("int8", task)


@pytest.mark.parametrize("name", ["exact", "fast", "openvino", "onnx"])
def test_an_output_that_is_not_a_number_is_no_empty_mask(
    name: str, network: SAM2UNet, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    damaged = copy.deepcopy(network.head)  # the rest of it is in the next test
    damaged = nn.Sequential(nn.Conv2d(3, damaged.in_channels, 1), damaged)
    with torch.no_grad():
        damaged[1].bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="not a number"):
        opened(name, damaged, task).probabilities(frames[:1])


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
        opened(name, damaged, task).probabilities(frames[:1])


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
        opened("onnx", part, task).probabilities(frames[:1])


def test_numbers_too_large_for_16_bits_are_no_empty_mask(
    network: SAM2UNet, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    large = copy.deepcopy(network)
    with torch.no_grad():
        large.rfb1.branch0[0].bn.weight.fill_(1e6)
    runtime = TorchRuntime(large, size=task.image_size, device=CPU, dtype=torch.float16)
    engine = Engine(Model(task, runtime, Plan("fast", torch.float16, CPU)))
    with pytest.raises(WeightsError, match="too large for 16 bits: try the runtime `exact`"):
        engine.probabilities(frames[:1])


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

    runtime = TorchRuntime(Telling(), size=(8, 8), device=torch.device("cpu"), dtype=dtype)
    monkeypatch.setattr(runtime, "device", torch.device(device))
    runtime.logits(torch.zeros(1, 3, 8, 8))
    assert seen == [convolutions if rounded else "ieee"]
    assert cudnn.conv.fp32_precision == convolutions


def test_mirror_images_are_averaged_where_the_task_says_so(
    network: SAM2UNet, task: Task, frames: np.ndarray[Any, Any]
) -> None:
    plain = opened("exact", copy.deepcopy(network), task)
    mirrored = np.ascontiguousarray(frames[:, :, ::-1])
    wanted = (plain.probabilities(frames) + plain.probabilities(mirrored)[..., ::-1]) / 2
    both = opened("exact", copy.deepcopy(network), replace(task, flip_average=True))
    np.testing.assert_allclose(both.probabilities(frames), wanted, atol=1e-5)
    assert np.abs(wanted - plain.probabilities(frames)).max() > 0.01
