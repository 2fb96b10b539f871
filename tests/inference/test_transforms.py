import numpy as np
import pytest
import torch
from PIL import Image

from sam2unet_core.inference.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    prepare,
    prepare_target,
    restore,
)


@pytest.fixture
def pixels() -> np.ndarray:
    """A frame with smooth colour, hard edges and noise, `(180, 260, 3)` uint8."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:180, 0:260]
    frame = np.stack([rows, columns, rows + columns], axis=-1) % 256.0
    frame[40:90, 60:200] = (250, 10, 30)
    frame[100:, 130:] = rng.integers(0, 256, (80, 130, 3))
    return frame.astype(np.uint8)


def grey_levels(prepared: torch.Tensor) -> np.ndarray:
    """Undo the normalisation: `(1, 3, h, w)` to `(h, w, 3)` grey levels."""
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((prepared[0].numpy() * std + mean) * 255).transpose(1, 2, 0)


@pytest.mark.parametrize("size", [(352, 352), (96, 64), (180, 260), (60, 400)])
def test_prepare_equals_pils_antialiased_bilinear_resize_to_one_grey_level(pixels, size):
    expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    found = grey_levels(prepare(torch.from_numpy(pixels).permute(2, 0, 1)[None], size))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1.001


def test_prepare_normalises_by_imagenets_statistics():
    frame = torch.tensor([255, 0, 128], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    found = prepare(frame, (32, 32))[0, :, 0, 0]
    # (1 - .485) / .229, (0 - .456) / .224, (128/255 - .406) / .225
    torch.testing.assert_close(found, torch.tensor([2.248908, -2.035714, 0.426492]))


def test_soft_labels_equal_pils_bicubic_to_one_grey_level():
    mask = np.zeros((150, 210), np.uint8)
    mask[30:110, 50:160] = 255
    expected = np.asarray(Image.fromarray(mask).resize((96, 64), Image.Resampling.BICUBIC)) / 255
    found = prepare_target(torch.from_numpy(mask // 255)[None, None], (64, 96))[0, 0].numpy()
    assert np.abs(found - expected).max() <= 1.5 / 255
    assert np.count_nonzero(np.abs(found - 0.5) < 0.4) > 0  # soft at the border


def test_restore_puts_things_back_where_prepare_took_them_from():
    # A linear ramp survives any bilinear resize away from the border, so positions can be read off.
    rows = torch.arange(96.0).view(1, 1, 96, 1).expand(1, 3, 96, 160)
    columns = torch.arange(160.0).view(1, 1, 1, 160).expand(1, 3, 96, 160)
    for ramp in (rows, columns):
        # away from the rounding to grey levels: the resize alone
        small = torch.nn.functional.interpolate(ramp, (192, 320), mode="bilinear", antialias=True)
        back = restore(small, (96, 160))
        inside = (..., slice(4, -4), slice(4, -4))
        assert (back - ramp)[inside].abs().max() < 1e-4


@pytest.mark.parametrize("size", [(96, 160), (61, 33), (1, 1), (33, 47)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_restore_is_bilinear_between_pixel_centres(size, dtype):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 33, 47).to(dtype, memory_format=torch.channels_last)
    wanted = torch.nn.functional.interpolate(maps.double(), size, mode="bilinear")
    found = restore(maps, size)
    assert (found.dtype, found.shape) == (torch.float32, (2, 3, *size))
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-6)
    # where a gradient is asked for, PyTorch computes it, less exactly
    learned = restore(maps.clone().requires_grad_(), size)
    assert learned.requires_grad
    torch.testing.assert_close(learned.double(), wanted, rtol=0, atol=1e-3)


def test_an_object_keeps_its_centre_through_prepare_and_restore():
    frame = torch.zeros(1, 3, 111, 173, dtype=torch.uint8)
    frame[..., 20:41, 100:151] = 255
    restored = restore(prepare(frame, (352, 352))[:, :1], (111, 173))[0, 0]
    weight = (restored - restored.min()).double()
    rows, columns = torch.meshgrid(torch.arange(111.0), torch.arange(173.0), indexing="ij")
    assert float((weight * rows).sum() / weight.sum()) == pytest.approx(30, abs=0.05)
    assert float((weight * columns).sum() / weight.sum()) == pytest.approx(125, abs=0.05)
