"""What training starts from: a new network, SAM2's trunk, a trained network."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from ignite.engine import Engine, Events

from sam2unet_core.monai_parts.cpu_attention import attend_fast_on_cpu
from sam2unet_core.monai_parts.training import PRECISIONS
from sam2unet_core.network import SAM2UNet
from sam2unet_core.network.checkpoint import (
    find_trunk,
    load_weights,
    read_info,
    require_trunk,
    round_frozen,
    trunk_file,
)

logger = logging.getLogger(__name__)


def training_network(
    variant: str,
    *,
    num_classes: int = 1,
    train_trunk: bool | None = None,
    gradient_checkpointing: float = 0.0,
    drop_path: float = 0.0,
    trunk: str | None = None,
) -> SAM2UNet:
    """Return a new network.

    `InitialWeights` loads its frozen trunk when training starts. A warning is given if the trunk's
    weights are not there, for those who use the network without training it, as
    `monai.bundle.load` does.

    Args:
        variant: see `SAM2UNet`, as for the next four.
        num_classes: output channels.
        train_trunk: whether to train the trunk; None freezes SAM2's.
        gradient_checkpointing: see `SAM2UNet`.
        drop_path: of the trunk's last block.
        trunk: SAM2's file; None for the one in the cache.
    """
    network = SAM2UNet(
        variant,
        num_classes=num_classes,
        train_trunk=train_trunk,
        gradient_checkpointing=gradient_checkpointing,
        drop_path=drop_path,
    )
    if network.trunk_is_frozen and trunk is None and trunk_file(network.variant) is None:
        warnings.warn(
            f"the frozen {variant} trunk holds random values and must not be used like this; "
            f"`sam2unet weights fetch sam2_hiera_{variant}` downloads SAM2's weights",
            stacklevel=2,
        )
    return network


class InitialWeights:
    """Loads the initial weights, so that a frozen trunk never has random values.

    The first handler of the trainer.

    Args:
        network: the network to train.
        variant: its variant, to find the trunk in the cache.
        weights: a weights file to start from (full network or delta). If its number of classes
            differs, its heads are skipped.
        trunk: SAM2's file; None for the one in the cache.
        precision: of the training; a frozen trunk's matrices are converted to a 16-bit one.
    """

    def __init__(
        self,
        network: SAM2UNet,
        variant: str,
        weights: str | None = None,
        trunk: str | None = None,
        *,
        precision: str = "float32",
    ) -> None:
        self.dtype = PRECISIONS[precision]
        self.network = network
        self.variant = variant
        self.weights = weights
        self.trunk = trunk

    def attach(self, engine: Engine) -> None:
        """Load before the first epoch."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        """Load the files.

        Raises:
            MissingWeightsError: the frozen trunk's weights are not in the cache.
            WeightsError: a file does not fit.
        """
        for file in self._files():
            found = load_weights(self.network, file, other_classes=True)
            logger.info("starting from %s: %s", Path(file).name, found)
        if self.dtype is not None:
            round_frozen(self.network, self.dtype)
        attend_fast_on_cpu(self.network)

    def _files(self) -> list[Path | str]:
        given = read_info(self.weights) if self.weights is not None else None
        files: list[Path | str] = []
        if self.trunk is not None:
            files.append(self.trunk)
        elif self.network.trunk_is_frozen and (given is None or given.is_delta):
            named = given.trunk_sha256 if given is not None else None
            files.append((find_trunk(named) if named else None) or require_trunk(self.variant))
        if self.weights is not None:
            files.append(self.weights)
        return files


def bundled_trunk(bundle_root: str, variant: str) -> str | None:
    """Return SAM2's file in `models`, where MONAI's `download_large_files` puts it, or None."""
    found = sorted(Path(bundle_root, "models").glob(f"sam2*_hiera_{variant}.pt"))
    return str(found[0]) if found else None
