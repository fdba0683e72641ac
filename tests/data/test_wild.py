"""Folders as people have them: what is read, or the one question that is asked."""

import re
import shlex
import time
from functools import partial

import numpy as np
import pytest
from helpers.annotations import refused
from helpers.wild import draw, palette, save, scene
from PIL import Image

import check_data
from data.labels.classes import VOC_PALETTE
from data.layouts import find_splits
from data.pairs import read_pair, read_target
from data.survey import load_data

SPLITS = ("train", "valid", "test")
RGB = np.uint8([[0, 0, 0], [255, 0, 0], [0, 255, 0]])


@pytest.fixture
def root(in_tmp):
    """Of a data set, below the working directory."""
    return in_tmp / "set"


def counts(data):
    return [len(data.splits.pairs_of(split)) for split in SPLITS]


def pixels(data):
    return np.sum([data.pixels(split) for split in SPLITS], axis=0).tolist()


def read(root, **options):
    return load_data(find_splits(root, **options))


def total(ids, shapes=1):
    """Pixels of each of the ids in the masks that were drawn."""
    return np.bincount(np.concatenate([*ids.values()]).ravel(), minlength=shapes + 1).tolist()


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("image/{}.png", "mask/{}.png"), ("img/{}.jpg", "gt/{}.png"),
        ("data/original/{}.jpg", "data/truth/{}.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("scans/{}_training.tif", "by hand/{}_manual1.gif"), ("a/im{}.jpg", "b/gt{}.png"),
        ("{}.bmp", "{}_anno.bmp"), ("{}.jpg", "truth_{}.png"), ("{}.jpg", "{}.png"),
        ("trainset/{}.png", "masks/{}.npy"), ("s{}/img/a.jpg", "s{}/seg/a.png"),
        ("{}.jpg", "mask/{}.png"), ("img_{}.jpg", "seg_{}.png"), ("s{}/image.png", "s{}/mask.png"),
        ("p{0}/p{0}_t2.png", "p{0}/p{0}_lesion.png"),
        ("images/00{}.jpg", "masks/{}.png"), ("pics/{}_rgb.jpg", "anns/lab_{}.tif"),
        ("images/{}.PNG", "masks/{}_mask.png"), ("images/a/{}.webp", "masks/a/{}_gt.tif"),
        ("images/{}.v2.jpeg", "masks/{}.v2.png"), ("images/10k/{}.jpg", "labels/sem/masks/{}.png"),
    ],
)  # fmt: skip
def test_pairs_are_told_by_names_values_and_sizes(root, images, masks):
    ids = draw(root, images, masks)
    data = read(root)
    assert counts(data) == [7, 1, 0]
    assert pixels(data) == total(ids)
    assert data.splits.unused == []


def test_numbers_that_begin_elsewhere_are_no_names(tmp_path):
    for number in range(20):
        save(tmp_path / "images" / f"img_{number + 1}.jpg", scene(number)[0])
        save(tmp_path / "masks" / f"m_{number}.png", scene(number)[1])
    refused(tmp_path, "no mask has the name of an image")


def test_one_dark_photograph_and_a_second_pair_of_folders_are_no_question(root):
    ids = draw(root, "imgs/{}.png", "truth/{}.png")
    draw(root, "imgs2/{}.png", "truth2/{}.png", numbers=[7])
    save(root / "imgs" / "0.png", np.zeros_like(scene(0)[0]))
    save(root / "imgs2" / "7.png", scene(7)[0][..., 0])  # of some 60 greys
    data = read(root)
    assert sum(counts(data)) == 9
    assert pixels(data) == total({**ids, 8: ids[7]})


@pytest.mark.parametrize("words", [("Training", "val", "testA"), ("train", "validation", "Test"),
                                   ("train", "valid", "testing")])  # fmt: skip
@pytest.mark.parametrize(
    "layout",
    ["@/img/{}|@/seg/{}", "Img @/{}|Truth @/{}", "img/@/{}|all masks/{}",
     "@/scene/img/{}|@/scene/seg/{}", "@/{}/a|@/{}/a", "@/{}|@/{}_mask", "@/images/{}|@/masks/{}",
     "images/@/{}|masks/@/{}", "@_images/{}|@_masks/{}", "@/{}|@_labels/{}", "@/{}|@annot/{}",
     "images/@/{}|labels/@/{}", "JPEGImages/@/{}|SegmentationClass/@/{}",
     "Images/@/{}|Annotations/@/{}", "@/images/{}|@/annotations/{}", "@_{}|@_{}_anno",
     "images/@_car_{}|masks/@_car_{}"],
)  # fmt: skip
def test_splits_of_folders_are_kept_whatever_their_names(root, layout, words):
    for word, numbers in zip(words, (range(5), range(5, 8), range(8, 10)), strict=True):
        images, masks = layout.replace("@", word).split("|")
        draw(root, f"{images}.jpg", f"{masks}.png", numbers=numbers)
    data = read(root)
    assert counts(data) == [5, 3, 2]
    for split, word in zip(SPLITS, words, strict=True):
        paths = [pair.image.relative_to(root) for pair in data.splits.pairs_of(split)]
        assert all(word in str(path) for path in paths)
    refused(root, "--valid-fraction: ", valid_fraction=0.5)


def test_a_folder_of_training_and_validation_together_is_trained_on(root):
    for word, numbers in (("train_val", range(6)), ("TEST", range(6, 8))):
        draw(root, f"{word}/images/{{}}.jpg", f"{word}/masks/{{}}.png", numbers=numbers)
    assert counts(read(root)) == [5, 1, 2]


@pytest.mark.parametrize(
    ("train", "test"),
    [("images|masks", "test_images|test_masks"), ("images|masks", "test/images|test/masks"),
     ("images|masks", "images/test|masks/test"), ("pics|anns", "pics_test|anns_test")],
)  # fmt: skip
def test_folders_of_no_split_beside_a_test_set_are_trained_on(root, train, test):
    first = 5 if train == "pics|anns" else 0  # names of the usual folders may occur in both
    for folders, numbers in ((train, range(5)), (test, range(first, first + 3))):
        images, masks = folders.split("|")
        draw(root, f"{images}/{{}}.jpg", f"{masks}/{{}}.png", numbers=numbers)
    assert counts(read(root)) == [4, 1, 3]


def test_two_folders_of_pictures_for_one_of_masks_are_one_question(tmp_path, in_tmp):
    draw(tmp_path, "pics/{}.jpg", "anns/{}.png")
    draw(tmp_path, "pics_test/{}.jpg", "anns/{}.png", numbers=range(3))
    said = refused(tmp_path, r"choose one\n.*--train-images .* --test-images")
    assert said.count("\n") == 1


def test_folders_of_different_pictures_may_share_one_of_masks(root):
    for part, numbers in (("part_1", range(4)), ("part_2", range(4, 8))):
        draw(root, f"scans_{part}/{{}}.jpg", "truth/{}.png", numbers=numbers)
    assert counts(read(root)) == [7, 1, 0]


def test_a_folder_of_pictures_that_states_a_split_and_has_no_masks_is_an_error(tmp_path):
    draw(tmp_path, "train/img/{}.jpg", "train/seg/{}.png")
    save(tmp_path / "train" / "more" / "9.jpg", scene(9)[0])
    assert "not used: train/more/9.jpg" in find_splits(tmp_path).notes
    save(tmp_path / "val" / "img" / "9.jpg", scene(9)[0])
    refused(tmp_path, "val/img: pictures without a folder of masks")


@pytest.mark.parametrize(
    ("images", "masks", "third"),
    [
        ("training/images/{}_training.png", "training/1st_manual/{}_manual1.png",
         "training/mask/{}_training.png"),
        ("red/{}.png", "mask/{}.png", "nir/{}.jpg"),
        ("{}.png", "{}_1stHO.png", "{}_2ndHO.png"),
        ("images/10k/{}.jpg", "labels/masks/{}.png", "labels/others/{}.png"),
        ("{}.png", "{}_mask.png", "{}_vessel.png"),
    ],
)  # fmt: skip
def test_two_readings_are_a_question_whose_answers_work(root, capsys, images, masks, third):
    draw(root, images, masks)
    for number in range(8):
        picture, ids = scene(number)
        save(root / third.format(number), picture if ".jpg" in third else 255 * (1 - ids))
    said = refused(root, "choose one")
    commands = [line.split("check_data.py ")[1] for line in said.splitlines()[1:]]
    assert len(commands) == 2
    for command in commands:
        check_data.main([*shlex.split(command), "--no-page"])
        assert "7 pairs to train on, 1 to validate, 0 to test" in capsys.readouterr().out


@pytest.mark.parametrize("bands", ["images", "masks"])
def test_several_files_for_each_name_on_one_side_are_chosen_by_a_pattern(root, bands):
    draw(root, "images/{}.png", "masks/{}.png")
    for path in list((root / bands).iterdir()):
        for band in ("B02", "B03"):
            save(path.with_name(f"{path.stem}_{band}.png"), Image.open(path))
        path.unlink()
    said = refused(root, f"name .* and a pattern of the {bands}")
    command = said.split(f"a pattern of the {bands}: ")[1].split(" or ")[0]
    check_data.main([*shlex.split(command), "--no-page"])


def test_the_folder_below_a_clone_s_root_is_read_and_told(tmp_path, in_tmp, capsys):
    draw(tmp_path / "clone", "data/images/{}.jpg", "data/masks/{}.png")
    save(tmp_path / "clone" / "data" / "classes.txt", "soil\nplant\n")
    (tmp_path / "clone" / "README.md").touch()
    data = read(tmp_path / "clone")
    assert data.classes.names == ("soil", "plant")
    assert f"read as: the data set is in {tmp_path / 'clone' / 'data'}" in str(data)
    draw(tmp_path / "clone", "more/images/{}.jpg", "more/masks/{}.png")
    said = refused(tmp_path / "clone", r"2 folders below it.*\n.*--data .*data\n.*--data .*more\n")
    command = said.splitlines()[-1].split("check_data.py ")[1]  # all of them
    check_data.main([*shlex.split(command), "--no-page"])
    assert "15 pairs to train on, 1 to validate" in capsys.readouterr().out


def test_folders_that_differ_in_a_number_are_parts_of_one_data_set(root):
    for fold in range(3):
        numbers = range(3 * fold, 3 * fold + 3)
        draw(root / f"fold_{fold}", "images/{}.jpg", "masks/{}.png", numbers=numbers)
    assert counts(read(root)) == [8, 1, 0]
    draw(root, "fold_3/images/{}.jpg", "fold_3/masks/{}.png", numbers=[1])
    refused(root, "4 folders below it hold a data set each; which one")


@pytest.mark.parametrize(
    ("place", "line"),
    [("{}.txt", "{}"), ("{}.txt", "images/{0}.jpg masks/{0}.png"), ("splits/{}.txt", "{}.jpg"),
     ("ImageSets/{}.csv", "{}.jpg,1"), ("lists/{}_list.txt", "C:\\data\\images\\{}.jpg"),
     ("meta/my_{}_ids.txt", "{}"), ("{}.txt", "# by hand\r\n{}.jpg\r")],
)  # fmt: skip
@pytest.mark.parametrize("images", ["images/{}.jpg|masks/{}.png", "im/{}.jpg|gt/{}.png"])
def test_lists_of_splits_are_kept(root, place, line, images):
    draw(root, *images.split("|"))
    for word, numbers in (("Train", (0, 1, 2)), ("validation", (3,)), ("test", (4, 5))):
        text = "".join(line.format(number) + "\n" for number in numbers)
        save(root / place.format(word), text)
    data = read(root)
    stems = [[pair.image.stem for pair in data.splits.pairs_of(split)] for split in SPLITS]
    assert stems == [["0", "1", "2"], ["3"], ["4", "5"]]
    assert "2 pairs are in no list of a split; left out" in str(data)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("val_loss.txt", "0 0.5\n1 0.4\n2 0.2\n", [7, 1, 0]),
        ("history.json", '{"val": [1, 2]}', [7, 1, 0]),
        ("rows.csv", "file,test_result\n0.jpg,1\n1.jpg,0\n2.jpg,0\n3.jpg,1\n", [7, 1, 0]),
        ("train.csv", "id,rle_mask\n0,1 9\n1,1 9\n2,1 9\n3,1 9\n4,1 9\n5,1 9\n", [5, 1, 0]),
    ],
)
def test_measurements_are_no_lists_and_a_table_has_a_header(root, name, content, expected):
    draw(root, "images/{}.jpg", "masks/{}.png")
    save(root / name, content)
    assert counts(read(root)) == expected


def test_lists_in_yaml_count_by_number_and_held_out_pictures_are_not_trained_on(root):
    draw(root, "images/00{}_image.png", "masks/00{}_mask.png")
    save(root / "train_test_split.yaml", "train: [0, 1, 2, 3]\ntest: [4, 5, 6, 7]\n")
    assert counts(read(root)) == [3, 1, 4]
    save(root / "train_test_split.yaml", "train: [0, 1, 2, 3]\ntest: [3, 4]\n")
    refused(root, r"3_image\.png: in train of .*yaml and in test of .*yaml")
    save(root / "train_test_split.yaml", "val: [1, 2]\n")  # too few: counts, perhaps
    assert counts(read(root)) == [7, 1, 0]
    save(root / "test.txt", "000_image\n")
    assert counts(read(root)) == [6, 1, 1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("split.csv", "filename,split\n0.jpg,train\n1.jpg,val\n2.jpg,test\n"),
        ("excel.csv", "\ufefffilename,split\n0.jpg,train\n1.jpg,val\n2.jpg,test\n"),
        ("rows.csv", "0.jpg,train\n1.jpg,val\n2.jpg,test\n"),
        ("meta.csv", ",image_id,partition\n2,0,Train\n0,1,valid\n1,2,testing\n"),
        ("fold.csv", ",train,val,test\n2,0,1,2\n"),
        ("a.json", '{"0": "train", "1": "val", "2": "test"}'),
        ("bom.json", '\ufeff{"0": "train", "1": "val", "2": "test"}'),
        ("a.json", '{"by": "x", "parts": {"train": ["0"], "val": ["1"], "test": ["2"]}}'),
        ("a.json", '{"of": [{"file": "0.jpg", "set": "train"}, {"file": "1.jpg", "set": "val"}, '
                   '{"file": "2.jpg", "set": "test"}]}'),
        ("test_ids.lst", "2\n"), ("test.json", '["2.jpg"]'), ("test.yaml", "- {image: 2.jpg}\n"),
        ("test.csv", ",image,mask\n0,2.jpg,2.png\n"),
        ("test.tsv", "number\tpath\n0\timages/2.jpg\n"),
        ("test.jsonl", '{"image": "images/2.jpg"}\n\n'),
        ("of.json", '{"trainval": ["0", "1"], "train": ["0"], "val": ["1"], "test": ["2"]}'),
        ("of.csv", "id;filename;subset\n5;0.jpg;Train\n6;1.jpg;Val\n7;2.jpg;Test\n"),
        ("of.csv", "filename,is_val,is_test\n0.jpg,0,0\n1.jpg,1,0\n2.jpg,0,1\n"),
        ("of.csv", "filename,train,val,test\n0.jpg,1,0,0\n1.jpg,0,1,0\n2.jpg,0,0,1\n"),
        ("of.tsv", "filename\tsplit\n0.jpg\ttrain\n1.jpg\tval\n2.jpg\ttest\n"),
        ("of.jsonl", '{"image": "0.jpg", "split": "train"}\n{"image": "1.jpg", "split": "val"}\n'
                     '{"image": "2.jpg", "split": "test"}\n'),
        ("of.json", '{"train": {"images": ["0.jpg"], "masks": ["0.png"]}, "val": {"images": '
                    '["1.jpg"], "masks": ["1.png"]}, "test": {"images": ["2.jpg"], "masks": []}}'),
    ],
)  # fmt: skip
def test_tables_and_mappings_that_state_splits_are_kept(root, name, content):
    draw(root, "images/{}.jpg", "masks/{}.png", numbers=range(3))
    save(root / name, content)
    data = read(root)
    assert [pair.image.stem for pair in data.splits.test] == ["2"]
    assert counts(data) == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("folds.json", '[{"train": ["0", "1"], "val": ["2"]}, {"train": ["2"], "val": ["0"]}]'),
        ("folds.json", '{"a": {"train": ["0"], "val": ["1", "2"]}, "b": {"val": ["0"]}}'),
        ("folds.csv", "file,a,b\n0.jpg,train,val\n1.jpg,train,train\n2.jpg,val,train\n"),
    ],
)
def test_of_several_folds_none_is_chosen(root, name, content):
    draw(root, "images/{}.jpg", "masks/{}.png", numbers=range(3))
    save(root / name, content)
    refused(root, r"[02]\.jpg: in \w+ of .*folds.* and in \w+ of .*folds")


def test_a_table_that_lists_more_pictures_than_there_are(root):
    draw(root, "images/{}.jpg", "masks/{}.png", numbers=range(4))
    rows = [f"{n}.jpg,{'train' if n in (0, 1, 2, 4) else 'test'}\n" for n in range(20)]
    save(root / "meta.csv", "file,split\n" + "".join(rows))
    first = r"^2 problems .*\n.* 4\.jpg: no such picture, .* lists it; --allow"
    refused(root, first + r".*\n.* and 14 more such")
    assert counts(read(root, allow_unmatched=True)) == [2, 1, 1]


def test_lists_that_cannot_be_used_are_an_error(tmp_path):
    draw(tmp_path, "images/{}.jpg", "masks/{}.png")
    save(tmp_path / "train.txt", "x\ny\n")
    refused(tmp_path, r"train\.txt: .* x is no picture here")
    save(tmp_path / "train.txt", "0\n1\n")
    save(tmp_path / "val.txt", "1\n2\n")
    refused(tmp_path, r"1\.jpg: in .*train\.txt and in .*val\.txt")


def test_lists_do_not_contradict_folders(tmp_path):
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        draw(tmp_path, f"images/{split}/{{}}.jpg", f"masks/{split}/{{}}.png", numbers=numbers)
    save(tmp_path / "val.txt", "0\n4\n")
    refused(tmp_path, r"0\.jpg: its folder says train, .*val\.txt says valid")


def soft(ids):
    big = Image.fromarray(ids * np.uint8(255)).resize((384, 288), Image.Resampling.BICUBIC)
    return np.array(big.resize(ids.shape[::-1], Image.Resampling.LANCZOS))


@pytest.mark.parametrize(
    ("name", "as_mask", "options"),
    [
        ("{}.png", soft, {}),
        ("{}.png", lambda ids: np.dstack([soft(ids)] * 3), {}),
        ("{}.jpg", lambda ids: ids * np.uint8(255), {"quality": 60}),
        ("{}.webp", lambda ids: np.dstack([ids * np.uint8(255)] * 3), {"quality": 80}),
        ("{}.tif", lambda ids: ids * np.uint8(255), {"compression": "jpeg"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("class_file", [None, "soil\nplant\n"])
def test_soft_black_and_white_is_cut_at_128(root, name, as_mask, options, class_file):
    draw(root, "images/{}.jpg", f"masks/{name}", as_mask, **options)
    if class_file:
        save(root / "classes.txt", class_file)
    data = read(root)
    assert "black and white with soft edges, cut at 128" in str(data)
    for pair in data.splits.pairs:
        grey = np.asarray(Image.open(pair.mask).convert("RGB"))[..., 1]
        assert np.array_equal(read_target(pair, data.encoding), grey >= 128)


def mixed(ids):
    big = Image.fromarray(RGB[ids]).resize((384, 288), Image.Resampling.BILINEAR)
    return np.array(big.resize(ids.shape[::-1], Image.Resampling.BOX))


@pytest.mark.parametrize(
    ("name", "as_mask", "options"),
    [
        ("png", mixed, {}),
        ("jpg", lambda ids: RGB[ids], {"quality": 90}),
        ("jpeg", lambda ids: RGB[ids], {"quality": 45}),
    ],
)
def test_soft_class_colours_go_to_the_nearest(root, name, as_mask, options):
    ids = draw(root, "images/{}.png", f"masks/{{}}.{name}", as_mask, shapes=2, **options)
    save(root / "dataset.yaml", f"ALL_CLASSES: [a, b, c]\nLABEL_COLORS_LIST: {RGB.tolist()}\n")
    data = read(root)
    assert re.search(r"shades of class colours: .* but \d+ pixels between two are ign", str(data))
    for pair in data.splits.pairs:
        found, right = read_target(pair, data.encoding), ids[int(pair.image.stem)]
        assert (found != right)[found != 255].mean() < 0.01
        assert (found == 255).mean() < 0.05
    save(root / "masks" / f"0.{name}", scene(0)[0])
    refused(root, "belongs to no class")


def test_two_colours_with_black_and_few_greys_are_read(tmp_path, in_tmp):
    ids = draw(tmp_path / "two", "images/{}.jpg", "labels/{}.png", lambda ids: RGB[ids])
    data = read(tmp_path / "two")
    assert (data.classes.names, pixels(data)) == (("background", "foreground"), total(ids))
    ids = draw(tmp_path / "jpg", "images/{}.jpg", "labels/{}.jpg", lambda ids: RGB[ids], quality=90)
    data = read(tmp_path / "jpg")
    assert abs(pixels(data)[1] - total(ids)[1]) < 0.1 * total(ids)[1]
    assert "black is background, [254, 0, 0] foreground" in str(data)
    greys = np.uint8([0, 127, 254])
    ids = draw(tmp_path / "few", "images/{}.jpg", "masks/{}.png", lambda ids: greys[ids], shapes=2)
    data = read(tmp_path / "few")
    assert data.classes.names == ("value_0", "value_127", "value_254")
    assert pixels(data) == total(ids, 2)
    line = str(data).split("write in a dataset.yaml: ")[1].splitlines()[0]
    save(tmp_path / "few" / "dataset.yaml", line.replace("value_127", "smoke"))
    assert read(tmp_path / "few").classes.names == ("value_0", "smoke", "value_254")


@pytest.mark.parametrize("stray", [[3], [85, 170], [1]])
def test_255_that_may_be_a_class_is_asked_about_and_both_answers_work(root, stray):
    def as_mask(ids):
        grey = ids * np.uint8(255)
        grey[0, : len(stray)] = stray if ids[0, 0] == 0 and ids.sum() % 2 else 0
        return grey

    ids = draw(root, "images/{}.jpg", "masks/{}.png", as_mask)
    said = refused(root, "is it a class, or to be ignored")
    as_class, as_ignored = re.findall(r"^  (classes.*(?:\n  ignore.*)?)", said, re.M)
    save(root / "dataset.yaml", as_class)
    assert pixels(read(root))[-1] == total(ids)[1]
    save(root / "dataset.yaml", as_ignored.replace("\n  ", "\n"))
    assert sum(pixels(read(root))) == sum(total(ids)) - total(ids)[1]


def test_the_answers_about_255_work_beside_a_list_of_names(root):
    draw(root, "images/{}.jpg", "masks/{}.png")
    save(root / "classes.txt", "a\nb\nc\n")
    said = refused(root, r"in a dataset\.yaml, with the classes")
    for advice in re.findall("`(.*?)`", said):
        save(root / "dataset.yaml", advice if "classes" in advice else f"names: [a, b]\n{advice}")
        assert read(root).classes.names == ("a", "b")


def test_a_labelmap_with_ignored_pixels_answers_the_question_about_255(root):
    """As predictions are, where many pixels are uncertain."""

    def unsure(ids):
        return np.where(ids * np.indices(ids.shape)[1] % 3, 255, ids).astype(np.uint8)

    ids = draw(root, "images/{}.jpg", "masks/{}.png", unsure)
    save(root / "labelmap.txt", "ground:0,0,0::\nplant:0,255,0::\n__ignore__:128,128,128::\n")
    kept = sum((unsure(each) == 1).sum() for each in ids.values())
    assert pixels(read(root)) == [total(ids)[0], kept]


def test_palettes_of_other_orders_are_read_by_colour_or_refused(tmp_path, in_tmp):
    black, white, red = (0, 0, 0), (255, 255, 255), (255, 0, 0)
    for kind, colour in (("bw", white), ("white first", white), ("red", red)):
        drawn = draw(tmp_path / kind, "images/{}.jpg", "masks/{}.png")
        for number, ids in drawn.items():
            is_plain = number % 2 and kind != "white first"
            mask = palette(ids, black, colour) if is_plain else palette(1 - ids, colour, black)
            save(tmp_path / kind / "masks" / f"{number}.png", mask)
    right = total(drawn)
    assert pixels(read(tmp_path / "bw")) == pixels(read(tmp_path / "white first")) == right
    by_index = "classes: {0: {name: a, labels: [0]}, 1: {name: b, labels: [1]}}\nignore: [9]"
    save(tmp_path / "white first" / "dataset.yaml", by_index)
    assert pixels(read(tmp_path / "white first")) == right[::-1]
    said = refused(tmp_path / "red", "so that indices are no classes; list")
    advice = "\n".join(re.findall(r"^  (.*)", said, re.MULTILINE))
    save(tmp_path / "red" / "dataset.yaml", advice)
    assert pixels(read(tmp_path / "red")) == right


def test_palette_and_rgb_masks_of_one_set(root):
    ids = draw(root, "images/{}.jpg", "masks/{}.png", lambda ids: RGB[ids], shapes=2)
    for number in range(5):
        save(root / "masks" / f"{number}.png", palette(ids[number], *RGB.tolist()))
    assert pixels(read(root)) == total(ids, 2)


def test_colours_in_voc_s_order_need_names_alone(root):
    colours = np.uint8(VOC_PALETTE)
    ids = draw(root, "images/{}.jpg", "masks/{}.png", lambda ids: colours[21 + ids])
    save(root / "classes.txt", "".join(f"kind {k}\n" for k in range(24)))
    assert pixels(read(root))[21:23] == total(ids)


def test_presets_need_evidence_of_their_own(tmp_path, in_tmp):
    ids = draw(tmp_path / "voc", "JPEGImages/a{}.jpg", "SegmentationClass/a{}.png", lambda ids: ids)
    draw(tmp_path / "voc", "JPEGImages/a{}.jpg", "SegmentationObject/a{}.png", lambda ids: ids)
    lists = tmp_path / "voc" / "ImageSets" / "Segmentation"
    save(lists / "train.txt", "a0\na1\na2\na3\na4\na5")
    save(lists / "val.txt", "a6\na7")
    data = read(tmp_path / "voc")
    assert (data.classes.names, counts(data)) == (("background", "foreground"), [6, 2, 0])
    assert "masks of these pictures too" not in str(data)
    assert pixels(data) == total(ids)
    for split in ("training", "validation"):
        ids = draw(tmp_path / "ade", f"images/{split}/{{}}.jpg", f"annotations/{split}/{{}}.png",
                   lambda ids: ids, shapes=2)  # fmt: skip
    assert read(tmp_path / "ade").classes.num_classes == 3


@pytest.mark.parametrize("name", ["classes.txt", "data.yaml"])
@pytest.mark.parametrize("place", ["images", "images/{}", "."])
def test_yolo_labels_need_names_alone(root, name, place):
    for number, word in enumerate(["train"] * 3 + ["val"]):
        folder = place.format(word)
        save(root / folder / f"{number}.jpg", scene(number)[0])
        label = root / folder.replace("images", "labels") / f"{number}.txt"
        save(label, "0 0 0 0.5 0 0.5 0.5 0 0.5\n")
    refused(root, r"YOLO label files .* in a classes\.txt here")
    save(root / name, "cat\n" if name == "classes.txt" else "names: [cat]\n")
    data = read(root)
    assert (data.classes.names, counts(data)) == (("background", "cat"), [3, 1, 0])
    assert pixels(data)[1] == sum(pixels(data)) / 4


def test_one_yolo_folder_for_two_splits_is_trained_on(tmp_path, in_tmp):
    for number in range(4):
        save(tmp_path / "images" / f"{number}.jpg", scene(number)[0])
        save(tmp_path / "labels" / f"{number}.txt", "0 0 0 0.5 0 0.5 0.5 0 0.5\n")
    save(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    data = read(tmp_path)
    assert counts(data) == [3, 1, 0]
    assert "images is of train and valid; used as train" in str(data)


def test_masks_that_number_objects_say_how_they_are_read(root):
    ids = draw(root, "images/{}.jpg", "masks/{}.png", lambda ids: ids * np.uint16(300 + ids.sum()))
    said = refused(root, "instances: true")
    lines = re.findall("`((?:names|instances).*?)`", said)
    save(root / "dataset.yaml", "\n".join(lines).replace("NAME", "cell"))
    assert pixels(read(root)) == total(ids)


def test_one_name_has_background_before_it(root):
    ids = draw(root, "images/{}.jpg", "masks/{}.png")
    save(root / "classes.txt", "crack\n")
    data = read(root)
    assert (data.classes.names, pixels(data)) == (("background", "crack"), total(ids))


@pytest.mark.parametrize("channels", ["white", "black", "grey"])
def test_a_mask_in_the_alpha_channel(root, channels):
    def as_mask(ids):
        colour = np.full_like(ids, 0 if channels == "black" else 255)
        return np.dstack([*[colour] * (1 if channels == "grey" else 3), ids * np.uint8(255)])

    ids = draw(root, "images/{}.jpg", "masks/{}.png", as_mask)
    assert pixels(read(root)) == total(ids)


@pytest.mark.parametrize(
    ("name", "factor", "options"),
    [
        ("{}.webp", 9, {"quality": 50}),
        ("{}.tif", 9, {"compression": "jpeg"}),
        ("{}.jpg", 1, {"quality": 95}),
    ],
)
def test_lossy_ids_are_refused_in_every_container(root, name, factor, options):
    as_mask = partial(np.multiply, np.uint8(factor))
    draw(root, "images/{}.jpg", f"masks/{name}", as_mask, shapes=2, **options)
    refused(root, "save masks as PNG")


@pytest.mark.parametrize("value", [-1, -9999, 70000])
def test_no_data_values_may_be_ignored(root, value):
    def as_mask(ids):
        return np.vstack([np.full_like(ids[:2], value, np.int32), ids[2:]])

    ids = draw(root, "images/{}.jpg", "masks/{}.tif", as_mask)
    save(root / "dataset.yaml", f"names: [soil, plant]\nignore: [{value}]\n")
    assert pixels(read(root)) == total({n: i[2:] for n, i in ids.items()})


def test_smaller_copies_are_enlarged_and_other_sizes_can_be_left_out(root):
    draw(root, "images/{}.png", "masks/{}.png")
    save(root / "masks" / "0.png", 255 * scene(0)[1][::3, ::3])
    data = read(root)
    assert "1 masks are smaller copies, enlarged to their pictures' sizes" in str(data)
    pair = next(pair for pair in data.splits.pairs if pair.image.stem == "0")
    target = read_pair(pair, data.encoding)[1]
    assert np.array_equal(target, read_target(pair, data.encoding))
    assert np.array_equal(target, scene(0)[1][::3, ::3].repeat(3, 0).repeat(3, 1))
    save(root / "masks" / "1.png", 255 * scene(1)[1][:, 1:])
    (root / "masks" / "2.png").unlink()
    said = refused(root, "2 problems")
    assert said.count("--allow-unmatched leaves it out") == 2
    assert counts(read(root, allow_unmatched=True)) == [5, 1, 0]


def test_a_picture_for_each_object(root):
    kinds, background = {1: "square", 2: "circle"}, 0
    for number in range(8):
        picture, ids = scene(1000 + number, 2)
        save(root / "pictures" / f"{1000 + number}.jpeg", picture)
        background += (ids == 0).sum()
        for k, kind in kinds.items():
            bits = 255 * np.uint8(ids == k)
            save(root / "objects" / f"{1000 + number}_{kind}_{k}.png", bits)
    data = read(root)
    assert data.classes.names == ("background", "circle", "square")
    assert pixels(data)[0] == background
    assert data.splits.unused == []


@pytest.mark.parametrize("place", ["", "stage1_train/"])
def test_a_folder_for_each_picture_with_a_mask_for_each_object(tmp_path, in_tmp, place):
    background = 0
    for number in range(6):
        picture, ids = scene(number, 2)
        folder = tmp_path / "set" / place / f"{number:05x}"
        save(folder / "images" / f"{number:05x}.png", picture)
        background += (ids == 0).sum()
        for k in np.unique(ids)[1:]:
            save(folder / "masks" / f"{k}f{number}.png", 255 * np.uint8(ids == k))
    if place:
        save(tmp_path / "set" / "stage1_test" / "9" / "images" / "9.png", picture)
    data = read(tmp_path / "set")
    assert (data.classes.names, counts(data)) == (("background", "object"), [5, 1, 0])
    assert pixels(data)[0] == background
    assert ("none of the 1 pictures of the test set is annotated" in str(data)) == bool(place)
    for number in range(6):  # two readers of one object are no objects
        for name in ("a", "b"):
            mask = 255 * np.uint8(scene(number)[1])
            save(tmp_path / "both" / str(number) / "masks" / f"{name}.png", mask)
        save(tmp_path / "both" / str(number) / "images" / "x.png", picture)
    refused(tmp_path / "both", "no known layout")


def test_what_is_not_used_is_told(root):
    draw(root, "images/{}.jpg", "masks/{}.png")
    draw(root, "images/{}.jpg", "annotations/{}.png", lambda ids: RGB[ids])
    save(root / "labels" / "0.txt", "0 0.5 0.5 0.2 0.3\n")
    save(root / "annotations.xml", "<annotations></annotations>")
    save(root / "notes.json", "{")
    save(root / "via.csv", "filename,region_shape_attributes\n")
    data = read(root)
    said = str(data)
    useless = "via.csv (save VIA's annotations as JSON)"
    for name in ("8 annotations/*.png", "labels/0.txt", "annotations.xml", "notes.json", useless):
        assert name in said
        assert name in " ".join(data.splits.unused)
    assert "annotations holds masks of these pictures too, 8 in all" in said
    folders = [root / "images", root / "annotations", None, None]
    assert f"--train-images {folders[0]} --train-masks {folders[1]}" in said
    assert len(find_splits(root, folders).pairs) == 8


def test_a_pair_of_links_that_lead_nowhere_is_an_error(root):
    draw(root, "images/{}.jpg", "masks/{}.png")
    for name in ("images/9.jpg", "masks/9.png"):
        (root / name).symlink_to(root / "elsewhere")
    refused(root, "9.png: no such file")


def test_a_class_file_of_one_split_that_says_something_else_is_told(root):
    for split, numbers in (("train", range(6)), ("valid", range(6, 8))):
        draw(root, f"{split}/{{}}.jpg", f"{split}/{{}}_mask.png", np.array, numbers=numbers)
        save(root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n")
    assert "not used" not in str(read(root))
    save(root / "valid" / "_classes.csv", "Pixel Value, Class\n0, cat\n1, background\n")
    assert "not used: valid/_classes.csv" in str(read(root))


def test_the_command_for_other_masks_keeps_the_splits(tmp_path, in_tmp):
    """Pictures of both splits have the same names."""
    for split in ("train", "val"):
        draw(tmp_path, f"images/{split}/{{}}.jpg", f"masks/{split}/{{}}.png")
        draw(tmp_path, f"images/{split}/{{}}.jpg", f"truth/{split}/{{}}.png")
    (warning,) = (line for line in read(tmp_path).splits.notes if "holds masks" in line)
    flags = re.findall(r"--(\w+)-(images|masks) \S+/(\w+)/(\w+)", warning)
    assert [(split, place, part) for split, _, place, part in flags] == [
        ("train", "images", "train"), ("train", "truth", "train"),
        ("valid", "images", "val"), ("valid", "truth", "val"),
    ]  # fmt: skip


def test_the_data_yaml_of_ultralytics_and_the_data_of_lightly_train(tmp_path, in_tmp):
    for split in ("train", "val"):
        names = f"images/{split}/{{}}.jpg", f"sem/{split}/{{}}.png"
        ids = draw(tmp_path / "u", *names, lambda ids: ids)
        draw(tmp_path / "l" / split, "im/{}.jpg", "ms/{}.png", lambda ids: ids + np.uint8(7))
    text = "path: /data/u\ntrain: images/train\nval: images/val\nmasks_dir: sem\n"
    save(tmp_path / "u" / "data.yaml", text + "names: {0: road, 1: car}\n")
    data = read(tmp_path / "u")
    assert (counts(data), data.classes.names) == ([8, 8, 0], ("road", "car"))
    mapping = "names: [car, sky]\nlabel_mapping: {0: ignore_label, 1: 0}\n"
    save(tmp_path / "u" / "data.yaml", text + mapping)
    assert pixels(read(tmp_path / "u")) == [2 * total(ids)[1], 0]
    folders = "".join(f"{s}: {{images: {s}/im, masks: {s}/ms}}\n" for s in ("train", "val"))
    classes = "classes: {7: soil, 8: {name: plant, values: [8]}, 9: void}\nignore_classes: [9]\n"
    save(tmp_path / "l" / "data.yaml", folders + classes)
    data = read(tmp_path / "l")
    assert (counts(data), data.classes.names) == ([8, 8, 0], ("soil", "plant"))
    assert pixels(data) == [2 * n for n in total(ids)]


def test_the_time_to_list_files_grows_as_their_number_does(tmp_path):
    picture, ids = scene(0)
    save(tmp_path / "0.jpg", picture)
    save(tmp_path / "0.png", 255 * ids)
    seconds = []
    for count in (250, 2000):
        root = tmp_path / str(count)
        for kind, suffix in (("image", "jpg"), ("mask", "png")):
            (root / kind).mkdir(parents=True)
            for number in range(count):
                (root / kind / f"{number}.{suffix}").hardlink_to(tmp_path / f"0.{suffix}")
        start = time.process_time()
        assert len(find_splits(root).pairs) == count
        seconds.append(time.process_time() - start)
    assert seconds[1] < 24 * seconds[0]  # it would be 64 if each were sought among all
