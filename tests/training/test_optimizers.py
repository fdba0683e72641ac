import copy
from dataclasses import replace

import pytest
import torch
from helpers.scripts import TINY, run_train
from helpers.stubs import fails
from torch import nn

import train
from config import WEIGHT_DECAY
from model import LinearHead, SegmentationModel, TokenHead
from networks.vit import DinoVisionTransformer
from training.optimizers import (
    OptimizerSettings,
    ScheduledOptimizer,
    build_adamw,
    build_optimizer,
    build_schedule,
)
from utils import InputError

LR, BACKBONE_LR, LAYER_DECAY = 1e-2, 1e-3, 0.5
SETTINGS = OptimizerSettings(LR, BACKBONE_LR, LAYER_DECAY)


def vit_model(chunks: int = 0, fine_tune: bool = True, head=TokenHead) -> SegmentationModel:
    """Three blocks of width 8, all of them read; pictures of 28x28 pixels are at home in it."""
    torch.manual_seed(0)
    backbone = DinoVisionTransformer(
        28, 14, embed_dim=8, depth=3, num_heads=2, init_values=1.0, block_chunks=chunks
    )
    layers = backbone.get_intermediate_layers
    backbone.forward = lambda images: layers(images, n=3, reshape=True)
    return SegmentationModel(backbone, head(24, 3), fine_tune)


def loss_of(model: nn.Module) -> torch.Tensor:
    """Of two random pictures."""
    images = torch.randn(2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    return nn.functional.cross_entropy(model(images), torch.arange(12).reshape(2, 2, 3) % 3)


def settings(model: SegmentationModel) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay by a parameter's name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = build_adamw(model, SETTINGS)
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("chunks", [0, 1])
def test_layers_learn_the_slower_the_lower_they_are(chunks):
    model = vit_model(chunks)
    found = settings(model)
    assert found.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert "backbone.mask_token" not in found
    factors = {"cls_token": 1 / 8, "pos_embed": 1 / 8, "patch_embed": 1 / 8, "norm": 1}
    for block, factor in enumerate((1 / 4, 1 / 2, 1)):
        factors[f"blocks.0.{block}" if chunks else f"blocks.{block}"] = factor
    for name, (rate, decay) in found.items():
        if name.startswith("head."):
            assert (rate, decay) == (LR, WEIGHT_DECAY)
            continue
        name = name.removeprefix("backbone.")
        (factor,) = (f for start, f in factors.items() if name.split(start)[0] == "")
        assert rate == pytest.approx(BACKBONE_LR * factor)
        one_dimensional = name.endswith("bias") or "norm" in name or "gamma" in name
        assert decay == (0 if one_dimensional else WEIGHT_DECAY)


def test_a_frozen_backbone_is_not_in_the_optimiser():
    assert settings(vit_model(fine_tune=False)).keys() == {
        "head.conv_seg.weight",
        "head.conv_seg.bias",
    }


def test_more_blocks_than_there_are_cannot_be_unfrozen():
    with pytest.raises(InputError, match=r"--unfreeze-blocks.*this backbone has 3 blocks"):
        vit_model().set_up_training(4, False, False, None)


@pytest.mark.parametrize("chunks", [0, 3])
def test_activations_computed_again_give_the_same_gradients(chunks):
    gradients, kept = [], []
    for again in (False, True):
        model = vit_model(chunks, head=LinearHead).train()
        model.set_up_training(None, again, False, None)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor,
            lambda tensor: tensor,
        ):
            loss = loss_of(model)
        kept.append(sum(sizes))
        loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[1] < 0.7 * kept[0]


def rates(steps: int, steps_per_epoch: int, **settings) -> list[float]:
    """Of each step, of a rate of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    schedule = build_schedule(optimizer, OptimizerSettings(**settings), steps_per_epoch)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_rates_fall_as_torchs_schedule_has_them():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    expected = []
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3], 0.1)
    for _ in range(5):
        expected += [optimizer.param_groups[0]["lr"]] * 3
        optimizer.step()
        schedule.step()
    assert rates(15, steps_per_epoch=3, milestones=[2, 3]) == pytest.approx(expected)


def test_rates_fall_to_zero_at_the_end_of_the_last_epoch():
    """Two epochs of four steps. By hand; the cosine of 45 degrees is sqrt(1/2)."""
    line = [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0, 0]
    assert rates(10, 4, schedule="poly", epochs=2) == pytest.approx(line)
    cosine = rates(10, 4, schedule="cosine", epochs=2)
    quarter = (1 + 0.5**0.5) / 2
    assert cosine[::2] == pytest.approx([1, quarter, 1 / 2, 1 - quarter, 0])
    assert cosine[1] == pytest.approx((1 + (2 + 2**0.5) ** 0.5 / 2) / 2)  # cos(pi / 8)
    assert cosine[9] == 0
    warm = rates(8, 4, schedule="poly", epochs=2, warmup_epochs=0.75)
    assert warm == pytest.approx([1 / 4, 2 / 4 * 7 / 8, 3 / 4 * 6 / 8, *line[3:8]])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", {"milestones": []}),
        ("--scheduler", {"milestones": [30]}),
        ("--schedule step", {"milestones": [30]}),
        ("--scheduler --schedule step --scheduler-epochs 3 5", {"milestones": [3, 5]}),
        ("--schedule step --scheduler-epochs 3 5", {"milestones": [3, 5]}),
        ("--schedule poly --epochs 7", {"milestones": [], "schedule": "poly", "epochs": 7}),
        ("--weight-decay 0.05", {"milestones": [], "weight_decay": 0.05}),
    ],
)
def test_the_flags_of_the_recipe(flags, expected, capsys):
    parser = train.get_args_parser()
    args = parser.parse_args(flags.split())
    train.check_flags(parser, args, 1)
    never = expected["milestones"] == [30]  # and 20 epochs
    assert ("--scheduler has no effect" in capsys.readouterr().out) == never
    assert train.optimizer_settings(args) == OptimizerSettings(1e-3, 1e-4, **expected)


def test_a_cosine_to_other_epochs_cannot_be_resumed(data_dir, in_tmp, capsys):
    run_train(data_dir, "--schedule", "cosine")
    again = ["--data", data_dir, *TINY, "--batch", 4, "--schedule", "cosine", "--resume"]
    message = fails(capsys, train.main, *again, "--epochs", 3)
    assert "made with epochs 2, not 3" in message


def test_a_gradient_is_clipped_after_it_is_unscaled():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], 1.0)
    scheduled = ScheduledOptimizer(optimizer, amp=torch.float16, clip_grad=1.0)
    scheduled.backward((parameter * torch.tensor([0.3, 0.4])).sum())
    scheduled.step()  # a norm of a half stays
    torch.testing.assert_close(parameter.detach(), torch.tensor([-0.3, -0.4]))
    scheduled.backward((parameter * torch.tensor([30.0, 40.0])).sum())
    scheduled.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([-0.9, -1.2]))


def steps_in_half(scheduled: ScheduledOptimizer, model: nn.Module, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(model)
        scheduled.backward(loss.float())
        scheduled.step()
        losses.append(loss.item())
    return losses


def half_optimizer(model: nn.Module) -> ScheduledOptimizer:
    model.amp = torch.float16
    settings = replace(SETTINGS, layer_decay=1.0, milestones=[2], clip_grad=1.0)
    scheduled = build_optimizer(model, settings, 2)
    scheduled.scaler.set_growth_interval(3)
    return scheduled


def test_float16_trains_and_goes_on_where_it_stopped():
    model = vit_model(head=LinearHead)
    scheduled = half_optimizer(model)
    losses = steps_in_half(scheduled, model, 4)
    assert scheduled.scaler.get_scale() == 2 * 65536
    other = vit_model(head=LinearHead)
    other.load_state_dict(model.state_dict())
    resumed = half_optimizer(other)
    resumed.load_state_dict(copy.deepcopy(scheduled.state_dict()))
    assert resumed.lr == scheduled.lr == pytest.approx(LR / 10)
    losses += steps_in_half(scheduled, model, 3)
    assert steps_in_half(resumed, other, 3) == losses[4:]
    assert losses[-1] < losses[0]
    assert resumed.scaler.get_scale() == scheduled.scaler.get_scale()
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_a_step_that_overflows_float16_is_left_out():
    model = vit_model()
    scheduled = half_optimizer(model)
    before = copy.deepcopy(model.state_dict())
    scheduled.backward(loss_of(model) * torch.inf)
    scheduled.step()
    assert scheduled.scaler.get_scale() == 65536 / 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
