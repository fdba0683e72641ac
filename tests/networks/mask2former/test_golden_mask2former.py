"""Our Mask2Former against stored numbers of the official code, with random weights."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from helpers.basics import load_golden

from networks.mask2former.adapter import MSDeformAttn
from networks.mask2former.config import Mask2FormerConfig
from networks.mask2former.network import Mask2Former, hidden_places


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def golden():
    return load_golden("m2f_small.pt")


@pytest.fixture(scope="module")
def model(golden):
    model = Mask2Former(Mask2FormerConfig(**golden["config"])).eval()
    model.load_state_dict(golden["state_dict"])
    return model


def scores_of(model, images):
    """Scores at the images' size."""
    return F.interpolate(model(images), size=images.shape[-2:], mode="bilinear")


def images_of(golden, index):
    return (golden["inputs_uint8"][index].float() - 128).unsqueeze(0) / 64


def assert_close(ours, expected, atol):
    torch.testing.assert_close(ours, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("index", [0, 1], ids=["square", "wide"])
def test_semantic_scores(golden, model, index):
    """Of a picture beside its mirror image, with which it does not mix."""
    images, expected = images_of(golden, index), golden["expected"][index]
    together = torch.cat([images.flip(-1), images])
    atol = golden["tolerance"]["score_atol"]
    assert_close(model(together)[1], expected["score_quarter"], atol)
    scores = scores_of(model, together)[1]
    assert_close(scores[:, 96:128, 96:128], expected["score_full_crop"], atol)
    agreement = (scores.argmax(dim=0) == expected["argmax_full"]).float().mean()
    assert agreement >= golden["tolerance"]["argmax_min_agreement"]


def test_full_size_names_and_shapes():
    golden = load_golden("m2f_full_keys.pt")
    with torch.device("meta"):
        model = Mask2Former(Mask2FormerConfig(**golden["config"]))
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == golden["shapes"]
    assert len(shapes) == golden["num_keys"]
    assert sum(p.numel() for p in model.parameters()) == golden["num_parameters"]


def test_default_config_is_the_published_model():
    golden = load_golden("m2f_full_keys.pt")
    config = asdict(Mask2FormerConfig())
    config["interaction_indexes"] = [list(ends) for ends in config["interaction_indexes"]]
    assert config == golden["config"]


@pytest.mark.parametrize(("height", "width"), [(250, 300), (64, 65), (9, 33)])
def test_any_size_is_padded_right_and_below_and_cut_back(golden, model, height, width):
    images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(1, 3, -(-height // 32) * 32, -(-width // 32) * 32)
    padded[..., :height, :width] = images
    scores = model(images)
    assert scores.shape == (1, golden["config"]["num_classes"], height, width)
    assert torch.equal(scores, scores_of(model, padded)[..., :height, :width])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_deformable_attention_without_offsets_reads_its_own_place(dtype):
    dim, shape = 8, (40, 112)  # wide enough that half-precision places would miss their cell
    attention = MSDeformAttn(dim, num_heads=2, num_levels=1, num_points=3)
    torch.nn.init.zeros_(attention.sampling_offsets.weight)
    torch.nn.init.zeros_(attention.sampling_offsets.bias)
    for projection in (attention.value_proj, attention.output_proj):
        torch.nn.init.eye_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    tokens = torch.randn(2, 40 * 112, dim, generator=torch.Generator().manual_seed(0)).to(dtype)
    read = attention.to(dtype)(tokens, [shape], tokens, [shape])
    assert_close(read, tokens, 0.02 if dtype == torch.bfloat16 else 0.003)


def test_query_with_an_empty_mask_looks_everywhere():
    mask_logits = torch.tensor([[[[1.0, -1.0]], [[-1.0, -1.0]]]])  # two queries on a 1 x 2 map
    hidden = hidden_places(mask_logits, (1, 2))
    assert hidden.tolist() == [[[False, True], [False, False]]]
