"""Trunks in the cache, and the command that puts them there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sam2unet_core.cli.main import app
from sam2unet_core.errors import MissingWeightsError, WeightsError
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import (
    cache_folder,
    find_trunk,
    load_model,
    read_info,
    require_trunk,
    save_delta,
    trunk_file,
    trunk_hash,
    trunk_keys,
)
from sam2unet_core.network.checkpoint.cache import CATALOG, import_file


def write(path: Path, model: SAM2UNet) -> Path:
    torch.save(model.state_dict(), path)
    return path


def write_tiny(path: Path, *, trunk: float, decoder: float = 0.0) -> Path:
    """Write a network of SAM2's smallest trunk, each of whose tensors is one number repeated."""
    with torch.device("meta"):
        state = SAM2UNet("tiny").state_dict()
    trunk_names = set(trunk_keys(state))
    for key, value in state.items():
        stored = torch.tensor(trunk if key in trunk_names else decoder).to(value.dtype)
        state[key] = stored.expand(value.shape)
    torch.save(state, path)
    return path


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["weights", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_catalogue_holds_the_eight_official_files() -> None:
    sizes = ("tiny", "small", "base_plus", "large")
    assert list(CATALOG) == [f"{f}_hiera_{s}" for f in ("sam2", "sam2.1") for s in sizes]
    assert CATALOG["sam2_hiera_large"].url.endswith(
        "fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_large.pt"
    )
    assert CATALOG["sam2.1_hiera_base_plus"].url.endswith("/092824/sam2.1_hiera_base_plus.pt")


def test_cache_moves_with_its_variable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("SAM2UNET_CACHE")
    assert cache_folder().name == "weights"
    assert "sam2unet" in str(cache_folder())


def test_missing_trunk_is_an_error_with_both_lines(cache: Path) -> None:
    assert trunk_file("large") is None
    message = "(?s)frozen trunk of the network 'large'.*fetch sam2_hiera_large`.*import FILE`"
    with pytest.raises(MissingWeightsError, match=message):
        require_trunk("large")
    assert not cache.exists()


def test_imported_trunk_is_found_by_size_and_by_hash(
    cache: Path, build: Callable, tmp_path: Path
) -> None:
    model = build("nano")
    copy = import_file(write(tmp_path / "carried in by hand", model))
    assert copy.parent == cache
    assert require_trunk("nano") == copy
    assert find_trunk(trunk_hash(model.state_dict())) == copy
    assert find_trunk("0" * 64) is None
    assert trunk_file("starter") is None


def test_file_put_into_the_cache_by_hand_is_found(cache: Path, build: Callable) -> None:
    cache.mkdir(parents=True)
    file = write(cache / "mine.pt", build("nano"))
    assert trunk_file("nano") == file
    assert json.loads((cache / "index.json").read_text())["mine.pt"]["variant"] == "nano"


def test_official_file_comes_before_others(cache: Path, tmp_path: Path) -> None:
    names = ["sam2.1_hiera_tiny", "sam2_hiera_tiny"]
    import_file(write_tiny(tmp_path / "another.pt", trunk=0.5))
    assert trunk_file("tiny").name.startswith("tiny-")
    for number, name in enumerate(names):
        import_file(write_tiny(tmp_path / f"{name}.pt", trunk=number))
        assert trunk_file("tiny") == cache / f"{name}.pt"


def test_import_under_a_catalogue_name_of_another_size_gets_another_name(
    build: Callable, tmp_path: Path
) -> None:
    copy = import_file(write(tmp_path / "sam2_hiera_large.pt", build("nano")))
    assert copy.name.startswith("nano-")


def test_import_refuses_what_has_no_trunk(cache: Path, build: Callable, tmp_path: Path) -> None:
    save_delta(build(), tmp_path / "delta", task=None)
    with pytest.raises(WeightsError, match="holds no trunk"):
        import_file(tmp_path / "delta")
    assert not cache.exists()


def with_other_decoder(model: SAM2UNet) -> SAM2UNet:
    """Another network on the same frozen trunk, as the authors' files of other tasks are."""
    other = SAM2UNet(model.variant)
    state = model.state_dict()
    other.load_state_dict({key: state[key] for key in trunk_keys(state)}, strict=False)
    return other


def test_a_second_network_on_the_same_trunk_is_known(
    cache: Path, build: Callable, tmp_path: Path
) -> None:
    first = build("nano")
    second = with_other_decoder(first)
    polyp, camouflage = write(tmp_path / "polyp.pth", first), write(tmp_path / "camo.pth", second)
    copy = run("import", polyp).strip().replace("\n", "")
    again = run("import", camouflage)
    assert again.replace("\n", "").endswith(copy)
    assert "cache already has this trunk" in " ".join(again.split())
    assert [path.name for path in cache.glob("*.pth")] == [Path(copy).name]
    assert "not in the cache" not in run("split", camouflage, "-o", tmp_path / "camo.safetensors")
    whole = load_model(tmp_path / "camo.safetensors").state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in second.state_dict().items())


def test_the_same_trunk_under_an_official_name_is_known_and_another_is_not(
    cache: Path, tmp_path: Path
) -> None:
    file = write_tiny(tmp_path / "sam2_hiera_tiny.pt", trunk=0.5)
    copy = import_file(file)
    before = copy.read_bytes()
    write_tiny(file, trunk=0.5, decoder=1.0)
    assert file.read_bytes() != before
    assert import_file(file) == copy
    assert copy.read_bytes() == before
    copy.unlink()
    assert import_file(file).read_bytes() == file.read_bytes()
    write_tiny(file, trunk=1.0)
    with pytest.raises(WeightsError, match=r"its trunk is \w{64}, but that of sam2_hiera_tiny"):
        import_file(file)


def test_damaged_index_says_so(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "index.json").write_text("{")
    with pytest.raises(WeightsError, match=r"index\.json: cannot be read .* delete it"):
        trunk_file("tiny")


def test_commands_split_import_and_merge(build: Callable, tmp_path: Path) -> None:
    full = write(tmp_path / "full.pth", build("nano"))
    delta, again = tmp_path / "delta.safetensors", tmp_path / "again.safetensors"
    output = run("split", full, "-o", delta, "--task", "polyp")
    assert "not in the cache: sam2unet weights import" in output
    assert read_info(delta).task.name == "polyp"
    trunk = Path(run("import", full).replace("\n", ""))
    assert trunk.is_file()
    assert torch.equal(load_model(delta).head.weight, load_model(full).head.weight)
    assert "not in the cache" not in run("split", full, "-o", delta)
    run("merge", trunk, delta, "-o", again)
    assert torch.equal(load_model(again).head.weight, load_model(full).head.weight)


def test_a_path_is_shown_as_it_is(build: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    for name in ("a[bold]b.pth", "[x].pth", ":smile:.pth"):
        write(tmp_path / name, build("nano"))
        assert name in run("info", name)
    (tmp_path / "[").mkdir()
    write(tmp_path / "[" / "x].pth", build("nano"))
    assert "[/x].pth" in run("info", "[/x].pth")


def test_info_and_list_say_what_there_is(
    cache: Path, build: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    model = build("nano", num_classes=3)
    full = write(tmp_path / "full.pth", model)
    info = run("info", full)
    assert trunk_hash(model.state_dict()) in info
    assert "nano" in info
    assert f"{full.stat().st_size:,}" in info
    run("import", full)
    listed = run("list")
    assert all(name in listed for name in CATALOG)
    assert trunk_hash(model.state_dict())[:12] in listed
    assert str(cache) in listed.replace("\n", "")
