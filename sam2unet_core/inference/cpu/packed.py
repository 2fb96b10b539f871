"""Linear layers and convolutions on a CPU with oneDNN's and MKL's own operators, for inference."""

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
"""Rows and columns of a weight from which on MKL is faster than oneDNN."""


def mkldnn() -> Any:
    """Return oneDNN's operators in PyTorch, which are private to it."""
    return torch.ops.mkldnn


class PackedLinear(nn.Module):
    """A linear layer on a CPU whose weight lies as oneDNN wants it, with GELU after it or not.

    The plain layer brings the weight into that order again at every call, which costs a quarter
    of its time. PyTorch's compiler emits the same operators.

    Args:
        linear: gives weight and bias; they are copied.
        gelu: apply the exact GELU to the output.
        rows: vectors of one image that will go through it; 0 where that is not known.
    """

    def __init__(self, linear: nn.Linear, *, gelu: bool = False, rows: int = 0) -> None:
        """Pack the weight."""
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
    """A float32 linear layer on a CPU whose weight lies as MKL wants it, with GELU after it or not.

    With one image that takes 2 to 7 % less time than oneDNN's order on two cores, on one core 5 to
    13 %; with several about as long.

    Args:
        linear: gives weight and bias; they are copied.
        gelu: apply the exact GELU to the output.
        rows: vectors of one image. Other numbers are cut into so many or filled up to them, which
            takes as long as those: a network prepared for another size loses up to a quarter.
    """

    def __init__(self, linear: nn.Linear, *, gelu: bool, rows: int) -> None:
        """Pack the weight."""
        super().__init__()
        weight = linear.weight.detach().contiguous()
        self.rows = rows
        self.packed: Tensor = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
        # Of the plain weight the operator reads the shape alone, as long as the rows are those; if
        # it ever read more, nothing but NaN would come out.
        self.shape_alone = weight.new_full((1,), torch.nan).expand(weight.shape)
        self.bias: Tensor | None = None if linear.bias is None else linear.bias.detach()
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., in)` to `(..., out)`."""
        vectors = x.to(torch.float32).reshape(-1, x.size(-1))
        found = [self._product(part) for part in torch.split(vectors, self.rows)]
        output = found[0] if len(found) == 1 else torch.cat(found)
        return output.view(*x.shape[:-1], len(self.shape_alone))

    def _product(self, x: Tensor) -> Tensor:
        missing = self.rows - len(x)
        whole = F.pad(x, (0, 0, 0, missing)) if missing else x
        output: Tensor = torch.ops.mkl._mkl_linear(
            whole, self.packed, self.shape_alone, self.bias, self.rows
        )
        return (F.gelu(output) if self.gelu else output)[: len(x)]


def packed_linear(
    linear: nn.Linear, *, gelu: bool = False, rows: int = 0
) -> PackedLinear | MKLLinear:
    """Return a linear layer on a CPU, with GELU after it or not, in the way that is fastest.

    Args:
        linear: gives weight and bias; they are copied.
        gelu: apply the exact GELU to the output.
        rows: vectors of one image that will go through it; 0 where that is not known.
    """
    if rows and _suits_mkl(linear.weight):
        return MKLLinear(linear, gelu=gelu, rows=rows)
    return PackedLinear(linear, gelu=gelu, rows=rows)


class PackedConvolution(nn.Module):
    """A convolution on a CPU whose weight lies as oneDNN wants it.

    A ReLU after it is not joined with it: oneDNN's makes 0 of what is not a number, and damaged
    weights or numbers too large for 16 bits would read as no finding.

    Args:
        convolution: gives weight and bias; they are copied.
        size: (height, width) of the maps to come; others work, only slower.
    """

    def __init__(self, convolution: nn.Conv2d, *, size: tuple[int, int]) -> None:
        """Pack the weight."""
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
    """Whether oneDNN computes the product of that many rows with a weight on one of two cores.

    Measured with 16 bits and two threads: between these bounds the product takes 1.1 to 1.7 times
    as long as with the weight in the order for one row, which is split; beyond them it is faster.
    Frames that are then computed on one core each take up to a twentieth longer for it.
    """
    columns, depth = weight.shape
    is_medium = rows >= 400 and 288 <= columns <= min(768, depth)
    most = 2.0 if depth >= 2 * columns else 1.4
    is_between = is_medium and 0.6 <= rows / columns <= most
    return is_between and weight.dtype != torch.float32 and torch.get_num_threads() == 2


def _suits_mkl(weight: Tensor) -> bool:
    """Whether a layer of that weight is best left to MKL, as measured on an Intel processor."""
    is_large = weight.dtype == torch.float32 and min(weight.shape) >= LEAST_FOR_MKL
    is_intel = str(cpu_capabilities().get("cpu_name", "")).startswith("Intel")
    return is_large and is_intel and can_pack_for_mkl()


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether layers of that type are packed on this machine.

    The operators are private to PyTorch: they are tried once, and where they are missing, called
    otherwise or compute something else, the plain layers stay.
    """
    needed = {torch.bfloat16: "avx512_f", torch.float16: "avx512_fp16"}.get(dtype, "")
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if needed and not cpu_capabilities().get(needed, False):
        return False
    return _computes_the_same(_packed_as_plain, dtype)


@cache
def can_pack_for_mkl() -> bool:
    """Whether float32 linear layers are packed for MKL here; tried once as `can_pack`."""
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return False
    return _computes_the_same(_mkl_as_plain, torch.float32)


def cpu_capabilities() -> dict[str, object]:
    """Return what PyTorch knows of the processor; nothing where it is too old to tell."""
    known = getattr(torch.cpu, "get_capabilities", dict)
    return dict(known())


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
Pairs = Iterator[tuple[Tensor, Tensor]]
"""What a packed layer computes and what the plain one does."""


def _computes_the_same(pairs: Callable[[torch.dtype], Pairs], dtype: torch.dtype) -> bool:
    """Try private operators on small layers beside the public ones."""
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    try:
        with torch.inference_mode():
            for got, wanted in pairs(dtype):
                if not torch.allclose(got, wanted, rtol=tolerance, atol=tolerance):
                    raise ValueError("the numbers differ")
    except Exception as error:  # whatever another version of PyTorch does
        reason = str(error).partition("\n")[0] or type(error).__name__
        logger.warning(
            "layers in %s are not packed, which makes inference slower: PyTorch %s is not the one "
            "this was written for (%s)",
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
    for rows in (5, 7):  # as many as it was packed for, and more
        x = _numbers(rows, 48)
        yield MKLLinear(linear, gelu=False, rows=5)(x), linear(x)


def _filled(make: Callable[[], Layer]) -> Layer:
    """Make a layer and fill it; the random generator of whoever called stays as it was."""
    with torch.random.fork_rng(devices=[]):
        layer = make()
    for parameter in layer.parameters():
        parameter.data.copy_(_numbers(*parameter.shape) / 8)
    return layer


def _numbers(*shape: int) -> Tensor:
    """Return numbers from -1 to 1 that differ from place to place."""
    return torch.arange(math.prod(shape), dtype=torch.float32).mul(0.7).sin().view(shape)
