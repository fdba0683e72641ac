"""The sixteen published heads: names, addresses, files, protocol."""

import hashlib
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers.basics import shared_data
from helpers.published import Hostile, published_content
from PIL import Image

import infer_image
from data.labels.classes import ADE20K, VOC_PALETTE
from inference import published_mask2former
from inference.protocol import NO_LIMIT, Protocol, ShortSide
from inference.published_heads import OFFICIAL_HEADS, SHA256, find_head, load_head_weights
from model import LinearHead
from predictor import list_models, load_predictor
from utils import InputError

CPU = torch.device("cpu")


def test_sixteen_names_and_addresses():
    assert len(OFFICIAL_HEADS) == 16
    head, path = find_head("/x/dinov2_vits14_voc2012_ms_head.pth")
    assert (head.dataset, head.kind, path.name) == ("voc2012", "ms", f"{head.name}_head.pth")
    assert find_head("outputs/best_model_iou.pth") is None
    head = OFFICIAL_HEADS["dinov2_vitb14_ade20k_ms"]
    assert head.url == (
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_ade20k_ms_head.pth"
    )
    assert head.channels == 3072
    assert head.classes is ADE20K
    assert OFFICIAL_HEADS["dinov2_vitl14_voc2012_linear"].channels == 1024


def test_published_protocols():
    heads = OFFICIAL_HEADS
    linear = Protocol(ShortSide(512, 2048), crop=512, stride=341, stretch=True)
    assert heads["dinov2_vits14_voc2012_linear"].protocol == linear
    linear = Protocol(ShortSide(512, NO_LIMIT), crop=512, stride=341, stretch=True)
    assert heads["dinov2_vitg14_ade20k_linear"].protocol == linear
    ms = heads["dinov2_vits14_voc2012_ms"].protocol
    assert ms == Protocol(ShortSide(640), 640, 320, (1.0, 1.32, 1.73), flip=True, stretch=True)
    sides = [resize.content_size((480, 640))[0] for resize, flipped in ms.passes() if not flipped]
    assert sides == [640, 844, 1107]
    plain = ms.overridden(mode="whole", ratios=(1.0,), flip=False, image_size=(518, 700))
    assert plain == Protocol(ShortSide(518), stretch=True)
    assert ms.overridden() == ms


@pytest.mark.parametrize("bare", [False, True])
def test_both_layouts_load(tmp_path, bare):
    head = OFFICIAL_HEADS["dinov2_vits14_ade20k_linear"]
    content = published_content(head)
    if bare:
        content = {k.removeprefix("decode_head."): v for k, v in content["state_dict"].items()}
        del content["bn.num_batches_tracked"]
    torch.save(content, tmp_path / "head.pth")
    before = torch.get_rng_state()
    state = load_head_weights(head, tmp_path / "head.pth")
    assert torch.equal(torch.get_rng_state(), before)  # --init-head does not change the seed's run
    LinearHead(384, 150).load_state_dict(state)


def test_wrong_files_are_refused_in_one_line(in_tmp):
    head = OFFICIAL_HEADS["dinov2_vits14_voc2012_ms"]
    other = OFFICIAL_HEADS["dinov2_vitb14_voc2012_ms"]
    path = in_tmp / "head.pth"

    def refusal(content):
        torch.save(content, path)
        with pytest.raises(InputError, match=r"head\.pth") as error:
            load_head_weights(head, path)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "is not the head dinov2_vits14_voc2012_ms" in refusal(published_content(other))
    more = {"decode_head.extra": torch.zeros(1)}
    assert "extra" in refusal(published_content(head, **more))
    assert "refused" in refusal(published_content(head) | {"meta": Hostile()})
    assert not (in_tmp / "owned").exists()


def test_a_head_is_downloaded_once_and_kept(tmp_path, monkeypatch):
    head = OFFICIAL_HEADS["dinov2_vits14_ade20k_linear"]
    asked = []

    def download(url, path, hash_prefix):
        assert hash_prefix.startswith("67e10225")
        asked.append(url)
        torch.save(published_content(head), path)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    load_head_weights(head)
    load_head_weights(head)
    assert asked == [head.url]


@pytest.mark.parametrize(("problem", "words"), [
    (RuntimeError("invalid hash value"), r"not the published file \(invalid hash"),
    (OSError("no route"), r"cannot download https://.*put it into .*checkpoints"),
], ids=["another file", "no network"])  # fmt: skip
def test_a_download_that_fails_is_explained(tmp_path, monkeypatch, problem, words):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", Mock(side_effect=problem))
    with pytest.raises(InputError, match=words):
        load_head_weights(OFFICIAL_HEADS["dinov2_vits14_voc2012_ms"])


def test_inference_with_a_head_from_a_file(tmp_path, in_tmp):
    """The whole way of a published head, on a random backbone."""
    name = "dinov2_vits14_voc2012_ms"
    source = shared_data(f"official_heads/{name}_head.pth")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == SHA256[name]
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "noise.png")
    copy = shutil.copy(source, tmp_path)
    infer_image.main(
        ["--input", str(tmp_path / "noise.png"), "--model", str(copy), "--weights", "none",
         "--imgsz", "70", "--scales", "1", "1.32", "--save", "mask,overlay"]
    )  # fmt: skip
    mask = Image.open(in_tmp / "outputs/inference_results_image/noise_mask.png")
    assert mask.size == (90, 60)
    assert mask.getpalette()[60:63] == [0, 64, 128]  # of class 20


def test_the_list_names_every_head(capsys):
    infer_image.main(["--list-models"])
    out = capsys.readouterr().out
    assert out.strip() == list_models()
    for name in OFFICIAL_HEADS:
        assert name in out
    assert "Apache-2.0" in out


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "palette"),
    [
        # Three scales, flipped; the notebook draws class k in the colour of k + 1.
        ("dinov2_vits14_voc2012_ms", VOC_PALETTE[1:22]),
        # Wants 7 GB of disk and 12 GB of memory; minutes on a CPU.
        (published_mask2former.NAME, ADE20K.palette),
    ],
)
def test_published_weights_give_metas_picture(name, palette):
    image = np.asarray(Image.open(shared_data("official_results/input.png")).convert("RGB"))
    stored = Image.open(shared_data(f"official_results/{name}.png")).convert("RGB")
    labels = load_predictor(name, CPU).predict([image])[0].labels
    colours = np.array(palette, np.uint8)[labels]
    assert (colours == np.asarray(stored)).all(axis=2).mean() >= 0.99
