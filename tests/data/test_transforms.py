"""Pictures and masks on their way to the network: sizes, padding, and alignment."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from config import DINOV2_INPUT, InputFormat
from data import augment, transforms
from data.augment import AUGMENTS, MAX_SHARE, build_augment, distort_colours
from data.transforms import Resize, eval_transform, fit_image, fit_target, to_image, to_tensor
from networks.resampling import upsample

DARK, LIGHT = 80, 170  # far from 0 and 255, so that brightness and contrast do not clip
OUT, IN = 3, 200  # class ids whose mixtures are neither


def shapes(height=120, width=160):
    """A picture that is LIGHT where its mask is IN: a board of uneven fields."""
    generator = np.random.default_rng(0)
    fields = (np.cumsum(generator.random(n) < 1 / 6) % 2 for n in (height, width))
    rows, columns = fields
    mask = np.where(rows[:, None] ^ columns, IN, OUT).astype(np.uint8)
    picture = np.where(mask == IN, LIGHT, DARK).astype(np.uint8)
    return np.repeat(picture[..., None], 3, 2), mask


def displacement(image, target):
    """Pixels by which a mask lies beside its picture, by least squares over all edges."""
    counted = cv2.erode((target != 255).astype(np.uint8), np.ones((5, 5)), borderValue=1) > 0
    light = image[..., 0].astype(float)
    low, high = np.percentile(light[counted], [2, 98])
    light = (light - low) / (high - low)
    difference = (target == IN) - light
    slopes = [slope[counted] for slope in np.gradient(light)]
    return max(abs((difference[counted] * slope).sum() / (slope**2).sum()) for slope in slopes)


def misplaced_share(image, target):
    counted = target != 255
    light = image[..., 0] > np.percentile(image[..., 0][counted], [2, 98]).mean()
    return (light != (target == IN))[counted].mean()


@pytest.fixture
def plain_colours(monkeypatch):
    monkeypatch.setattr(augment, "distort_colours", lambda image, rng: image)


@pytest.mark.parametrize("keep_ratio", [False, True])
@pytest.mark.parametrize("size", [(120, 160), (84, 196), (301, 257), (56, 56)])
@pytest.mark.parametrize("name", AUGMENTS)
def test_image_and_mask_stay_aligned(name, size, keep_ratio, plain_colours):
    variation = build_augment(name, Resize(size, keep_ratio), seed=1)
    beside = []
    for draw in range(12):
        image, target = variation(*shapes(), draw)
        assert image.shape == (*size, 3)
        assert target.shape == size
        assert set(np.unique(target)) <= {OUT, IN, 255}
        beside.append(displacement(image, target))
        assert misplaced_share(image, target) < 0.25  # at edges alone
    assert np.median(beside) < 0.12


@pytest.mark.parametrize("keep_ratio", [False, True])
@pytest.mark.parametrize("name", ["articles", "scale", "crop"])
def test_a_variation_depends_on_seed_and_draw_alone(name, keep_ratio):
    resize = Resize((70, 84), keep_ratio)
    first, second = (build_augment(name, resize, seed=5) for _ in range(2))
    pair = shapes()
    for draw in (3, 0):  # another order
        second(*pair, draw)
    for draw in range(4):
        for one, other in zip(first(*pair, draw), second(*pair, draw), strict=True):
            assert np.array_equal(one, other)
    assert not np.array_equal(first(*pair, 0)[0], first(*pair, 1)[0])
    assert not np.array_equal(first(*pair, 0)[0], build_augment(name, resize, 6)(*pair, 0)[0])


def test_half_of_the_draws_are_mirrored_and_the_seed_says_which():
    pair = shapes()
    fitted, _ = build_augment("none", Resize((70, 84)), 0)(*pair, 0)
    mirrored = []
    for seed in (5, 6):
        variation = build_augment("flip", Resize((70, 84)), seed)
        varied = [variation(*pair, draw)[0] for draw in range(60)]
        mirrored.append([np.array_equal(image, fitted[:, ::-1]) for image in varied])
        assert mirrored[-1] == [not np.array_equal(image, fitted) for image in varied]
        assert 18 < sum(mirrored[-1]) < 42
    assert mirrored[0] != mirrored[1]


@pytest.mark.parametrize("name", AUGMENTS)
def test_what_augmentation_makes_up_is_ignored(name):
    """A picture of one colour and one class: wherever the target counts, that colour is."""
    image, target = np.full((90, 60, 3), 200, np.uint8), np.zeros((90, 60), np.uint8)
    variation = build_augment(name, Resize((112, 84), keep_ratio=True), seed=0)
    ignored = 0
    for draw in range(20):
        varied, labels = variation(image, target, draw)
        spread = varied[labels == 0].astype(int)
        assert np.ptp(spread, axis=0).max() <= 60  # the edge of a rotation mixes in the fill
        assert np.isin(labels, (0, 255)).all()
        ignored += (labels == 255).sum()
    assert ignored > 0


def test_a_thin_strip_is_cropped_before_it_is_resized(monkeypatch):
    sizes = []
    monkeypatch.setattr(transforms, "resize_image", lambda image, size: sizes.append(size) or image)
    monkeypatch.setattr(transforms, "resize_target", lambda target, size: target)
    monkeypatch.setattr(transforms, "pad", lambda pixels, padding, colour=255: pixels)
    variation = build_augment("scale", Resize((448, 448)), seed=0)
    for draw in range(8):
        variation(np.zeros((3, 2000, 3), np.uint8), np.zeros((3, 2000), np.uint8), draw)
    assert np.max(sizes) <= 448  # it was 896 x 597,333


def test_crops_keep_the_resolution_and_hold_several_classes_where_they_can(plain_colours):
    target = np.zeros((900, 1200), np.uint8)
    target[700:740, 900:940] = 1  # 1/676 of the picture: ten random tries nearly always miss it
    image = np.repeat(100 * target[..., None], 3, 2)
    variation = build_augment("crop", Resize((56, 56)), seed=0)
    for draw in range(10):
        varied, labels = variation(image, target, draw)
        assert np.array_equal(varied[..., 0], 100 * labels)  # pixels as they are
        assert np.bincount(labels.ravel()).max() <= MAX_SHARE * labels.size
    target[target == 0], target[700:740, 900:920] = 255, 0  # mostly ignored
    for draw in range(10):
        assert {0, 1} <= set(np.unique(variation(image, target, draw)[1]))
    target[:30, :40] = 0
    varied, labels = variation(image[:30, :40], target[:30, :40], 0)
    assert (labels[:30, :40] == 0).all()
    assert (labels == 255).sum() == 56 * 56 - 30 * 40


@pytest.mark.parametrize("size", [(100, 130), (56, 56), (30, 200), (112, 57), (10, 10)])
def test_tiles_count_each_pixel_once(size):
    seen = np.zeros(size, int)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    ids = np.arange(size[0] * size[1]).reshape(size) % 200
    for window in transforms.tile_windows(size, (56, 56)):
        part, target = window.cut(image, (1, 2, 3)), window.of_target(ids.astype(np.uint8))
        assert part.shape == (56, 56, 3)
        assert target.shape == (56, 56)
        for y, x in np.argwhere(target != 255):
            assert target[y, x] == ids[window.top + y, window.left + x]
            assert np.array_equal(part[y, x], image[window.top + y, window.left + x])
            seen[window.top + y, window.left + x] += 1
    assert (seen == 1).all()


def test_scales_reach_from_half_to_double(plain_colours):
    """The bright half of a square shows how large the picture was drawn."""
    target = np.zeros((100, 100), np.uint8)
    target[40:60, 40:60] = 1
    image = np.repeat(255 * target[..., None], 3, 2)
    variation = build_augment("scale", Resize((210, 210)), seed=0)
    sides = []
    for draw in range(60):
        inside = np.argwhere(variation(image, target, draw)[1] == 1)
        if len(inside):
            sides.append(np.ptp(inside, axis=0).max() + 1)
    assert 20 < min(sides) < 28  # 20 * 2.1 * 0.5 is 21
    assert 75 < max(sides) <= 85  # 20 * 2.1 * 2 is 84


@pytest.mark.parametrize("size", [(30, 90), (90, 30), (64, 64), (1, 300), (57, 201)])
@pytest.mark.parametrize("image_size", [(56, 56), (60, 97), (640, 641)])
def test_letterbox_keeps_the_proportions_and_pads_the_rest(size, image_size):
    resize = Resize(image_size, keep_ratio=True)
    height, width = resize.content_size(size)
    top, bottom, left, right = resize.padding(size)
    assert min(top, bottom, left, right) >= 0
    assert (top + height + bottom, left + width + right) == image_size
    assert height == image_size[0] or width == image_size[1]
    assert abs(top - bottom) <= 2
    assert abs(left - right) <= 2
    if min(height, width) > 20:
        assert height / width == pytest.approx(size[0] / size[1], rel=0.05)
    target = fit_target(np.zeros(size, np.uint8), resize)
    assert (target == 0).sum() == height * width
    image = fit_image(np.full((*size, 3), 7, np.uint8), resize)
    assert np.array_equal((image == 7).all(-1), target == 0)


@pytest.mark.parametrize("size", [(30, 91), (91, 30), (77, 140), (33, 200)])
@pytest.mark.parametrize("image_size", [(56, 56), (61, 98), (75, 113)])
@pytest.mark.parametrize("patch", [14, 16, 8])
def test_logits_of_a_letterbox_come_back_to_the_picture(size, image_size, patch):
    """A ramp of logits over the padded grid, read at the picture's own pixels.

    Its values are positions in the input, which must be where fit_image put each pixel.
    """
    resize = Resize(image_size, True, InputFormat(patch))
    grids = [-(-n // patch) for n in image_size]
    centres = [torch.arange(grid) * patch + (patch - 1) / 2 for grid in grids]
    ramp = torch.stack(torch.meshgrid(*centres, indexing="ij"))[None]
    content = resize.content_size(size)
    found = upsample(ramp, content, size, output_stride=Fraction(patch))[0]
    top, _, left, _ = resize.padding(size)
    for axis, before in ((0, top), (1, left)):
        model_padding = (grids[axis] * patch - image_size[axis]) // 2
        scale = content[axis] / size[axis]
        expected = (torch.arange(size[axis]) + 0.5) * scale - 0.5 + before + model_padding
        line = found[0, :, size[1] // 2] if axis == 0 else found[1, size[0] // 2]
        inner = (expected > 8) & (expected < centres[axis][-1] - 1)  # bilinear is flat outside
        inner &= expected - before - model_padding > 0.5
        inner &= expected - before - model_padding < content[axis] - 1.5
        assert inner.any()
        assert torch.allclose(line[inner], expected[inner], atol=1e-3)


def test_colours_are_distorted_each_in_half_of_the_draws():
    """On two greys brightness is an offset and contrast a factor; the rest changes a colour."""
    greys = np.repeat(np.uint8([40, 130])[None, :, None], 3, 2)
    colour = np.uint8([[[120, 52, 50]]])  # of a hue near 0, where hues begin again
    hue, saturation, _ = cv2.cvtColor(colour, cv2.COLOR_RGB2HSV)[0, 0].astype(float)
    offsets, factors, saturations, hues = [], [], [], []
    for draw in range(400):
        dark, light = distort_colours(greys, np.random.default_rng(draw))[0, :, 0].astype(float)
        factors.append((light - dark) / 90)
        offsets.append(dark / factors[-1] - 40)
        varied = distort_colours(colour, np.random.default_rng(draw))
        found = cv2.cvtColor(varied, cv2.COLOR_RGB2HSV)[0, 0].astype(float)
        hues.append((found[0] - hue + 90) % 180 - 90)
        if abs(offsets[-1]) < 1 and abs(factors[-1] - 1) < 0.02:  # both change the saturation too
            saturations.append(found[1] / saturation)
    for values, usual, near, low, high in (
        (factors, 1, 0.02, 0.45, 1.55), (offsets, 0, 2, -36, 36), (hues, 0, 2, -22, 22),
        (saturations, 1, 0.03, 0.45, 1.55),
    ):  # fmt: skip
        assert low < min(values) < (low + usual) / 2
        assert (high + usual) / 2 < max(values) < high
        assert 0.35 < np.mean(np.abs(np.array(values) - usual) > near) < 0.65


def test_normalisation_is_its_definition_in_float32_and_can_be_undone():
    mean, std = (0.4, 0.5, 0.25), (0.3, 0.5, 0.125)
    own = InputFormat(16, mean, std)
    pixels = np.random.default_rng(0).integers(0, 256, (19, 23, 3), dtype=np.uint8)
    for image in (pixels, pixels[:, ::-1], pixels[3:10, 4:5], pixels[:1]):  # mirrored, cut, thin
        expected = (image - 255 * np.float32(mean)) / (255 * np.float32(std))
        found = to_tensor(image, own)
        assert np.array_equal(found.numpy(), expected.transpose(2, 0, 1))
        assert np.array_equal(to_image(found, own), image)
    white = to_tensor(np.full((1, 1, 3), 255, np.uint8), DINOV2_INPUT)
    assert white.flatten().tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)
    padding = eval_transform(np.zeros((10, 40, 3), np.uint8), Resize((40, 40), True))[:, 0, 0]
    assert padding.abs().max() < 0.02  # as the model pads
