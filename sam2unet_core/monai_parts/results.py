"""What a finished run leaves: its pictures, its tables, and a word on where they are."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
import torch

from sam2unet_core.console import console
from sam2unet_core.data import Sample, Split, check_samples
from sam2unet_core.errors import ConfigError
from sam2unet_core.evaluation import evaluate_samples
from sam2unet_core.monai_parts.pictures import draw_contact_sheet, draw_curve
from sam2unet_core.monai_parts.run_state import BEST, HISTORY
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import load_weights
from sam2unet_core.segmenter import Segmenter
from sam2unet_core.task import Task

logger = logging.getLogger(__name__)


def check_split(split: Split, task: Task) -> None:
    """Open every image and mask of a split once, before training starts.

    Raises:
        DataError: names each file that cannot be used.
    """
    check_samples([*split.training, *split.validation], task)
    logger.info("%d training, %d validation frames", len(split.training), len(split.validation))


def check_intervals(epochs: int, val_interval: int) -> None:
    """Refuse a run that would end without a validation, and so without weights.

    Raises:
        ConfigError: the interval is longer than the run, or not a number of epochs.
    """
    if not 1 <= val_interval <= epochs:
        raise ConfigError(
            f"val_interval {val_interval}: expected from 1 to the {epochs} epochs of the run; "
            "without a validation no weights are kept"
        )


def show_run(
    run_dir: str, network: SAM2UNet, split: Split, device: torch.device | str
) -> dict[str, str]:
    """Draw the curve and a contact sheet of a finished training; return the files by name."""
    if idist.get_rank() != 0:
        return {}
    folder = Path(run_dir)
    files = {"weights": folder / BEST, "history": folder / HISTORY}
    files |= {"curve": folder / "curve.png", "frames": folder / "validation.png"}
    draw_curve(files["history"], files["curve"])
    load_weights(network, files["weights"])
    own = copy.deepcopy(network)  # the Segmenter takes its network over
    segmenter = Segmenter(Task.load(folder / "task.json"), own, device=str(device))
    draw_contact_sheet(segmenter, split.validation, files["frames"])
    for name, file in files.items():
        logger.info("%s: %s", name, file)
    return {name: str(file) for name, file in files.items()}


def write_evaluation(run_dir: str, samples: Sequence[Sample], task: Task) -> None:
    """Measure the masks below `run_dir` against the samples' own; write and show the tables."""
    folder = Path(run_dir)
    found = evaluate_samples(folder / "masks", samples, task=task)
    found.write(folder)
    console().print(found.table())
    logger.info("tables written to %s", run_dir)
