"""Rules of the ViT that stored numbers do not show."""

import pytest
import torch
import torch.nn.functional as F

from networks.vit import DinoVisionTransformer
from networks.vit_layers import attention_in_blocks


def tiny(**kwargs):
    shape = {"img_size": 56, "patch_size": 14, "embed_dim": 16, "depth": 4, "num_heads": 2}
    torch.manual_seed(0)
    return DinoVisionTransformer(**shape | kwargs).eval()


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [
        (57, 56, "Input image height 57 is not a multiple of patch height 14"),
        (56, 85, "Input image width 85 is not a multiple of patch width: 14"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(height, width, words):
    with pytest.raises(AssertionError, match=words):
        tiny()(torch.zeros(1, 3, height, width))


def test_block_choice():
    vit, images = tiny(), torch.randn(2, 3, 28, 42)
    ascending = vit.get_intermediate_layers(images, n=[1, 3])
    descending = vit.get_intermediate_layers(images, n=[3, 1])
    assert all(torch.equal(a, b) for a, b in zip(ascending, descending, strict=True))
    assert vit.get_intermediate_layers(images, n=0) == ()
    for n, found, wanted in (([-1], 0, 1), ([1, 1], 1, 2), ([9], 0, 1), (5, 4, 5)):
        with pytest.raises(AssertionError, match=f"only {found} / {wanted} blocks found"):
            vit.get_intermediate_layers(images, n=n)


def test_masked_patches_are_the_mask_token():
    vit = tiny()
    torch.nn.init.normal_(vit.mask_token)
    images = torch.randn(1, 3, 28, 28)
    masks = torch.tensor([[True, False, False, False]])
    other = images.clone()
    other[..., :14, :14] = 7.0  # the masked patch
    assert torch.equal(vit(images, masks=masks), vit(other, masks=masks))
    assert not torch.equal(vit(images), vit(other))


@pytest.mark.parametrize("trained", [False, True])
def test_the_position_table_follows_the_weights(trained):
    vit, images = tiny().requires_grad_(trained), torch.randn(1, 3, 28, 42)
    optimizer = torch.optim.AdamW(vit.parameters(), 0.1, fused=True)  # leaves _version as it is
    for _ in range(2):
        with torch.no_grad():
            shown = vit(images)
            fresh = tiny()
            fresh.load_state_dict(vit.state_dict())
            assert torch.equal(shown, fresh(images))
        if trained:
            vit(images)[:, 0].backward()  # a normalised sum is constant: without a gradient
            optimizer.step()
        else:
            vit.load_state_dict({key: value + 0.1 for key, value in vit.state_dict().items()})


def test_the_position_table_gets_a_gradient_when_trained():
    vit = tiny()
    vit(torch.randn(1, 3, 28, 42))[:, 0].backward()
    assert vit.pos_embed.grad.abs().max() > 1e-4  # more than rounding leaves of a zero


@pytest.mark.parametrize("tokens", [5, 512, 700])
def test_attention_in_blocks_is_attention(tokens):
    q, k, v = torch.randn(3, 2, 3, tokens, 64)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attention_in_blocks(q, k, v), expected)
    halves = attention_in_blocks(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert halves.dtype == torch.bfloat16
    assert (halves.float() - expected).norm() / expected.norm() < 2e-2
