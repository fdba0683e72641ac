"""The ViT against features of the official code on the same random weights."""

import pytest
import torch
from helpers.basics import load_golden

from networks.vit import DinoVisionTransformer

FILES = ("vit_plain.pt", "vit_reg.pt", "vit_swiglu.pt", "vit_chunked.pt")
BLOCKS = [1, 3]


@pytest.fixture(params=FILES)
def golden(request):
    return load_golden(request.param)


@pytest.fixture
def vit(golden):
    model = DinoVisionTransformer(**golden["config"])
    model.load_state_dict(golden["state_dict"], strict=True)
    return model.eval()


def assert_close(golden, actual, expected):
    torch.testing.assert_close(actual, expected, atol=golden["tolerance"]["atol"], rtol=0)


def assert_all_close(golden, actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(golden, ours, theirs)


@torch.no_grad()
def test_features_of_every_input_size(golden, vit):
    for images, expected in zip(golden["inputs"], golden["outputs"], strict=True):
        maps = vit.get_intermediate_layers(images, n=BLOCKS, reshape=True, norm=True)
        assert_all_close(golden, maps, expected)


@torch.no_grad()
def test_variants_of_the_call(golden, vit):
    expected = golden["variants"]
    images = golden["inputs"][expected["input_index"]]
    get = vit.get_intermediate_layers

    assert_all_close(golden, get(images, n=2, reshape=True), expected["n2_reshape_norm"])
    assert_all_close(golden, get(images, n=BLOCKS), expected["tokens_norm"])
    raw = get(images, n=BLOCKS, reshape=True, norm=False)
    assert_all_close(golden, raw, expected["nonorm_reshape"])

    pairs = get(images, n=BLOCKS, reshape=True, return_class_token=True)
    patches, tokens = zip(*pairs, strict=True)
    assert_all_close(golden, patches, expected["class_token_patch"])
    assert_all_close(golden, tokens, expected["class_token_cls"])
    pairs = get(images, n=BLOCKS, norm=False, return_class_token=True)
    assert_all_close(golden, [cls for _, cls in pairs], expected["nonorm_class_token_cls"])


@torch.no_grad()
def test_forward_and_its_parts(golden, vit):
    expected = golden["variants"]
    images = golden["inputs"][expected["input_index"]]
    assert_close(golden, vit(images), expected["forward"])
    features = vit.forward_features(images)
    for name in ("x_norm_clstoken", "x_norm_regtokens", "x_norm_patchtokens"):
        assert_close(golden, features[name], expected[name])
