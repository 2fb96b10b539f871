"""Distributed training: one process per device, started by torchrun."""

from __future__ import annotations

import os

import torch
from torch import distributed

from sam2unet_core.errors import ConfigError


def start_process_group() -> None:
    """Join the process group that torchrun started: NCCL on GPUs, gloo on CPUs.

    Raises:
        ConfigError: torchrun did not start this process.
    """
    if not distributed.is_torchelastic_launched():
        raise ConfigError(
            "multi_gpu_train.yaml needs torchrun: torchrun --standalone --nproc_per_node=N -m "
            "monai.bundle run training --config_file ..."
        )
    device = process_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def process_device() -> torch.device:
    """Return this process's GPU, or the CPU if there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
