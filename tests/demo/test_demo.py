import numpy as np
import pytest
import torch
from helpers.basics import leftover_of
from PIL import Image

import demo.__main__ as demo_script
from data.layouts import find_splits
from demo import demo_files, pretraining
from demo.canvas import KINDS, Canvas, Thing
from demo.figures import FIGURES
from demo.scenes import random_scene, render
from networks.backbones import load_backbone
from video.reader import VideoReader

PERSON = KINDS.index("person")


@pytest.mark.parametrize("kind", FIGURES)
def test_every_figure_colours_what_it_labels(kind):
    canvas = Canvas(200, 200)
    FIGURES[kind](canvas, Thing(kind, 100, 190, 150, seed=3), 0.0)
    labelled = canvas.kinds == KINDS.index(kind)
    assert labelled.sum() > 100
    assert (canvas.kinds[~labelled] == 0).all()
    painted = canvas.image.any(axis=2)
    assert painted[labelled].mean() > 0.95  # some ink is nearly black
    assert painted.sum() < 1.25 * labelled.sum()  # antialiased edges alone reach beyond


def test_people_and_variety_in_many_scenes():
    shares = []
    kinds = set()
    for seed in range(40):
        _, labels = render(random_scene(seed, 224, 168, (40, 120)))
        shares.append((labels == PERSON).mean())
        kinds |= set(np.unique(labels))
    assert kinds == set(range(len(KINDS)))
    assert np.mean([share > 0.005 for share in shares]) > 0.9
    assert max(shares) > 2 * np.median(shares)


def test_walkers_walk():
    scene = random_scene(5, 160, 120, (40, 80), walking=True)
    (_, before), (_, after) = render(scene, 0.0), render(scene, 1.0)
    assert ((before == PERSON) != (after == PERSON)).any()
    still = random_scene(5, 160, 120, (40, 80))
    assert np.array_equal(render(still, 0.0)[1], render(still, 1.0)[1])


def test_the_data_set_is_one_that_training_takes(in_tmp, monkeypatch, capsys):
    splits = {"train": (3, 10), "valid": (2, 20), "unseen": (2, 30)}
    monkeypatch.setattr(demo_files, "SPLITS", splits)
    monkeypatch.setattr(demo_files, "VIDEO_SECONDS", 1)
    demo_script.main([])
    folder = in_tmp / "input" / "demo"
    found = find_splits(folder)
    assert (len(found.train), len(found.valid)) == (3, 2)
    mask = np.asarray(Image.open(found.train[0].mask))
    _, kinds = render(random_scene(10, *demo_files.SIZE, demo_files.PERSON_HEIGHT))
    assert np.array_equal(mask, kinds == PERSON)
    assert len(list((folder / "unseen").iterdir())) == 2
    with VideoReader(folder / "walkers.mp4") as reader:
        assert len(list(reader)) == demo_files.VIDEO_FPS


def test_pretraining_makes_weights_that_the_hub_entry_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "STAGES", ((28, 4, 4), (42, 2, 2)))
    monkeypatch.setattr(pretraining, "STEPS_PER_REPORT", 2)
    path = tmp_path / "weights" / "tiny.pth"
    left = leftover_of(path)
    pretraining.pretrain(path, torch.device("cpu"), workers=0)
    assert not left.exists()
    assert path.stat().st_size < 6e6
    state = torch.load(path, weights_only=True)
    assert {value.dtype for value in state.values()} == {torch.float16}
    model = load_backbone("dinov2_vitt14", 4, weights=str(path))
    fresh = load_backbone("dinov2_vitt14", 4, weights="none")
    assert not torch.allclose(model.norm.weight, fresh.norm.weight, atol=1e-4)
