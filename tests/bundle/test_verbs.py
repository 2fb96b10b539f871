"""The verbs of `python -m monai.bundle`, from the bundle's root and from elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import load_model


@pytest.fixture(params=["the bundle's root", "another folder"])
def folder(request, own_bundle, tmp_path) -> Path:
    return own_bundle if request.param == "the bundle's root" else tmp_path


def test_metadata_is_valid_against_the_schema_that_is_shipped(folder, own_bundle, run_verb):
    configs = own_bundle / "configs"
    options = {
        "meta_file": configs / "metadata.json",
        "filepath": configs / "meta_schema_20240725.json",
    }
    done = run_verb("verify_metadata", cwd=folder, **options)
    assert done.returncode == 0, done.stderr
    broken = json.loads((configs / "metadata.json").read_text())
    del broken["network_data_format"]["outputs"]["pred"]["value_range"]
    file = folder / "broken.json"
    file.write_text(json.dumps(broken))
    done = run_verb("verify_metadata", cwd=folder, **(options | {"meta_file": file}))
    file.unlink()
    assert done.returncode != 0
    assert "value_range" in done.stderr or "not valid under any" in done.stderr


def test_network_takes_and_gives_what_the_metadata_says(folder, own_bundle, run_verb):
    done = run_verb(
        "verify_net_in_out",
        "network_def",
        cwd=folder,
        meta_file=own_bundle / "configs" / "metadata.json",
        config_file=own_bundle / "configs" / "inference.yaml",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("trace", [False, True], ids=["script", "trace"])
def test_torchscript_export_computes_what_the_network_computes(
    trace, tmp_path, own_bundle, run_verb
):
    done = run_verb(
        "ckpt_export",
        "network_def",
        cwd=tmp_path,
        filepath=tmp_path / "model.ts",
        ckpt_file=own_bundle / "models" / "model.pt",
        meta_file=own_bundle / "configs" / "metadata.json",
        config_file=own_bundle / "configs" / "inference.yaml",
        use_trace=trace,
    )
    assert done.returncode == 0, done.stderr
    image = torch.randn(2, 3, 64, 64)
    expected = eager(own_bundle)(image)
    found = torch.jit.load(tmp_path / "model.ts")(image)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_onnx_export_computes_what_the_network_computes(tmp_path, own_bundle, run_verb):
    names = {
        "input_names": ["image"],
        "output_names": ["pred"],
        "dynamic_axes": {"image": {0: "batch"}},
    }
    done = run_verb(
        "onnx_export",
        "network_def",
        cwd=tmp_path,
        filepath=tmp_path / "model.onnx",
        ckpt_file=own_bundle / "models" / "model.pt",
        meta_file=own_bundle / "configs" / "metadata.json",
        config_file=own_bundle / "configs" / "inference.yaml",
        converter_kwargs=names,
    )
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    image = torch.randn(3, 3, 64, 64)
    (found,) = session.run(["pred"], {"image": image.numpy()})
    np.testing.assert_allclose(found, eager(own_bundle)(image), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("workflow", ["train", "inference"])
def test_load_returns_the_network_with_the_bundles_weights(workflow, own_bundle):
    from monai.bundle import load

    override = {"variant": "nano"} if workflow == "train" else None
    network = load(
        own_bundle.name,
        bundle_dir=own_bundle.parent,
        workflow_type=workflow,
        source="github",
        net_override=override,
    )
    assert type(network) is SAM2UNet
    expected = torch.load(own_bundle / "models" / "model.pt", weights_only=True)
    for key, value in network.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_a_random_frozen_trunk_is_never_handed_out_quietly(own_bundle, tmp_path, monkeypatch):
    from monai.bundle import load

    monkeypatch.setenv("SAM2UNET_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match="random values.*sam2unet weights fetch sam2_hiera_tiny"):
        network = load(
            own_bundle.name,
            bundle_dir=own_bundle.parent,
            workflow_type="train",
            source="github",
            net_override={"variant": "tiny"},
        )
    assert network.trunk_is_frozen


def test_init_bundle_takes_the_network(tmp_path):
    from monai.bundle import init_bundle

    network = SAM2UNet("nano")
    init_bundle(tmp_path / "new", network=network)
    saved = torch.load(tmp_path / "new" / "models" / "model.pt", weights_only=True)
    assert saved.keys() == network.state_dict().keys()


def test_inference_runs_as_a_workflow_by_name(tmp_path, own_bundle, dataset, run_verb):
    done = run_verb(
        "run_workflow",
        cwd=tmp_path,
        config_file=own_bundle / "configs" / "inference.yaml",
        workflow_type="infer",
        dataset_dir=dataset,
        output_dir=tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.mask.png"))) == 16


@pytest.mark.parametrize("run_id", ["run", "inference", "inferring"])
def test_every_run_id_of_inference_is_there(run_id, own_bundle):
    config = yaml.safe_load((own_bundle / "configs" / "inference.yaml").read_text())
    assert config[run_id] == config["run"]


@pytest.mark.parametrize("name", ["train", "inference"])
def test_json_holds_what_the_yaml_holds(name, own_bundle):
    configs = own_bundle / "configs"
    from_yaml = yaml.safe_load((configs / f"{name}.yaml").read_text())
    assert json.loads((configs / f"{name}.json").read_text()) == from_yaml


def test_every_property_that_tools_ask_for_is_there(own_bundle, dataset, tmp_path):
    from monai.bundle import ConfigWorkflow

    train = ConfigWorkflow(
        config_file=str(own_bundle / "configs" / "train.yaml"),
        workflow_type="train",
        logging_file=False,
        dataset_dir=str(dataset),
        variant="nano",
        output_dir=str(tmp_path),
    )
    train.initialize()
    assert train.check_properties() == []
    assert train.max_epochs == 20
    assert train.val_interval == 1
    assert len(train.train_dataset_data) + len(train.val_dataset_data) == 16
    infer = ConfigWorkflow(
        config_file=str(own_bundle / "configs" / "inference.yaml"),
        workflow_type="infer",
        logging_file=False,
        dataset_dir=str(dataset),
    )
    infer.initialize()
    assert infer.check_properties() == []
    assert infer.channel_def == {"0": "background", "1": "polyp"}
    assert infer.bundle_root == str(own_bundle)


def eager(bundle: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.no_grad()(load_model(bundle / "models" / "model.safetensors"))
