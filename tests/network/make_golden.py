"""Makes the golden values of this folder: `python tests/network/make_golden.py REFERENCE`.

golden_tiny.npz: logits and trunk statistics of the authors' SAM2-UNet (tiny) in eval mode, float32,
on weights and an image made by the rule of `conftest.py`, a subsample of a reference that the
authors' code (Apache-2.0) computed: every 16th pixel of the main map, every 16th of the sides.
Nothing in it comes from this repository's code.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SIZE = "256x320"


def main(reference: Path) -> None:
    """Subsample the reference."""
    source = np.load(reference / "tiny_golden.npz")
    golden = {f"stage{i}": source[f"{SIZE}_stage{i}_mean_std_first8"] for i in range(4)}
    golden["main"] = source[f"{SIZE}_main"][..., ::16, ::16]
    for name in ("side1", "side2"):  # the reference holds every 8th pixel already
        golden[name] = source[f"{SIZE}_{name}"][..., ::2, ::2]
    for name in ("main", "side1", "side2"):
        golden[f"{name}_std"] = source[f"{SIZE}_{name}"].std()
    np.savez_compressed(Path(__file__).with_name("golden_tiny.npz"), **golden)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
