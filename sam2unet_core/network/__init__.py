"""The network: SAM2-UNet, its sizes and its checkpoints."""

from sam2unet_core.network.sam2unet import SAM2UNet
from sam2unet_core.network.variants import VARIANTS, Variant

__all__ = ["VARIANTS", "SAM2UNet", "Variant"]
