"""The whole path with backbones of other patch sizes, from a local hub folder."""

import re
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.basics import REPO, draw_pair
from helpers.stubs import fails

import config
import export
import infer_image
import infer_video
import train
from common.checkpoints import Checkpoint
from data.transforms import eval_transform
from model import build_model
from networks import hub
from networks.backbones import load_backbone
from networks.weights import fingerprint, print_licence
from predictor import PredictorOptions, load_predictor
from training.optimizers import OptimizerSettings, build_optimizer
from utils import InputError
from video.writer import VideoWriter

CPU = torch.device("cpu")
SUPER = "super().__init__(); self.register_buffer"


@pytest.fixture
def lab(in_tmp):
    """A function that writes the example of docs/backbones.md with a patch size."""
    text = (REPO / "docs" / "backbones.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]

    def write(patch, old="", new=""):
        folder = in_tmp / f"lab{patch}"
        folder.mkdir(exist_ok=True)
        code = example.replace("n_blocks = 16,", f"n_blocks = {patch},").replace(old, new)
        (folder / "hubconf.py").write_text(code)
        return str(folder)

    return write


def train_lab(data_dir, folder, *more):
    """An epoch on the backbone of that folder, unless more flags say otherwise."""
    argv = ["--data", data_dir, "--hub-repo", folder, "--backbone", "lab_vit", "--weights", "none"]
    train.main([*map(str, argv), "--imgsz", "32", "--workers", "0", "--epochs", "1", *more])


def plain_labels(model, image, resize):
    """Every step of prediction as torch's own functions: pad, upsample, crop, resize."""
    patch = model.backbone.patch_size
    inputs = eval_transform(image, resize)[None]
    padding = [(-side % patch // 2, -side % patch) for side in inputs.shape[-2:]]
    (top, rows), (left, columns) = padding
    padded = F.pad(inputs, (left, columns - left, top, rows - top))
    with torch.no_grad():
        logits = model.head(torch.cat(model.backbone(padded), 1))
    logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear")
    before, content = resize.padding(image.shape[:2]), resize.content_size(image.shape[:2])
    first_row, first_column = top + before[0], left + before[2]
    logits = logits[..., first_row:, first_column:][..., : content[0], : content[1]]
    return F.interpolate(logits, size=image.shape[:2], mode="bilinear")[0].argmax(0).numpy()


def test_the_whole_path_with_another_patch_size(lab, data_dir, in_tmp, capsys):
    folder = lab(16)
    argv = "--imgsz 50 42 --batch 4 --keep-ratio --lr 0.01 --cache-features 1 --head sharp".split()
    train_lab(data_dir, folder, *argv)
    train_lab(data_dir, folder, *argv, "--epochs", "2", "--resume")
    capsys.readouterr()
    path = in_tmp / "outputs" / "best_model_iou.pth"
    checkpoint = Checkpoint.load(path)
    assert (checkpoint.patch_size, checkpoint.mean) == (16, [0.5] * 3)
    assert checkpoint.hub_repo == folder

    image, _ = draw_pair(1, 83, 61)
    predictor = load_predictor(path, CPU, PredictorOptions(hub_repo=folder))
    expected = plain_labels(predictor.model, image, predictor.protocol.resize)
    assert (predictor.predict([image])[0].labels == expected).mean() > 0.999
    video = in_tmp / "clip.mp4"
    with VideoWriter(video, fps=5) as frames:
        frames.write(image[:60, :82])
    model = ["--model", str(path), "--hub-repo", folder]
    pictures = str(data_dir / "valid_images")
    infer_image.main([*model, "--input", pictures, "--mode", "slide", "--imgsz", "30"])
    infer_video.main([*model, "--input", str(video)])
    export.main([*model, "--to", "model.pt2"])
    run = torch.export.load("model.pt2").module()
    assert run(torch.zeros(1, 3, 42, 50)).shape == (1, 2, 42, 50)
    train.main(["--data", str(data_dir), "--test-only", *model])
    said = capsys.readouterr().out
    assert "3 of 3 pictures" in said
    assert "1 frames" in said
    assert "model.pt2: 50 x 42 pixels" in said

    words = f"trained with the backbone lab_vit from {folder}.*pass --hub-repo {folder}"
    with pytest.raises(InputError, match=words):
        load_predictor(path, CPU)
    lab(16, "n_blocks = 16,", "n_blocks = 4,")
    with pytest.raises(InputError, match="patches of 16 pixels, lab_vit has 4"):
        load_predictor(path, CPU, PredictorOptions(hub_repo=folder))
    assert "--dynamic works with DINOv2" in fails(
        capsys, export.main, "--hub-repo", folder, "--backbone", "lab_vit", "--head", "linear",
        "--to", "x.pt2", "--dynamic",
    )  # fmt: skip


def test_a_fine_tuned_foreign_backbone_comes_back(lab, data_dir, in_tmp):
    folder = lab(8)
    flags = "--fine-tune --unfreeze-blocks 2 --checkpoint-activations".split()
    train_lab(data_dir, folder, *flags)
    path = in_tmp / "outputs" / "best_model_iou.pth"
    options = PredictorOptions(hub_repo=folder)
    before = load_backbone("lab_vit", 4, folder, "none")
    after = load_predictor(path, CPU, options).model.backbone
    old = before.state_dict()
    changed = {name for name, new in after.state_dict().items() if not torch.equal(new, old[name])}
    assert {name.split(".")[0] for name in changed} == {"blocks", "norm"}
    assert not any(name.startswith(("blocks.0.", "blocks.1.")) for name in changed)
    assert fingerprint(load_backbone("lab_vit", 4, folder, str(path))) == fingerprint(after)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("get_intermediate_layers", "layers", "has no get_intermediate_layers"),
        ("patch_size, embed_dim", "patches_, embed_dim", "entry lab_vit failed .*patch_size"),
        ("n_blocks = 16, 32, 4", "n_blocks = 16, 32, 'x'", r"n_blocks .* is x"),
        (".unflatten(2, grid)", "", "gave maps .*expected"),
        ("maps.append(", "maps.push(", "get_intermediate_layers failed .*push"),
        ("(0.5, 0.5, 0.5), (0.5", "(0.5, 0.5), (0.5", "mean and std must be three numbers"),
        ("(0.5, 0.5, 0.5), (0.5", "(124, 116, 104), (58", "mean and std must be .* RGB 0..1"),
        (
            "mean, std = (0.5, 0.5, 0.5), (",
            "mean = property(lambda _: [0]*3)  # ",
            "mean must be a plain",
        ),
        ("tuple(maps)", "tuple(m + torch.randn_like(m) for m in maps)", "gets different features"),
        ("tuple(maps)", "tuple(m * float('nan') for m in maps)", "features that are not finite"),
        ("def lab_vit(pretrained=True)", "def lab_vit()", "unexpected keyword .*pretrained"),
        ("from torch import nn", "import no_such_package", "no_such_package.*; install what it"),
        ("from torch import nn", "from utils import other", "cannot import name .*docs"),
        ("16, 32, 4", "16, 32, 3", "lab_vit has 3 blocks and this head reads 4; take --head lin"),
    ],
)
def test_what_a_backbone_of_ones_own_lacks_is_one_line(lab, old, new, words):
    folder = lab(16, old, new)
    with pytest.raises(InputError, match=words) as error:
        load_backbone("lab_vit", 4, folder, "none")
    assert "\n" not in str(error.value)


def test_what_the_first_call_shows(lab, in_tmp, monkeypatch):
    """Messages of the default --weights, and of names that are no folder."""
    folder = lab(16, "model = LabViT()", "raise ValueError")
    with pytest.raises(InputError, match=r"entry lab_vit failed \(ValueError.*docs/backbones"):
        load_backbone("lab_vit", 4, folder)
    with pytest.raises(InputError, match=r"hubconf.py: no such folder"):
        load_backbone("lab_vit", 4, f"{folder}/hubconf.py", "none")
    with pytest.raises(InputError, match="unknown backbone 'lab_vit'"):
        load_backbone("lab_vit", 4, "", "none")
    folder = lab(16, "import torch", "import networks.layers, torch")
    (in_tmp / "lab16" / "networks").mkdir()
    with pytest.raises(InputError, match=r"networks\.layers.*other names than those of this"):
        load_backbone("lab_vit", 4, folder, "none")
    offline = Mock(side_effect=RuntimeError("It looks like there is no internet connection"))
    monkeypatch.setattr(torch.hub, "load", offline)
    with pytest.raises(InputError, match=r"no folder here.*--hub-repo DIR, a clone"):
        load_backbone("lab_vit", 4, "my/lab", "none")
    with pytest.raises(InputError, match=r"dinov3:.*--hub-repo DIR, a clone"):
        load_backbone("dinov3_vits16", 4, weights="none")


def test_random_buffers_are_the_same_in_each_process(lab):
    """init_random_weights leaves them; those of training must be those of inference."""
    folder = lab(8, "super().__init__()", f"{SUPER}('codes', torch.randn(9))")
    state = torch.get_rng_state()
    first, second = (load_backbone("lab_vit", 4, folder, "none").codes for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_whose_own_names_begin_with_backbone(lab, in_tmp):
    inner = "super().__init__(); self.backbone = nn.Linear(2, 2); self.head = nn.Linear(2, 2)"
    folder = lab(8, "super().__init__()", inner)
    source = load_backbone("lab_vit", 4, folder, "none")
    torch.nn.init.ones_(source.head.bias)
    torch.save(source.state_dict(), in_tmp / "lab.pth")
    loaded = load_backbone("lab_vit", 4, folder, str(in_tmp / "lab.pth"))
    assert fingerprint(loaded) == fingerprint(source)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    def get_inter", "    @torch.no_grad()\n    def get_inter", "without gradients"),
        ("self.blocks", "self.layers", "this backbone has 0 blocks in its attribute"),
    ],
)
def test_fine_tuning_that_could_not_work_is_refused(lab, old, new, words):
    spec = config.ModelConfig("lab_vit", "ms", 2, "none", lab(8, old, new), fine_tune=True)
    model = build_model(spec)
    with pytest.raises(InputError, match=words):
        model.set_up_training(None, True, False, None)
    if "blocks" in words:
        with pytest.raises(InputError, match="--layer-decay: this backbone has no blocks"):
            build_optimizer(model, OptimizerSettings(layer_decay=0.9), 1)


def test_weights_on_request_and_licences(capsys, monkeypatch, tmp_path):
    words = r"on request at https://ai.meta.com.*--weights FILE, or .*timm/vit_small_patch16_dinov3"
    with pytest.raises(InputError, match=words):
        load_backbone("dinov3_vits16", 4)
    tiny = load_backbone("dinov2_vitt14", 1, ".", "none")
    tiny.rope_embed = torch.nn.Module()
    tiny.rope_embed.rescale_coords = 2.0
    torch.save(tiny.state_dict(), tmp_path / "dinov3_vitl16_sat493m.pth")
    del tiny.mean, tiny.std
    monkeypatch.setattr(hub, "_load_entry", lambda *args, **kwargs: tiny)
    path = str(tmp_path / "dinov3_vitl16_sat493m.pth")
    backbone = load_backbone("dinov3_vitl16", 1, "clone", path)
    said = capsys.readouterr().out
    assert "dinov3_vitl16: weights under DINOv3 License, read its terms first" in said
    assert backbone.mean == (0.430, 0.411, 0.296)
    assert backbone.rope_embed.rescale_coords is None, "training would draw other coordinates"
    print_licence("one", "CC-BY-NC-4.0")
    print_licence("two", "Apache-2.0")
    assert capsys.readouterr().out == "one: weights under CC-BY-NC-4.0, not for commercial use\n"


def test_a_checkpoint_of_another_mean_is_used_with_it(lab, data_dir, in_tmp):
    """Mean and std are the checkpoint's, as its head was trained with them."""
    folder = lab(8)
    train_lab(data_dir, folder)
    lab(8, "(0.5, 0.5, 0.5), (0.5", "(0.4, 0.4, 0.4), (0.5")
    path, options = in_tmp / "outputs" / "final_model.pth", PredictorOptions(hub_repo=folder)
    resize = load_predictor(path, CPU, options).protocol.resize
    assert resize.input_format.mean == (0.5, 0.5, 0.5)
    image = np.full((20, 30, 3), 128, np.uint8)
    assert eval_transform(image, resize).abs().max() < 0.01
    assert eval_transform(image, replace(resize, keep_ratio=True)).abs().max() < 0.01


def test_features_of_changed_code_are_computed_anew(lab, data_dir, in_tmp):
    """Equal weights, other code."""
    folder, flags = lab(8), ["--cache-features", "1", "--no-page"]
    train_lab(data_dir, folder, *flags)
    lab(8, "block(tokens)", "block(tokens) + tokens.flip(1)")
    train_lab(data_dir, folder, *flags, "--epochs", "2", "--resume")
    assert len(list(in_tmp.glob("outputs/features/*/about.json"))) == 2
