"""Our trunk and the one of `transformers`, an independent implementation, agree."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel

from sam2unet_core.network import SAM2UNet, Variant
from sam2unet_core.network.keys import canonical_key, trunk_keys

TINY_LIKE = Variant(24, 1, (1, 2, 3, 2), (5,), (8, 4, 14, 7), name="tiny-like")
BASE_PLUS_LIKE = Variant(32, 2, (2, 3, 4, 3), (6, 8), (8, 4, 14, 7), (14, 14), name="base-like")
LARGE_LIKE = Variant(32, 2, (1, 2, 4, 2), (4, 6), (8, 4, 16, 8), name="large-like")


@pytest.mark.parametrize("variant", [TINY_LIKE, BASE_PLUS_LIKE, LARGE_LIKE], ids=lambda v: v.name)
@pytest.mark.parametrize("size", [(352, 352), (224, 320)])
def test_trunk_agrees_with_transformers(
    variant: Variant, size: tuple[int, int], build: Callable, image_by_rule: Callable
) -> None:
    model: SAM2UNet = build(variant)
    _switch_adapters_off(model)
    oracle = _oracle(variant)
    oracle.load_state_dict(_oracle_weights(model), strict=True)
    image = image_by_rule(*size)
    with torch.inference_mode():
        ours = model.encoder(image)
        theirs = oracle(image).intermediate_hidden_states  # (B, H, W, C)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == (
            1,
            variant.embed_dim * 2**i,
            size[0] // 2 ** (i + 2),
            size[1] // 2 ** (i + 2),
        )
        torch.testing.assert_close(a, b.permute(0, 3, 1, 2), rtol=0, atol=2e-5 * b.std().item())


def _oracle(variant: Variant) -> Sam2HieraDetModel:
    return Sam2HieraDetModel(
        Sam2HieraDetConfig(
            hidden_size=variant.embed_dim,
            num_attention_heads=variant.num_heads,
            blocks_per_stage=list(variant.stages),
            embed_dim_per_stage=list(variant.channels),
            num_attention_heads_per_stage=[variant.num_heads * 2**i for i in range(4)],
            window_size_per_stage=list(variant.windows),
            global_attention_blocks=list(variant.global_blocks),
            window_positional_embedding_background_size=list(variant.pos_background),
        )
    ).eval()


def _switch_adapters_off(model: SAM2UNet) -> None:
    """An adapter ends in GELU(linear), and GELU(0) is 0."""
    for name, parameter in model.named_parameters():
        if ".prompt_learn.2." in name:
            torch.nn.init.zeros_(parameter)


def _oracle_weights(model: SAM2UNet) -> dict[str, Tensor]:
    renamed = {
        r"^patch_embed\.proj\.": "patch_embed.projection.",
        r"\.norm([12])\.": r".layer_norm\1.",
        r"\.mlp\.layers\.0\.": ".mlp.proj_in.",
        r"\.mlp\.layers\.1\.": ".mlp.proj_out.",
    }
    state = model.state_dict()
    weights = {}
    for key in trunk_keys(state):
        name = canonical_key(key)
        for pattern, new in renamed.items():
            name = re.sub(pattern, new, name)
        weights[name] = state[key]
    return weights
