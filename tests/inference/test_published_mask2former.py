"""The published Mask2Former: its file, its config read as data, its windows, its number types."""

import ast
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers.basics import draw_pair, load_golden
from helpers.models import decided_model
from helpers.published import Hostile
from helpers.small_mask2former import CONFIG, CONFIG_FITTING, TINY, written
from helpers.stubs import fails
from helpers.videos import grey_frames, make_video
from PIL import Image

import infer_image
import infer_video
import train
from common.tensor_files import load_tensors
from data.labels.classes import ADE20K, default_classes
from data.transforms import Resize
from inference import published_mask2former as published
from inference import windows
from inference.protocol import Protocol, ShortSide
from inference.published_mask2former import NAME, PROTOCOL, _assignments, load_m2f, read_config
from inference.windows import View, row_strips, run_windows
from networks.mask2former.config import Mask2FormerConfig
from networks.mask2former.network import Mask2Former
from predictor import Predictor, PredictorOptions, list_models, load_predictor
from utils import InputError
from video.reader import VideoReader

CPU = torch.device("cpu")


def tiny_state(seed=0):
    """Random weights under which classes, queries and places differ by more than rounding."""
    torch.manual_seed(seed)
    model = Mask2Former(TINY).eval()
    state = model.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and value.ndim == 1 and "running_var" not in name:
            value += 0.3 * torch.randn(value.shape)
    for name in ("cls_embed", "mask_embed.0", "mask_embed.2", "mask_embed.4"):
        state[f"decode_head.{name}.weight"] *= 4
    return state


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """torch.hub's folder in tmp_path, the tiny architecture, and no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", Mock(side_effect=OSError("no route")))
    monkeypatch.setattr(published, "ARCHITECTURE", TINY)


@pytest.fixture
def weights(tmp_path, offline):
    path = tmp_path / f"{NAME}.pth"
    torch.save({"meta": {"CLASSES": ADE20K.names}, "state_dict": tiny_state()}, path)
    return path


def picture(height=60, width=90):
    return draw_pair(3, width, height)[0]


def test_name_address_protocol_and_line_in_the_list():
    folder = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitg14"
    assert f"{folder}/dinov2_vitg14_ade20k_m2f.pth" == published.URL
    assert f"{folder}/dinov2_vitg14_ade20k_m2f_config.py" == published.CONFIG_URL
    line = next(line for line in list_models().splitlines() if NAME in line)
    for words in ("150 classes", "1,719,806,999", "6.9 GB", "60.2 %"):
        assert words in line
    assert PROTOCOL.resize.content_size((480, 640)) == (512, 704)
    assert published.is_m2f(NAME)
    assert published.is_m2f(f"/x/{NAME}.pth")
    assert not published.is_m2f("outputs/best_model_iou.pth")


@torch.no_grad()
def test_scores_and_probabilities_are_those_of_the_official_slide_inference(monkeypatch):
    golden = load_golden("m2f_small.pt")
    slide, tolerance = golden["slide"], golden["tolerance"]
    model = Mask2Former(Mask2FormerConfig(**golden["config"])).eval()
    model.load_state_dict(golden["state_dict"])
    size = tuple(slide["part_hw"])
    protocol = Protocol(Resize(size), slide["crop"], slide["stride"], stretch=True)
    height, width = slide["ori_hw"]
    view = View(np.zeros((height, width, 3), np.uint8), protocol.resize, False, protocol)
    pixels = golden["inputs_uint8"][slide["input_index"]][:, : size[0], : size[1]]
    view.pixels = pixels.permute(1, 2, 0).numpy()
    normalised = lambda image, _: (torch.from_numpy(image).permute(2, 0, 1).float() - 128) / 64  # noqa: E731
    monkeypatch.setattr(windows, "to_tensor", normalised)  # these numbers have their own
    logits = run_windows(model, [view], CPU, batch_size=1)
    for as_probabilities, name in ((False, "score"), (True, "prob")):
        ours = torch.cat([part for _, part in row_strips(logits, as_probabilities)], dim=1)
        expected, atol = slide[f"{name}_stride3"], tolerance[f"slide_{name}_atol"]
        torch.testing.assert_close(ours[:, ::3, ::3], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("layout", ["published", "bare", "before torch 1.6"])
def test_every_layout_loads_whole(weights, layout, capsys):
    state = load_tensors(weights)["state_dict"]
    if layout != "published":
        torch.save(state, weights, _use_new_zipfile_serialization=layout == "bare")
    model, classes, protocol, miou = load_m2f(str(weights), CPU, torch.float32)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert (classes.num_classes, protocol, miou) == (150, PROTOCOL, 60.2)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "not in a published config, defaults used: all settings" in said[0]


def test_wrong_files_are_refused_in_one_line(weights, in_tmp):
    state = load_tensors(weights)["state_dict"]

    def refusal(content):
        torch.save(content, weights)
        with pytest.raises(InputError, match=rf"{NAME}\.pth") as error:
            load_m2f(str(weights), CPU, torch.float32)
        assert "\n" not in str(error.value)
        return str(error.value)

    name = "decode_head.cls_embed.weight"
    other = refusal(state | {name: torch.zeros(9, 32)})
    assert f"is not {NAME}: {name} is (9, 32), expected (151, 32)" in other
    assert "x.extra is (1,), expected nothing" in refusal(state | {"x.extra": torch.zeros(1)})
    assert f"{name} is missing" in refusal({k: v for k, v in state.items() if k != name})
    assert "state_dict is a Tensor" in refusal({"state_dict": torch.zeros(1)})
    assert "holds a list" in refusal([1])
    assert "refused" in refusal({"state_dict": state, "meta": Hostile()})
    assert not (in_tmp / "owned").exists()
    with pytest.raises(InputError, match="no such file"):
        load_m2f(f"nowhere/{NAME}.pth", CPU, torch.float32)
    with pytest.raises(InputError, match="--min-confidence"):
        load_predictor(weights, CPU, PredictorOptions(min_confidence=0.5))


def test_it_is_downloaded_once(offline, tmp_path, monkeypatch):
    asked = []

    def download(url, path, **_):
        asked.append(url)
        if url == published.URL:
            torch.save(tiny_state(), path)
        else:
            Path(path).write_text(CONFIG_FITTING)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    load_m2f(NAME, CPU, torch.float32)
    protocol = load_m2f(NAME, CPU, torch.float32)[2]
    assert asked == [published.URL, published.CONFIG_URL]
    assert protocol.stride == 48  # that of the config


def test_the_config_beside_the_weights_changes_the_prediction(weights, tmp_path, capsys):
    options = PredictorOptions(image_size=(64, 64))
    assumed = load_predictor(weights, CPU, options).predict([picture()])[0].labels
    capsys.readouterr()
    path = written(tmp_path, CONFIG_FITTING)
    predictor = load_predictor(weights, CPU, options)
    assert capsys.readouterr().out == f"{NAME}: settings read from {path}\n"
    assert predictor.protocol.stride == 48
    assert not np.array_equal(predictor.predict([picture()])[0].labels, assumed)


@pytest.mark.parametrize(("dtype", "atol"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_sixteen_bit_numbers(weights, dtype, atol, monkeypatch):
    monkeypatch.setattr("utils.cpu_computes_in", lambda dtype: True)
    views = []
    for name in ("float32", dtype):
        predictor = load_predictor(weights, CPU, PredictorOptions(dtype=name, image_size=(64, 64)))
        assert {p.dtype for p in predictor.model.parameters()} == {getattr(torch, name)}
        if name == dtype:  # nothing of the model holds on to the file
            tensors = predictor.model.state_dict().values()
            assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors)
        view = View(picture(), predictor.protocol.resize, False, predictor.protocol)
        views.append(run_windows(predictor.model, [view], CPU, 1)[0].rows(0, 60))
    assert views[1].dtype == torch.float32
    assert (views[0] - views[1]).abs().mean() < atol * views[0].mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_models_compute_in_sixteen_bits_too(dtype):
    protocol = Protocol(ShortSide(60), crop=40, stride=28)
    exact, half = (
        Predictor(decided_model().to(numbers), default_classes(3), protocol, CPU)
        .predict([picture()], keep=("probabilities",))[0]
        .probabilities.astype(np.float32)
        for numbers in (torch.float32, dtype)
    )
    assert 0 < np.abs(exact - half).max() < 0.1


def test_float16_that_overflows_is_said(weights, monkeypatch):
    monkeypatch.setattr("utils.cpu_computes_in", lambda dtype: True)
    state = load_tensors(weights)["state_dict"]
    torch.save(state | {"backbone.norm1.bias": torch.full((32,), 6e4)}, weights)
    predictor = load_predictor(weights, CPU, PredictorOptions(dtype="float16", image_size=(64, 64)))
    with pytest.raises(InputError, match="--dtype bfloat16"):
        predictor.predict([picture()])


def test_the_scripts_take_it(weights, data_dir, tmp_path, in_tmp, capsys):
    source = tmp_path / "drawn.png"
    Image.fromarray(picture()).save(source)
    model = ["--model", str(weights)]
    infer_image.main(["--input", str(source), *model, "--imgsz", "64", "--save", "mask,overlay",
                      "--dtype", "bfloat16"])  # fmt: skip
    mask = Image.open(in_tmp / "outputs/inference_results_image/drawn_mask.png")
    assert mask.size == (90, 60)
    assert np.array(mask.getpalette()).reshape(-1, 3)[3].tolist() == [80, 50, 50]
    train.main(["--test-only", "--data", str(data_dir), "--classes", "ade20k", *model])
    assert "in the paper 60.2 %" in capsys.readouterr().out
    message = fails(capsys, infer_video.main, "--input", "no.mp4", *model, "--weights", "none")
    assert "its own backbone" in message
    clip = make_video(tmp_path / "clip.mp4", grey_frames(3))
    infer_video.main(["--input", str(clip), *model, "--imgsz", "64", "--dtype", "bfloat16"])
    with VideoReader(in_tmp / "outputs/inference_results_video/clip.mp4") as result:
        assert len(list(result)) == 3


def test_settings_are_read_from_a_config(tmp_path):
    config, protocol, missing = read_config(written(tmp_path, CONFIG), TINY, PROTOCOL)
    assert config == replace(
        TINY, num_heads=8, n_points=4, deform_num_heads=1, gn_groups=4, pixel_heads=2,
        pixel_points=4, decoder_heads=2, interaction_indexes=[[0, 0], [1, 1], [2, 2], [3, 3]],
    )  # fmt: skip
    assert protocol == Protocol(ShortSide(96, 400, 32), 64, 48, stretch=True)
    assert missing == []
    many = CONFIG.replace("flip=False", "flip=True, img_ratios=[0.5, 1.0]")
    many = many.replace("dict(type='ResizeToMultiple', size_divisor=32),", "")
    protocol = read_config(written(tmp_path, many), TINY, PROTOCOL)[1]
    assert protocol == Protocol(ShortSide(96, 400), 64, 48, (0.5, 1.0), flip=True, stretch=True)


def test_what_a_config_does_not_say_stays_and_is_told(tmp_path):
    text = "model = dict(backbone=dict(num_heads=8), test_cfg=dict(mode='whole'))\nx: int = 3"
    config, protocol, missing = read_config(written(tmp_path, text), TINY, PROTOCOL)
    assert config == replace(TINY, num_heads=8)
    assert protocol == replace(PROTOCOL, crop=None, stride=None)
    assert {"decoder_heads", "pixel_points", "interaction_indexes", "scales"} <= set(missing)
    assert not {"num_heads", "windows"} & set(missing)


def test_a_config_is_data_and_never_run(tmp_path, in_tmp):
    hostile = """
__import__('os').system('touch owned')
a = __import__('os').system('touch owned')
dict = lambda **words: __import__('os').system('touch owned')
b = dict(c=open('owned', 'w'), d=[1, -2.5, (3, 'x')], **{'e': 1})
f = [exec("open('owned', 'w')") for _ in (1,)]
g = f'{open("owned", "w")}'
h = b
class i:
    open('owned', 'w')
"""
    names = _assignments(ast.parse(hostile))
    assert not (in_tmp / "owned").exists()
    assert names["a"] is names["f"] is names["g"] is None
    assert names["h"] == {"c": None, "d": [1, -2.5, [3, "x"]]}


@pytest.mark.parametrize("change", [
    ("img_scale=(400, 96), ", ""), ("img_scale=(400, 96)", "img_scale=('a', 96)"),
    ("model = dict(", "<html>"), ("# A comment.", "\0"),
])  # fmt: skip
def test_another_file_is_refused_in_one_line(tmp_path, change):
    assert change[0] in CONFIG
    with pytest.raises(InputError, match=r"_config\.py: not the config of") as error:
        read_config(written(tmp_path, CONFIG.replace(*change)), TINY, PROTOCOL)
    assert "\n" not in str(error.value)
