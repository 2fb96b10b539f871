"""The tasks that come with the bundle: truthful codes, the paper's numbers, one polyp task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.sr._concepts_dict import concepts

from sam2unet_core.errors import TaskError
from sam2unet_core.inference.model import unmeasured
from sam2unet_core.task import Task, installed_bundle, load_preset, presets

NAMES = (
    "breast_ultrasound",
    "camouflaged",
    "marine_animal",
    "mirror",
    "nerve_ultrasound",
    "polyp",
    "retinal_vessel",
    "salient",
    "skin_lesion",
    "surgical_instrument",
)
PAPER = ("camouflaged", "marine_animal", "mirror", "polyp", "salient")

CITED = {
    # Not in pydicom's dictionary: a top-level concept of SNOMED CT, listed as such in the SNOMED
    # CT Glossary, "top level concept" (docs.snomed.org, 2019-01-31 International Release).
    ("SCT", "410607006", "Organism"),
}

MODALITIES = {"DMS", "ES", "GM", "OP", "OT", "US", "XC"}
"""Defined Terms of Modality (DICOM PS3.3 C.7.3.1.1.1) that the tasks name."""

PHOTOMETRIC = {
    "MONOCHROME1",
    "MONOCHROME2",
    "PALETTE COLOR",
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_ICT",
    "YBR_PARTIAL_420",
    "YBR_RCT",
}
"""Defined Terms of Photometric Interpretation (DICOM PS3.3 C.7.6.3.1.2) that the tasks name."""


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    return load_preset(request.param)


def test_the_presets_are_the_ones_documented() -> None:
    assert tuple(presets()) == NAMES


def test_preset_bears_the_name_of_its_file(task: Task) -> None:
    assert task.name in NAMES


def test_every_code_stands_in_a_dictionary_with_its_meaning_or_is_cited(task: Task) -> None:
    known = {
        (scheme, code, meaning)
        for scheme, keywords in concepts.items()
        for entries in keywords.values()
        for code, (meaning, _) in entries.items()
    }
    for item in task.classes:
        for code in (item.category, item.type, item.region):
            assert code is None or code in known | CITED


def test_clinical_category_is_one_of_the_standards(task: Task) -> None:
    # CID 7150 Segmentation Property Category; it is extensible, animals have no place in it.
    categories = {
        code
        for entries in concepts["SCT"].values()
        for code, (_, groups) in entries.items()
        if 7150 in groups
    }
    for item in task.classes:
        assert item.category[1] in categories or task.name == "marine_animal"


def test_accepted_sources_are_terms_of_the_standard(task: Task) -> None:
    assert task.accepts.modalities
    assert set(task.accepts.modalities) <= MODALITIES
    assert set(task.accepts.photometric) <= PHOTOMETRIC


def test_no_preset_of_photographs_takes_a_radiograph_or_a_ct(task: Task) -> None:
    assert not {"CT", "MR", "DX", "CR", "SEG"} & set(task.accepts.modalities)


def test_image_size_is_one_that_the_network_takes_without_padding(task: Task) -> None:
    assert all(side % 32 == 0 for side in task.image_size)


def test_thin_vessels_get_the_larger_image() -> None:
    assert load_preset("retinal_vessel").image_size == (512, 512)
    assert load_preset("polyp").image_size == (352, 352)


def test_ultrasound_tasks_take_grey_and_colour_pictures() -> None:
    for name in ("breast_ultrasound", "nerve_ultrasound"):
        assert {"MONOCHROME2", "RGB"} <= set(load_preset(name).accepts.photometric)


def test_nerve_task_has_two_classes_that_exclude_one_another() -> None:
    task = load_preset("nerve_ultrasound")
    assert [(item.value, item.name) for item in task.classes] == [(1, "nerve"), (2, "vessel")]
    assert (task.activation, task.num_channels) == ("softmax", 3)


def test_nerves_are_the_bright_and_vessels_the_dark_value_of_the_real_masks(
    shared_data: Path,
) -> None:
    # usgra-seg names no values; in ultrasound blood gives no echo and a nerve's sheaths do.
    folder = shared_data / "data" / "nerve_ultrasound"
    darker = pairs = 0
    for path in sorted((folder / "masks").iterdir())[::10]:
        mask = np.asarray(Image.open(path))
        image = next((folder / "images").glob(f"{path.stem}.*"))
        grey = np.asarray(Image.open(image).convert("L")).astype(float)
        if {1, 2} <= set(np.unique(mask)):
            pairs += 1
            darker += grey[mask == 2].mean() < grey[mask == 1].mean()
    assert pairs > 10
    assert darker == pairs


def test_the_bundles_task_is_the_polyp_preset() -> None:
    own = Task.load(installed_bundle() / "configs" / "task.json")
    bundle = unmeasured(own).to_dict()  # its size and temperature belong to its weights
    preset = load_preset("polyp").to_dict()
    for key in ("weights", "metrics", "paper"):
        bundle.pop(key, None)
        preset.pop(key, None)
    assert bundle == preset


def test_preset_survives_being_saved_and_loaded(task: Task, tmp_path: Path) -> None:
    task.save(tmp_path / "task.json")
    assert Task.load(tmp_path / "task.json") == task


def test_only_the_papers_tasks_quote_it() -> None:
    assert tuple(name for name in NAMES if load_preset(name).paper) == PAPER


@pytest.mark.parametrize("name", PAPER)
def test_papers_recipe_is_the_published_one(name: str) -> None:
    paper = load_preset(name).paper
    training = paper["training"]
    assert paper["source"] == "arXiv:2408.08870"
    assert (training["batch_size"], training["image_size"]) == (12, [352, 352])
    assert (training["learning_rate"], training["weight_decay"]) == (1e-3, 5e-4)
    assert training["epochs"] == (50 if name in ("camouflaged", "salient") else 20)


@pytest.mark.parametrize("name", PAPER)
def test_results_name_known_test_sets_and_metrics(name: str) -> None:
    paper = load_preset(name).paper
    assert set(paper["results"]) <= set(paper["test_sets"])
    for values in paper["results"].values():
        assert set(values) <= set(paper["metrics"])
        assert all(0 < value < 1 for value in values.values())


@pytest.mark.parametrize("name", PAPER)
def test_every_unconfirmed_entry_names_a_number_that_is_there(name: str) -> None:
    paper = load_preset(name).paper
    for entry in paper["unverified"]:
        value = paper
        for key in entry.split("."):
            value = value[key]
        assert isinstance(value, (int, float))


def test_published_numbers_are_those_of_the_papers_tables() -> None:
    # The results that arXiv:2408.08870 publishes.
    results = {name: load_preset(name).paper["results"] for name in PAPER}
    assert results["polyp"]["Kvasir"] == {"mDice": 0.928}
    assert results["salient"]["ECSSD"] == {"S": 0.950, "E": 0.970, "MAE": 0.020}
    assert results["salient"]["PASCAL-S"] == {"S": 0.894, "E": 0.931, "MAE": 0.043}
    assert results["marine_animal"]["RMAS"]["mIoU"] == 0.738
    assert results["mirror"]["PMD"] == {"IoU": 0.728, "F": 0.826, "MAE": 0.027}
    splits = load_preset("polyp").paper
    assert sum(splits["train_sets"].values()) == 1450
    assert sum(splits["test_sets"].values()) == 798  # the PraNet split


def test_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(TaskError, match="unknown task 'plyp'; choose from breast_ultrasound"):
        load_preset("plyp")


def test_preset_files_are_plain_json_without_tabs() -> None:
    for path in presets().values():
        text = path.read_text(encoding="utf-8")
        assert json.loads(text)["schema"] == 1
        assert "\t" not in text
        assert text.endswith("}\n")
