"""Hold out frames for testing by a fixed rule, and write the split as a MONAI data list.

    python monai_bundle/scripts/hold_out.py DATASET OUT

Frames that look alike stay on one side: two frames are in one group if their difference hashes (256
bits, of the frame reduced to 17 x 16 greys) differ in at most 40 bits. A group is held out if the
sha256 of its first frame's name, as a number, is a multiple of 8. The rule uses no random numbers,
and a frame added later moves no other frame unless the two look alike. Both numbers are options:
noisy images such as ultrasound need more bits, and a small set may hold out more.
"""

import argparse
import csv
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components

from sam2unet_core.data import Sample, read_dataset

ALIKE_BITS = 40
ONE_IN = 8


def main() -> None:
    """Read the arguments, write `datalist.json` and `groups.csv`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--alike_bits", type=int, default=ALIKE_BITS)
    parser.add_argument(
        "--one_in", type=int, default=ONE_IN, help="hold out one group in this many"
    )
    arguments = parser.parse_args()
    samples = read_dataset(arguments.dataset)
    hashes = [difference_hash(sample.image) for sample in samples]
    groups = group_by_looks(hashes, alike_bits=arguments.alike_bits)
    first = {group: samples[groups.index(group)].name for group in set(groups)}
    sections: dict[str, list[dict[str, str]]] = {"training": [], "testing": []}
    for sample, group in zip(samples, groups, strict=True):
        held_out = is_held_out(first[group], one_in=arguments.one_in)
        section = "testing" if held_out else "training"
        sections[section].append(_entry(sample, arguments.dataset))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "datalist.json").write_text(json.dumps(sections, indent=1), encoding="utf-8")
    with (arguments.out / "groups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("name", "group"))
        writer.writerows((s.name, first[g]) for s, g in zip(samples, groups, strict=True))
    counts = {name: len(entries) for name, entries in sections.items()}
    print(f"{counts} in {len(first)} groups, {len(samples) - len(first)} frames look like another")


def difference_hash(image: Path) -> np.ndarray:
    """Return 256 booleans: whether each of 16 x 16 cells is brighter than the one to its left."""
    with Image.open(image) as opened:
        grey = opened.convert("L").resize((17, 16), Image.Resampling.BOX)
    cells = np.asarray(grey).astype(int)
    return (cells[:, 1:] > cells[:, :-1]).ravel()


def group_by_looks(hashes: list[np.ndarray], *, alike_bits: int = ALIKE_BITS) -> list[int]:
    """Return a group number for each hash; similar ones are linked, directly or through others."""
    stacked = np.array(hashes)
    distances = (stacked[:, None] != stacked[None]).sum(-1)
    return list(connected_components(distances <= alike_bits)[1])


def is_held_out(name: str, *, one_in: int = ONE_IN) -> bool:
    """Return whether the group whose first frame bears this name is held out."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % one_in == 0


def _entry(sample: Sample, dataset: Path) -> dict[str, str]:
    files = {"image": sample.image, "label": sample.mask}
    return {key: str(file.relative_to(dataset)) for key, file in files.items() if file}


if __name__ == "__main__":
    main()
