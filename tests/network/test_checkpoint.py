"""Weights files of every kind, read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sam2unet_core.errors import MissingWeightsError, WeightsError
from sam2unet_core.network import SAM2UNet, Variant
from sam2unet_core.network.checkpoint import (
    load_model,
    load_trainable_state_dict,
    load_weights,
    merge,
    read_info,
    save_delta,
    save_full,
    split,
    trainable_state_dict,
    trunk_hash,
)
from sam2unet_core.network.checkpoint.cache import import_file
from sam2unet_core.network.checkpoint.formats import read_checkpoint, task_in_weights
from sam2unet_core.network.keys import canonical_key, trunk_keys
from sam2unet_core.task import load_preset

NANO = "nano"


def official(model: SAM2UNet) -> dict[str, dict[str, Tensor]]:
    """SAM2's layout of a model's trunk, with parts of SAM2 that are of no use here."""
    state = model.state_dict()
    trunk = {f"image_encoder.trunk.{canonical_key(k)}": state[k] for k in trunk_keys(state)}
    return {"model": {**trunk, "image_encoder.neck.convs.0.conv.bias": torch.zeros(4)}}


def authors(model: SAM2UNet) -> dict[str, Tensor]:
    """The authors' layout: our names and a decoder step that is never used."""
    return {**model.state_dict(), "up4.conv.double_conv.0.weight": torch.zeros(4, 4, 3, 3)}


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("authors", authors),
        ("authors", lambda m: {f"module.{k}": v for k, v in authors(m).items()}),
        ("authors", lambda m: {"state_dict": authors(m), "epoch": 3}),
        ("state_dict", lambda m: m.state_dict()),
        ("state_dict", lambda m: {"model": m.state_dict()}),
        ("training", lambda m: {"network": m.state_dict(), "optimizer": {"state": {}}}),
    ],
    ids=["authors", "data parallel", "wrapped", "state dict", "MONAI", "training"],
)
def test_whole_network_is_read_from_any_layout(
    kind: str, layout: Callable, build: Callable, tmp_path: Path
) -> None:
    source = build(NANO, num_classes=2)
    torch.save(layout(source), tmp_path / "weights.bin")  # told by content, not by name
    target = SAM2UNet(NANO, num_classes=2)
    loaded = load_weights(target, tmp_path / "weights.bin")
    assert (loaded.format, loaded.trunk_only, loaded.without_trunk) == (kind, False, False)
    assert same(target, source)
    rebuilt = load_model(tmp_path / "weights.bin")
    assert same(rebuilt, source)
    assert not rebuilt.training


def test_older_pytorch_files_are_read(build: Callable, tmp_path: Path) -> None:
    source = build(NANO)
    torch.save(source.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_model(tmp_path / "old.pth"), source)


def test_a_network_for_other_classes_gives_all_but_its_heads(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, target = SAM2UNet(NANO), SAM2UNet(NANO, num_classes=3)
    path = tmp_path / "one_class.safetensors"
    save_full(source, path, task=None, dtype=torch.float32)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(
        WeightsError, match="has 1 output channels: build a network with num_classes=1"
    ):
        load_weights(target, path)
    found = load_weights(target, path, other_classes=True)
    heads = {f"{head}.{part}" for head in ("head", "side1", "side2") for part in ("weight", "bias")}
    theirs = source.state_dict()
    for key, value in target.state_dict().items():
        assert torch.equal(value, before[key] if key in heads else theirs[key]), key
    assert found.keys == len(theirs) - 6
    assert str(found).endswith(", without the heads: the file has 1 output channels")


def test_heads_for_as_many_classes_are_always_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, target = SAM2UNet(NANO, num_classes=3), SAM2UNet(NANO, num_classes=3)
    path = tmp_path / "full.safetensors"
    save_full(source, path, task=None, dtype=torch.float32)
    found = load_weights(target, path, other_classes=True)
    assert same(source, target)
    assert found.other_channels is None
    assert "heads" not in str(found)


def test_only_the_trunk_is_read_from_the_official_file(build: Callable, tmp_path: Path) -> None:
    source, target = build(NANO, seed=1), build(NANO, seed=2)
    decoder = {k: v.clone() for k, v in trainable_state_dict(target).items()}
    torch.save(official(source), tmp_path / "sam2.pt")
    loaded = load_weights(target, tmp_path / "sam2.pt")
    assert loaded.trunk_only
    assert "trunk only" in str(loaded)
    ours, theirs = target.state_dict(), source.state_dict()
    assert trunk_hash(ours) == trunk_hash(theirs)
    outside = [k for k in ours if k not in trunk_keys(ours)]
    assert all(torch.equal(ours[k], decoder[k]) for k in outside)
    assert not torch.equal(ours["head.weight"], theirs["head.weight"])


@pytest.mark.parametrize("name", ["tiny", "small", "base_plus", "large"])
def test_size_of_an_official_file_is_inferred(name: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = official(SAM2UNet(name))["model"]
    # One stored zero behind every tensor keeps the file small.
    zeros = {k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}
    torch.save({"model": zeros}, tmp_path / "any name")
    info = read_info(tmp_path / "any name")
    assert (info.format, info.variant, info.has_decoder) == ("sam2", name, False)


def test_trunk_hash_is_the_documented_sum_over_canonical_keys() -> None:
    state = {
        "encoder.pos_embed": torch.tensor([[1.0, 2.0]]),
        "encoder.blocks.0.block.norm1.bias": torch.tensor([0.5]),
        "encoder.blocks.0.prompt_learn.0.bias": torch.tensor([9.0]),
        "head.bias": torch.tensor([9.0]),
    }
    by_hand = (
        b"blocks.0.norm1.bias\x001\x00\x00\x00\x00\x3f"
        b"pos_embed\x001x2\x00\x00\x00\x80\x3f\x00\x00\x00\x40"
    )
    assert trunk_hash(state) == hashlib.sha256(by_hand).hexdigest()
    canonical = {
        "pos_embed": state["encoder.pos_embed"],
        "blocks.0.norm1.bias": torch.tensor([0.5]),
    }
    assert trunk_hash(canonical) == hashlib.sha256(by_hand).hexdigest()


def test_delta_holds_all_but_the_trunk_and_its_metadata(
    build: Callable, frozen_variant: Variant, tmp_path: Path
) -> None:
    model, task = build(), load_preset("polyp")
    save_delta(model, tmp_path / "delta.safetensors", task=task)
    with safe_open(tmp_path / "delta.safetensors", "pt") as opened:
        metadata, keys = opened.metadata(), set(opened.keys())
    state = model.state_dict()
    assert keys == set(state) - set(trunk_keys(state))
    assert "rfb1.branch0.0.bn.running_var" in keys
    assert metadata["format"] == "sam2unet-delta/1"
    assert (metadata["variant"], metadata["num_classes"]) == (frozen_variant.name, "1")
    assert metadata["trunk_sha256"] == trunk_hash(state)
    assert json.loads(metadata["task"]) == task.to_dict()
    info = read_info(tmp_path / "delta.safetensors")
    assert info.is_delta
    assert info.task == task


def test_delta_needs_the_trunk_that_it_names(build: Callable, tmp_path: Path) -> None:
    source = build(seed=1)
    save_delta(source, tmp_path / "delta", task=None)
    other = build(seed=2)
    before = other.head.weight.clone()
    with pytest.raises(WeightsError, match=trunk_hash(source.state_dict())):
        load_weights(other, tmp_path / "delta")
    assert torch.equal(other.head.weight, before)

    torch.save(official(source), tmp_path / "trunk.pt")
    load_weights(other, tmp_path / "trunk.pt")
    assert load_weights(other, tmp_path / "delta").without_trunk
    assert same(other, source)


def test_model_of_a_delta_takes_its_trunk_from_the_cache(build: Callable, tmp_path: Path) -> None:
    source = build(seed=1)
    save_delta(source, tmp_path / "delta", task=None)
    with pytest.raises(MissingWeightsError, match="`sam2unet weights import FILE`"):
        load_model(tmp_path / "delta")
    for seed in (1, 2):
        torch.save(official(build(seed=seed)), tmp_path / f"{seed}.pt")
        import_file(tmp_path / f"{seed}.pt")
    model = load_model(tmp_path / "delta")
    assert same(model, source)
    assert model.trunk_is_frozen


def test_missing_trunk_of_an_official_size_names_the_line_that_fetches_it(tmp_path: Path) -> None:
    save_delta(SAM2UNet("tiny"), tmp_path / "delta", task=None)
    with pytest.raises(MissingWeightsError, match="`sam2unet weights fetch sam2_hiera_tiny`"):
        load_model(tmp_path / "delta")


def test_delta_of_a_network_whose_trunk_learns_is_whole(build: Callable, tmp_path: Path) -> None:
    model = build(NANO)
    save_delta(model, tmp_path / "weights", task=None)
    assert read_info(tmp_path / "weights").format == "full"
    assert same(load_model(tmp_path / "weights"), model)


def test_custom_network_is_rebuilt_from_its_full_file(build: Callable, tmp_path: Path) -> None:
    row = Variant(24, 3, (1, 1, 1, 2), (2,), (4, 2, 6, 3), (5, 6), width=12, name="mine")
    model = build(row, num_classes=4)
    save_full(model, tmp_path / "mine", task=None)
    rebuilt = load_model(tmp_path / "mine")
    assert rebuilt.variant == row
    assert same(rebuilt, model)
    torch.save(model.state_dict(), tmp_path / "bare")
    with pytest.raises(WeightsError, match="none of the known sizes"):
        load_model(tmp_path / "bare")
    assert load_weights(SAM2UNet(row, num_classes=4), tmp_path / "bare").keys == len(
        model.state_dict()
    )


def test_statistics_beyond_float16_stay_what_they_are(tmp_path):
    model = SAM2UNet("nano")
    variance = model.rfb4.conv_res.bn.running_var
    variance.fill_(126_691.4375)  # as a trained starter has
    save_full(model, tmp_path / "half", task=None, dtype=torch.float16)
    again = load_model(tmp_path / "half")
    assert torch.equal(again.rfb4.conv_res.bn.running_var, variance)
    assert torch.equal(again.head.weight, model.head.weight.half().float())


def test_half_precision_file_is_half_as_large_and_read_as_float32(
    build: Callable, tmp_path: Path
) -> None:
    model = build(NANO)
    save_full(model, tmp_path / "half", task=None, dtype=torch.float16)
    save_full(model, tmp_path / "whole", task=None)
    ratio = (tmp_path / "half").stat().st_size / (tmp_path / "whole").stat().st_size
    assert ratio == pytest.approx(0.5, abs=0.03)
    loaded = load_model(tmp_path / "half")
    assert {v.dtype for k, v in loaded.state_dict().items() if "num_batches" not in k} == {
        torch.float32
    }
    assert torch.equal(loaded.head.weight, model.head.weight.half().float())
    assert read_info(tmp_path / "half").trunk_sha256 == trunk_hash(loaded.state_dict())
    model.head.weight.data.fill_(1e6)
    with pytest.raises(WeightsError, match=r"head.weight.*not finite"):
        save_full(model, tmp_path / "half", task=None, dtype=torch.float16)


def test_split_and_merge_give_the_network_back(build: Callable, tmp_path: Path) -> None:
    model = build(NANO, num_classes=2)
    torch.save(authors(model), tmp_path / "authors.pth")
    torch.save(official(model), tmp_path / "trunk.pt")
    trunk = split(tmp_path / "authors.pth", delta=tmp_path / "delta")
    assert trunk == trunk_hash(model.state_dict())
    assert read_info(tmp_path / "delta").is_delta
    merge(tmp_path / "trunk.pt", tmp_path / "delta", full=tmp_path / "full")
    assert same(load_model(tmp_path / "full"), model)
    torch.save(official(build(NANO, seed=5)), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="give the trunk it was trained on"):
        merge(tmp_path / "other.pt", tmp_path / "delta", full=tmp_path / "full2")
    with pytest.raises(WeightsError, match="is not a whole network"):
        split(tmp_path / "trunk.pt", delta=tmp_path / "delta2")
    assert not list(tmp_path.glob(".*.part"))


def test_training_state_leaves_out_the_frozen_trunk_only(build: Callable) -> None:
    model = build(seed=1)
    state = trainable_state_dict(model)
    assert set(state) == set(model.state_dict()) - set(trunk_keys(model.state_dict()))
    assert set(trainable_state_dict(build(NANO))) == set(build(NANO).state_dict())
    other = build(seed=2)
    load_trainable_state_dict(other, state)
    assert torch.equal(other.rfb1.conv_cat.bn.running_var, model.rfb1.conv_cat.bn.running_var)
    state.pop("head.bias")
    state["tail.bias"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"1 missing: head\.bias; 1 unexpected: tail\.bias"):
        load_trainable_state_dict(other, state)


def test_training_checkpoint_of_a_frozen_network_leaves_the_trunk_as_it_is(
    build: Callable, tmp_path: Path
) -> None:
    source = build(seed=1)
    torch.save({"network": trainable_state_dict(source), "epoch": 4}, tmp_path / "checkpoint.pt")
    target = build(seed=2)
    trunk = trunk_hash(target.state_dict())
    loaded = load_weights(target, tmp_path / "checkpoint.pt")
    assert (loaded.format, loaded.without_trunk) == ("training", True)
    assert torch.equal(target.head.weight, source.head.weight)
    assert trunk_hash(target.state_dict()) == trunk
    torch.save({"network": trainable_state_dict(SAM2UNet("tiny"))}, tmp_path / "tiny.pt")
    with pytest.raises(WeightsError, match="holds no trunk and names none; load a trunk"):
        load_model(tmp_path / "tiny.pt")


def test_a_file_names_its_task_without_its_weights_being_read(
    build: Callable, tmp_path: Path
) -> None:
    file = tmp_path / "w.safetensors"
    damaged = {"head.weight": torch.full((1, 4, 1, 1), float("nan"))}
    save_file(damaged, file, metadata={"task": json.dumps(load_preset("polyp").to_dict())})
    assert task_in_weights(file) == load_preset("polyp")
    with pytest.raises(WeightsError, match="not finite"):
        read_checkpoint(file)
    save_full(build(), file, task=None)
    assert task_in_weights(file) is None
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cut off or damaged"):
        task_in_weights(file)
