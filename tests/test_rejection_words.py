"""Why a task does not fit an image, in words that a person at Slicer understands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sam2unet_core.task import Accepts, load_preset
from sam2unet_core.types import SourceProperties, rejection_reason

POLYP = replace(load_preset("polyp"), accepts=Accepts(modalities=("ES", "XC")))
CLASSED = replace(POLYP, accepts=Accepts(sop_classes=("1.2.840.10008.5.1.4.1.1.2",)))


@pytest.mark.parametrize(
    ("task", "source", "message"),
    [
        (
            POLYP,
            SourceProperties("OP", None, "RGB"),
            "this is a fundus photograph (OP); the task 'polyp' is made for endoscopy, "
            "photographs (ES, XC)",
        ),
        (
            POLYP,
            SourceProperties(None, None, "RGB"),
            "the source does not state its modality; the task 'polyp' is made for endoscopy, "
            "photographs (ES, XC)",
        ),
        (
            POLYP,
            SourceProperties("XYZ", None, "RGB"),
            "the modality of the source is XYZ; the task 'polyp' is made for endoscopy, "
            "photographs (ES, XC)",
        ),
        (
            replace(POLYP, accepts=Accepts(modalities=("QQ",))),
            SourceProperties("CT", None, None),
            "this is a CT image (CT); the task 'polyp' is made for QQ",
        ),
        (
            CLASSED,
            SourceProperties("CT", "1.2.3", None),
            "the SOP class of the source is 1.2.3; the task 'polyp' is made for the SOP class "
            "1.2.840.10008.5.1.4.1.1.2",
        ),
    ],
)
def test_a_refusal_says_what_the_image_is_and_what_the_task_is_made_for(
    task, source, message
) -> None:
    found = rejection_reason(task, source)
    assert found is not None
    assert found.message == message


def test_what_a_task_accepts_is_no_refusal() -> None:
    assert rejection_reason(POLYP, SourceProperties("XC", None, "RGB")) is None
    assert rejection_reason(POLYP, None) is None
