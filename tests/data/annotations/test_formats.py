"""Each annotation format, written as its tool writes it, and read as a data set."""

import base64
import io
import json
import math
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from helpers.annotations import (
    BOX,
    HEIGHT,
    STAR,
    WIDTH,
    coco,
    draw_yolo,
    flat,
    labelme,
    refused,
    save_image,
    save_images,
    shape,
    targets,
    write,
    yolo_line,
)
from helpers.scripts import run_train
from PIL import Image

from data.layouts import find_splits
from data.survey import load_data
from predictor import load_predictor
from utils import InputError


def random_runs(seed):
    """Lengths of the runs outside and inside of some discs, down the columns."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        x, y = rng.integers([WIDTH, HEIGHT]).tolist()
        cv2.circle(mask, (x, y), int(rng.integers(3, 12)), 1, -1)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel()]).astype(int)))
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def test_coco_against_pycocotools(tmp_path, in_tmp):
    """Polygons of several parts, run lengths as text and, of a crowd, as list, ids with gaps."""
    pycocotools = pytest.importorskip("pycocotools.coco")
    size = {"size": [HEIGHT, WIDTH]}
    encoded = pycocotools.maskUtils.frPyObjects(size | {"counts": random_runs(1)}, HEIGHT, WIDTH)
    segmentations = [
        flat(STAR) + flat(BOX),
        size | {"counts": encoded["counts"].decode()},
        size | {"counts": random_runs(2)},
    ]
    shapes = [
        {"image_id": k, "category_id": 17 if k == 0 else 3, "segmentation": segmentation,
         "iscrowd": int(k == 2)}
        for k, segmentation in enumerate(segmentations)
    ]  # fmt: skip
    save_images(tmp_path / "data" / "train2017", 4)
    path = tmp_path / "data" / "annotations" / "instances_train2017.json"
    write(path, coco([f"{k}.jpg" for k in range(4)], shapes))
    write(path.with_name("captions_train2017.json"), {"images": [], "annotations": []})
    found, data = targets(tmp_path / "data", valid_fraction=0.5)
    assert data.classes.names == ("background", "cat", "dog")
    assert not found["3.jpg"].any()
    theirs = pycocotools.COCO(path)
    expected = [theirs.annToMask(theirs.anns[k]) for k in range(3)]
    both = (found["0.jpg"] == 2) & (expected[0] == 1)
    assert both.sum() / ((found["0.jpg"] > 0) | (expected[0] == 1)).sum() > 0.98
    assert np.array_equal(found["1.jpg"], expected[1])
    assert np.array_equal(found["2.jpg"], expected[2])


def test_coco_splits_overlaps_and_folders(tmp_path, in_tmp):
    """Roboflow's layout; small shapes lie on top of large ones, whatever their order."""
    shapes = [
        {"image_id": 0, "category_id": 3, "segmentation": flat(BOX)},
        {"image_id": 0, "category_id": 17, "segmentation": flat(STAR)},
    ]
    for split in ("train", "valid", "test"):
        save_image(tmp_path / split / f"{split}.jpg", len(split) + (split == "test") * 9)
        write(tmp_path / split / "_annotations.coco.json", coco([f"{split}.jpg"], shapes))
    found, data = targets(tmp_path)
    assert "1 pairs to train on, 1 to validate, 1 to test; masks are drawn from shapes" in str(data)
    inside = np.s_[21:28, 21:30]
    assert all((found[f"{split}.jpg"][inside] == 1).all() for split in ("train", "valid", "test"))
    write(tmp_path / "classes.txt", "cat\nbackground\ndog\n")
    again, data = targets(tmp_path)
    assert np.array_equal(again["test.jpg"], np.array([1, 0, 2])[found["test.jpg"]])
    write(tmp_path / "classes.txt", "cat\ndog\n")
    kept, data = targets(tmp_path)
    assert np.array_equal(kept["test.jpg"], found["test.jpg"])
    assert "the class file names no background; what no shape covers is class 0" in str(data)
    (tmp_path / "classes.txt").unlink()
    content = {"names": ["background", "cat", "dog"], "ignore_classes": "background"}
    write(tmp_path / "dataset.yaml", content)
    ignored, data = targets(tmp_path)
    assert np.array_equal(ignored["test.jpg"], np.array([255, 0, 1])[found["test.jpg"]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segmentation": [[1, 1, 5, 5]]}, "annotation 0: 2 points; a polygon has at least 3"),
        ({"segmentation": [], "bbox": [1, 2, 3, 4]}, "annotation 0: no segmentation, a box alone"),
        ({"category_id": 9}, "annotation 0: no category 9 in the file"),
        ({"image_id": 9}, "annotation 0: no image 9 in the file"),
        ({"segmentation": [[200, 1, 220, 1, 210, 9]]}, "a cat at 200, 1 is outside the pict"),
        ({"segmentation": {"counts": [5]}}, "a cat whose runs cover 5 pixels"),
        ({"segmentation": {"counts": [-1, 2]}}, "run lengths are not numbers from 0"),
        ({"segmentation": {"counts": "P"}}, "its run lengths end within a number"),
        ({"segmentation": [[1, 1, 5, "x", 9, 9]]}, "annotation 0: could not convert"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT - 9, 9]}},
         r"of \[80, 60\] pixels, its image of \[60, 80\]"),
        ({"categories": [{"id": 3, "name": "cat"}, {"id": 3, "name": "dog"}]},
         "two categories have the id 3, cat and dog"),
        ({"images": [{"id": 0, "file_name": "0.jpg"}, {"id": 0, "file_name": "1.jpg"}]},
         "two images have the id 0, 0.jpg and 1.jpg"),
        ({"categories": [{"id": 3, "name": " "}]}, "a class name is empty"),
    ],
)  # fmt: skip
def test_faults_of_a_coco_file_are_a_line_each(tmp_path, in_tmp, change, words):
    save_images(tmp_path, 2)
    shape = {"image_id": 0, "category_id": 3, "segmentation": flat(STAR)} | change
    content = coco(["0.jpg", "1.jpg"], [shape])
    write(tmp_path / "x.json", content | {k: v for k, v in change.items() if k in content})
    said = refused(tmp_path, words)
    assert "x.json" in said
    assert len(said.splitlines()) == 1


def test_letters_with_accents_are_alike_however_they_are_stored(tmp_path, in_tmp):
    composed, apart = "\u00e9", "e\u0301"
    for k, (image, text) in enumerate([(composed, apart), (apart, composed)]):
        save_image(tmp_path / "yolo" / "images" / "train" / f"{image}{k}.jpg", k)
        write(tmp_path / "yolo" / "labels" / "train" / f"{text}{k}.txt", yolo_line(0, BOX))
        save_image(tmp_path / "labelme" / f"{image}{k}.jpg", k)
        shape = {"label": f"{text} ", "points": BOX}
        write(tmp_path / "labelme" / f"{text}{k}.json", {"shapes": [shape]})
    content = coco([f"{composed}.jpg"], [])
    save_image(tmp_path / "coco" / "train" / f"{apart}.jpg")
    save_image(tmp_path / "coco" / "val" / "b.jpg", 1)
    write(tmp_path / "coco" / "train.json", content)
    write(tmp_path / "coco" / "val.json", coco(["b.jpg"], []))
    write(tmp_path / "yolo" / "data.yaml", {"names": ["x"], "train": "images/train"})
    for folder in ("yolo", "labelme"):
        found, data = targets(tmp_path / folder)
        assert len(data.classes.names) == 2
        assert all((target == 1).sum() in range(70, 100) for target in found.values())
    assert len(targets(tmp_path / "coco")[0]) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": "../train/images", "val": "../val/images"}, "both lead to .*no picture is in"),
        ({"names": ["cat", None]}, "the class name None is not text"),
        ({"train": "images/train/train0.jpg"}, r"train0\.jpg: cannot be read as a list of pictu"),
        ({"train": "x" * 5000}, "xxx: no such folder below"),
    ],
)
def test_yolo_files_that_would_mix_splits_or_classes_are_refused(tmp_path, in_tmp, change, words):
    draw_yolo(tmp_path, **change)
    refused(tmp_path, words)


def test_pictures_without_any_shape_are_refused(tmp_path, in_tmp):
    for path in save_images(tmp_path, 2):
        write(path.with_suffix(".json"), {"shapes": []})
    refused(tmp_path, "no shape has a label, so that all is background")
    write(tmp_path / "classes.txt", "background\nroad\n")
    assert len(find_splits(tmp_path).pairs) == 2


def test_yolo_without_any_label_file_is_refused(tmp_path, in_tmp):
    draw_yolo(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "Labels")
    refused(tmp_path, r"no picture has a label file; that of .*labels/train")


def test_pictures_that_a_coco_file_lacks_or_doubles(tmp_path, in_tmp):
    save_images(tmp_path, 3)
    write(tmp_path / "x.json", coco(["0.jpg", "1.jpg", "gone.jpg", "../../etc/passwd"], []))
    one = {"image_id": 0, "category_id": 3, "segmentation": flat(BOX)}
    write(tmp_path / "y.json", coco(["0.jpg", "2.jpg"], [one]))
    said = refused(tmp_path, "3 problems in 3 pairs")
    assert re.search(r"x\.json: annotates 0\.jpg, which .*y\.json annotates in another way", said)
    assert "image 2: its picture gone.jpg is not below" in said
    (tmp_path / "y.json").unlink()
    splits = find_splits(tmp_path, allow_unmatched=True)
    assert "2 files without a partner are left out" in str(load_data(splits))
    save_image(tmp_path / "1.jpg", 1, (HEIGHT, WIDTH - 1))
    with pytest.raises(InputError, match="80x60 pixels, but its image"):
        load_data(replace(splits, allow_unmatched=False))


def png(mask):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_labelme(tmp_path, in_tmp):
    """Every kind of shape; the list's order decides what is on top; labels of all splits."""
    bitmap = np.ones((9, 11), bool)
    shapes = [
        shape("cat", [[0, 0], [79, 0], [79, 59], [0, 59]]),
        shape("dog", [[30.5, 20.5], [10.5, 5.5]], "rectangle"),
        shape("__ignore__", [[50.5, 20.5], [55.5, 20.5]], "circle"),
        shape("_background_", [[-3, 40], [7, 48]], "mask", mask=png(bitmap)),
        shape("ant", [[60, 50], [70, 50]], "line"),
        shape("ant", [[40, 50]], "point"),
    ]
    exif = Image.Exif()
    exif[0x0112] = 6  # labelme shows pictures upright
    save_image(tmp_path / "train" / "a.jpg", 0, (WIDTH, HEIGHT), exif=exif)
    write(tmp_path / "train" / "a.json", labelme(shapes))
    for name in ("val/b", "test/c"):
        save_image(tmp_path / f"{name}.png", len(name))
        write(tmp_path / f"{name}.json", labelme([shape("bee", STAR)]))
    found, data = targets(tmp_path)
    assert data.classes.names == ("background", "ant", "bee", "cat", "dog")
    assert [len(data.splits.pairs_of(s)) for s in ("train", "valid", "test")] == [1, 1, 1]
    ids = found["a.jpg"]
    assert ids.shape == (HEIGHT, WIDTH)
    assert (ids[6:20, 11:30] == 4).all()
    assert (ids[40:49, 0:8] == 0).all()
    assert (ids[45, 8], (ids[:, 65] == 1).sum()) == (3, 11)  # beside the bitmap, across the line
    assert (ids == 255).sum() == pytest.approx(np.pi * 25, abs=10)
    assert (ids[50, 62], ids[50, 40], ids[0, 0]) == (1, 1, 3)
    write(tmp_path / "dataset.yaml", {"names": ["background", "cat", "dog", "ant"]})
    refused(tmp_path, "the label bee is no class of the class file")
    names = ["background", "cat", "dog", "ant", "bee"]
    write(tmp_path / "dataset.yaml", {"names": names, "ignore_classes": "bee"})
    found, _ = targets(tmp_path)
    assert set(np.unique(found["b.png"])) == {0, 255}


def test_a_scan_is_done_again_when_another_file_brings_a_label(tmp_path, in_tmp):
    for k, label in enumerate("cb"):
        save_image(tmp_path / f"{k}.png", k)
        write(tmp_path / f"{k}.json", labelme([shape(label, STAR)]))
    targets(tmp_path)
    write(tmp_path / "0.json", labelme([shape("a", STAR)]))  # b is now the second label
    found, data = targets(tmp_path)
    for split in ("train", "valid"):
        (pair,) = data.splits.pairs_of(split)
        counts = np.bincount(found[pair.image.name].ravel(), minlength=3)
        assert data.pixels(split) == counts.tolist()


NOT_UTF_8 = json.dumps(labelme([shape("\u9053", STAR)]), ensure_ascii=False).encode("gb18030")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "a.json").unlink(), r"a\.png: no annotation of this name"),
        (lambda root: (root / "a.png").unlink(), r"a\.json: its picture a is not below"),
        (lambda root: save_image(root / "a.jpg"), r"a\.\w+ and .*a\.\w+ both have the name"),
        (lambda root: write(root / "a.json", "{"), r"a\.json: not a readable JSON file"),
        (lambda root: (root / "a.json").write_bytes(NOT_UTF_8),
         r"a\.json: not UTF-8 text; save it with the encoding UTF-8"),
    ],
)  # fmt: skip
def test_faults_of_labelme_files_are_a_line_each(tmp_path, in_tmp, change, words):
    for name in "abc":
        save_image(tmp_path / f"{name}.png", ord(name))
        write(tmp_path / f"{name}.json", labelme([shape("x", STAR)]))
    change(tmp_path)
    refused(tmp_path, words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (shape("x", STAR[:2]), "shape 1: 2 points; a polygon has at least 3"),
        (shape("x", [*STAR, [math.nan, 0]]), "shape 1: a point is not a finite number"),
        (shape("x", STAR, "cube"), "shape 1: shape_type cube is not known"),
        (shape("x", [], "point"), "shape 1: index 0 is out of bounds"),
        (shape("x", [[math.inf, 0]], "mask", mask=png(np.ones((2, 2), bool))),
         "shape 1: cannot convert float infinity"),
        (shape(None, STAR), "shape 1: the class name None is not text"),
        (shape("x", [[10 * x, 10 * y] for x, y in STAR[1:4]]),
         r"a\.png: a x at .* is outside the picture"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [{}, {"imageHeight": None}])
def test_faults_of_labelme_s_shapes_are_a_line_each(tmp_path, in_tmp, wrong, words, size):
    """Whether the file tells the size of the picture or not."""
    for name, one in (("a", wrong), ("b", shape("x", STAR))):
        save_image(tmp_path / f"{name}.png", ord(name))
        write(tmp_path / f"{name}.json", labelme([one], **size))
    refused(tmp_path, rf"a\.json: {words}")


@pytest.mark.parametrize(
    "paths", [{}, {"train": "../images/train", "val": ["images/val"]}, {"test": "test.txt"}]
)
def test_yolo(tmp_path, in_tmp, paths):
    draw_yolo(tmp_path, **paths)
    write(tmp_path / "test.txt", "images/test/test0.jpg\n./images/test/test1.jpg\n")
    found, data = targets(tmp_path)
    assert data.classes.names == ("background", "cat", "dog")
    assert [len(data.splits.pairs_of(s)) for s in ("train", "valid", "test")] == [2, 2, 2]
    assert "3 pictures have no label file, which means background" in str(data)
    for split in ("train", "val", "test"):
        assert (found[f"{split}0.jpg"][21:28, 21:30] == 1).all()
        assert not found[f"{split}1.jpg"].any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0.5 0.5 0.2 0.2", r"line 1: a box \(5 numbers\), not a polygon"),
        ("7 0.1 0.1 0.2 0.2 0.3 0.1", "class 7 is not in data.yaml, which has 0, 1; where labels"),
        ("0 0.1 0.1 0.2 0.2 0.3", "line 1: its points are not pairs of numbers"),
        ("0 0.1 0.1", "line 1: 1 points; a polygon has at least 3"),
        ("0 1.5 0.1 1.6 0.1 1.6 0.2", "a cat at 120, 6 is outside the pict"),
        ("0 x 0.1 1.6 0.1 1.6 0.2", "line 1: could not convert"),
    ],
)
def test_faults_of_yolo_files_are_a_line_each(tmp_path, in_tmp, text, words):
    draw_yolo(tmp_path)
    write(tmp_path / "labels" / "train" / "train1.txt", text)
    said = refused(tmp_path, words)
    assert "train1.txt" in said


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("via.json", {"project": {}, "file": {}, "view": {}, "metadata": {}}, "VGG VIA 3 .*; exp"),
        ("ann/a.jpg.json", {"size": {}, "objects": []}, "Supervisely cannot be read"),
        ("annotations/default.json", {"categories": {}, "items": []}, "Datumaro JSON cannot be re"),
        ("a.json", {"item": {}, "annotations": []}, "V7 Darwin JSON cannot be read"),
        ("sa_1.json", {"image": {}, "annotations": []}, "Segment Anything JSON cannot be read"),
        ("x.xml", "<annotation><object/></annotation>", "Pascal VOC boxes cannot be read"),
        ("x.json", {"images": [], "annotations": [{"segments_info": []}], "categories": [1]},
         "COCO without instances cannot be read"),
        ("x.xml", "<annotations><track/></annotations>", "tracks of a video cannot be read"),
        ("x.json", [{"id": 1, "data": {}, "annotations": []}], "Label Studio JSON .* PNG"),
        ("a.txt", "0 0.1 0.1 0.2 0.2\n", "YOLO boxes .* segmentation labels"),
    ],
)  # fmt: skip
def test_other_formats_are_recognised_and_say_how_to_export(tmp_path, name, content, words):
    save_image(tmp_path / "images" / "a.jpg")
    write(tmp_path / name, content)
    said = refused(tmp_path, words)
    assert str(tmp_path / name) in said


def test_crops_train_validate_and_infer_at_the_own_resolution(tmp_path, in_tmp, capsys):
    """A picture of 60 x 80 pixels is 3 x 3 tiles of 28; inference shows windows of 28 pixels."""
    draw_yolo(tmp_path / "data")
    run_train("data", "--imgsz", "28", "--epochs", "1", "--augment", "crop")
    assert "on the 18 test pairs" in capsys.readouterr().out
    predictor = load_predictor("outputs/best_model_iou.pth", torch.device("cpu"))
    assert predictor.protocol.crop == 28
    assert predictor.protocol.resize.content_size((60, 80)) == (60, 80)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert predictor.predict([image])[0].labels.shape == (HEIGHT, WIDTH)
    assert predictor.predict([image[:9, :11]])[0].labels.shape == (9, 11)
