import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sam2unet_core.cli import app
from sam2unet_core.media.image import read_image, read_mask
from sam2unet_core.segmenter import Segmenter


@pytest.fixture(scope="module")
def segmented(own_bundle, dataset, tmp_path_factory, run_verb):
    out = tmp_path_factory.mktemp("inference")
    done = run_verb(
        "run",
        "inference",
        cwd=own_bundle,
        config=str(own_bundle / "configs" / "inference.yaml"),
        dataset_dir=dataset / "images",
        output_dir=out,
        probabilities=True,
        runtime="exact",  # the last bits of 16-bit arithmetic depend on what else is computed
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_bundle_and_segmenter_give_identical_masks(segmented, own_bundle, dataset):
    segmenter = Segmenter.open(own_bundle, device="cpu", runtime="exact")
    images = sorted((dataset / "images").iterdir())
    areas = []
    for image in images:
        expected = segmenter.label_maps(read_image(image)[None])[0]
        found = read_mask(segmented / f"{image.name}.mask.png", segmenter.task.classes)
        np.testing.assert_array_equal(found, expected)
        areas.append(int(expected.sum()))
    assert max(areas) > 0


def test_every_image_gets_mask_overlay_and_probability_of_its_own_size(segmented, dataset):
    for image in (dataset / "images").iterdir():
        size = read_image(image).shape
        for kind in ("mask", "overlay", "prob1"):
            assert read_image(segmented / f"{image.name}.{kind}.png").shape == size


def test_segmenter_opens_a_bundle_without_monai(own_bundle):
    import subprocess
    import sys

    code = (
        "import sys; from sam2unet_core.segmenter import Segmenter; "
        f"Segmenter.open({str(own_bundle)!r}); "
        "assert not any(m.split('.')[0] in ('monai', 'ignite') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_evaluation_writes_masks_and_a_table(tmp_path, own_bundle, dataset, run_verb):
    done = run_verb(
        "run",
        "evaluating",
        cwd=tmp_path,
        config=str(own_bundle / "configs" / "evaluate.yaml"),
        dataset_dir=dataset,
        groups=dataset / "groups.csv",
        output_dir=tmp_path / "out",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "out" / "masks").glob("*.mask.png"))) == 16
    with (tmp_path / "out" / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 16
    json.loads((tmp_path / "out" / "summary.json").read_text())


def test_the_command_repeats_the_table_of_the_bundles_evaluation(
    tmp_path, own_bundle, dataset, run_verb
):
    names = sorted(p.name for p in (dataset / "images").iterdir())
    entries = [{"image": f"images/{name}", "label": f"masks/{name}"} for name in names]
    datalist = tmp_path / "datalist.json"
    datalist.write_text(json.dumps({"training": entries[:10], "testing": entries[10:]}))
    options = {"datalist": datalist, "groups": dataset / "groups.csv"}
    done = run_verb(
        "run",
        "evaluating",
        cwd=tmp_path,
        config=str(own_bundle / "configs" / "evaluate.yaml"),
        dataset_dir=dataset,
        output_dir="bundle",
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = json.loads((tmp_path / "bundle" / "summary.json").read_text())
    assert expected["images"] == 6
    assert expected["classes"]["polyp"]["scores"]["dice"]["mean"] > 0
    task = own_bundle / "configs" / "task.json"
    words = ["--task", str(task)]
    for key, value in options.items():
        words += [f"--{key}", str(value)]

    def table(masks, *more):
        out = tmp_path / "command"
        line = ["evaluate", str(masks), str(dataset), "-o", str(out), *words, *more]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, result.output
        return json.loads((out / "summary.json").read_text())

    assert table(tmp_path / "bundle" / "masks") == expected
    assert table(tmp_path / "bundle" / "masks", "--section", "testing") == expected
    # the same frames segmented by the command, all sixteen of them, and named below images/
    line = ["segment", str(dataset / "images"), "-o", str(tmp_path / "all"), "--device", "cpu"]
    result = CliRunner().invoke(app, [*line, "--bundle", str(own_bundle), "--format", "png"])
    assert result.exit_code == 0, result.output
    segmented = table(tmp_path / "all")
    assert "10 predictions have no mask" in segmented["notes"][0]
    found, known = (t["classes"]["polyp"]["scores"]["dice"] for t in (segmented, expected))
    assert found["count"] == known["count"] == 6
    assert found["mean"] == pytest.approx(known["mean"], abs=0.01)  # batches round differently
    whole = table(tmp_path / "all", "--section", "training")
    assert whole["images"] == 10


def test_a_bundle_whose_weights_were_swapped_is_refused(own_bundle, tmp_path):
    from sam2unet_core.errors import WeightsError

    copy = tmp_path / "copy"
    shutil.copytree(own_bundle, copy)
    with (copy / "models" / "model.safetensors").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(WeightsError, match="sha256"):
        Segmenter.open(copy)


def test_an_image_that_cannot_be_read_is_one_failed_line_and_the_others_are_done(
    tmp_path, own_bundle, dataset, run_verb
):
    shutil.copytree(dataset / "images", tmp_path / "images")
    (tmp_path / "images" / "0003.png").write_bytes(b"not a picture")
    done = run_verb(
        "run",
        "inference",
        cwd=tmp_path,
        config=str(own_bundle / "configs" / "inference.yaml"),
        dataset_dir="images",
        output_dir="out",
    )
    assert done.returncode == 2
    assert "1 of 16 inputs failed" in done.stderr
    assert "Traceback" not in done.stderr
    lines = [
        json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    ]
    (failed,) = [line for line in lines if line["status"] == "failed"]
    assert failed["outputs"] == []
    assert failed["message"].startswith("the file")
    assert not (tmp_path / "out" / "0003.png.mask.png").exists()
    assert len(list((tmp_path / "out").glob("*.mask.png"))) == 15


def test_a_set_without_any_lesion_can_be_measured(tmp_path, own_bundle, dataset, run_verb):
    shutil.copytree(dataset, tmp_path / "data")
    for mask in (tmp_path / "data" / "masks").iterdir():
        labels = read_image(mask)[..., 0] * 0
        Image.fromarray(labels).save(mask)
    done = run_verb(
        "run",
        "evaluating",
        cwd=tmp_path,
        config=str(own_bundle / "configs" / "evaluate.yaml"),
        dataset_dir="data",
        output_dir="out",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["classes"]["polyp"]["without_lesion"]["images"] == 16
