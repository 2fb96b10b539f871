"""Draw docs/images/architecture.png: SAM2-UNet, and what this software puts around it.

python docs/make_architecture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import itertools

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

OUT = Path(__file__).parent / "images" / "architecture.png"
FROZEN, LEARNT, AROUND = "#cfe2f3", "#fce5cd", "#eeeeee"
STAGES = ("stride 4", "stride 8", "stride 16", "stride 32")
XS = (3.5, 5.4, 7.3, 9.2)


def main() -> None:
    """Draw the picture."""
    figure, axes = plt.subplots(figsize=(12, 5.6), dpi=110)
    axes.set_xlim(0, 13.5)
    axes.set_ylim(0.5, 6.2)
    axes.axis("off")
    box(axes, 0.1, 4.6, 1.9, 1.0, "DICOM, video,\nimages, volumes", AROUND)
    box(axes, 0.1, 2.75, 1.9, 1.0, "prepare:\nwindow, resize,\nnormalise", AROUND)
    arrow(axes, (1.05, 4.6), (1.05, 3.75))
    arrow(axes, (2.0, 3.4), (2.72, 4.9))
    for x, name in zip(XS, STAGES, strict=True):
        box(axes, x - 0.75, 4.6, 1.5, 1.0, f"Hiera stage\n{name}", FROZEN)
        box(axes, x - 0.75, 4.25, 1.5, 0.3, "adapters", LEARNT, size=9)
        box(axes, x - 0.75, 2.75, 1.5, 0.75, "receptive\nfield block", LEARNT)
        arrow(axes, (x, 4.25), (x, 3.5))
    for left, right in itertools.pairwise(XS):
        arrow(axes, (left + 0.75, 5.1), (right - 0.75, 5.1))
    for x in XS[:3]:
        box(axes, x - 0.75, 1.15, 1.5, 0.75, "decoder step", LEARNT)
        arrow(axes, (x, 2.75), (x, 1.9))
    arrow(axes, (XS[3], 2.75), (XS[2] + 0.75, 1.55))
    for left, right in itertools.pairwise(XS):
        arrow(axes, (right - 0.75, 1.5), (left + 0.75, 1.5))
    arrow(axes, (XS[0] - 0.78, 1.5), (2.03, 1.5))
    box(axes, 0.1, 1.0, 1.9, 1.0, "probability,\nmask at the\nframe's own size", AROUND)
    box(axes, 10.6, 4.6, 2.7, 1.0, "train: MONAI bundle\nevaluate: Dice, intervals", AROUND)
    box(axes, 10.6, 2.85, 2.7, 1.0, "segment: folders in;\nSEG, NIfTI, report out", AROUND)
    box(axes, 10.6, 1.1, 2.7, 1.0, "3D Slicer: a button,\na worker process", AROUND)
    axes.text(2.75, 5.8, "SAM2's trunk, frozen", fontsize=10, color="#1c4587")
    axes.text(2.75, 0.75, "what training learns: under 20 MB", fontsize=10, color="#b45f06")
    figure.savefig(OUT, bbox_inches="tight", metadata={"Software": None})


def box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str,
    *, size: int = 10,
) -> None:  # fmt: skip
    """Draw a box with text in its middle."""
    shape = "round,pad=0.02,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((x, y), width, height, shape, facecolor=colour, edgecolor="#555"))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555", "lw": 1.2})


if __name__ == "__main__":
    main()
