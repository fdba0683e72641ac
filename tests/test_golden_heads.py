"""The published heads' protocol against MMSegmentation's, on a tiny backbone."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.basics import load_golden

from data.labels.classes import default_classes
from inference.protocol import Protocol, ShortSide
from model import LinearHead, SegmentationModel
from networks.resampling import window_spans
from networks.vit import DinoVisionTransformer
from predictor import Predictor

CPU = torch.device("cpu")


@pytest.fixture(params=["head_ms.pt", "head_linear.pt"])
def golden(request):
    return load_golden(request.param)


def build_model(golden):
    protocol = golden["protocol"]
    backbone = DinoVisionTransformer(**golden["vit_config"])
    backbone.load_state_dict(golden["vit_state_dict"])
    blocks = [protocol["out_indices"][i] for i in protocol["in_index"]]
    backbone.forward = partial(backbone.get_intermediate_layers, n=blocks, reshape=True)
    state = {
        name.removeprefix("decode_head."): value
        for name, value in golden["head_checkpoint"]["state_dict"].items()
    }
    channels = state["bn.weight"].shape[0]
    model = SegmentationModel(backbone, LinearHead(channels, protocol["num_classes"]))
    model.head.load_state_dict(state)
    return model.eval()


def build_protocol(golden):
    stored = golden["protocol"]
    long, short = stored["img_scale"]
    return Protocol(
        ShortSide(short, long), stored["crop"][0], stored["stride"][0],
        tuple(stored["img_ratios"]), stored["flip"], stretch=True,
    )  # fmt: skip


def pictures(golden):
    return [image.numpy() for image in golden["images"]]


def test_final_maps(golden):
    limits = golden["tolerance"]["exact_resize"]
    classes = default_classes(golden["protocol"]["num_classes"])
    predictor = Predictor(build_model(golden), classes, build_protocol(golden), CPU)
    predictions = predictor.predict(pictures(golden), keep=("probabilities", "confidence"))
    for ours, expected in zip(predictions, golden["expected"], strict=True):
        stored = expected["prob_final"]
        half = 2**-11  # what float16 rounds a probability by
        difference = np.abs(ours.probabilities.astype(np.float32) - stored.numpy())
        assert difference.max() <= limits["prob_atol"] + half
        best = stored.topk(2, dim=0).values
        certain = (best[0] - best[1] > limits["argmax_must_match_if_margin_above"]).numpy()
        agree = ours.labels == expected["argmax"].numpy()
        assert agree[certain].all()
        assert agree.mean() >= limits["argmax_min_agreement"]
        assert np.abs(ours.confidence - best[0].numpy()).max() <= limits["prob_atol"]


def test_window_starts_of_many_lengths():
    for case in load_golden("head_ms.pt")["window_starts"]:
        spans = window_spans(case["L"], case["crop"], case["stride"])
        assert [start for start, _ in spans] == list(case["starts"])
        assert [end for _, end in spans] == list(case["ends"])


def test_resized_sizes():
    for case in load_golden("head_linear.pt")["resized_sizes"]:
        long, short = case["scale"]
        assert list(ShortSide(short, long).content_size(tuple(case["hw"]))) == list(
            case["resized_hw"]
        )
