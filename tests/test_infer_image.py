"""infer_image.py as a user runs it, on drawn pictures of every kind."""

import csv
import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.basics import save_pictures
from helpers.stubs import fails
from helpers.videos import files_of_at_most, grey_frames, make_video
from helpers.waiting import locked
from PIL import Image

import infer_image
import infer_video
from data.images import read_image, read_mask
from utils import InputError

RESULTS = Path("outputs/inference_results_image")


@pytest.fixture
def photos(in_tmp):
    """photos/a.png, photos/b.jpg, photos/sub/c.png of different brightness."""
    sizes = {"a.png": (70, 50), "b.jpg": (33, 47), "sub/c.png": (90, 13)}
    return save_pictures(in_tmp / "photos", sizes)


def run(*argv):
    infer_image.main(list(map(str, argv)))


def table():
    return list(csv.DictReader((RESULTS / "results.csv").open()))


def overlays():
    return sorted(path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*_overlay.jpg"))


def test_every_kind_of_result_is_right(stub, photos, in_tmp):
    kinds = "overlay,mask,side-by-side,confidence,probabilities"
    os.utime(photos / "a.png", (4e9, 4e9))  # the clock of a camera or a server may be ahead
    run("--input", photos, "--save", kinds, "--batch", "2")
    assert '["overlay", "a_overlay.jpg"]' in (RESULTS / "index.html").read_text()
    assert Image.open(RESULTS / "contact_sheet.jpg").width == 3 * 320
    image = read_image(photos / "sub" / "c.png")
    labels = stub.labels(image)
    prediction = stub.predict([image])[0]
    folder = RESULTS / "sub"
    assert np.array_equal(read_mask(folder / "c_mask.png")[0], labels)
    assert read_image(folder / "c_overlay.jpg").shape == image.shape
    both = read_image(folder / "c_side_by_side.jpg")
    assert both.shape == (13, 180, 3)
    assert np.abs(both[:, :90].astype(int) - image).mean() < 25
    levels = np.asarray(Image.open(folder / "c_confidence.png"))
    assert np.abs(levels / 255 - prediction.confidence).max() < 0.003
    stored = np.load(folder / "c_probabilities.npz")["probabilities"]
    assert np.array_equal(stored, prediction.probabilities)


def test_results_csv_and_its_order(stub, photos, in_tmp):
    run("--input", photos, "--batch", "3")
    rows = table()
    assert [row["result"] for row in rows] == ["a", "b", "sub/c"]
    for row in rows:
        image = read_image(in_tmp / row["picture"])
        prediction = stub.predict([image])[0]
        assert (int(row["height"]), int(row["width"])) == image.shape[:2]
        assert float(row["bright"]) == pytest.approx((prediction.labels == 1).mean(), abs=1e-6)
        assert float(row["mean_confidence"]) == pytest.approx(
            prediction.confidence.mean(), abs=1e-6
        )
        assert float(row["dark"]) + float(row["bright"]) + float(row["ignored"]) == pytest.approx(1)
    run("--input", photos, "--sort-by-confidence")
    confidences = [float(row["mean_confidence"]) for row in table()]
    assert confidences == sorted(confidences)
    assert len(set(confidences)) == 3


def test_files_of_other_settings_are_neither_shown_nor_kept(stub, photos, in_tmp):
    """An overlay and a mask in one folder may be of two models."""
    page = RESULTS / "index.html"
    run("--input", photos)
    run("--input", photos, "--save", "mask")
    assert '["overlay", "a_overlay.jpg"], ["mask", "a_mask.png"]' in page.read_text()
    run("--input", photos, "--save", "mask", "--min-confidence", "0.9")
    assert '[["mask", "a_mask.png"]]' in page.read_text()
    assert "contact_sheet.jpg" not in page.read_text()
    stub.num_images = 0
    run("--input", photos, "--save", "overlay,mask", "--min-confidence", "0.9", "--skip-existing")
    assert stub.num_images == 3
    assert "contact_sheet.jpg" in page.read_text()


def test_a_job_without_a_page_leaves_no_page_of_other_results(stub, photos, in_tmp):
    run("--input", photos)
    run("--input", photos, "--no-page", "--min-confidence", "0.9")
    page = RESULTS / "index.html"
    assert not page.exists()
    run("--input", photos, "--no-page", "--out-dir", "plain")
    assert not (in_tmp / "outputs" / "plain" / "page").exists()
    run("--input", photos / "a.png", "--min-confidence", "0.9", "--skip-existing")
    assert "3 of 3 pictures segmented" in page.read_text()
    assert "3 of them, segmented with --no-page, are in results.csv alone" in page.read_text()
    assert '"pictures": []' in page.read_text()


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["photos/**/*.png", "photos/b.jpg", "photos/a.png"], ["a", "b", "sub/c"]),
        (["runs/*/images"], ["r1/images/d", "r2/images/e"]),
        (["runs/*"], ["r1/images/d", "r2/images/e"]),
        (["runs/**"], ["r1/images/d", "r2/images/e"]),
        (["trip [2024]/*.png"], ["f"]),
    ],
)
def test_files_folders_and_patterns(stub, photos, in_tmp, inputs, expected):
    names = ("runs/r1/images/d.png", "runs/r2/images/e.png", "trip [2024]/f.png")
    save_pictures(in_tmp, dict.fromkeys(names, (20, 20)))
    run("--input", *inputs)
    assert overlays() == [f"{name}_overlay.jpg" for name in expected]
    assert stub.num_images == len(expected)


def test_one_name_in_two_folders_or_formats_gives_two_results(stub, in_tmp):
    names = ("x/a.png", "y/a.png", "x/b.png", "x/b.jpg", "x/b_jpg.png", "x/B.PNG")
    save_pictures(in_tmp, dict.fromkeys(names, (20, 20)))
    run("--input", "x", "y")
    assert len({name.lower() for name in overlays()}) == 6


def test_skip_existing_goes_on_where_a_run_stopped(stub, photos, in_tmp, capsys):
    run("--input", photos)
    before = table()
    (RESULTS / "b_overlay.jpg").unlink()
    stub.num_images = 0
    run("--input", photos, "--skip-existing")
    assert stub.num_images == 1
    assert table() == before
    assert "2 were there already" in capsys.readouterr().out
    run("--input", "photos", "--skip-existing")  # a relative and an absolute path are one picture
    assert stub.num_images == 1
    run("--input", photos, "--skip-existing", "--save", "mask")
    assert stub.num_images == 4
    run("--input", photos)
    assert stub.num_images == 7


def test_a_stopped_run_keeps_the_rows_that_it_has(stub, photos, in_tmp, monkeypatch):
    predict = stub.predict

    def stop_at_the_second(*args):
        if stub.num_images:
            raise KeyboardInterrupt
        return predict(*args)

    monkeypatch.setattr(stub, "predict", stop_at_the_second)
    with pytest.raises(SystemExit) as stop:
        run("--input", photos)
    assert stop.value.code == 130
    assert [row["result"] for row in table()] == ["a"]
    page = (RESULTS / "index.html").read_text(encoding="utf-8")
    assert "Interrupted" in page
    assert "1 of 3 pictures segmented" in page
    monkeypatch.setattr(stub, "predict", predict)
    run("--input", photos, "--skip-existing")
    assert [row["result"] for row in table()] == ["a", "b", "sub/c"]
    assert stub.num_images == 3


def test_an_animated_picture_says_what_was_taken(stub, photos, in_tmp, capsys):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue", "green")]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    run("--input", photos)
    assert "moving.gif: only the first of its 3 frames or pages" in capsys.readouterr().err
    assert "moving_overlay.jpg" in overlays()


def test_bad_pictures_are_listed_and_the_others_done(stub, photos, in_tmp, capsys):
    (photos / "empty.png").write_bytes(b"")
    (photos / "0cut.png").write_bytes((photos / "a.png").read_bytes()[:200])
    Image.new("L", (40_000, 1)).save(photos / "wide.png")
    message = fails(capsys, infer_image.main, "--input", photos)
    assert [name in message for name in ("empty.png", "0cut.png", "wide.png")] == [True] * 3
    assert len(message.splitlines()) == 3
    assert len(overlays()) == len(table()) == 3
    page = (RESULTS / "index.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("Complete", "3 of 6 pictures segmented", "empty.png: "))
    assert len(list((RESULTS / "page").rglob("*.js"))) == 3


def test_wrong_inputs_are_one_line(stub, photos, in_tmp, capsys):
    def said(*argv):
        message = fails(capsys, infer_image.main, *argv)
        assert len(message.splitlines()) == 1
        return message

    assert "--input is missing" in said()
    assert "--input is missing" in fails(capsys, infer_video.main)
    assert "no such file or folder" in said("--input", "photos/gone.png")
    assert "no pictures in it" in said("--input", "photos/*.tif")
    stub.model = SimpleNamespace(gives_labels=True)
    refusal = said("--input", photos, "--save", "overlay,probabilities", "--model", "a.onnx")
    assert "probabilities: a.onnx gives class ids alone" in refusal
    shutil.rmtree(in_tmp / "outputs")
    (in_tmp / "outputs").write_text("a file in place of the folder")
    assert ": cannot write" in said("--input", photos)


def test_films_and_pipes_are_told_where_to_go(stub, photos, in_tmp, capsys):
    film = make_video(in_tmp / "film.mp4", grey_frames(3)).rename(photos / "film.jpg")
    message = fails(capsys, infer_image.main, "--input", photos)
    assert f"{film.relative_to(in_tmp)} is a film; it goes to infer_video.py" in message
    assert len(overlays()) == 3
    os.mkfifo(in_tmp / "pipe")
    assert "a pipe or a device" in fails(capsys, infer_image.main, "--input", "pipe")


def test_results_of_other_pictures_are_never_replaced(stub, photos, in_tmp):
    """Cameras name their pictures alike: one start for each folder, and the first one again."""
    for folder, level in (("A", 30), ("B", 220), ("C", 120)):
        (in_tmp / folder).mkdir()
        Image.new("RGB", (40, 30), (level,) * 3).save(in_tmp / folder / "IMG_1.png")
        run("--input", in_tmp / folder)
    before = {path: path.read_bytes() for path in RESULTS.glob("IMG*")}
    run("--input", in_tmp / "A")
    run("--input", photos)
    run("--input", "B", "A")
    assert [row["result"] for row in table()] == ["IMG_1", "IMG_1_2"]
    assert {path: path.read_bytes() for path in RESULTS.glob("IMG*")} == before
    assert len(before) == 3
    for path in RESULTS.glob("*.json"):
        path.unlink()
    (RESULTS / "results.csv").unlink()
    run("--input", in_tmp / "C")  # nothing tells whose files these are
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_second_start_into_the_folder_of_one_that_runs_is_refused(stub, photos, in_tmp, capsys):
    RESULTS.mkdir(parents=True)
    with locked(RESULTS):
        message = fails(capsys, infer_image.main, "--input", photos)
    assert "is in use by process" in message
    run("--input", photos)


def test_files_that_cannot_be_written_are_a_line_each_and_never_half(stub, photos, in_tmp, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(photos / "noise.png")
    with files_of_at_most(10_000):
        message = fails(capsys, infer_image.main, "--input", photos)
    assert "noise_overlay.jpg: cannot write" in message
    assert "contact_sheet.jpg: cannot write" in message
    assert len(message.splitlines()) == 2
    assert overlays() == ["a_overlay.jpg", "b_overlay.jpg", "sub/c_overlay.jpg"]
    assert not list(RESULTS.rglob("*.part"))


@pytest.mark.parametrize("changed", [
    ["--min-confidence", "0.9"], ["--imgsz", "28"], ["--scales", "2"], ["--alpha", "0.1"],
    ["--model", "other.pth"], "checkpoint", "picture", "record", "published model",
])  # fmt: skip
def test_skip_existing_repeats_what_was_made_otherwise(stub, photos, in_tmp, capsys, changed):
    model = in_tmp / "outputs" / "best_model_iou.pth"
    model.parent.mkdir()
    model.write_bytes(b"1")
    published = ["--model", "dinov2_vits14_voc2012_ms"] if changed == "published model" else []
    run("--input", photos, *published)
    if changed == "checkpoint":
        model.write_bytes(b"22")
    elif changed == "picture":
        later = 1 + (RESULTS / "a_overlay.jpg").stat().st_mtime
        os.utime(photos / "a.png", (later, later))
    elif changed == "record":
        (RESULTS / "results.json").write_text("[]")
    stub.num_images = 0
    capsys.readouterr()
    more = changed if isinstance(changed, list) else []
    if changed == "published model":
        more = ["--model", "dinov2_vitb14_voc2012_ms"]
    run("--input", photos, "--skip-existing", *more)
    assert stub.num_images == (1 if changed == "picture" else 3)
    said = capsys.readouterr().out
    assert ("every picture is segmented again: " in said) == (changed != "picture")
    run("--input", photos, "--skip-existing", *more)
    assert stub.num_images == (1 if changed == "picture" else 3) + (changed == "picture")


@pytest.mark.parametrize("name", ["contact_sheet.jpg", "results.csv", "results.json"])
def test_no_written_file_replaces_an_input(stub, photos, in_tmp, capsys, name):
    RESULTS.mkdir(parents=True)
    mine = (photos / "b.jpg").rename(RESULTS / name)
    before = mine.read_bytes()
    message = fails(capsys, infer_image.main, "--input", mine)
    assert f"{name} is an input and would be overwritten" in message
    assert mine.read_bytes() == before


def test_names_that_are_not_utf8_or_too_long_for_their_results(stub, photos, in_tmp):
    strange, longest = os.fsdecode(b"caf\xe9\n"), "b" * 250
    (photos / "a.png").rename(photos / f"{strange}.png")
    (photos / "b.jpg").rename(photos / f"{longest}.jpg")
    shutil.copy(photos / "sub" / "c.png", photos / f"{longest}b.png")
    kinds = "overlay,mask,probabilities,labelme,dataset"
    run("--input", photos, "--save", kinds, "--zip")
    first, second, *others = (row["result"] for row in table())  # which is UTF-8
    assert first[:200] == second[:200] == "b" * 200
    assert first != second
    assert others == ["caf__", "sub/c"]
    page = (RESULTS / "index.html").read_text(encoding="utf-8")
    assert '["overlay", "caf___overlay.jpg"]' in page
    assert Image.open(RESULTS / "contact_sheet.jpg").width == 4 * 320
    stub.num_images = 0
    run("--input", photos, "--save", kinds, "--skip-existing")
    assert stub.num_images == 0


def test_a_full_disk_ends_the_run_at_the_first_picture(stub, photos, in_tmp, capsys, monkeypatch):
    def full(*_):
        raise InputError("x: cannot write") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(infer_image, "save_prediction", full)
    assert fails(capsys, infer_image.main, "--input", photos) == "error: x: cannot write"
