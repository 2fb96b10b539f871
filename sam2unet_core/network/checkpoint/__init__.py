"""Weights files: loading, saving, caching and downloading."""

from sam2unet_core.network.checkpoint.cache import (
    cache_folder,
    find_trunk,
    require_trunk,
    trunk_file,
)
from sam2unet_core.network.checkpoint.formats import WeightsInfo, read_info
from sam2unet_core.network.checkpoint.loading import (
    LoadedWeights,
    load_model,
    load_trainable_state_dict,
    load_weights,
)
from sam2unet_core.network.checkpoint.saving import merge, save_delta, save_full, split
from sam2unet_core.network.keys import (
    round_frozen,
    trainable_state_dict,
    trunk_hash,
    trunk_identity,
    trunk_keys,
)

__all__ = [
    "LoadedWeights",
    "WeightsInfo",
    "cache_folder",
    "find_trunk",
    "load_model",
    "load_trainable_state_dict",
    "load_weights",
    "merge",
    "read_info",
    "require_trunk",
    "round_frozen",
    "save_delta",
    "save_full",
    "split",
    "trainable_state_dict",
    "trunk_file",
    "trunk_hash",
    "trunk_identity",
    "trunk_keys",
]
