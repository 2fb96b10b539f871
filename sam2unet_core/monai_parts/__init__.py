"""The components that the bundle's YAML files use: data, transforms, handlers and the inferer."""

from sam2unet_core.data import check_samples, read_dataset
from sam2unet_core.inference.runtimes.torch_runtime import choose_device
from sam2unet_core.monai_parts.batches import TrainingLoader, validation_sampler
from sam2unet_core.monai_parts.configuration import (
    choose_bundle_model,
    find_bundle_root,
    report_errors_in_one_line,
    run_folder,
    training_task,
)
from sam2unet_core.monai_parts.frames import LoadFramed, Prepared, ToMasksd, as_items, image_samples
from sam2unet_core.monai_parts.inference import SegmenterInferer, WriteResultsd, picture_formats
from sam2unet_core.monai_parts.logs import (
    TrainingBar,
    dice_metric,
    is_terminal,
    mlflow_handler,
    progress_bar,
    tensorboard_handler,
)
from sam2unet_core.monai_parts.negatives import RandDrawnFrame, RandDrawnTexture, RandFreePart
from sam2unet_core.monai_parts.overrides import check_overrides
from sam2unet_core.monai_parts.pasting import RandPastedLesion
from sam2unet_core.monai_parts.results import (
    check_intervals,
    check_split,
    show_run,
    write_evaluation,
)
from sam2unet_core.monai_parts.run_state import RunState
from sam2unet_core.monai_parts.starting import InitialWeights, bundled_trunk, training_network
from sam2unet_core.monai_parts.training import (
    EpochSeed,
    FiniteLoss,
    PrecisionInferer,
    ScaledBatch,
    WeightAverage,
    clip_gradients,
    process_device,
    start_process_group,
    trainable_parameters,
)

__all__ = [
    "EpochSeed",
    "FiniteLoss",
    "InitialWeights",
    "LoadFramed",
    "PrecisionInferer",
    "Prepared",
    "RandDrawnFrame",
    "RandDrawnTexture",
    "RandFreePart",
    "RandPastedLesion",
    "RunState",
    "ScaledBatch",
    "SegmenterInferer",
    "ToMasksd",
    "TrainingBar",
    "TrainingLoader",
    "WeightAverage",
    "WriteResultsd",
    "as_items",
    "bundled_trunk",
    "check_intervals",
    "check_overrides",
    "check_samples",
    "check_split",
    "choose_bundle_model",
    "choose_device",
    "clip_gradients",
    "dice_metric",
    "find_bundle_root",
    "image_samples",
    "is_terminal",
    "mlflow_handler",
    "picture_formats",
    "process_device",
    "progress_bar",
    "read_dataset",
    "report_errors_in_one_line",
    "run_folder",
    "show_run",
    "start_process_group",
    "tensorboard_handler",
    "trainable_parameters",
    "training_network",
    "training_task",
    "validation_sampler",
    "write_evaluation",
]
