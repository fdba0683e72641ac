"""Which paths state a split."""

from pathlib import Path

import pytest

from data.splits import split_of


@pytest.mark.parametrize(
    ("split", "paths"),
    [
        ("train", ["train", "train2017", "images/Training/seq 1", "TRAIN_images", "trainImages",
                   "stage1_train", "a/instances_train2017.json", "Train.txt", "train/0.jpg"]),
        ("valid", ["images/val/scene 3", "val_masks", "valid", "validation_set",
                   "annotations/val_instances_default.json", "street_val.json", "dev",
                   "eval/masks"]),
        ("test", ["Test", "testA", "testing/images", "test/via_region_data.json", "holdout_images",
                  "image_info_test-dev2017.json"]),
        (None, ["train station", "bus val-de-marne", "crash_test_1", "trainval.txt",
                "train_test_split.yaml", "train_1.jpg", "images", "crash_test/labels.json"]),
    ],
)  # fmt: skip
def test_the_split_that_a_path_states(split, paths):
    assert {path: split_of(Path(path)) for path in paths} == dict.fromkeys(paths, split)
