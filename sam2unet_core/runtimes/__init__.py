"""What runs the network: one interface, frames in, probability out."""

from sam2unet_core.runtimes.choice import RUNTIMES, check_runtime, open_runtime, weights_type
from sam2unet_core.runtimes.runtime import Runtime

__all__ = ["RUNTIMES", "Runtime", "check_runtime", "open_runtime", "weights_type"]
