"""A training run on disk: checkpoint, best weights and history; resumes an interrupted run."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from ignite.metrics import Average
from monai.handlers import CheckpointLoader

from sam2unet_core.errors import ConfigError
from sam2unet_core.files import written_whole
from sam2unet_core.inference.model import unmeasured
from sam2unet_core.monai_parts.training import EpochSeed, WeightAverage
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import (
    load_trainable_state_dict,
    save_delta,
    save_full,
    trainable_state_dict,
    trunk_identity,
)
from sam2unet_core.task import Task

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
BEST = "model.safetensors"
HISTORY = "history.csv"


class RunState:
    """Saves and restores the state of a run; the last handler of the trainer.

    Each epoch replaces `checkpoint.pt`: network (without the frozen trunk), optimiser, schedule,
    loss scaler, average, seed, early stopping, best metric, history and epoch. Each improvement in
    validation replaces `model.safetensors`: a delta with its task if the trunk is frozen, else the
    whole network.

    Args:
        output_dir: folder of the run.
        task: what the network is trained for.
        network: the network in training.
        average: the averaged weights, which are validated and saved.
        optimizer: the trainer's optimiser.
        lr_scheduler: the trainer's learning-rate schedule.
        evaluator: the validation; its key metric decides which weights are best.
        seed: seeds each epoch.
        patience: validations without improvement before training stops; 0 never stops early.
        resume: whether to resume from `checkpoint.pt`, if it exists.
    """

    def __init__(  # noqa: PLR0913 (a run's state is all of its parts)
        self,
        output_dir: str,
        *,
        task: Task,
        network: SAM2UNet,
        average: WeightAverage,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        evaluator: Any,
        seed: EpochSeed,
        patience: int = 0,
        resume: bool = False,
    ) -> None:
        self.folder = Path(output_dir)
        self.task = unmeasured(task)
        self.average = average
        self.evaluator = evaluator
        self.patience = patience
        self.resume = resume
        self.history: list[dict[str, float]] = []
        self.network = network
        self.identity: dict[str, str] = {}
        self.parts: dict[str, Any] = {
            "network": _Trainable(network),
            "optimizer": optimizer,
            "lr_scheduler": lr_scheduler,
            "seed": seed,
            "average": average,
            "run": self,
        }

    def attach(self, engine: Engine) -> None:
        """Attach all handlers to the trainer's events."""
        self.parts["seed"].attach(engine)
        self.average.attach(engine)
        self.parts["trainer"] = engine
        if engine.scaler is not None:
            self.parts["scaler"] = engine.scaler
        if self.patience:
            stopper = EarlyStopping(self.patience, score_function=_key_metric, trainer=engine)
            self.evaluator.add_event_handler(Events.COMPLETED, stopper)
            self.parts["early_stopping"] = stopper
        Average(output_transform=lambda output: output["loss"].item()).attach(engine, "loss")
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def start(self, engine: Engine) -> None:
        """Create the run's folder, or resume the run in it.

        Raises:
            ConfigError: the folder holds a run and `resume` is not set.
        """
        self.identity = {"variant": self.network.variant.name}
        if self.network.trunk_is_frozen:
            self.identity["trunk_sha256"] = trunk_identity(self.network)
        checkpoint = self.folder / CHECKPOINT
        if checkpoint.is_file() and not self.resume:
            raise ConfigError(
                f"{self.folder}: holds a training run; resume it with --resume True, or give "
                "another --output_dir"
            )
        if checkpoint.is_file():
            CheckpointLoader(str(checkpoint), self.parts, map_location="cpu")(engine)
            logger.info("resuming %s after epoch %d", self.folder, engine.state.epoch)
        elif idist.get_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.task.save(self.folder / "task.json")

    def epoch_completed(self, engine: Engine) -> None:
        """Record the epoch's metrics, save the best weights, replace the checkpoint."""
        state = self.evaluator.state
        validated = state.epoch == engine.state.epoch and bool(state.metrics)
        self._note(engine, validated)
        if idist.get_rank() != 0:
            return
        self._write_history()
        if validated and state.best_metric_epoch == engine.state.epoch:
            self._save_best()
        checkpoint = {name: part.state_dict() for name, part in self.parts.items()}
        checkpoint |= self.identity
        with written_whole(self.folder / CHECKPOINT) as part:
            torch.save(checkpoint, part)

    def state_dict(self) -> dict[str, Any]:
        """Return the variant, the trunk's hash, the history and the best metric."""
        state = self.evaluator.state
        return {
            **self.identity,
            "history": self.history,
            "best_metric": float(state.best_metric),
            "best_metric_epoch": state.best_metric_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ConfigError: the run was started with a different variant or trunk.
        """
        for name, value in self.identity.items():
            if state.get(name) != value:
                raise ConfigError(
                    f"{self.folder}: was started with {name} {state.get(name)}, not {value}; "
                    "resume it with the same --variant and --trunk"
                )
        self.history = list(state["history"])
        self.evaluator.state.best_metric = state["best_metric"]
        self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]

    def _note(self, engine: Engine, validated: bool) -> None:
        figures = {k: v for k, v in engine.state.metrics.items() if not k.startswith("val_")}
        if validated:
            figures |= {f"val_{k}": v for k, v in self.evaluator.state.metrics.items()}
        engine.state.metrics = figures  # for TensorBoard and MLflow, which run later
        row = {"epoch": engine.state.epoch, **figures}
        row["learning_rate"] = engine.optimizer.param_groups[0]["lr"]
        self.history.append({name: float(value) for name, value in row.items()})
        state = self.evaluator.state
        line = f"epoch {engine.state.epoch} of {engine.state.max_epochs}: loss {row['loss']:.4f}"
        if validated:
            line += f", validation Dice {_key_metric(self.evaluator):.4f}"
            line += f" (best {state.best_metric:.4f} in epoch {state.best_metric_epoch})"
        logger.info(line)

    def _write_history(self) -> None:
        names = list(dict.fromkeys(name for row in self.history for name in row))
        with (
            written_whole(self.folder / HISTORY) as part,
            part.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(self.history)

    def _save_best(self) -> None:
        state = self.evaluator.state
        measured = {f"val_{name}": float(value) for name, value in state.metrics.items()}
        task = replace(self.task, metrics={"epoch": state.epoch, **measured})
        network = self.average.network
        if network.trunk_is_frozen:
            save_delta(network, self.folder / BEST, task=task)
        else:
            save_full(network, self.folder / BEST, task=task, dtype=torch.float32)


class _Trainable:
    """A network's state without its frozen trunk."""

    def __init__(self, network: SAM2UNet) -> None:
        self.network = network

    def state_dict(self) -> dict[str, Any]:
        return trainable_state_dict(self.network)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_trainable_state_dict(self.network, state)


def _key_metric(engine: Engine) -> float:
    return float(engine.state.metrics[engine.state.key_metric_name])
