"""Weights files that do not fit, are damaged, or want to run code: refused with a reason."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sam2unet_core.errors import WeightsError
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import load_model, load_weights, save_delta, save_full
from sam2unet_core.task import load_preset

NANO = "nano"


def test_keys_that_do_not_fit_are_listed_all_at_once(build: Callable, tmp_path: Path) -> None:
    state = build(NANO).state_dict()
    bad = {k: v for k, v in state.items() if not k.startswith("rfb2.")}
    bad |= {"surplus.weight": torch.zeros(2), "side1.bias": torch.zeros(7)}
    torch.save(bad, tmp_path / "bad.pt")
    model = SAM2UNet(NANO)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    missing = sum(k.startswith("rfb2.") for k in state)
    message = (
        rf"{missing} missing: rfb2\.branch0.*, \.\.\.; 1 unexpected: surplus\.weight; "
        r"1 of the wrong shape: side1\.bias is \(7,\), expected \(1,\)"
    )
    with pytest.raises(WeightsError, match=message):
        load_weights(model, tmp_path / "bad.pt")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path / "bad.pt")


def test_another_size_or_number_of_channels_is_named(build: Callable, tmp_path: Path) -> None:
    torch.save(build(NANO, num_classes=2).state_dict(), tmp_path / "nano.pt")
    with pytest.raises(WeightsError, match="the file is of 'nano': build that network"):
        load_weights(SAM2UNet("starter"), tmp_path / "nano.pt")
    with pytest.raises(WeightsError, match="the file has 2 output channels"):
        load_weights(SAM2UNet(NANO), tmp_path / "nano.pt")


def test_weights_that_are_not_finite_are_refused(build: Callable, tmp_path: Path) -> None:
    model = build(NANO)
    model.up2.conv.double_conv[0].weight.data[0, 0, 0, 0] = float("nan")
    torch.save(model.state_dict(), tmp_path / "nan.pt")
    message = r"1 values of up2\.conv\.double_conv\.0\.weight are not finite"
    with pytest.raises(WeightsError, match=message):
        load_weights(SAM2UNet(NANO), tmp_path / "nan.pt")
    with pytest.raises(WeightsError, match="not finite"):
        save_full(model, tmp_path / "out", task=None)
    assert not (tmp_path / "out").exists()


def test_task_with_other_channels_is_refused(build: Callable, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"2 output channels, the task 'polyp' needs 1"):
        save_delta(build(num_classes=2), tmp_path / "delta", task=load_preset("polyp"))


class _Calls:
    """Pickles to a call of `eval`."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('/nonexistent/never', 'w')",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / "evil.pt"
    torch.save({"model": _Calls()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"the pickle wants to call (\w+\.)?eval"):
        load_weights(SAM2UNet(NANO), file)
    file.write_bytes(pickle.dumps(_Calls()))
    with pytest.raises(WeightsError, match=r"evil\.pt"):
        load_model(file)


def test_a_whole_pickled_module_is_refused_with_its_reason(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(WeightsError, match=r"wants to call torch\.nn\.modules\.linear\.Linear"):
        load_model(tmp_path / "module.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"epoch,loss\n1,0.3\n", "is a text file"),
        (b"\x00\x01\x02\x03" * 40, "is neither a safetensors nor a PyTorch file"),
        (b"PK\x03\x04 and then nothing", "cut off or damaged"),
        ((99).to_bytes(8, "little") + b'{"a"', "cut off or damaged"),
    ],
)
def test_other_files_are_refused_by_what_they_are(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path / "file.pt")


@pytest.mark.parametrize("writer", ["torch", "safetensors"])
@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_cut_off_file_is_refused(writer: str, part: float, build: Callable, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    if writer == "torch":
        torch.save(build(NANO).state_dict(), file)
    else:
        save_full(build(NANO), file, task=None)
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    with pytest.raises(WeightsError, match="cut off or damaged"):
        load_model(file)


def test_missing_file_folder_and_program_are_refused(build: Callable, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        load_model(tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="is a folder"):
        load_model(tmp_path)
    torch.jit.script(nn.ReLU()).save(str(tmp_path / "model.ts"))
    with pytest.raises(WeightsError, match="is a TorchScript program"):
        load_model(tmp_path / "model.ts")


def test_files_of_other_software_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"holds no weights of SAM2 or SAM2-UNet but layer"):
        load_model(tmp_path / "other.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds a list, expected a dictionary"):
        load_model(tmp_path / "list.pt")


def test_metadata_that_contradicts_the_weights_is_refused(build: Callable, tmp_path: Path) -> None:
    state = {k: v.contiguous() for k, v in build(NANO).state_dict().items()}
    for variant, message in (
        ("large", "not those of the network 'large'"),
        ("vast", "no network can be built"),
    ):
        metadata = {"format": "sam2unet-full/1", "variant": variant}
        save_file(state, tmp_path / "lie", metadata=metadata)
        with pytest.raises(WeightsError, match=message):
            load_model(tmp_path / "lie")


def test_file_that_cannot_be_written_is_an_error_and_leaves_nothing(
    build: Callable, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(WeightsError, match="cannot be written"):
        save_full(build(NANO), tmp_path / "taken", task=None)
    assert not list(tmp_path.glob(".*.part"))
