"""Linear layers and convolutions for inference on a CPU, with operators of oneDNN and MKL."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

logger = logging.getLogger(__name__)
LEAST_FOR_MKL = 400
"""MKL is faster than oneDNN for weights with at least this many rows and columns."""


def mkldnn() -> Any:
    """Return PyTorch's oneDNN operators, which are private."""
    return torch.ops.mkldnn


class PackedLinear(nn.Module):
    """A linear layer on a CPU with its weight in oneDNN's layout, optionally fused with a GELU.

    A plain layer reorders the weight at every call, which takes a quarter of its time. PyTorch's
    compiler emits the same operators.

    Args:
        linear: the layer whose weight and bias are copied.
        gelu: whether to apply the exact GELU to the output.
        rows: number of tokens of one image; 0 if unknown.
    """

    def __init__(self, linear: nn.Linear, *, gelu: bool = False, rows: int = 0) -> None:
        super().__init__()
        weight = linear.weight.detach().contiguous()
        for_rows = 1 if _stays_on_one_core(rows, weight) else None
        self.packed: Tensor = mkldnn()._reorder_linear_weight(weight, for_rows)
        self.bias: Tensor | None = None if linear.bias is None else linear.bias.detach()
        self.activation = ("gelu", "none") if gelu else ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., in)` to `(..., out)`."""
        kind, algorithm = self.activation
        output: Tensor = mkldnn()._linear_pointwise(
            x.to(self.packed.dtype), self.packed, self.bias, kind, [], algorithm
        )
        return output

    def add(self, x: Tensor, onto: Tensor) -> Tensor:
        """Return `onto + self(x)`, added before the product is rounded; `onto` is overwritten.

        Args:
            x: `(..., in)`.
            onto: `(..., out)`, contiguous and of the weight's type.
        """
        output: Tensor = mkldnn()._linear_pointwise.binary(
            x.to(self.packed.dtype), onto, self.packed, self.bias, "add"
        )
        return output


class MKLLinear(nn.Module):
    """A float32 linear layer on a CPU with its weight in MKL's layout, optionally with a GELU.

    For one image, it takes 2 to 7 % less time than oneDNN on two cores and 5 to 13 % less on one
    core; for several images, about the same.

    Args:
        linear: the layer whose weight and bias are copied.
        gelu: whether to apply the exact GELU to the output.
        rows: number of tokens of one image. Inputs are split into or padded to this number, so a
            network prepared for a different size is up to a quarter slower.
    """

    def __init__(self, linear: nn.Linear, *, gelu: bool, rows: int) -> None:
        super().__init__()
        weight = linear.weight.detach().contiguous()
        self.rows = rows
        self.packed: Tensor = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
        # With this number of rows, the operator reads only the shape of the plain weight. If it
        # ever read its values, the output would be NaN.
        self.shape_only = weight.new_full((1,), torch.nan).expand(weight.shape)
        self.bias: Tensor | None = None if linear.bias is None else linear.bias.detach()
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., in)` to `(..., out)`."""
        vectors = x.to(torch.float32).reshape(-1, x.size(-1))
        found = [self._product(part) for part in torch.split(vectors, self.rows)]
        output = found[0] if len(found) == 1 else torch.cat(found)
        return output.view(*x.shape[:-1], len(self.shape_only))

    def _product(self, x: Tensor) -> Tensor:
        missing = self.rows - len(x)
        padded = F.pad(x, (0, 0, 0, missing)) if missing else x
        output: Tensor = torch.ops.mkl._mkl_linear(
            padded, self.packed, self.shape_only, self.bias, self.rows
        )
        return (F.gelu(output) if self.gelu else output)[: len(x)]


def packed_linear(
    linear: nn.Linear, *, gelu: bool = False, rows: int = 0
) -> PackedLinear | MKLLinear:
    """Return the faster of `PackedLinear` and `MKLLinear`, whose arguments these are."""
    if rows and _suits_mkl(linear.weight):
        return MKLLinear(linear, gelu=gelu, rows=rows)
    return PackedLinear(linear, gelu=gelu, rows=rows)


class PackedConvolution(nn.Module):
    """A convolution on a CPU with its weight in oneDNN's layout.

    It is not fused with a ReLU, because oneDNN's ReLU turns NaN into 0: damaged weights or
    overflows in 16 bits would look like no finding.

    Args:
        convolution: the layer whose weight and bias are copied.
        size: (height, width) of the maps; other sizes work, but slower.
    """

    def __init__(self, convolution: nn.Conv2d, *, size: tuple[int, int]) -> None:
        super().__init__()
        if isinstance(convolution.padding, str):
            raise ValueError(f"padding is {convolution.padding!r}, expected numbers")
        weight = convolution.weight.detach()
        self.place = (
            list(convolution.padding), list(convolution.stride), list(convolution.dilation),
            convolution.groups,
        )  # fmt: skip
        self.packed: Tensor = mkldnn()._reorder_convolution_weight(
            weight, *self.place, [1, convolution.in_channels, *size]
        )
        self.bias = None if convolution.bias is None else convolution.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, H', W')`."""
        output: Tensor = mkldnn()._convolution_pointwise(
            x, self.packed, self.bias, *self.place, "none", [], ""
        )
        return output


def _stays_on_one_core(rows: int, weight: Tensor) -> bool:
    """Return whether oneDNN would compute a product with that many rows on one of two cores.

    Measured in 16 bits with two threads: within these bounds, the weight's usual layout takes 1.1
    to 1.7 times as long as the layout for one row, which uses both cores; outside, it is faster.
    Frames computed on one core each take up to 5 % longer with the layout for one row.
    """
    columns, depth = weight.shape
    is_medium = rows >= 400 and 288 <= columns <= min(768, depth)
    most = 2.0 if depth >= 2 * columns else 1.4
    is_between = is_medium and 0.6 <= rows / columns <= most
    return is_between and weight.dtype != torch.float32 and torch.get_num_threads() == 2


def _suits_mkl(weight: Tensor) -> bool:
    """Return whether MKL is faster for that weight, as measured on Intel processors."""
    is_large = weight.dtype == torch.float32 and min(weight.shape) >= LEAST_FOR_MKL
    is_intel = str(cpu_capabilities().get("cpu_name", "")).startswith("Intel")
    return is_large and is_intel and can_pack_for_mkl()


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Return whether layers of that type can be packed on this machine.

    PyTorch's operators for that are private. They are tested once; if they are missing or have
    changed, the plain layers are used.
    """
    needed = {torch.bfloat16: "avx512_f", torch.float16: "avx512_fp16"}.get(dtype, "")
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if needed and not cpu_capabilities().get(needed, False):
        return False
    return _computes_the_same(_packed_as_plain, dtype)


@cache
def can_pack_for_mkl() -> bool:
    """Return whether float32 linear layers can be packed for MKL on this machine."""
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return False
    return _computes_the_same(_mkl_as_plain, torch.float32)


def cpu_capabilities() -> dict[str, object]:
    """Return PyTorch's information on the processor; empty if PyTorch is too old."""
    known = getattr(torch.cpu, "get_capabilities", dict)
    return dict(known())


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
Pairs = Iterator[tuple[Tensor, Tensor]]
"""The outputs of a packed layer and of the plain one."""


def _computes_the_same(pairs: Callable[[torch.dtype], Pairs], dtype: torch.dtype) -> bool:
    """Return whether private operators give the same results as public ones on small layers."""
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    try:
        with torch.inference_mode():
            for got, wanted in pairs(dtype):
                if not torch.allclose(got, wanted, rtol=tolerance, atol=tolerance):
                    raise ValueError("the numbers differ")
    except Exception as error:  # other versions of PyTorch may raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        logger.warning(
            "layers in %s are not packed, so inference is slower: PyTorch %s has changed its "
            "private operators (%s)",
            str(dtype).removeprefix("torch."),
            torch.__version__,
            reason,
        )
        return False
    return True


def _packed_as_plain(dtype: torch.dtype) -> Pairs:
    linear = _filled(lambda: nn.Linear(48, 32)).to(dtype)
    x, onto = _numbers(5, 48).to(dtype), _numbers(5, 32).to(dtype)
    packed = PackedLinear(linear)
    yield packed(x), linear(x)
    yield packed.add(x, onto.clone()), onto + linear(x)
    yield PackedLinear(linear, gelu=True)(x), F.gelu(linear(x))
    convolution = _filled(lambda: nn.Conv2d(16, 24, 3, padding=1, stride=2)).to(dtype)
    maps = _numbers(1, 16, 9, 8).to(dtype)
    yield PackedConvolution(convolution, size=(9, 8))(maps), convolution(maps)


def _mkl_as_plain(dtype: torch.dtype) -> Pairs:
    linear = _filled(lambda: nn.Linear(48, 32))
    for rows in (5, 7):  # the number it was packed for, and more
        x = _numbers(rows, 48)
        yield MKLLinear(linear, gelu=False, rows=5)(x), linear(x)


def _filled(make: Callable[[], Layer]) -> Layer:
    """Make a layer without changing the random generator."""
    with torch.random.fork_rng(devices=[]):
        layer = make()
    for parameter in layer.parameters():
        parameter.data.copy_(_numbers(*parameter.shape) / 8)
    return layer


def _numbers(*shape: int) -> Tensor:
    """Return deterministic, varied numbers from -1 to 1."""
    return torch.arange(math.prod(shape), dtype=torch.float32).mul(0.7).sin().view(shape)
