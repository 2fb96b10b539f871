"""The parts that the YAML names, each by itself."""

import copy

import pytest
import torch
from ignite.engine import Engine

from sam2unet_core.errors import ConfigError, DataError
from sam2unet_core.monai_parts import (
    EpochSeed,
    FiniteLoss,
    PrecisionInferer,
    ScaledBatch,
    WeightAverage,
    clip_gradients,
)
from sam2unet_core.network import SAM2UNet


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SAM2UNet("nano", train_trunk=False)


def test_bfloat16_is_real_on_a_cpu():
    seen = []

    class Watch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 1, 1)

        def forward(self, x):
            out = self.layer(x)
            seen.append(out.dtype)
            return out

    image = torch.randn(1, 3, 8, 8)
    assert PrecisionInferer("bfloat16")(image, Watch()).dtype == torch.float32
    assert PrecisionInferer("float32")(image, Watch()).dtype == torch.float32
    assert seen == [torch.bfloat16, torch.float32]


def test_float16_without_cuda_and_unknown_precisions_are_refused():
    with pytest.raises(ConfigError, match="float16 needs CUDA"):
        PrecisionInferer("float16", device="cpu")
    with pytest.raises(ConfigError, match="unknown precision 'int8'; choose from float32"):
        PrecisionInferer("int8")


def test_scales_are_drawn_and_image_and_label_stay_together():
    torch.manual_seed(0)
    batch = {"image": torch.zeros(2, 3, 64, 96), "label": torch.zeros(2, 1, 64, 96)}
    batch["image"][..., 16:32, 32:64] = 1
    batch["label"][..., 16:32, 32:64] = 1
    sizes = set()
    for _ in range(20):
        image, label = ScaledBatch([1.0, 1.5])(batch)
        sizes.add(tuple(image.shape[-2:]))
        torch.testing.assert_close(image[:, :1], label)
    assert sizes == {(64, 96), (96, 128)}  # 144 is 4.5 times 32, and goes to the even 4


def test_a_gradient_longer_than_the_norm_is_shortened_before_the_step():
    steps = {}
    for norm in (0.0, 1.0):
        weight = torch.nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        clip_gradients(optimizer, norm)
        weight.grad = torch.tensor([3.0, 4.0])  # of length 5
        optimizer.step()
        steps[norm] = -weight.detach()
    torch.testing.assert_close(steps[0.0], torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(steps[1.0], torch.tensor([0.6, 0.8]))
    with pytest.raises(ConfigError, match="clip_norm -1"):
        clip_gradients(optimizer, -1)


def test_average_moves_what_trains_and_shares_the_frozen_trunk(network):
    average = WeightAverage(network, decay=0.5)
    frozen = dict(average.network.named_parameters())["encoder.pos_embed"]
    assert frozen.data_ptr() == network.encoder.pos_embed.data_ptr()
    before = copy.deepcopy(average.network.head.weight)
    trunk = frozen.clone()
    with torch.no_grad():
        network.head.weight += 1.0
        network.rfb1.conv_cat.bn.running_mean += 3.0
    engine = Engine(lambda *_: None)
    engine.state.iteration = 1000
    average.update(engine)
    torch.testing.assert_close(average.network.head.weight, before + 0.5)
    running = average.network.rfb1.conv_cat.bn.running_mean
    # the statistics move with the weights they belong to
    torch.testing.assert_close(running, network.rfb1.conv_cat.bn.running_mean - 1.5)
    assert torch.equal(frozen, trunk)


def test_each_epoch_has_its_own_seed_and_the_same_epoch_the_same():
    def draw(seed, epoch):
        engine = Engine(lambda *_: None)
        engine.state.epoch = epoch
        EpochSeed(seed, dataset=[])(engine)
        return torch.rand(3).tolist()

    assert draw(0, 1) == draw(0, 1)
    assert len({tuple(draw(s, e)) for s in (0, 1) for e in (1, 2)}) == 4


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_training(loss):
    engine = Engine(lambda *_: None)
    engine.state.output = {"loss": torch.tensor(loss)}
    with pytest.raises(DataError, match="lower --learning_rate"):
        FiniteLoss()(engine)
