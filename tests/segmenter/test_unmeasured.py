"""What belongs to some weights does not stay when others are used."""

from dataclasses import replace

from sam2unet_core.segmenter import unmeasured
from sam2unet_core.task import Weights, load_preset


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
