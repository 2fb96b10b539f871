"""What belongs to some weights does not stay when others are used."""

from dataclasses import replace

import pytest

from sam2unet_core.inference import model
from sam2unet_core.inference.model import choose_task, unmeasured
from sam2unet_core.task import Weights, installed_bundle, load_preset


def test_size_temperature_and_numbers_go_with_the_weights_they_belong_to():
    preset = load_preset("polyp")
    fitted = replace(
        preset,
        weights=Weights("models/model.safetensors", "0" * 64, "starter"),
        metrics={"note": "starter model"},
        temperature=1.5,
        image_size=(256, 256),
    )
    found = unmeasured(fitted)
    assert found.weights is None
    assert found.metrics == {}
    assert found.temperature == 1.0
    assert found.image_size == preset.image_size == (352, 352)


def test_a_task_of_ones_own_keeps_what_it_says():
    own = replace(load_preset("polyp"), temperature=1.5, image_size=(96, 64))
    assert unmeasured(own) == own


@pytest.mark.parametrize("weights_first", [False, True])
def test_a_preset_with_weights_gives_others_nothing_of_what_was_measured(
    monkeypatch, weights_first
):
    measured = replace(
        load_preset("nerve_ultrasound"),
        weights=Weights("models/nerve_ultrasound.safetensors", "0" * 64, "starter"),
        metrics={"note": "starter model"},
        temperature=1.5,
    )
    presets = {"nerve_ultrasound": measured, "polyp": load_preset("polyp")}
    monkeypatch.setattr(model, "load_preset", presets.get)

    monkeypatch.setattr(model, "task_in_weights", lambda _: None)

    def chosen(weights):
        folder = installed_bundle()
        return choose_task(folder, "nerve_ultrasound", weights, weights_first=weights_first)

    assert chosen(None) == measured
    other = chosen("RUN/model.safetensors")
    assert (other.weights, other.metrics, other.temperature) == (None, {}, 1.0)
