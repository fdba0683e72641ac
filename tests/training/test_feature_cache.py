"""Cached features: those that training on images would compute, each of them computed once."""

import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.models import StripeBackbone

from common.distributed import main_first
from common.signals import Stopped
from config import InputFormat
from data.augment import build_augment
from data.layouts import find_splits
from data.survey import load_data
from data.transforms import Resize
from datasets import build_loaders, preview_batch
from engine import evaluate
from losses import Criterion
from model import HEADS, SegmentationModel
from training import feature_cache, feature_store
from training.feature_cache import cached_loaders, cached_valid_loader
from training.feature_store import FileStore
from utils import InputError

RESIZE = Resize((28, 42))
TRAIN, VALID = 6, 3  # pictures in data_dir
SETTINGS = {"backbone": "stripes", "blocks": 2, "augment": "scale", "seed": 0}


def image_loaders(data_dir, augment=None, resize=RESIZE, batch=4, seed=0, workers=0):
    with main_first():
        data = load_data(find_splits(data_dir, (None,) * 4, None, None))
    augment = augment or build_augment("scale", resize, seed)
    return build_loaders(data, resize, augment, batch, workers, seed)[:2]


def killed():
    raise KeyboardInterrupt


class Counting(SegmentationModel):
    """Counts the images that its backbone has seen; calls `beyond` above `limit` of them."""

    def __init__(self, head="ms", limit=10**9, beyond=killed):
        torch.manual_seed(0)
        super().__init__(StripeBackbone(), HEADS[head][0](8, 2))
        self.limit, self.beyond = limit, beyond
        self.seen = 0
        self.eval()  # without the backbone's dropout

    def extract(self, images):
        self.seen += len(images)
        if self.seen > self.limit:
            self.beyond()
        return super().extract(images)


def cached(data_dir, views=1, model=None, settings=None, amp=None, **how):
    loaders = image_loaders(data_dir, **how)
    settings = SETTINGS | (settings or {})
    model = model or Counting()
    model.amp = amp
    return cached_loaders(model, loaders, views, settings)


def computed(data_dir, views=1, **how):
    """How many pictures it takes to come to cached loaders."""
    model = Counting()
    cached(data_dir, views, model, **how)
    return model.seen


def set_room(monkeypatch, disk, memory):
    """Bytes that may be used of the disk and of the memory."""
    monkeypatch.setattr(feature_store, "free_disk", lambda _: disk / feature_store.DISK_FRACTION)
    fraction = feature_store.MEMORY_FRACTION
    monkeypatch.setattr(feature_store, "free_memory", lambda: memory / fraction)


def all_records(loaders):
    """Features and targets of both loaders: of all views, one after the other."""
    records = []
    for dataset in (loader.dataset for loader in loaders):
        first = len(dataset) if len(dataset) == TRAIN else 0  # those to train on begin at epoch 1
        records += [dataset[first + i] for i in range(len(dataset.stores) * len(dataset))]
    return records


def assert_same_records(some, others, **tolerance):
    for (kept, target), (other, other_target) in zip(some, others, strict=True):
        torch.testing.assert_close(kept, other, **tolerance)
        assert torch.equal(target, other_target)


# -- the same as without ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "workers"), [("scale", 0), ("articles", 1)])
def test_the_first_epochs_are_those_of_training_on_images(data_dir, in_tmp, name, workers):
    model = Counting()
    augment = build_augment(name, RESIZE, 3)
    loader = image_loaders(data_dir, augment, seed=3)[0]
    train, _ = cached(data_dir, 2, model, augment=augment, seed=3, workers=workers)
    epochs = []
    for epoch in (1, 2):
        loader.batch_sampler.epoch = train.batch_sampler.epoch = epoch
        for (images, targets), (kept, kept_targets) in zip(loader, train, strict=True):
            expected = model.extract(images)
            assert kept.dtype == torch.float16
            torch.testing.assert_close(kept.float(), expected, rtol=2**-10, atol=1e-6)
            assert torch.equal(kept_targets, targets)
            epochs.append(kept)
    assert [len(kept) for kept in epochs] == [4, 2, 4, 2]
    first, second, third = (
        torch.stack([train.dataset[epoch * TRAIN + i][0] for i in range(TRAIN)])
        for epoch in (1, 2, 3)
    )
    assert torch.equal(first, third)  # views take turns
    assert not torch.equal(first, second)


@pytest.mark.parametrize("head", ["ms", "sharp", "mask"])
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
@pytest.mark.parametrize("views", [0, 1])
def test_validation_scores_are_exactly_those_without(data_dir, in_tmp, views, amp, head):
    model = Counting(head)
    model.amp = amp
    settings = Criterion(model.upsample), RESIZE, 2
    loaders = image_loaders(data_dir, batch=2)
    expected = evaluate(model, loaders[1], *settings)
    if views:
        valid = cached_loaders(model, loaders, views, SETTINGS)[1]
    else:
        valid = cached_valid_loader(model, loaders[1])
    scores = evaluate(model, valid, *settings)
    assert scores["loss"] == expected["loss"]
    assert scores["miou"] == expected["miou"]
    assert torch.equal(scores["predicted"], expected["predicted"])
    assert valid.dataset[1][0].dtype == torch.float32


# -- once only -------------------------------------------------------------------------------------


def test_a_second_run_computes_nothing(data_dir, in_tmp, capsys):
    model, state = Counting(), torch.get_rng_state()
    first = cached(data_dir, 2, model)
    assert torch.equal(torch.get_rng_state(), state)  # or the second run would train otherwise
    said = capsys.readouterr().out
    assert "features: 15 pictures to compute, 0.0 GB in outputs/features/" in said
    model = Counting()
    second = cached(data_dir, 2, model, batch=3)
    assert model.seen == 0
    assert "features: 2 views of 6 pictures found in outputs/features/" in capsys.readouterr().out
    assert_same_records(all_records(first), all_records(second), rtol=0, atol=0)


def test_more_views_are_added_to_those_there_are(data_dir, in_tmp):
    assert computed(data_dir, 1) == TRAIN + VALID
    assert computed(data_dir, 3) == 2 * TRAIN
    assert computed(data_dir, 2) == 0
    assert computed(data_dir, 3) == 0


def test_the_minutes_are_told_after_one_picture(data_dir, in_tmp, capsys, monkeypatch):
    monkeypatch.setattr(feature_cache, "TIMED", TRAIN + VALID)
    model = Counting(limit=2)  # one to warm up, one to be timed
    with pytest.raises(KeyboardInterrupt):
        cached(data_dir, batch=4, model=model)
    assert "features: at most about 0.0 minutes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("room", "done", "words"),
    [(10**9, 4, "all of these are saved"), (0, 4, "in memory and are lost"), (10**9, 9, "saved")],
)
def test_a_signal_stops_after_the_batch(data_dir, in_tmp, monkeypatch, room, done, words):
    set_room(monkeypatch, room, 10**9)
    model = Counting(limit=done - 1, beyond=lambda: signal.raise_signal(signal.SIGTERM))
    line = f"stopped after the features of {done} of 9 pictures, .*{words}; continue with the same"
    with pytest.raises(Stopped, match=line) as stop:
        cached(data_dir, model=model, batch=4)
    assert stop.value.number == signal.SIGTERM
    assert computed(data_dir, batch=4) == 9 - (done if room else 0)


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (5, 4), (8, 6)])
def test_a_run_that_was_killed_is_resumed(data_dir, in_tmp, limit, kept):
    loaders = image_loaders(data_dir, batch=4)
    with pytest.raises(KeyboardInterrupt):
        cached_loaders(Counting(limit=limit), loaders, 2, SETTINGS)
    assert computed(data_dir, 2, batch=4) == 2 * TRAIN + VALID - kept
    assert computed(data_dir, 2) == 0


def with_another_weight():
    """A model whose features are those of Counting() but for their last digits."""
    model = Counting()
    model.backbone.proj.weight.data[0, 0, 0, 0] += 1e-6
    return model


def of_input(**fields):
    return Resize(RESIZE.image_size, input_format=InputFormat(**fields))


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"backbone": "other"}},
        {"settings": {"seed": 1}},
        {"resize": Resize((28, 28))},
        {"resize": Resize(RESIZE.image_size, keep_ratio=True)},
        {"resize": of_input(mean=(0.4, 0.5, 0.6))},
        {"resize": of_input(std=(0.4, 0.5, 0.6))},
        {"resize": of_input(patch_size=7)},  # which the padding depends on
        {"amp": torch.bfloat16},
        {"model": with_another_weight()},
    ],
)
def test_anything_changed_is_computed_anew(data_dir, in_tmp, change):
    """Files that changed are those of a job's record."""
    cached(data_dir)
    cached(data_dir, **change)
    assert len(list(Path("outputs/features").iterdir())) == 2


def test_masks_that_are_read_differently_are_computed_anew(data_dir, in_tmp):
    loaders = image_loaders(data_dir)
    changes = ({}, {"values": {0: 1, 1: 0}}, {"others": 1}, {"colours": {(1, 2, 3): 1}})
    for number, change in enumerate(changes, 1):
        for loader in loaders:
            loader.dataset.encoding = replace(loader.dataset.encoding, **change)
        train, _ = cached_loaders(Counting(), loaders, 1, SETTINGS)
        assert len(list(Path("outputs/features").iterdir())) == number
        assert torch.equal(train.dataset[0][1], loaders[0].dataset[TRAIN][1])


def test_other_settings_features_are_in_time_deleted(data_dir, in_tmp):
    cached(data_dir)
    (first,) = Path("outputs/features").iterdir()
    for days in (13, 15):
        used = time.time() - days * 24 * 3600
        os.utime(first / "about.json", (used, used))
        cached(data_dir, settings={"seed": 1})
        assert first.exists() == (days == 13)


# -- files that are not what they should be --------------------------------------------------------


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path):
    path.write_bytes(b"\1" * (path.stat().st_size + 4099))


@pytest.mark.parametrize("damage", [cut, lengthen, Path.unlink])
@pytest.mark.parametrize("name", ["train1.bin", "train1.done", "valid.bin", "valid.done"])
def test_damaged_files_are_computed_again(data_dir, in_tmp, name, damage):
    expected = all_records(cached(data_dir))
    damage(next(Path("outputs/features").glob(f"*/{name}")))
    model = Counting()
    loaders = cached(data_dir, model=model)
    assert 0 < model.seen <= (TRAIN if "train" in name else VALID)
    assert_same_records(expected, all_records(loaders))


def test_features_deleted_while_in_use_are_one_line(data_dir, in_tmp):
    train, _ = cached(data_dir)
    os.truncate(next(Path("outputs/features").glob("*/train1.bin")), 5000)
    with pytest.raises(InputError, match=r"train1.bin: deleted or cut while in use"):
        list(train)


def test_features_that_float16_cannot_hold_are_refused(data_dir, in_tmp):
    model = Counting()
    torch.nn.init.constant_(model.backbone.proj.bias, 1e5)
    with pytest.raises(InputError, match="do not fit into float16"):
        cached(data_dir, model=model)


@pytest.mark.parametrize("number", [1, 5])
def test_what_cannot_be_written_is_not_overlooked(data_dir, in_tmp, monkeypatch, number):
    write, calls = FileStore.write, []

    def fail_once(self, *args):
        calls.append(args)
        if len(calls) == number:  # of three batches to train on, two to validate
            raise InputError("disk full")
        write(self, *args)

    monkeypatch.setattr(FileStore, "write", fail_once)
    with pytest.raises(InputError, match="disk full"):
        cached(data_dir, batch=2)


# -- room ------------------------------------------------------------------------------------------


def test_without_room_on_disk_and_in_memory_it_is_told(data_dir, in_tmp, monkeypatch):
    bytes_needed = TRAIN * 3 * (2 * 8 * 6 + 28 * 42) + VALID * 4 * 8 * 6
    for room in ((bytes_needed - 1, 0), (0, bytes_needed - 1)):
        set_room(monkeypatch, *room)
        with pytest.raises(InputError, match=r"--cache-features 3 needs .*; pass a smaller number"):
            cached(data_dir, 3)
    assert not Path("outputs/features").exists()
    set_room(monkeypatch, 10**9, 0)
    cached(data_dir, 2)
    set_room(monkeypatch, 0, 0)
    assert computed(data_dir, 2) == 0  # what is on the disk needs no room


def test_a_full_disk_leaves_the_memory(data_dir, in_tmp, monkeypatch, capsys):
    expected = all_records(cached(data_dir, 2, settings={"seed": 1}))
    set_room(monkeypatch, 0, 10**9)
    model = Counting()
    loaders = cached(data_dir, 2, model)
    assert model.seen == 2 * TRAIN + VALID
    assert "in memory for this run only" in capsys.readouterr().out
    assert len(list(Path("outputs/features").iterdir())) == 1
    assert_same_records(expected, all_records(loaders), rtol=0, atol=0)
    train = loaders[0].dataset
    shuffled = zip(*train.__getitems__([11, 6, 8]), strict=True)
    assert_same_records(shuffled, [train[index] for index in (11, 6, 8)], rtol=0, atol=0)


def test_validation_features_alone_leave_no_file(data_dir, in_tmp, monkeypatch):
    loader = image_loaders(data_dir)[1]
    model = Counting()
    valid = cached_valid_loader(model, loader)
    assert model.seen == VALID
    assert sum(len(kept) for kept, _ in valid) == VALID
    assert model.seen == VALID
    assert not Path("outputs/features").exists()
    num_bytes = VALID * 4 * 8 * 6 / feature_store.MEMORY_FRACTION_UNASKED
    monkeypatch.setattr(feature_store, "free_memory", lambda: num_bytes)
    assert cached_valid_loader(model, loader) is not loader
    monkeypatch.setattr(feature_store, "free_memory", lambda: num_bytes - 4)
    assert cached_valid_loader(model, loader) is loader


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    without = feature_store.free_memory()
    monkeypatch.setattr(feature_store, "CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 90\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert feature_store.free_memory() == 390
    (tmp_path / "memory.max").write_text("max\n")
    assert feature_store.free_memory() == pytest.approx(without, rel=0.5)


# -- many processes --------------------------------------------------------------------------------


def work(number, data_dir, folder):
    """One of two processes: what it computed, and what its loaders give."""
    torch.set_num_threads(1)
    os.chdir(folder)
    address = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", address, world_size=2, rank=number)
    slow = partial(time.sleep, 0.2 * number)  # the first waits for what the second computes
    model = Counting(limit=0, beyond=slow)
    train, valid = cached(data_dir, 2, model, batch=2)
    train, valid = list(train), list(valid)
    in_memory = cached_valid_loader(Counting(), image_loaders(data_dir, batch=2)[1])
    result = {
        "seen": model.seen,
        "train": train,
        "valid": valid,
        "in_memory": list(in_memory),
        "preview": preview_batch(in_memory.dataset, 4),
    }
    torch.save(result, f"rank{number}.pth")
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_work(data_dir, in_tmp):
    torch.multiprocessing.spawn(work, (data_dir, in_tmp), nprocs=2)
    first, second = (torch.load(f"rank{number}.pth") for number in (0, 1))
    assert sorted([first["seen"], second["seen"]]) == [7, 8]
    assert computed(data_dir, 2) == 0
    train, valid = cached(data_dir, 2, batch=4)
    for (kept, targets), one, other in zip(train, first["train"], second["train"], strict=True):
        for part, whole in enumerate((kept, targets)):
            assert torch.equal(whole[::2], one[part])
            assert torch.equal(whole[1::2], other[part])
    pictures = [valid.dataset[i][0] for i in range(VALID)]
    for name in ("valid", "in_memory"):
        assert torch.equal(torch.cat([kept for kept, _ in first[name]]), torch.stack(pictures[::2]))
        assert torch.equal(torch.cat([kept for kept, _ in second[name]]), pictures[1][None])
    torch.testing.assert_close(first["preview"][0], torch.stack(pictures))


def test_many_processes_do_not_keep_copies_in_memory(data_dir, in_tmp, monkeypatch):
    set_room(monkeypatch, 0, 10**9)
    monkeypatch.setattr(feature_store, "world_size", lambda: 2)
    with pytest.raises(InputError, match="--cache-features"):
        cached(data_dir)
