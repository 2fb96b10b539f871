"""What a run reports while it goes: progress, figures, TensorBoard, MLflow."""

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
    """Return the mean Dice over frames and classes; agreeing on an empty mask counts as 1."""
    return IgniteMetricHandler(
        metric_fn=DiceMetric(ignore_empty=False),
        output_transform=from_engine(["pred", "label"]),
        save_details=False,
    )


def is_terminal() -> bool:
    """Return whether a person is watching: progress bars are drawn only then."""
    return sys.stderr.isatty()


def progress_bar(description: str) -> ProgressBar:
    """Return a bar with the time left, on stderr; hidden where stderr is no terminal."""
    return ProgressBar(desc=description, disable=not is_terminal())


class TrainingBar:
    """Progress bar of each epoch with the current loss; a handler of the trainer."""

    def attach(self, engine: Engine) -> None:
        """Follow the trainer."""
        bar = progress_bar("training")
        bar.attach(engine, output_transform=lambda output: {"loss": _loss(output)})


def tensorboard_handler(run_dir: str) -> TensorBoardStatsHandler:
    """Return the handler that writes TensorBoard events below `run_dir`."""
    _require("tensorboard")
    return TensorBoardStatsHandler(
        log_dir=str(Path(run_dir) / "tensorboard"), output_transform=_loss
    )


def mlflow_handler(run_dir: str) -> MLFlowHandler:
    """Return the handler that writes to an MLflow store in `run_dir`; nothing leaves the machine.

    Only figures are recorded: no configuration and no path of the data.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # MLflow reads it when it is imported
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
