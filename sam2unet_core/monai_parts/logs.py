"""Reporting during a run: progress bars, metrics, TensorBoard, MLflow."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ignite.engine import Engine
from ignite.handlers import ProgressBar
from monai.handlers import (
    IgniteMetricHandler,
    MLFlowHandler,
    TensorBoardStatsHandler,
    from_engine,
)
from monai.metrics import DiceMetric
from torch import Tensor

from sam2unet_core.errors import MissingExtraError


def dice_metric() -> IgniteMetricHandler:
    """Return the handler of the mean Dice over frames and classes; two empty masks score 1."""
    return IgniteMetricHandler(
        metric_fn=DiceMetric(ignore_empty=False),
        output_transform=from_engine(["pred", "label"]),
        save_details=False,
    )


def is_terminal() -> bool:
    """Return whether stderr is a terminal; progress bars are drawn only then."""
    return sys.stderr.isatty()


def progress_bar(description: str) -> ProgressBar:
    """Return a progress bar on stderr with the remaining time; hidden if stderr is no terminal."""
    return ProgressBar(desc=description, disable=not is_terminal())


class TrainingBar:
    """A handler of the trainer: progress bar of each epoch with the current loss."""

    def attach(self, engine: Engine) -> None:
        """Attach the bar to the trainer."""
        bar = progress_bar("training")
        bar.attach(engine, output_transform=lambda output: {"loss": _loss(output)})


def tensorboard_handler(run_dir: str) -> TensorBoardStatsHandler:
    """Return the handler that writes TensorBoard events to `run_dir`/tensorboard."""
    _require("tensorboard")
    return TensorBoardStatsHandler(
        log_dir=str(Path(run_dir) / "tensorboard"), output_transform=_loss
    )


def mlflow_handler(run_dir: str) -> MLFlowHandler:
    """Return the handler that writes to an MLflow store in `run_dir`; nothing leaves the machine.

    It records only metrics: no configuration and no data paths.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # MLflow reads it at import
    _require("mlflow")
    folder = Path(run_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return MLFlowHandler(
        tracking_uri=f"sqlite:///{folder.as_posix()}/mlflow.db",
        artifacts=None,
        experiment_name="sam2unet",
        output_transform=_loss,
        close_on_complete=True,
    )


def _require(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{module} is not installed: pip install 'sam2unet[track]'")


def _loss(output: dict[str, Tensor]) -> float:
    return output["loss"].item()
