import pytest
import torch
from torch import nn

from model import HEADS, LinearHead, SegmentationModel, check_grid
from networks.heads import batch_norm_conv
from utils import InputError

CHANNELS, CLASSES = 24, 5
HEAD_CLASSES = list({head_class: None for head_class, _ in HEADS.values()})


def random_head() -> LinearHead:
    torch.manual_seed(0)
    head = LinearHead(CHANNELS, CLASSES)
    for parameter in (head.bn.weight, head.bn.bias, head.conv_seg.weight, head.conv_seg.bias):
        nn.init.normal_(parameter, mean=0.2, std=0.3)
    return head


def two_layers(head: LinearHead) -> nn.Sequential:
    """What the head computes in one, as torch has it, in float64."""
    layers = nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.Conv2d(CHANNELS, CLASSES, 1)).double()
    layers[0].load_state_dict(head.bn.state_dict())
    layers[1].load_state_dict(head.conv_seg.state_dict())
    return layers


def features(mean=0.0) -> torch.Tensor:
    """(6, CHANNELS, 4, 5) of standard deviation 1."""
    generator = torch.Generator().manual_seed(1)
    centres = mean * torch.linspace(-1, 1, CHANNELS)[:, None, None]
    return torch.randn(6, CHANNELS, 4, 5, generator=generator) + centres


def check_like_torch(batch: torch.Tensor, tolerance: float) -> None:
    """Two training steps' logits, gradients and running statistics; then evaluation."""
    head = random_head()
    layers = two_layers(head)
    exact = batch.detach().double().requires_grad_()
    generator = torch.Generator().manual_seed(2)
    for _ in range(2):
        weights = torch.randn(6, CLASSES, 4, 5, generator=generator)
        logits, expected = head(batch), layers(exact)
        (logits * weights).sum().backward()
        (expected * weights).sum().backward()
        assert_near(logits, expected, tolerance)
    for ours, theirs in zip(head.parameters(), layers.parameters(), strict=True):
        assert_near(ours.grad, theirs.grad, tolerance)
    assert_near(head.bn.running_mean, layers[0].running_mean, 1e-6)
    assert_near(head.bn.running_var, layers[0].running_var, 1e-6)
    assert head.bn.num_batches_tracked == 2
    if batch.requires_grad:
        assert_near(batch.grad, exact.grad, tolerance)
    assert_near(head.eval()(batch), layers.eval()(batch.double()), tolerance)


def assert_near(value: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """To that share of the largest expected value."""
    difference = (value.double() - expected).abs().max() / expected.abs().max()
    assert difference.item() < tolerance


# The second mean is far above the deviation.
@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 2e-6), (100.0, 1e-4)])
@pytest.mark.parametrize("fine_tune", [False, True])
def test_the_fused_head_is_batchnorm_and_convolution(fine_tune, mean, tolerance):
    check_like_torch(features(mean).requires_grad_(fine_tune), tolerance)


def test_the_channels_that_a_step_leaves_out_are_those_of_the_normalised_features():
    head = random_head()
    torch.manual_seed(3)
    found = batch_norm_conv(features(), head.bn, head.conv_seg, dropout=0.5)
    torch.manual_seed(3)
    kept = nn.functional.dropout(torch.ones(CHANNELS), 0.5)
    assert set(kept.tolist()) == {0.0, 2.0}
    expected = head.conv_seg(head.bn(features()) * kept[:, None, None])
    assert_near(found, expected.double(), 2e-6)


@pytest.mark.parametrize("head", HEAD_CLASSES)
@pytest.mark.parametrize("training", [False, True])
def test_heads_take_features_of_any_float_type(head, training):
    """Cached features are float16."""
    model = SegmentationModel(nn.Identity(), head(CHANNELS, CLASSES)).train(training)
    half, logits = features().half(), []
    for batch in (half, half.float(), half.double()):
        torch.manual_seed(0)  # of the channels that `spread` leaves out
        logits.append(model.head(batch))
    for found in logits:
        assert found.dtype == torch.float32
        assert torch.equal(found, logits[0])


def test_a_head_whose_grid_is_not_that_of_its_scale_is_refused():
    """Its logits would be put elsewhere in the picture."""
    finer = nn.Sequential(LinearHead(CHANNELS, CLASSES), nn.Upsample(scale_factor=2))
    with pytest.raises(InputError, match="attribute `scale`, here 1"):
        check_grid(finer, CHANNELS, CLASSES)
    finer.scale = 2
    check_grid(finer, CHANNELS, CLASSES)
