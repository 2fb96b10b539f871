"""Count a network's false positives in lesion-free images.

    python monai_bundle/scripts/false_findings.py KVASIR --datalist SPLIT/datalist.json -o OUT

There are three kinds of lesion-free images: the largest part of each held-out frame that no mask
touches (at least a third of each side, so that it still shows a part of the bowel), phantom frames
without a polyp, and images of another kind (`--others FOLDER`). A false positive is a connected
component of more than 0.5 % of the image. `--section validation` uses the validation frames of the
training instead of the held-out ones: give the split of the training. The script writes
`OUT/false_findings.json`, and overlays below `OUT`; they show parts of the data set, so its terms
apply to them.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sam2unet_core.data import Sample, load_split, read_dataset
from sam2unet_core.inference.transforms import EIGHT_NEIGHBOURS
from sam2unet_core.media.image import image_files, overlay, read_image, read_mask, write_image
from sam2unet_core.monai_parts.negatives import free_parts
from sam2unet_core.phantom import draw_frame
from sam2unet_core.segmenter import Segmenter

SHARE = 0.005
SIDE = 1 / 3
PHANTOMS = 100


def main() -> None:
    """Read the arguments, segment and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--datalist", type=Path)
    parser.add_argument("--groups", type=Path)
    parser.add_argument("--section", default="testing", help="section of the data list")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="as in the training")
    parser.add_argument("--seed", type=int, default=0, help="as in the training")
    parser.add_argument("--task", help="name of the task; by default the bundle's own")
    parser.add_argument("--others", type=Path, help="folder of images of another kind")
    parser.add_argument("--weights", type=Path, help="weights file; by default the bundle's own")
    parser.add_argument("-o", "--output", type=Path, required=True)
    a = parser.parse_args()
    segmenter = Segmenter.open(task=a.task, weights=a.weights)
    samples = _samples(a)
    classes = segmenter.task.classes
    kinds: dict[str, Iterator[NDArray[np.uint8]]] = {
        "crops": _crops((read_image(s.image), read_mask(s.mask, classes)) for s in samples),
        "phantoms": (draw_frame(i, size=(352, 352), polyps=0)[0] for i in range(PHANTOMS)),
    }
    if a.others:
        kinds["others"] = map(read_image, image_files(a.others))
    result = {}
    for kind, pictures in kinds.items():
        folder = a.output / kind
        folder.mkdir(parents=True, exist_ok=True)
        counts = []
        for i, picture in enumerate(pictures):
            labels = segmenter.label_maps(picture[None])[0]
            counts.append(count_large(labels > 0))
            if counts[-1]:
                write_image(folder / f"{i:04d}.png", overlay(picture, labels, classes))
        result[kind] = {
            "pictures": len(counts),
            "findings": sum(counts),
            "findings_per_ten": round(10 * sum(counts) / max(len(counts), 1), 2),
        }
    text = json.dumps(result, indent=2)
    (a.output / "false_findings.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def _samples(a: argparse.Namespace) -> list[Sample]:
    if a.section == "validation":
        split = load_split(
            a.dataset,
            datalist=a.datalist,
            groups=a.groups,
            val_fraction=a.val_fraction,
            seed=a.seed,
        )
        return split.validation
    return read_dataset(a.dataset, datalist=a.datalist, section=a.section, groups=a.groups)


def _crops(
    pairs: Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
) -> Iterator[NDArray[np.uint8]]:
    for pixels, mask in pairs:
        for part in free_parts(mask > 0, least=SIDE)[:1]:
            yield np.ascontiguousarray(pixels[part])


def count_large(mask: NDArray[np.bool_]) -> int:
    """Return the number of components of more than `SHARE` of the image."""
    components, _ = ndimage.label(mask, EIGHT_NEIGHBOURS)
    areas = np.bincount(components.ravel())[1:]
    return int((areas > SHARE * mask.size).sum())


if __name__ == "__main__":
    main()
