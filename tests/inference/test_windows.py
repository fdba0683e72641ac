"""Windows, scales and flips agree where they must, in strips or at once."""

from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.models import StripeBackbone, decided_model
from torch.nn.functional import interpolate

from config import DINOV2_INPUT
from data.labels.classes import default_classes
from data.transforms import Resize, to_tensor
from inference import windows
from inference.protocol import Protocol, ShortSide, scaled
from model import SegmentationModel
from networks import resampling
from networks.heads import MaskHead
from networks.resampling import upsample, window_spans, window_weights
from predictor import Predictor, PredictorOptions, load_predictor
from utils import InputError

CPU = torch.device("cpu")
WHOLE = Protocol(Resize((56, 70)))
SLIDE = Protocol(ShortSide(60), crop=40, stride=28)
MANY = replace(SLIDE, ratios=(1.0, 1.5), flip=True, stretch=True)


def picture(seed=0, height=61, width=83):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def predictor(protocol, head="ms", **kwargs):
    return Predictor(decided_model(head), default_classes(3), protocol, CPU, **kwargs)


def probabilities(protocol, image, **kwargs):
    predicted = predictor(protocol, **kwargs).predict([image], keep=("probabilities",))
    return predicted[0].probabilities.astype(np.float32)


@pytest.mark.parametrize("scale", [1, 4])
def test_upsampling_equals_interpolate_crop_interpolate(scale):
    logits = torch.randn(2, 3, 4 * scale, 6 * scale)
    padded = interpolate(logits, size=(56, 84), mode="bilinear")
    for size in ((31, 90), (50, 80), (1, 1000)):
        expected = interpolate(padded[..., 3:53, 2:82], size=size, mode="bilinear")
        found = upsample(logits, (50, 80), size, output_stride=Fraction(14, scale))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("output_stride", [None, Fraction(14)])
@pytest.mark.parametrize(
    ("length", "crop", "stride", "cells", "size"),
    [(30, 42, 28, 3, 77), (42, 42, 28, 3, 77), (61, 42, 28, 3, 77), (100, 42, 28, 3, 77),
     # As a whole matrix 11 GB, its windows' 20 GB.
     (960_000, 640, 426, 46, 3000)],
)  # fmt: skip
def test_windows_cover_every_pixel_with_full_weight_in_little_memory(
    length, crop, stride, cells, size, output_stride
):
    spans = window_spans(length, crop, stride)
    assert (spans[0][0], spans[-1][1]) == (0, length)
    axes = window_weights(spans, cells, size, output_stride)
    assert sum(axis.weights.nbytes for axis in axes) < 10e6
    total = torch.zeros(size)
    for axis in axes:
        total[axis.first : axis.last] += axis.weights.sum(dim=1)
    torch.testing.assert_close(total, torch.ones(size))


@pytest.mark.parametrize("head", ["ms", "mask"])
@pytest.mark.parametrize("protocol", [WHOLE, SLIDE, MANY])
def test_strips_equal_the_plain_way(protocol, head, monkeypatch):
    image = picture()
    at_once = probabilities(protocol, image, head=head)
    monkeypatch.setattr(windows, "STRIP_ELEMENTS", 3 * 83 * 7)
    assert np.abs(probabilities(protocol, image, head=head) - at_once).max() < 1e-3


@pytest.mark.parametrize("head", ["ms", "sharp", "mask"])
def test_the_plain_way_itself(head):
    """Slide inference written out: windows upsampled, summed, divided, resized, softmax."""
    image, model = picture(), decided_model(head)
    stride = model.output_stride
    view = windows.View(image, SLIDE.resize, False, SLIDE)
    pixels = to_tensor(view.pixels, DINOV2_INPUT)
    height, width = pixels.shape[1:]
    total, count = torch.zeros(3, height, width), torch.zeros(height, width)
    for top, bottom in window_spans(height, 40, 28):
        for left, right in window_spans(width, 40, 28):
            window = pixels[None, :, top:bottom, left:right]
            with torch.no_grad():
                logits = upsample(model(window), window.shape[-2:], output_stride=stride)
                total[:, top:bottom, left:right] += logits[0]
            count[top:bottom, left:right] += 1
    expected = interpolate((total / count)[None], size=(61, 83), mode="bilinear")[0].softmax(0)
    assert np.abs(probabilities(SLIDE, image, head=head) - expected.numpy()).max() < 1e-3


def test_fine_grids_are_resized_in_blocks(monkeypatch):
    image, protocol = picture(), Protocol(Resize((224, 252)))
    at_once = probabilities(protocol, image, head="sharp")
    monkeypatch.setattr(resampling, "SMALL_GRID", 8)
    monkeypatch.setattr(resampling, "COLUMN_BLOCK", 10)
    assert np.abs(probabilities(protocol, image, head="sharp") - at_once).max() < 1e-3


def test_150_classes_at_1080p_in_bounded_memory():
    """At full size the scores would take 1.2 GB."""
    model = SegmentationModel(StripeBackbone(), MaskHead(8, 150)).eval()
    protocol = Protocol(Resize((1080, 1920)))
    view = windows.View(picture(0, 1080, 1920), protocol.resize, False, protocol)
    with torch.inference_mode():
        (logits,) = windows.run_windows(model, [view], CPU, batch_size=1)
        rows, scores = next(windows.row_strips([logits], as_probabilities=True))
    assert scores.shape == (150, rows.stop, 1920)
    assert scores.nbytes <= 4 * windows.STRIP_ELEMENTS
    assert logits.any_grid.nbytes < 110e6  # on the grid, a twelfth


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1), (2, 7)])
def test_pictures_of_a_few_pixels(size):
    """So few that whole windows fall between them once the picture is resized."""
    protocol = Protocol(ShortSide(640), crop=40, stride=28, ratios=(1.0, 1.73), flip=True)
    labels = predictor(protocol, batch_size=64).predict([picture(0, *size)])[0].labels
    assert labels.shape == size


def test_confidence_and_the_labels_below_a_limit():
    image = picture()
    plain = predictor(WHOLE).predict([image], keep=("confidence", "probabilities"))[0]
    assert np.allclose(plain.confidence, plain.probabilities.max(axis=0), atol=1e-3)
    assert plain.confidence.min() >= 1 / 3 - 1e-6
    limit = float(np.median(plain.confidence))
    careful = predictor(WHOLE, min_confidence=limit).predict([image])[0].labels
    assert np.array_equal(careful == 255, plain.confidence < limit)
    assert np.array_equal(careful[careful != 255], plain.labels[careful != 255])


def test_overrides_of_our_own_checkpoints():
    slide = WHOLE.overridden(mode="slide")
    assert slide == Protocol(ShortSide(56), crop=56, stride=37)
    assert WHOLE.overridden(image_size=(28, 42)).resize == Resize((28, 42))
    assert WHOLE.overridden(ratios=(0.5, 2.0)).ratios == (0.5, 2.0)
    resize, _ = WHOLE.overridden(ratios=(0.5,)).passes()[0]
    assert resize.image_size == (28, 35)


class Greedy(torch.nn.Module):
    """A model that runs out of memory above a number of pixels per batch."""

    def __init__(self, pixels, error=torch.OutOfMemoryError):
        super().__init__()
        self.model, self.pixels, self.error = decided_model(), pixels, error
        self.output_stride = self.model.output_stride

    def forward(self, images):
        if images[:, 0].numel() > self.pixels:
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        return self.model(images)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_out_of_memory_halves_the_batch_and_keeps_it(error, capsys):
    images = [picture(seed) for seed in range(5)]
    careful = predictor(WHOLE, batch_size=8)
    careful.model = Greedy(2 * 56 * 70, error).eval()
    for image, found in zip(images, careful.predict(images, ["probabilities"]), strict=True):
        assert np.abs(found.probabilities - probabilities(WHOLE, image)).max() < 1e-3
    assert careful.batch_size == 2  # of 5, not of 8
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["out of memory: 5 windows at a time do not fit, going on with 2"]
    careful.predict(images)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("resize", [Resize((300, 300)), Resize((300, 300), keep_ratio=True)])
def test_out_of_memory_halves_the_window_then_gives_up(resize, capsys):
    image = np.zeros((120, 400, 3), np.uint8)
    image[:, 130:] = 255
    careful = predictor(Protocol(resize))
    careful.model = Greedy(150 * 150).eval()
    found = careful.predict([image], ["probabilities"])[0]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "window of 300 pixels does not fit, going on with windows of 150" in lines[0]
    assert (found.labels == predictor(Protocol(resize)).predict([image])[0].labels).mean() > 0.9
    assert len(np.unique(found.labels)) > 1
    careful.model.pixels = 0
    with pytest.raises(InputError, match="out of memory even with one window of 150 pixels"):
        careful.predict([image])


@pytest.mark.parametrize(("images", "found"), [
    ([np.zeros((5, 7, 3))], "picture 0 is float64 (5, 7, 3)"),
    ([np.zeros((5, 7), np.uint8)], "picture 0 is uint8 (5, 7)"),
    ([picture(), np.zeros((3, 50, 70), np.uint8)], "picture 1 is uint8 (3, 50, 70)"),
    ([torch.zeros(5, 7, 3)], "picture 0 is a Tensor"),
    ([np.zeros((0, 7, 3), np.uint8)], "picture 0 is uint8 (0, 7, 3)"),
    (picture(), "picture 0 is uint8 (83, 3)"),
])  # fmt: skip
def test_other_arrays_than_pictures_are_refused(images, found):
    with pytest.raises(InputError, match="expected a list of RGB") as error:
        predictor(WHOLE).predict(images)
    assert found in str(error.value)


def test_unknown_kinds_of_result_are_refused_and_pictures_may_come_from_a_generator():
    with pytest.raises(InputError, match="'confidense' is unknown; known: confidence, prob"):
        predictor(WHOLE).predict([picture()], keep=("confidense",))
    for images in ((picture(i) for i in range(2)), np.stack([picture(1), picture(2)])):
        found = predictor(WHOLE).predict(images, keep="confidence")
        assert [prediction.confidence is None for prediction in found] == [False, False]


@pytest.mark.parametrize("state", ["autocast", "default dtype", "default device"])
def test_what_the_caller_has_set_in_torch_changes_nothing(state):
    def predict():
        return predictor(WHOLE).predict([picture()], keep=("confidence", "probabilities"))[0]

    used, usual = predictor(WHOLE), predict()
    before = torch.get_default_dtype()
    try:
        with ExitStack() as stack:
            if state == "autocast":
                stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            elif state == "default device":
                stack.enter_context(torch.device("meta"))
            else:
                torch.set_default_dtype(torch.bfloat16)
            found = used.predict([picture()], keep=("confidence", "probabilities"))[0]
            assert (torch.get_default_dtype() == torch.bfloat16) == (state == "default dtype")
    finally:
        torch.set_default_dtype(before)
    for one, other in zip(found, usual, strict=True):
        assert np.array_equal(one, other)


def test_tiles_show_the_pictures_own_resolution():
    """With tiles of whole patches and no overlap, each patch is seen where it lies."""
    image = picture(height=112, width=168)
    tiles = WHOLE.tiled(56, overlap=0)
    assert (tiles.crop, tiles.stride) == (56, 56)
    views = windows.View(image, *tiles.passes()[0], tiles)
    shown = [pixels for _, pixels in views.windows()]
    assert len(shown) == 6
    assert np.array_equal(shown[1], image[:56, 56:112])
    assert all(pixels.base is not None for pixels in shown)  # no copy, no floats
    with torch.no_grad():
        pixels = to_tensor(image, DINOV2_INPUT)[None]
        expected = decided_model()(pixels)[0].argmax(0).numpy()
    labels = predictor(tiles).predict([image])[0].labels
    assert (labels[7::14, 7::14] == expected).mean() > 0.95  # near the middles of the patches
    assert tiles.tiled(40).stride == 30
    assert scaled(tiles.resize, 0.5).content_size((100, 50)) == (50, 25)


@pytest.mark.parametrize(("options", "words"), [
    ({"tile": 40, "mode": "slide"}, "leave out --imgsz and --mode"),
    ({"tile": 40, "image_size": (28, 28)}, "leave out --imgsz and --mode"),
    ({"tile_overlap": 4}, "--tile-overlap needs --tile"),
])  # fmt: skip
def test_contradictions_of_tiles_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        load_predictor("x.pth", CPU, PredictorOptions(**options))
    with pytest.raises(InputError, match="--tile-overlap 40: give 0 to 39"):
        WHOLE.tiled(40, 40)
