# ruff: noqa: F401
"""What a process of `run_python` has imported when it starts; MONAI alone takes 10 seconds."""

import inspect

import highdicom
import ignite.handlers
import matplotlib.pyplot
import monai.bundle
import torch

import sam2unet_core.batch.runner
import sam2unet_core.cli.main
import sam2unet_core.evaluation
import sam2unet_core.inputs
import sam2unet_core.monai_parts

inspect.stack()  # Fire asks for it at each start; `inspect` then remembers where all modules are
