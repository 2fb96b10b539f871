"""SAM2-UNet: the network, its variants and its checkpoints."""

from sam2unet_core.network.sam2unet import SAM2UNet
from sam2unet_core.network.variants import VARIANTS, Variant

__all__ = ["VARIANTS", "SAM2UNet", "Variant"]
