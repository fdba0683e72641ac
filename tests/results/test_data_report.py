"""Each defect made on purpose, found before training, and in the report."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers.annotations import draw_yolo, targets
from helpers.scripts import run_train
from PIL import Image

import check_data
from data.images import read_image
from data.labels.classes import VOC2012
from data.layouts import find_splits
from data.pairs import read_pair, read_stored, read_target
from data.survey import inspect_data, load_data
from results import data_report
from results.data_report import describe

ORIENTATION = 0x0112


@pytest.fixture
def root(data_dir, in_tmp):
    """The drawn data set with two named classes."""
    (data_dir / "classes.txt").write_text("ground\nbox\n")
    return data_dir


def facts_of(root):
    return describe(inspect_data(find_splits(root)))


def mask_of(root, name="train_masks/2.png"):
    return np.asarray(Image.open(root / name)).copy()


def change_masks(root, change, pattern="*_masks/*.png"):
    """Replace the pixels (H, W) of masks by what `change` makes of them."""
    for path in root.glob(pattern):
        Image.fromarray(change(np.array(Image.open(path)))).save(path)


def store(root, pixels, name="train_masks/2.png", **options):
    Image.fromarray(pixels).save(root / name, **options)


def test_written_masks_are_whole_or_not_there(in_tmp, monkeypatch, capsys):
    """An interrupted job leaves no half data set, and its command can be given again."""
    draw_yolo(in_tmp / "data")
    argv = ["--data", "data", "--write-masks", "written", "--no-page"]
    folder, count = in_tmp / "outputs" / "written", 0

    def interrupted(*args):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return read_target(*args)

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stop:
        patched.setattr(data_report, "read_target", interrupted)
        check_data.main(argv)
    assert stop.value.code == 130
    assert list(folder.iterdir()) == []
    check_data.main(argv)
    assert "train with --data outputs/written" in capsys.readouterr().out
    others = {"dataset_report", "dataset_scans"}
    assert {p.name for p in folder.parent.iterdir()} == {"written", *others}
    (masks, data), (written_masks, written) = targets(in_tmp / "data"), targets(folder)
    assert written.classes == data.classes
    assert all(np.array_equal(written_masks[name], mask) for name, mask in masks.items())
    for split in ("train", "valid", "test"):
        assert written.pixels(split) == data.pixels(split)
    with pytest.raises(SystemExit, match="is not empty"):
        check_data.main(argv)


def refused(root):
    """The one message with which training stops, nothing written."""
    with pytest.raises(SystemExit) as stop:
        run_train(root)
    outputs = (root.parent / "outputs").rglob("*")
    assert [path.name for path in outputs if path.is_file() and path.name[0] != "."] == []
    return str(stop.value.code)


def as_rgb(root):
    """All masks as RGB of two colours, named in dataset.yaml."""
    change_masks(root, lambda ids: np.uint8([[10, 20, 30], [200, 100, 0]])[ids])
    text = "ALL_CLASSES: [ground, box]\nLABEL_COLORS_LIST: [[10, 20, 30], [200, 100, 0]]\n"
    (root / "dataset.yaml").write_text(text)


def test_a_colour_off_by_one_stops_training(root):
    as_rgb(root)
    pixels = mask_of(root)
    pixels[0, :5] = (10, 21, 30)
    store(root, pixels)
    said = refused(root)
    assert "2.png: colour (10, 21, 30), 1 off (10, 20, 30) of ground, (5 pixels)" in said
    (row,) = [row for row in facts_of(root)["mask_values"] if row["becomes"] == "no class"]
    assert row["pixels"] == 5


def test_a_one_pixel_difference_and_a_mask_on_its_side(root):
    store(root, mask_of(root)[1:])
    store(root, mask_of(root, "train_masks/3.png").T.copy(), "train_masks/3.png")
    said = refused(root)
    assert "2 problems in 9 pairs" in said
    assert "2.png: 70x55 pixels, but its image 2.png has 70x56; export it again" in said
    assert "turn it by 90 degrees" in said


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_truncated_file(root, kind):
    path = root / f"train_{kind}" / "2.png"
    path.write_bytes(path.read_bytes()[:-40])
    said = refused(root)
    assert f"{path}: not a readable picture" in said
    assert len(facts_of(root)["problems"]) == 1


def test_many_offenders_are_counted_and_five_named(root):
    change_masks(root, lambda ids: ids + 5, "train_masks/*.png")
    said = refused(root)
    assert "6 problems in 9 pairs, first:" in said
    assert len(said.splitlines()) == 6
    assert "4.png" in said
    assert "5.png" not in said


def test_a_lossy_mask_is_named(root):
    change_masks(root, lambda ids: 255 * ids)
    pixels = mask_of(root)
    (root / "train_masks" / "2.png").unlink()
    store(root, pixels, "train_masks/2.jpg", quality=30)
    files = facts_of(root)["files_of_warnings"]
    assert files["masks are compressed as JPEG is, which changes values at edges"] == [
        str(root / "train_masks" / "2.jpg")
    ]


def test_rgb_masks_without_a_class_file_say_how_to_name_them(root):
    as_rgb(root)
    for name in ("dataset.yaml", "classes.txt"):
        (root / name).unlink()
    said = refused(root)
    assert "_masks/" in said.split("see")[1]
    assert "9 masks are RGB with 2 colours (mostly [10, 20, 30], [200, 100, 0])" in said
    assert "LABEL_COLORS_LIST" in said
    masks = {path: np.asarray(Image.open(path))[..., 0] > 100 for path in root.glob("*_masks/*")}
    for more in (0, 9):
        for k, (path, pixels) in enumerate(masks.items(), 1):
            ids = pixels * (k + more * (np.arange(pixels.shape[1]) % 2))
            Image.fromarray(np.uint8(VOC2012.palette)[ids]).save(path)
        assert ("they look like those of --classes voc2012; else" in refused(root)) == bool(more)


def test_exif_rotations(root):
    """The first image's mask is upright too; the second's was drawn on the stored pixels."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn
    image = Image.open(root / "train_images" / "1.png")
    image.transpose(Image.Transpose.ROTATE_90).save(root / "train_images" / "1.png", exif=exif)
    stored = Image.open(root / "train_images" / "2.png").copy()
    stored.save(root / "train_images" / "2.png", exif=exif)
    data = load_data(find_splits(root))
    files = [files for what, files in data.told_files.items() if "EXIF" in what]
    assert files == [[str(root / "train_images" / f"{k}.png")] for k in (1, 2)]
    assert sum("EXIF" in warning for warning in data.warnings) == 2
    pairs = {pair.image.name: pair for pair in data.splits.train}
    for name, expected in (("1.png", image), ("2.png", stored)):
        found, mask, _ = read_stored(pairs[name])
        assert np.array_equal(found, np.asarray(expected))
        assert found.shape[:2] == mask.shape


def test_an_image_in_two_splits(root):
    stolen = Image.open(root / "train_images" / "4.png")
    stolen.save(root / "valid_images" / "9.bmp")  # another name, another format, the same pixels
    store(root, mask_of(root, "train_masks/4.png"), "valid_masks/9.png")
    data = load_data(find_splits(root))
    twins = [f"{root / 'train_images' / '4.png'} = {root / 'valid_images' / '9.bmp'}"]
    assert describe(data)["files_of_warnings"]["images of valid are also in train"] == twins
    assert any("1 images of valid are also in train" in w for w in data.warnings)
    for kind in ("images", "masks"):
        shutil.copytree(root / f"valid_{kind}", root / f"test_{kind}")
    data = load_data(find_splits(root))
    assert "warning: 4 images of test are also in valid, first: " in str(data)


def test_classes_without_a_pixel(root, capsys):
    (root / "classes.txt").write_text("ground\nbox\nboat\n")
    change_masks(root, np.zeros_like, "valid_masks/*.png")
    data = load_data(find_splits(root))
    assert "warning: 2 classes have no pixel in the valid split: box, boat" in str(data)
    run_train(root, "--imgsz", "28", "--epochs", "1")
    assert "warning: 1 classes have no pixel in the train split: boat" in capsys.readouterr().out


def test_values_gathered_and_ignored_are_counted(root):
    pixels = mask_of(root)
    pixels[0, :4], pixels[1, :6] = 7, 9
    store(root, pixels)
    text = "classes:\n  0: ground\n  1: {name: box, labels: [1, 7]}\nignore: [9]\n"
    (root / "dataset.yaml").write_text(text)
    rows = {row["value"]: row for row in facts_of(root)["mask_values"]}
    assert (rows[7]["becomes"], rows[7]["pixels"], rows[7]["masks"]) == ("box", 4, 1)
    assert (rows[9]["becomes"], rows[9]["pixels"]) == ("ignored", 6)
    total = sum(np.asarray(Image.open(p)).size for p in root.glob("*_masks/*.png"))
    classes = facts_of(root)["classes"]
    assert sum(sum(c["pixels"].values()) for c in classes) == total - 6


def test_0_and_1_beside_0_and_255_are_refused(root):
    (root / "classes.txt").unlink()
    store(root, 255 * mask_of(root))
    said = refused(root)
    assert "with 0 alone in 1 of 9 masks): is it a class, or to be ignored?" in said
    assert "1: {name: foreground, labels: [1]}" in said


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_mask_is_turned_as_its_image_is(root, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    before = facts_of(root)["classes"]
    expected = read_image(root / "train_images" / "2.png"), mask_of(root)
    turns = 2 if orientation == 3 else 1
    for kind, pixels in zip(("images", "masks"), expected, strict=True):
        turned = np.ascontiguousarray(np.rot90(pixels, turns))
        store(root, turned, f"train_{kind}/2.png", exif=exif)
    data = load_data(find_splits(root))
    assert describe(data)["classes"] == before
    pair = next(pair for pair in data.splits.train if pair.image.name == "2.png")
    for found, pixels in zip(read_pair(pair, data.encoding), expected, strict=True):
        assert np.array_equal(found, pixels)


def test_values_without_a_class_file_are_named(root):
    (root / "classes.txt").unlink()

    def twelve_values(ids):
        ids[0, :12] = range(12)
        return ids

    change_masks(root, twelve_values)
    said = str(load_data(find_splits(root)))
    assert "no class file, so the mask values 0 to 11 are 12 classes" in said
    assert "(often 0 or 11)" in said


def test_the_report_s_files(root, capsys):
    check_data.main(["--data", str(root)])
    folder = root.parent / "outputs" / "dataset_report"
    facts = json.loads((folder / "report.json").read_text())
    assert facts == json.loads(json.dumps(facts_of(root)))
    assert facts["pairs"] == {"train": 6, "valid": 3}
    assert facts["files"]["valid"][0] == [str(root / f"valid_{k}/0.png") for k in
                                          ("images", "masks")]  # fmt: skip
    expected = {"train": [0, 0], "valid": [0, 0]}
    for path in root.glob("*_masks/*.png"):
        counts = np.bincount(np.asarray(Image.open(path)).ravel(), minlength=2)
        split = path.parent.name.removesuffix("_masks")
        expected[split] = [a + int(b) for a, b in zip(expected[split], counts, strict=True)]
    for entry in facts["classes"]:
        assert entry["pixels"] == {s: expected[s][entry["id"]] for s in ("train", "valid")}
    sheet = np.asarray(Image.open(folder / "contact_sheet.png"))
    rows = 8  # five of the training pairs, three of the others
    assert sheet.shape == (rows * (420 * 3 // 4 + 28), 3 * 420, 3)
    said = capsys.readouterr().out
    assert "masks hold class indices 0..1 (8-bit), 255 is ignored" in said
    assert f"{expected['train'][1]}" in said
    assert f"valid begins with {root}/valid_images/0.png + {root}/valid_masks/0.png" in said


def test_the_report_shows_what_is_wrong_and_fails(root):
    pixels = mask_of(root)
    pixels[:20, :20] = 9
    store(root, pixels)
    with pytest.raises(SystemExit) as stop:
        check_data.main(["--data", str(root), "--show-augment", "--imgsz", "56"])
    assert "value 9 (400 pixels) belongs to no class" in str(stop.value.code)
    folder = root.parent / "outputs" / "dataset_report"
    assert (folder / "augment.png").is_file()
    assert len(json.loads((folder / "report.json").read_text())["problems"]) == 1
    sheet = np.asarray(Image.open(folder / "contact_sheet.png"))
    assert (sheet == (255, 0, 255)).all(-1).sum() == 2 * 400  # in the mask and the overlay


@pytest.mark.parametrize("change", ["nothing", "time", "size"])
def test_a_second_start_reads_what_has_another_size_or_time(root, change):
    first = load_data(find_splits(root))
    path = root / "train_masks" / "2.png"
    length, time = path.stat().st_size, path.stat().st_mtime_ns
    path.write_bytes(b"?" * (length + (change == "size")))
    os.utime(path, ns=(time, time + (change == "time")))
    again = inspect_data(find_splits(root))
    assert (again.scans == first.scans) == (change == "nothing")
    assert len(again.problems) == (change != "nothing")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 0, "pairs": {}}',
                                     b'{"version": 1, "pairs": {"x": {"values": 3}}}'])  # fmt: skip
def test_a_damaged_kept_file_counts_for_nothing(root, content):
    first = load_data(find_splits(root))
    (kept,) = (root.parent / "outputs" / "dataset_scans").iterdir()
    kept.write_bytes(content)
    assert load_data(find_splits(root)).scans == first.scans
