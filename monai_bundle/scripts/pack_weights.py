"""Make a trained network the bundle's own, with what was measured of it.

    python monai_bundle/scripts/pack_weights.py RUN/model.safetensors EVAL/summary.json --on "..."

Writes `models/model.safetensors` (16-bit), `models/model.pt` (the same values, for MONAI's tools),
and the entries `weights` and `metrics` of `configs/task.json` and `eval_metrics` of
`configs/metadata.json`. Measure the packed file, not the run's: 16 bits round a little.
"""

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch

from sam2unet_core.network.checkpoint import load_model, save_full
from sam2unet_core.task import Task, Weights

BUNDLE = Path(__file__).resolve().parent.parent


def main() -> None:
    """Read the arguments and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("summary", type=Path, nargs="?", help="summary.json of an evaluation")
    parser.add_argument("--on", default="", help="what was measured on, in words")
    arguments = parser.parse_args()

    task_file = BUNDLE / "configs" / "task.json"
    network = load_model(arguments.weights)
    packed = BUNDLE / "models" / "model.safetensors"
    task = replace(Task.load(task_file), weights=None, metrics={})
    save_full(network, packed, task=task, dtype=torch.float16)
    rounded = load_model(packed).state_dict()
    half = {k: v.half() if v.is_floating_point() else v for k, v in rounded.items()}
    exact = all(torch.equal(half[k].to(v.dtype), v) for k, v in rounded.items())
    torch.save(half if exact else rounded, BUNDLE / "models" / "model.pt")

    sha256 = hashlib.sha256(packed.read_bytes()).hexdigest()
    weights = Weights("models/model.safetensors", sha256, network.variant.name)
    metrics = _measured(arguments.summary, arguments.on) if arguments.summary else {}
    replace(task, weights=weights, metrics=metrics).save(task_file)
    metadata_file = BUNDLE / "configs" / "metadata.json"
    metadata = json.loads(metadata_file.read_text(encoding="utf-8"))
    metadata["eval_metrics"] = metrics
    metadata_file.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def _measured(summary: Path, on: str) -> dict[str, object]:
    content = json.loads(summary.read_text(encoding="utf-8"))
    dice = [item["scores"]["dice"]["mean"] for item in content["classes"].values()]
    note = f"starter model, research only, mean Dice {sum(dice) / len(dice):.2f} on {on}"
    found: dict[str, object] = {"note": note, "on": on, "images": content["images"]}
    for name, item in content["classes"].items():
        for score in ("dice", "iou"):
            values = item["scores"][score]
            found[f"{name}_{score}"] = round(values["mean"], 4)
            found[f"{name}_{score}_interval"] = [round(values[k], 4) for k in ("low", "high")]
    return found


if __name__ == "__main__":
    main()
