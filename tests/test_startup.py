"""What `sam2unet segment` imports: nothing that a plain picture does not need.

What takes long to import is measured by `benchmarks/startup.py`; here is only what is imported.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

UNNEEDED = {
    "SimpleITK",
    "highdicom",
    "ignite",
    "imagecodecs",
    "matplotlib",
    "monai",
    "nibabel",
    "onnx",
    "pandas",
    "pydicom",
    "pynetdicom",
    "requests",
    "scipy",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
    "transformers",
}
RUN = """
import json, sys
from sam2unet_core.cli.main import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Modules in a process of its own after it segmented a PNG file."""
    folder = tmp_path_factory.mktemp("picture")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    out = folder / "out"
    given = ["segment", str(folder / "one.png"), "-o", str(out), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *given], capture_output=True, text=True, check=True, timeout=600
    )
    assert (out / "one.png.mask.png").is_file()
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_segmenting_a_picture_imports_pytorch(imported: set[str]) -> None:
    assert {"torch", "PIL.Image", "sam2unet_core.inference.engine"} <= imported


@pytest.mark.parametrize("name", sorted(UNNEEDED))
def test_segmenting_a_picture_does_not_import(name: str, imported: set[str]) -> None:
    assert name not in imported


def test_small_components_are_dropped_without_scipy() -> None:
    code = (
        "import sys, numpy as np\n"
        "from dataclasses import replace\n"
        "from sam2unet_core.inference.transforms import class_masks\n"
        "from sam2unet_core.task import load_preset\n"
        "task = load_preset('polyp')\n"
        "seen = np.zeros((1, 8, 8), np.float32)\n"
        "seen[0, 1, 1] = seen[0, 4:7, 4:7] = 1\n"
        "areas = [class_masks(seen, task).sum()]\n"
        "classes = tuple(replace(each, min_area_px=5) for each in task.classes)\n"
        "areas.append(class_masks(seen, replace(task, classes=classes)).sum())\n"
        "print(*areas, 'scipy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.split() == ["10", "9", "False"]


def test_warnings_stay_silent_where_pydicom_is_imported_within() -> None:
    code = (
        "import sys\n"
        "from sam2unet_core.dicom.files import quiet\n"
        "with quiet():\n"
        "    assert 'pydicom' not in sys.modules\n"
        "    from pydicom import config\n"
        "    before = config.settings.reading_validation_mode\n"
        "    with quiet():\n"
        "        inside = config.settings.reading_validation_mode\n"
        "after = config.settings.reading_validation_mode\n"
        "print(before != config.IGNORE, inside == config.IGNORE, after == before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.split() == ["True", "True", "True"]


def test_a_worker_answers_before_it_imports_what_reads_and_segments() -> None:
    code = (
        "import sys, sam2unet_core.worker\n"
        "print(sorted({'pydicom', 'scipy', 'torch', 'SimpleITK'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.strip() == "[]"


def test_garbage_is_looked_for_again_once_pytorch_is_imported() -> None:
    code = (
        "import gc\n"
        "from sam2unet_core.cli.segment import importing_torch\n"
        "with importing_torch():\n"
        "    before = gc.isenabled()\n"
        "    import torch\n"
        "print(before, gc.isenabled(), gc.get_freeze_count() > 10_000)\n"
        "frozen = gc.get_freeze_count()\n"
        "with importing_torch():\n"
        "    print(gc.isenabled(), gc.get_freeze_count() == frozen)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.split() == ["False", "True", "True", "True", "True"]
