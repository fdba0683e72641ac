"""What exporters and people do to annotation files: split folders, ids, paths, doubled files."""

import time
from pathlib import Path

import numpy as np
import pytest
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
from PIL import Image

from data.annotations.shapes import Annotation, Shape
from data.layouts import find_splits

SPLITS = {"train": "abc", "val": "d", "test": "ef"}
TRIANGLE = {"image_id": 0, "category_id": 3, "segmentation": flat(STAR)}


def task(number, image, labels=("Road",), **more):
    values = [{"value": {"brushlabels": [label]}} for label in labels]
    done = [{"id": 1, "result": values, "was_cancelled": False}]
    return {"id": number, "data": {"image": image}, "annotations": done} | more


def save_region(root, number, rows=30, label="Road"):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:rows] = 255
    path = root / f"task-{number}-annotation-1-by-a-b@c.de-tag-{label}-0.png"
    Image.fromarray(mask).save(path)
    return path


def write_coco(root, names):
    write(root / "result.json", coco(names, [TRIANGLE]))


def write_label_studio(root, names):
    for k, _ in enumerate(names):
        save_region(root, k)
    write(root / "result.json", [task(k, f"/data/upload/1/{n}") for k, n in enumerate(names)])


def write_labelme(root, names):
    for name in names:
        place = next(root.rglob(name))
        write(place.with_suffix(".json"), labelme([shape("cat", STAR)]))


def write_via(root, names):
    x, y = zip(*STAR, strict=True)
    one = {"shape_attributes": {"name": "polygon", "all_points_x": x, "all_points_y": y}}
    content = {n: {"filename": n, "regions": [one | {"region_attributes": {}}]} for n in names}
    write(root / "via.json", content)


def write_cvat(root, names):
    box = '<box label="x" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    images = "".join(f'<image name="{name}">{box}</image>' for name in names)
    write(root / "x.xml", f"<annotations>{images}</annotations>")


@pytest.mark.parametrize(
    "write_file", [write_coco, write_label_studio, write_labelme, write_via, write_cvat]
)
def test_pictures_in_split_folders_stay_there(tmp_path, in_tmp, write_file):
    """One annotation file for all; what a user set aside is not trained on."""
    for split, names in SPLITS.items():
        for name in names:
            save_image(tmp_path / "data" / split / f"{name}.jpg", ord(name))
    write_file(tmp_path / "data", [f"{name}.jpg" for name in "abcdef"])
    splits = find_splits(tmp_path / "data")
    for split, names in zip(("train", "valid", "test"), SPLITS.values(), strict=True):
        assert [p.image.stem for p in splits.pairs_of(split)] == list(names)


@pytest.mark.parametrize("form", ["coco", "labelme", "yolo"])
def test_a_test_set_that_nobody_has_annotated_is_left_out_and_told(tmp_path, in_tmp, form):
    if form == "yolo":
        draw_yolo(tmp_path / "data")
        (tmp_path / "data" / "labels" / "test" / "test0.txt").unlink()
    for split in ("train", "val", "test") if form != "yolo" else ():
        names = [f"{split}{k}.jpg" for k in range(2)]
        for seed, name in enumerate(names):
            save_image(tmp_path / "data" / split / name, seed + 10 * len(split))
        if form == "coco":
            content = coco(names, [TRIANGLE] if split != "test" else [])
            write(tmp_path / "data" / f"{split}.json", content)
        elif split != "test":
            write_labelme(tmp_path / "data", names)
    data = targets(tmp_path / "data")[1]
    assert [len(data.splits.pairs_of(s)) for s in ("train", "valid", "test")] == [2, 2, 0]
    assert "none of the 2 pictures of the test set is annotated; left out" in str(data)


def test_a_category_above_the_others_is_no_class(tmp_path, in_tmp):
    """Roboflow writes one, of which nothing is annotated; COCO's person stands above itself."""
    save_images(tmp_path, 2)
    above = {0: "animals", 3: "animals", 17: "dog"}
    content = coco(["0.jpg", "1.jpg"], [TRIANGLE], [(0, "animals"), (3, "cat"), (17, "dog")])
    categories = [c | {"supercategory": above[c["id"]]} for c in content["categories"]]
    write(tmp_path / "a.json", content | {"categories": categories})
    assert targets(tmp_path)[1].classes.names == ("background", "cat", "dog")


def test_a_file_and_a_folder_that_state_two_splits_are_an_error(tmp_path, in_tmp):
    save_image(tmp_path / "test" / "a.jpg")
    save_image(tmp_path / "train" / "b.jpg")
    write(tmp_path / "train.json", coco(["a.jpg", "b.jpg"], [TRIANGLE]))
    refused(tmp_path, r"test/a\.jpg: train\.json says train, but the folder te")
    draw_yolo(tmp_path / "yolo", train="images/val", val="images/train")
    refused(tmp_path / "yolo", r"images/val is to be trained on, but .*images/val is a fo")


def test_coco_files_of_other_pictures_are_all_read(tmp_path, in_tmp):
    for name in "abcd":
        save_image(tmp_path / f"{name}.jpg", ord(name))
    write(tmp_path / "instances_default.json", coco(["a.jpg", "b.jpg"], [TRIANGLE]))
    write(tmp_path / "more.json", coco(["c.jpg", "d.jpg"], [TRIANGLE]))
    write(tmp_path / "keypoints.json", coco(["a.jpg", "b.jpg"], []))
    found, data = targets(tmp_path)
    assert sorted(name for name, target in found.items() if target.any()) == ["a.jpg", "c.jpg"]
    assert len(found) == 4
    assert "keypoints.json is left out: instances_default.json lists its pictures" in str(data)


@pytest.mark.parametrize("one", [1.0, "1.0", "1e0", " 1 "])
def test_whole_numbers_in_any_notation_are_ids(tmp_path, in_tmp, one):
    for k in range(2):
        save_image(tmp_path / "coco" / f"{k}.jpg", k)
    content = coco(["0.jpg", "1.jpg"], [TRIANGLE | {"image_id": one, "category_id": one}])
    content["categories"] = [{"id": 1, "name": "cat"}]
    for image in content["images"]:
        image.update(height=str(HEIGHT), width=str(WIDTH))
    write(tmp_path / "coco" / "x.json", content)
    draw_yolo(tmp_path / "yolo")
    write(tmp_path / "yolo" / "labels" / "train" / "train0.txt", yolo_line(one, STAR))
    assert (targets(tmp_path / "coco")[0]["1.jpg"] == 1).sum() > 500
    assert (targets(tmp_path / "yolo")[0]["train0.jpg"] == 2).sum() > 500


@pytest.mark.parametrize("kind", ["rectangle", "rotation"])
def test_rectangles_of_four_corners(tmp_path, in_tmp, kind):
    corners = [[10, 10], [30, 10], [30, 25], [10, 25]]
    for path in save_images(tmp_path, 2):
        write(path.with_suffix(".json"), labelme([shape("cat", corners, kind)]))
    assert all((target == 1).sum() == 336 for target in targets(tmp_path)[0].values())


def test_run_lengths_of_python_bytes(tmp_path, in_tmp):
    coco_mask = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[10:30, 10:40] = 1
    mask[44:50, 0] = 1  # the text of 44 has a backslash, which str() doubles
    counts = coco_mask.encode(mask)["counts"]
    assert b"\\" in counts
    save_images(tmp_path, 2)
    runs = {"size": [HEIGHT, WIDTH], "counts": str(counts)}
    write(tmp_path / "x.json", coco(["0.jpg", "1.jpg"], [TRIANGLE | {"segmentation": runs}]))
    assert np.array_equal(targets(tmp_path)[0]["0.jpg"], mask)


def test_many_run_lengths_cost_what_their_boxes_cost(tmp_path):
    height, width = 3000, 4000
    shapes = []
    for k in range(300):
        left, top = 10 * k, 9 * k
        columns = [100, height - 100] * 119
        runs = [left * height + top, *columns, 100]
        shapes.append(Shape("cell", runs=np.array([*runs, height * width - sum(runs)])))
    cells = Annotation(tmp_path, tmp_path, None, None, shapes, values={"cell": 1})
    start = time.process_time()
    mask = cells.draw((height, width))
    assert time.process_time() - start < 5  # a tenth of a second; 40 by drawing whole pictures
    assert mask[:100, :120].all()
    assert mask.sum() == 120 * 100 + 299 * (120 * 100 - 110 * 91)


def test_label_studio(tmp_path, in_tmp):
    for k, path in enumerate(save_images(tmp_path, 2)):
        path.rename(path.with_name(f"street {k}.jpg"))
        for label, rows in (("Road sign", 9), ("Road", 30)):
            save_region(tmp_path, k, rows, label)
    address = "/data/upload/1/0a1b2c3d-street {}.jpg"
    tasks = [task(k, address.format(k), ("Road", "Road sign")) for k in range(2)]
    write(tmp_path / "result.json", tasks)
    found, data = targets(tmp_path)
    assert data.classes.names == ("background", "Road", "Road sign")
    expected = np.repeat(np.uint8([2] * 9 + [1] * 21 + [0] * 30)[:, None], WIDTH, 1)
    assert np.array_equal(found["street 1.jpg"], expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": ["0.jpg"]}, r"result\.json: not Label Studio's list of tasks"),
        ({"annotations": [{"result": ["x"]}]}, r"result\.json: not Label Studio's list of tasks"),
        ({"data": {"image": "none.jpg"}}, r"result\.json: task 2: its picture none\.jpg"),
        ({}, r"tag-Road-0\.png: not a readable picture"),
    ],
)
def test_faults_of_label_studio_s_files_are_a_line_each(tmp_path, in_tmp, change, words):
    save_images(tmp_path, 3)
    region = [save_region(tmp_path, k) for k in range(3)][-1]
    region.write_bytes(region.read_bytes()[:50])
    tasks = [task(k, f"{k}.jpg") for k in range(3)]
    tasks[2] |= change
    write(tmp_path / "result.json", tasks)
    refused(tmp_path, words)


def test_label_studio_tasks_are_all_accounted_for(tmp_path, in_tmp):
    """Empty ones are background, open and cancelled ones are told, each file is read."""
    for k in range(6):
        save_image(tmp_path / f"{k}.jpg", k)
    for k in (0, 1):
        save_region(tmp_path, k)
    cancelled = {"annotations": [{"result": [], "was_cancelled": True}]}
    write(tmp_path / "one.json", [task(0, "0.jpg"), task(2, "2.jpg", ()), task(4, "4.jpg", ())])
    more = [task(1, "1.jpg"), task(3, "3.jpg", annotations=[]), task(5, "5.jpg", **cancelled)]
    write(tmp_path / "two.json", [*more, task(0, "0.jpg")])
    found, data = targets(tmp_path)
    shown = {name: int(target.any()) for name, target in sorted(found.items())}
    assert shown == {"0.jpg": 1, "1.jpg": 1, "2.jpg": 0, "4.jpg": 0}
    assert "2 tasks are left out, as nobody has done them, first: task 3" in str(data)
    assert "1 tasks are left out, as others have their pictures, first: task 0" in str(data)
    write(tmp_path / "two.json", [task(3, "3.jpg")])
    refused(tmp_path, "task 3 has regions, but no PNG is named task-3-")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/local-files/?d={}.jpg", "{}.jpg"),
        ("/data/local-files/?d=my%20pics%2Fstreet%20{}.jpg", "street {}.jpg"),
        ("/data/upload/3/0a1b2c3d-street%20{}.jpg", "street {}.jpg"),
        ("https://x.org/pics/{}.jpg?token=a", "{}.jpg"),
        ("50% #{}.jpg", "50% #{}.jpg"),
    ],
)
def test_addresses_of_label_studio_lead_to_pictures(tmp_path, in_tmp, address, name):
    for k in range(2):
        save_image(tmp_path / name.format(k), k)
        save_region(tmp_path, k)
    write(tmp_path / "result.json", [task(k, address.format(k)) for k in range(2)])
    assert len(find_splits(tmp_path).pairs) == 2


def test_opening_label_studio_s_regions_reads_none_of_them(tmp_path, in_tmp, monkeypatch):
    save_images(tmp_path, 2)
    for k in range(2):
        save_region(tmp_path, k)
    write(tmp_path / "result.json", [task(k, f"{k}.jpg") for k in range(2)])
    monkeypatch.setattr(Image.Image, "convert", None)
    splits = find_splits(tmp_path)
    assert (len(splits.pairs), splits.problems) == (2, [])


@pytest.mark.parametrize("root", ["images/proj", "."])
def test_yolo_text_beside_pictures_below_a_folder_called_images(tmp_path, in_tmp, root):
    """Folders above the root are none of its business, however the path is typed."""
    place = tmp_path / "images" / "proj"
    for split in ("train", "val"):
        save_image(place / split / "images" / f"{split}.jpg", len(split))
        write(place / split / "images" / f"{split}.txt", yolo_line(1, STAR))
        write(tmp_path / "labels" / "proj" / split / "images" / f"{split}.txt", yolo_line(0, BOX))
    write(place / "data.yaml", {"names": ["cat", "dog"], "train": "train", "val": "val"})
    root = place if root == "." else Path(root)
    assert all((target == 2).sum() > 500 for target in targets(root)[0].values())


def test_the_path_in_a_labelme_file_tells_pictures_apart(tmp_path, in_tmp):
    for k, name in enumerate(("0", "other")):
        save_image(tmp_path / "images" / f"{k}.jpg", k)
        save_image(tmp_path / "copies" / f"{k}.jpg", k + 2)
        content = labelme([shape("a", STAR)], imagePath=f"..\\images\\{k}.jpg")
        write(tmp_path / "json" / f"{name}.json", content)
    splits = find_splits(tmp_path, allow_unmatched=True)
    assert {pair.image.parent.name for pair in splits.pairs} == {"images"}


@pytest.mark.parametrize("name", ["coco8-seg.yaml", "dataset.yaml", "my.yml"])
def test_yolo_s_yaml_may_have_any_name_and_windows_paths(tmp_path, in_tmp, name):
    draw_yolo(tmp_path, train="\\images\\train", val="..\\images\\val", test="\\images\\gone")
    (tmp_path / "data.yaml").rename(tmp_path / name)
    found, data = targets(tmp_path)
    assert data.classes.names == ("background", "cat", "dog")
    assert (found["val0.jpg"] == 2).any()
    assert "images/gone: no such folder below" in str(data)
    write(tmp_path / "other.yml", {"names": ["a"], "train": "images/train"})
    refused(tmp_path, "both name classes and folders; remove all but one")


def test_why_no_shape_could_be_read(tmp_path, in_tmp):
    save_images(tmp_path, 2)
    write(tmp_path / "0.json", labelme([shape("a", STAR[:2])]))
    write(tmp_path / "photo_1.json", labelme([shape("a", STAR)]))
    said = refused(tmp_path, "2 problems, first:")
    assert "0.json: shape 1: 2 points; a polygon has at least 3" in said
    assert "photo_1.json: its picture photo_1 is not below" in said
