"""Predictions as data sets: read back by this project's readers, and by other libraries'."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.annotations import targets
from helpers.basics import save_pictures
from helpers.stubs import StubPredictor, fails
from PIL import Image

import infer_image
from inference.windows import Prediction
from results.annotation_files import COCO_FILE

KINDS = "labelme,coco,yolo,dataset"
OUT = Path("outputs/inference_results_image")
CLASSES = StubPredictor.classes


@pytest.fixture
def photos(stub, in_tmp):
    """Pictures whose noisy prediction has parts, holes and, in the third, ignored pixels."""

    def predict(image):
        labels = stub.labels(image)
        labels[:, :9][image[:, :9, 2] % 7 == 0] = 255 if image.shape[1] == 90 else 0
        return Prediction(labels, np.ones(labels.shape, np.float32), None)

    stub.predict = lambda images, keep=(): list(map(predict, images))
    # "dark" is not called background: a data set must keep such a class too.
    sizes = {"a.png": (70, 50), "b.jpg": (33, 47), "images/c.png": (90, 13)}
    save_pictures(in_tmp / "photos", sizes)
    return stub


def run(*argv):
    infer_image.main(["--input", "photos", "--save", KINDS, *map(str, argv)])


@pytest.mark.parametrize("kind", KINDS.split(","))
def test_what_is_written_is_read_as_it_was(photos, in_tmp, kind, capsys):
    run("--simplify", "0", "--min-area", "0")
    written, data = targets(OUT / kind)
    assert data.classes == CLASSES
    for path in Path("photos").rglob("*.*"):
        image = np.asarray(Image.open(path).convert("RGB"))
        expected = photos.predict([image])[0].labels
        assert np.array_equal(written[path.name], expected), path
    assert "ignored pixels" in capsys.readouterr().out


def test_other_libraries_read_the_files(photos, in_tmp):
    run("--simplify", "0", "--min-area", "0")
    coco = pytest.importorskip("pycocotools.coco").COCO(str(OUT / COCO_FILE))
    (image,) = [image for image in coco.imgs.values() if image["file_name"] == "a.png"]
    expected = photos.predict([np.asarray(Image.open("photos/a.png"))])[0].labels
    drawn = np.zeros_like(expected)
    for annotation in coco.imgToAnns[image["id"]]:
        drawn[coco.annToMask(annotation) > 0] = annotation["category_id"] - 1
        assert annotation["area"] > 0
    assert (drawn != expected).mean() < 0.01


def test_a_zip_holds_the_data_set(photos, in_tmp):
    run("--zip")
    names = zipfile.ZipFile(OUT / "dataset.zip").namelist()
    assert "labelmap.txt" in names
    assert {"SegmentationClass/a.png", "SegmentationClass/images/c.png"} <= set(names)
    assert "__ignore__:128,128,128::" in (OUT / "dataset" / "labelmap.txt").read_text()
    assert "annotations/instances_default.json" in zipfile.ZipFile(OUT / "coco.zip").namelist()


def test_corrected_files_are_not_replaced(photos, in_tmp, capsys):
    run()
    corrected = OUT / "labelme" / "a.json"
    corrected.write_text("{}")
    assert "corrected by hand" in fails(capsys, infer_image.main, "--input", "photos",
                                        "--save", "labelme")  # fmt: skip
    run("--skip-existing")
    assert corrected.read_text() == "{}"
    assert "no effect without --save" in fails(capsys, infer_image.main, "--input", "photos",
                                               "--simplify", "2")  # fmt: skip


def test_a_picture_that_vanishes_meanwhile_is_one_line(photos, in_tmp, capsys):
    predict = photos.predict

    def and_remove(*args):
        Path("photos/a.png").unlink(missing_ok=True)
        return predict(*args)

    photos.predict = and_remove
    message = fails(capsys, infer_image.main, "--input", "photos", "--save", "labelme")
    assert message.splitlines() == ["error: [Errno 2] No such file or directory: 'photos/a.png'"]
    assert (OUT / "labelme" / "b.json").is_file()


@pytest.mark.parametrize("kind", ["labelme", "yolo", "dataset"])
def test_what_a_stopped_run_leaves_is_a_data_set(photos, in_tmp, kind):
    predict = photos.predict

    def stops_at_the_third(*args):
        photos.num_images += 1
        if photos.num_images == 3:
            raise KeyboardInterrupt
        return predict(*args)

    photos.predict = stops_at_the_third
    with pytest.raises(SystemExit):
        run()
    written, data = targets(OUT / kind)
    assert data.classes == CLASSES
    assert len(written) >= 2
    run("--skip-existing")
    assert len(targets(OUT / kind)[0]) == 3


def test_a_run_that_was_killed_between_two_files_of_a_picture_goes_on(photos, in_tmp, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(infer_image.InferencePage, "add", killed)  # before the table has a row
        with pytest.raises(SystemExit):
            run()
    corrected = OUT / "labelme" / "a.json"
    before = corrected.read_text().replace("bright", "dark")
    corrected.write_text(before)
    (OUT / "yolo" / "labels" / "a.txt").unlink()
    run("--skip-existing")
    assert corrected.read_text() == before
    for kind in KINDS.split(","):
        assert len(targets(OUT / kind)[0]) == 3
    (OUT / COCO_FILE).unlink()
    run("--skip-existing")
    assert len(targets(OUT / "coco")[0]) == 3


@pytest.mark.parametrize("kind", ["yolo", "dataset"])
def test_files_of_classes_are_not_replaced_by_others(photos, in_tmp, capsys, kind):
    run()
    path = OUT / {"yolo": "yolo/data.yaml", "dataset": "dataset/labelmap.txt"}[kind]
    path.write_text(before := path.read_text() + "# corrected\n")
    save_pictures(in_tmp / "more", {"d.png": (20, 20)})
    message = fails(capsys, infer_image.main, "--input", "more", "--save", kind)
    assert f"{path} is there already" in message
    assert path.read_text() == before


def test_another_simplification_does_not_go_on_with_earlier_polygons(photos, in_tmp, capsys):
    argv = ["--input", "photos", "--save", "labelme", "--skip-existing"]
    infer_image.main(argv)
    assert "is there already" in fails(capsys, infer_image.main, *argv, "--simplify", "0")
