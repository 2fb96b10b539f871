"""Checks before a run, and its pictures and tables after it."""

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
    """Check every image and mask of a split before training starts.

    Raises:
        DataError: files cannot be used; the message lists them.
    """
    check_samples([*split.training, *split.validation], task)
    logger.info("%d training, %d validation frames", len(split.training), len(split.validation))


def check_intervals(epochs: int, val_interval: int) -> None:
    """Check that a run has a validation, without which no weights are saved.

    Raises:
        ConfigError: the interval is below 1 or longer than the run.
    """
    if not 1 <= val_interval <= epochs:
        raise ConfigError(
            f"val_interval {val_interval}: expected 1 to {epochs}, the epochs of the run; without "
            "a validation no weights are saved"
        )


def show_run(
    run_dir: str, network: SAM2UNet, split: Split, device: torch.device | str
) -> dict[str, str]:
    """Draw the curves and a contact sheet of a finished training; return the files by name."""
    if idist.get_rank() != 0:
        return {}
    folder = Path(run_dir)
    files = {"weights": folder / BEST, "history": folder / HISTORY}
    files |= {"curve": folder / "curve.png", "frames": folder / "validation.png"}
    draw_curve(files["history"], files["curve"])
    load_weights(network, files["weights"])
    own = copy.deepcopy(network)  # the Segmenter changes its network
    segmenter = Segmenter(Task.load(folder / "task.json"), own, device=str(device))
    draw_contact_sheet(segmenter, split.validation, files["frames"])
    for name, file in files.items():
        logger.info("%s: %s", name, file)
    return {name: str(file) for name, file in files.items()}


def write_evaluation(run_dir: str, samples: Sequence[Sample], task: Task) -> None:
    """Evaluate `run_dir`/masks against the samples' masks; write and show the tables."""
    folder = Path(run_dir)
    found = evaluate_samples(folder / "masks", samples, task=task)
    found.write(folder)
    console().print(found.table())
    logger.info("tables written to %s", run_dir)
