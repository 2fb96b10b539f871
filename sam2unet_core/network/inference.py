"""A network made faster for inference: the same arithmetic in fewer and better steps.

What is done here is undone by nothing: a network that went through `optimise` segments, but is
neither trained nor saved again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sam2unet_core.network.attention import WindowAttention
from sam2unet_core.network.blocks import ConvNorm, DoubleConv
from sam2unet_core.network.hiera import MLP, AdaptedBlock
from sam2unet_core.network.sam2unet import SAM2UNet


def optimise(network: SAM2UNet, *, size: tuple[int, int], dtype: torch.dtype) -> None:
    """Prepare a network in place for inference on the device where it is.

    Batch normalisation is folded into the convolutions, the position embedding is computed once,
    convolutions take the layout that is fastest, and weights the given type. On a CPU linear
    layers are packed and joined with the activation after them, and attention skips the places
    beyond the edge of the grid. Layers that were prepared before, such as those of a trunk that
    two networks share, are left as they are.

    Args:
        network: in evaluation mode.
        size: (height, width) of the images to come in pixels; others work, only slower.
        dtype: `float32`, `bfloat16` or `float16`.
    """
    _fold_batch_norm(network)
    network.encoder.remember_position(*size)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(dtype)
    if next(network.parameters()).device.type == "cpu":
        for module in network.modules():
            if isinstance(module, WindowAttention):
                module.split_edges = True
        if can_pack(dtype):
            _pack_linears(network)


def share_trunk(network: SAM2UNet, donor: SAM2UNet) -> None:
    """Let `network` use the frozen layers of `donor`'s trunk, prepared or not, as its own."""
    own, other = network.encoder, donor.encoder
    own.patch_embed = other.patch_embed
    own.pos_embed, own.pos_embed_window = other.pos_embed, other.pos_embed_window
    own.position = other.position
    for mine, theirs in zip(own.blocks, other.blocks, strict=True):
        mine.block = theirs.block


class PackedLinear(nn.Module):
    """A linear layer on a CPU whose weight lies as oneDNN wants it, with GELU after it or not.

    The plain layer brings the weight into that order again at every call, which costs a quarter
    of its time. PyTorch's compiler emits the same operator.

    Args:
        linear: gives weight and bias; they are copied.
        gelu: apply the exact GELU to the output.
    """

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        """Pack the weight."""
        super().__init__()
        weight = linear.weight.detach().contiguous()
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias: Tensor | None = None if linear.bias is None else linear.bias.detach()
        self.activation = ("gelu", "none") if gelu else ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., in)` to `(..., out)`."""
        kind, algorithm = self.activation
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self.packed.dtype), self.packed, self.bias, kind, [], algorithm
        )
        return output


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch packs linear layers of that type on this machine."""
    operators = torch.ops.mkldnn
    names = ("_linear_pointwise", "_reorder_linear_weight")
    if not all(hasattr(operators, name) for name in names):
        return False
    if dtype == torch.float32:
        return True
    needed = {torch.bfloat16: "avx512_f", torch.float16: "avx512_fp16"}.get(dtype, "")
    return bool(cpu_capabilities().get(needed, False))


def cpu_capabilities() -> dict[str, object]:
    """Return what PyTorch knows of the processor; nothing where it is too old to tell."""
    known = getattr(torch.cpu, "get_capabilities", dict)
    return dict(known())


def _pack_linears(module: nn.Module) -> None:
    """Pack the linear layers below a module one by one, so that each frees what it replaces."""
    if isinstance(module, MLP) and isinstance(module.layers[0], nn.Linear):
        module.layers[0] = PackedLinear(module.layers[0], gelu=True)
        module.act = nn.Identity()  # type: ignore[assignment]
    elif isinstance(module, AdaptedBlock) and len(module.prompt_learn) == 4:
        down, up = module.prompt_learn[0], module.prompt_learn[2]
        if isinstance(down, nn.Linear) and isinstance(up, nn.Linear):
            packed = (PackedLinear(layer, gelu=True) for layer in (down, up))
            module.prompt_learn = nn.Sequential(*packed)
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, PackedLinear(child))
        else:
            _pack_linears(child)


def _fold_batch_norm(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, ConvNorm) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()  # type: ignore[assignment]
        elif isinstance(module, DoubleConv):
            module.double_conv = nn.Sequential(*_folded(list(module.double_conv)))


def _folded(layers: list[nn.Module]) -> Iterator[nn.Module]:
    """Yield layers, each convolution joined with the batch normalisation after it."""
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            yield fuse_conv_bn_eval(layer, following)
        elif not isinstance(layer, nn.BatchNorm2d):
            yield layer
