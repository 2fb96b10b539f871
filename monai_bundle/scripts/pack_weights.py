"""Put a trained network and its measured results into the bundle.

    python monai_bundle/scripts/pack_weights.py RUN/model.safetensors EVAL/summary.json --on "..."

Writes `models/model.safetensors` (16-bit), `models/model.pt` (the same values, for MONAI's tools),
the entries of `configs/task.json` that belong to the weights (file, metrics, image size,
temperature, peak threshold, mirror averaging), and `eval_metrics` of `configs/metadata.json`. With
`--task NAME`, for another task than the bundle's own, it writes only `models/NAME.safetensors` and
`configs/tasks/NAME.json`. Evaluate the packed file, not the run's: 16 bits round slightly.
"""

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sam2unet_core.network.checkpoint import load_model, read_info, save_full
from sam2unet_core.task import Task, Weights

BUNDLE = Path(__file__).resolve().parent.parent


def main() -> None:
    """Read the arguments and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("summary", type=Path, nargs="?", help="summary.json of an evaluation")
    parser.add_argument("--on", default="", help="the data of the evaluation, in words")
    parser.add_argument("--task", help="name of the task; by default the bundle's own")
    parser.add_argument(
        "--image_size", type=int, nargs=2, help="height and width; by default the training's"
    )
    parser.add_argument("--flip_average", action="store_true", help="average with the mirror image")
    parser.add_argument("--calibration", type=Path, help="output of calibrate.py")
    a = parser.parse_args()

    own = BUNDLE / "configs" / "task.json"
    is_own = a.task in (None, Task.load(own).name)
    task_file = own if is_own else BUNDLE / "configs" / "tasks" / f"{a.task}.json"
    before = Task.load(task_file)
    fitted = json.loads(a.calibration.read_text(encoding="utf-8")) if a.calibration else {}
    network = load_model(a.weights)
    trained = read_info(a.weights).task or before
    task = replace(
        before,
        weights=None,
        metrics={},
        image_size=tuple(a.image_size or trained.image_size),
        temperature=fitted.get("temperature", 1.0),
        flip_average=a.flip_average,
        peak_threshold=fitted.get("peak_threshold", 0.0),
    )
    packed = BUNDLE / "models" / ("model.safetensors" if is_own else f"{task.name}.safetensors")
    save_full(network, packed, task=task, dtype=torch.float16)
    sha256 = hashlib.sha256(packed.read_bytes()).hexdigest()
    weights = Weights(f"models/{packed.name}", sha256, network.variant.name)
    metrics = _measured(a.summary, a.on) if a.summary else {}
    if metrics and fitted:
        metrics["calibration_error"] = fitted["ece"]
    replace(task, weights=weights, metrics=metrics).save(task_file)
    if is_own:
        _write_for_monai(packed, task, metrics)


def _write_for_monai(packed: Path, task: Task, metrics: dict[str, object]) -> None:
    state = load_model(packed).state_dict()
    torch.save({k: _smallest(v) for k, v in state.items()}, BUNDLE / "models" / "model.pt")
    metadata_file = BUNDLE / "configs" / "metadata.json"
    metadata = json.loads(metadata_file.read_text(encoding="utf-8"))
    metadata["eval_metrics"] = metrics
    formats = metadata["network_data_format"]
    formats["inputs"]["image"]["spatial_shape"] = list(task.image_size)
    formats["outputs"]["pred"]["spatial_shape"] = list(task.image_size)
    metadata_file.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def _smallest(values: Tensor) -> Tensor:
    """Return 16-bit floats if they hold exactly the same values."""
    half = values.half() if values.is_floating_point() else values
    return half if torch.equal(half.to(values.dtype), values) else values


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
