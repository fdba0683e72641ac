"""Each layout, drawn and read back: pairs, splits, classes, and ids pixel by pixel."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.annotations import HEIGHT, WIDTH, refused, save_image, targets
from helpers.wild import draw, palette, save, scene
from PIL import Image

from data.labels.classes import VOC2012
from data.layouts import find_splits
from data.pairs import Pair, read_target, split_pairs
from data.splits import split_of
from data.survey import load_data
from utils import InputError

SIZE = (HEIGHT, WIDTH)


def draw_ids(seed, num_classes):
    return np.random.default_rng(seed).integers(0, num_classes, SIZE, dtype=np.uint8)


def assert_ids(found, expected):
    """Of {image name: class ids}."""
    assert found.keys() == expected.keys()
    for name, ids in expected.items():
        assert np.array_equal(found[name], ids), name


def test_folders_by_flags(tmp_path, in_tmp):
    draw(tmp_path, "a/{}.png", "b/{}.png", numbers=range(2))
    folders = [tmp_path / name for name in "abcd"]
    halves = find_splits(tmp_path, [*folders[:2], None, None], 0.5)
    assert (len(halves.train), len(halves.valid)) == (1, 1)
    refused(tmp_path, "give both --train-images and --train-masks", [folders[0], None, None, None])
    refused(tmp_path, "give both --valid-images and --valid-masks", [*folders[:3], None])


def test_the_usual_endings_of_names_may_be_mixed(tmp_path):
    for image, mask in (("ant_img", "ant_label"), ("bee_image", "bee_mask"), ("cat_rgb", "cat_gt"),
                        ("dog_rgb", "dog_rgb"), ("eel", "eel_L")):  # fmt: skip
        save(tmp_path / "a" / f"{image}.png", scene(0)[0])
        save(tmp_path / "b" / f"{mask}.png", scene(0)[1])
    assert len(find_splits(folders=[tmp_path / "a", tmp_path / "b", None, None]).pairs) == 5


def test_folders_named_in_a_class_file(in_tmp):
    """Beside the file, else in the working directory; the file names the classes too."""
    root = in_tmp / "set"
    draw(root, "pictures/{}.png", "answers/{}.png", lambda ids: ids, numbers=range(3))
    draw(in_tmp, "more/pictures/{}.png", "more/answers/{}.png", lambda ids: ids, numbers=[3])
    folders = "TRAIN_IMAGES: pictures\nTRAIN_LABELS: answers\n"
    folders += "VALID_IMAGES: more/pictures\nVALID_LABELS: more/answers\n"
    save(root / "voc.yaml", f"ALL_CLASSES: [a, b, c]\n{folders}")
    splits = find_splits(in_tmp / "x", classes=root / "voc.yaml")
    assert (len(splits.train), len(splits.valid)) == (3, 1)
    assert splits.train[0].image == root / "pictures" / "0.png"
    assert "voc.yaml" in splits.layout
    assert load_data(splits).classes.names == ("a", "b", "c")


VOC_LISTS = Path("ImageSets", "Segmentation")


def voc_ids(i):
    ids = draw_ids(i, 21)
    ids[0, 0] = 255
    return ids


def as_palette(ids):
    return palette(ids, *VOC2012.palette)


def as_colours(ids):
    table = np.full((256, 3), (224, 224, 192), np.uint8)
    table[:21] = VOC2012.palette
    return table[ids]


@pytest.mark.parametrize("name", ["2007_{}", "picture {}"])
@pytest.mark.parametrize("as_mask", [as_palette, as_colours])
def test_voc(tmp_path, in_tmp, as_mask, name):
    """As published, with palette masks, and as some copies are, in RGB, or renamed."""
    for i in range(5):
        save_image(tmp_path / "JPEGImages" / f"{name.format(i)}.jpg", i)
        save(tmp_path / "SegmentationClass" / f"{name.format(i)}.png", as_mask(voc_ids(i)))
    save(tmp_path / VOC_LISTS / "train.txt", "".join(name.format(i) + "\n" for i in (0, 2, 3)))
    save(tmp_path / VOC_LISTS / "val.txt", name.format(1))
    found, data = targets(tmp_path)
    assert (data.splits.layout, data.classes) == ("VOC", VOC2012)
    assert [pair.image.stem for pair in data.splits.valid] == [name.format(1)]
    assert_ids(found, {f"{name.format(i)}.jpg": voc_ids(i) for i in range(4)})


def test_voc_lists_that_name_missing_files_or_all_of_them(tmp_path):
    draw(tmp_path, "JPEGImages/a{}.jpg", "SegmentationClass/a{}.png", numbers=range(3))
    save(tmp_path / "JPEGImages" / "a4.jpg", scene(4)[0])
    save(tmp_path / VOC_LISTS / "train.txt", "a0\na4\n")
    save(tmp_path / VOC_LISTS / "val.txt", "a1\n")
    refused(tmp_path, r"a4\.jpg: no mask of this name.*, but .*train\.txt lists it")
    (tmp_path / VOC_LISTS / "train.txt").unlink()
    save(tmp_path / VOC_LISTS / "trainval.txt", "a0\na1\na2\n")
    splits = find_splits(tmp_path)  # trainval without the validation set
    assert [pair.image.stem for pair in splits.train] == ["a0", "a2"]
    assert [pair.image.stem for pair in splits.valid] == ["a1"]


def test_ade20k(tmp_path, in_tmp):
    """0 is ignored, and the first class is stored as 1."""
    expected = {}
    for split in ("training", "validation"):
        ids = draw_ids(len(split), 150)
        ids[1, 1] = 255
        stored = np.where(ids == 255, 0, ids + 1).astype(np.uint8)
        save_image(tmp_path / "images" / split / f"ADE_{split}.jpg", len(split))
        save(tmp_path / "annotations" / split / f"ADE_{split}.png", stored)
        expected[f"ADE_{split}.jpg"] = ids
    found, data = targets(tmp_path)
    assert (data.splits.layout, data.splits.classes_from) == ("ADE20K", "ade20k")
    assert_ids(found, expected)


@pytest.mark.parametrize("made_train_ids", [True, False])
def test_cityscapes(tmp_path, in_tmp, made_train_ids):
    """With the trainIds that its scripts make, and as downloaded, with labelIds alone."""
    train_ids = np.resize(np.uint8([0, 1, 18, 255, 13, 13, 2]), SIZE)
    label_ids = np.resize(np.uint8([7, 8, 33, 4, 26, 26, 11]), SIZE)
    for split in ("train", "val"):
        stem = f"{split}/aachen/aachen_{split}_019"
        save_image(tmp_path / "leftImg8bit" / f"{stem}_leftImg8bit.png", len(split))
        masks = tmp_path / "gtFine"
        save(masks / f"{stem}_gtFine_labelIds.png", label_ids)
        save(masks / f"{stem}_gtFine_color.png", np.zeros((*SIZE, 3), np.uint8))
        save(masks / f"{stem}_gtFine_instanceIds.png", np.zeros(SIZE, np.uint16))
        if made_train_ids:
            save(masks / f"{stem}_gtFine_labelTrainIds.png", train_ids)
    found, _ = targets(tmp_path)
    names = [f"aachen_{split}_019_leftImg8bit.png" for split in ("train", "val")]
    assert_ids(found, dict.fromkeys(names, train_ids))


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("images/train|masks/train", "images/val|elsewhere/a/b"), "pictures without a folder"),
        (("images/train|images/train", "images/val|images/val"), "no known layout"),
        (("images/val|masks/val", "images/valid|masks/valid", "images/train|masks/train"),
         "both look like one split"),
    ],
)  # fmt: skip
def test_splits_that_fit_no_layout_are_an_error(tmp_path, folders, words):
    for k, pair in enumerate(folders):
        images, masks = pair.split("|")
        draw(tmp_path, f"{images}/{{}}.png", f"{masks}/{{}}.png", numbers=[k])
    refused(tmp_path, words)


def test_a_test_set_without_masks_is_left_out_and_told(tmp_path, in_tmp):
    for split in ("train", "val"):
        draw(tmp_path, f"images/{split}/{{}}.png", f"masks/{split}/{{}}.png", numbers=range(2))
    save(tmp_path / "images" / "test" / "2.png", scene(2)[0])
    assert "images/test has no masks; it is left out" in str(load_data(find_splits(tmp_path)))


def test_a_folder_of_test_pairs_alone(tmp_path, in_tmp):
    draw(tmp_path, "test/images/{}.png", "test/masks/{}.png", numbers=range(2))
    data = load_data(find_splits(tmp_path))
    assert "0 pairs to train on, 0 to validate, 2 to test" in str(data)
    with pytest.raises(InputError, match="no pairs to train on; --test-only scores the others"):
        data.check_trainable()


def test_masks_beside_the_images(tmp_path, in_tmp):
    ids = draw(tmp_path, "{}.jpg", "{}_mask.png", numbers=range(4))
    for splits in (find_splits(tmp_path), find_splits(folders=[tmp_path, tmp_path, None, None])):
        encoding = load_data(splits).encoding
        found = {int(pair.image.stem): read_target(pair, encoding) for pair in splits.pairs}
        assert_ids(found, ids)


def test_one_folder_of_pictures_alone_says_how_masks_are_named(tmp_path):
    for number in range(2):
        save(tmp_path / f"{number}.jpg", scene(number)[0])
    refused(
        tmp_path, r"no known layout in it, .* in one as x\.jpg and x_mask\.png; .* found 0\.jpg"
    )
    words = r"no masks beside its pictures; .* x_mask\.png for x"
    refused(None, words, [tmp_path, tmp_path, None, None])
    (tmp_path / "via.csv").write_text("filename,region_shape_attributes\n")
    refused(tmp_path, r"via\.csv \(save VIA's annotations as JSON\)")


def test_voc_lists_name_paths_and_come_in_any_encoding(tmp_path):
    names = ["s1/a", "s2/a", "s1/b c", "s2/\u00e9"]
    for i, name in enumerate(names):
        save_image(tmp_path / "JPEGImages" / f"{name}.jpg", i)
        save(tmp_path / "SegmentationClass" / f"{name}.png", draw_ids(i, 3))
    lists = tmp_path / VOC_LISTS
    lists.mkdir(parents=True)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        (lists / "train.txt").write_text("\n".join([*names[:2], f"{names[2]}.jpg"]), encoding)
        (lists / "val.txt").write_text(f"{names[3]} 1\n", encoding)
        splits = find_splits(tmp_path)
        stems = [p.image.relative_to(tmp_path / "JPEGImages").as_posix() for p in splits.pairs]
        assert stems == [f"{name}.jpg" for name in names]
        assert [p.mask.stem for p in splits.pairs] == ["a", "a", "b c", "\u00e9"]


def test_names_with_accents_pair_however_they_are_stored(tmp_path):
    images, masks = tmp_path / "JPEGImages", tmp_path / "SegmentationClass"
    for name, other in (("\u00e9", "e\u0301"), ("e\u0301x", "\u00e9x")):
        save(images / f"{name}.png", draw_ids(0, 3))
        save(masks / f"{other}.png", draw_ids(0, 3))
    assert len(find_splits(folders=[images, masks, None, None]).pairs) == 2
    save(tmp_path / VOC_LISTS / "train.txt", "e\u0301\n\u00e9x")
    save(tmp_path / VOC_LISTS / "val.txt", "")
    assert len(find_splits(tmp_path).pairs) == 2


def test_files_of_several_pages_are_told(data_dir, in_tmp):
    image = sorted((data_dir / "train_images").iterdir())[0]
    mask = sorted((data_dir / "train_masks").iterdir())[0]
    pages = [Image.open(mask).copy() for _ in range(2)]
    mask.unlink()
    pages[0].save(mask.with_suffix(".tif"), save_all=True, append_images=pages[1:])
    text = str(load_data(find_splits(data_dir)))
    assert f"1 pairs have several frames or pages; the first is used, first: {image}" in text


def test_cityscapes_of_two_kinds_of_ids(tmp_path):
    for split, kind in (("train", "labelTrainIds"), ("val", "labelIds")):
        save_image(tmp_path / "leftImg8bit" / split / "a_leftImg8bit.png", 0)
        save(tmp_path / "gtFine" / split / f"a_gtFine_{kind}.png", draw_ids(0, 2))
    refused(tmp_path, "some masks are labelTrainIds and some labelIds")


def test_the_class_file_of_data_counts_beside_folders_by_hand(data_dir, in_tmp):
    (data_dir / "classes.txt").write_text("ground\nbox\n")
    folders = [data_dir / f"{split}_{kind}" for split in ("train", "valid")
               for kind in ("images", "masks")]  # fmt: skip
    assert find_splits(data_dir, folders).classes_from == data_dir / "classes.txt"
    assert find_splits(None, folders).classes_from is None


@pytest.mark.parametrize(("name", "words"), [("VOC2012", "--download voc2012"), ("x", "README")])
def test_a_missing_folder_names_the_download_that_fits(tmp_path, name, words):
    refused(tmp_path / name, words)


def test_one_folder_is_split_the_same_everywhere(tmp_path):
    draw(tmp_path, "images/{:02}.png", "labels/{:02}.png", numbers=range(20))
    splits = find_splits(tmp_path)
    # The order of the names' SHA-256: what `sha256sum` says on any machine.
    assert [p.image.stem for p in splits.valid] == ["03", "07", "08"]
    assert len(splits.train) == 17
    assert not set(splits.train) & set(splits.valid)
    assert len(find_splits(tmp_path, valid_fraction=0.5).valid) == 10


def test_splits_keep_a_pair_on_each_side():
    two = [Pair(Path(f"{n}\udcff.jpg"), Path(f"{n}.png")) for n in "ab"]  # names of other systems
    for fraction in (0.01, 0.99):
        train, valid = split_pairs(two, fraction)
        assert (len(train), len(valid)) == (1, 1)
    with pytest.raises(InputError, match="one pair cannot be split"):
        split_pairs(two[:1], 0.5)


def test_penn_fudan_with_classes_of_one_s_own(tmp_path, in_tmp):
    names = "PNGImages/{}.png", "PedMasks/{}_mask.png"
    ids = draw(tmp_path, *names, lambda ids: ids, numbers=range(3), shapes=3)
    (tmp_path / "classes.txt").write_text("street\nwalker\n")
    assert_ids(targets(tmp_path)[0], {f"{i}.png": ids[i] > 0 for i in ids})


def test_orphans_are_found_not_dropped(data_dir, in_tmp):
    (data_dir / "train_masks" / "2.png").unlink()
    (data_dir / "train_images" / "3.png").unlink()
    splits = find_splits(data_dir)
    assert [(o.path.parent.name, o.path.name) for o in splits.orphans] == [
        ("train_images", "2.png"), ("train_masks", "3.png"),
    ]  # fmt: skip
    said = refused(data_dir, "2 problems in 7 pairs")
    assert "2.png: no mask of this name" in said
    assert "3.png: no image of this name" in said


def test_two_files_of_one_stem(data_dir):
    (data_dir / "train_images" / "2.jpg").write_bytes(b"")
    refused(data_dir, "stand for one picture")


def test_an_unknown_layout_says_what_is_expected(tmp_path):
    save_image(tmp_path / "set" / "images" / "cat.jpg", 0)
    save(tmp_path / "set" / "masks" / "0001.png", draw_ids(0, 2))
    refused(tmp_path / "set", r"no mask has the name .* cat\.jpg and 0001\.png")
    shutil.rmtree(tmp_path / "set")
    (tmp_path / "notes.txt").touch()
    words = r"no known layout in it, expected images/train \+ masks/train, .*; found notes\.txt"
    refused(tmp_path, words)
    refused(tmp_path / "nowhere", "no such folder")


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
