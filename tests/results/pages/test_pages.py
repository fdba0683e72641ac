"""What stands in a page, when it is written, and what it may never do."""

import itertools
import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from helpers.basics import draw_pair
from helpers.page_folders import (
    CLASSES,
    EPOCHS,
    dataset_page,
    inference_page,
    picture,
    pixels,
    read_layers,
    run_page,
    video_page,
    write,
)

from common.signals import Stopped
from data.images import write_image, write_mask
from data.layouts import find_splits
from data.pairs import Pair
from data.survey import inspect_data
from results.history import Watch
from results.pages import html
from results.pages.dataset import DatasetPage
from results.pages.gallery import show_picture
from results.pages.html import Page
from results.pages.run import RunPage, WorstPictures
from results.pages.video import FilmNumbers, VideoPage
from utils import InputError


@pytest.fixture(params=["inference", "run", "video", "dataset"])
def page(request, tmp_path) -> Page:
    folder = tmp_path / "page of a job"
    if request.param == "dataset":
        return dataset_page(folder, tmp_path / "data")
    return {"inference": inference_page, "run": run_page, "video": video_page}[request.param](
        folder
    )


def test_names_are_not_run_and_every_file_that_a_page_names_is_there(page):
    text = write(page)
    assert "Complete" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    named = re.findall(r'(?:(?:src|href)=|"layers": )"([^"#]+)"', text)
    paths = [page.folder / unquote(name) for name in named if not name.startswith("data:")]
    assert paths
    assert [path for path in paths if not path.is_file()] == []
    own = [(html.TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")]
    assert sum(map(len, own)) < 25_000
    for part in own:
        text = text.replace(part, "")
    assert "<img src=x" not in text
    assert "</script><b>" not in text
    for data in re.findall(r'application/json"[^>]*>(.*?)</script>', text, re.DOTALL):
        json.loads(data)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "Interrupted"),
        (Stopped("stopped", 15), "Interrupted"),
        (InputError("the <disk> is full"), "Ended with an error: the &lt;disk&gt; is full"),
        (RuntimeError("out of memory"), "Ended with an error: RuntimeError: out of memory"),
    ],
)
def test_a_page_says_how_its_job_ended(tmp_path, error, said):
    page = inference_page(tmp_path / "gallery")
    with pytest.raises(type(error)), page:
        assert "Running, or killed" in page.path.read_text(encoding="utf-8")
        raise error
    text = page.path.read_text(encoding="utf-8")
    assert said in text
    assert "5 of 5 pictures segmented by best.pth" in text


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path, capsys):
    page = RunPage(tmp_path, CLASSES, [], "", {})
    (tmp_path / "index.html").mkdir()
    with page:
        pass
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path / 'index.html'}: cannot write")
    with pytest.raises(InputError), page:
        raise InputError("the folder is read-only")
    assert capsys.readouterr().err == ""  # the error alone


def test_a_page_is_written_anew_only_as_often_as_its_cost_allows(tmp_path, monkeypatch):
    clock = itertools.count(100.0, 0.02)  # so many seconds pass between two looks at it
    monkeypatch.setattr(html.time, "monotonic", lambda: next(clock))
    states = []
    monkeypatch.setattr(Page, "text", lambda self, state: states.append(state) or state)
    with Page(tmp_path) as page:
        for _ in range(20):
            page.update()
        few = len(states)
        monkeypatch.setattr(html, "LARGEST_SHARE", 10)
        for _ in range(20):
            page.update()
    assert (few, len(states)) == (1, 1 + 20 + 1)
    assert page.path.read_text() == "complete"


def test_final_scores_are_on_the_page(tmp_path):
    text = write(run_page(tmp_path / "run"))
    assert "<dt>mIoU</dt><dd>0.7009</dd>" in text
    assert "<dt>mean boundary IoU</dt><dd>0.4250</dd>" in text
    assert "Scores of the best epoch on the test pairs." in text
    table = text[text.index('id="classes"') : text.index('id="confusion"')]
    assert table.count("absent") == 1
    assert table.count('class="bar') == 5  # the table itself, and two bars of two classes
    assert '<td class="number">0.250</td>' in table
    assert "nan" not in table


def test_the_best_epoch_is_that_of_the_watched_score(tmp_path):
    columns = "epoch lr valid_loss valid_miou valid_boundary_iou iou_one iou_two".split()
    rows = [
        (1, 0.01, 0.9, 0.1, 0.8, 0.2, None), (2, 0.01, 0.5, 0.6, None, 0.3, 0.1),
        (3, 0.01, 0.2, 0.5, 0.7, 0.4, 0.2), (4, 0.01, 0.4, 0.4, 0.6, 0.5, 0.3),
    ]  # fmt: skip
    absent = EPOCHS[0] | {"iou_absent": None}
    history = [absent | dict(zip(columns, row, strict=True)) for row in rows]
    page = RunPage(tmp_path, CLASSES, [], "", {}, history, Watch("boundary"))
    text = write(page)
    assert "<dd>1 of 4</dd>" in text
    assert "nan" not in text[text.index("<dl") :]


def test_a_data_set_s_problems_come_first_and_in_parts(tmp_path):
    text = write(dataset_page(tmp_path / "report", tmp_path / "data"))
    assert text.index("Stops training") < text.index("Warning:")
    assert "<td>export it again at that size; --allow-unmatched leaves it out</td>" in text
    assert text.index("How it is read") < text.index("Stops training")
    assert f"{Path('train_masks', '2.png')}" in text


def test_pictures_of_one_name_in_two_folders_are_two(tmp_path):
    for i in range(2):
        image, mask = draw_pair(i, 80, 60)
        write_image(tmp_path / "data" / "train_images" / str(i) / "a.png", image)
        write_mask(tmp_path / "data" / "train_masks" / str(i) / "a.png", mask, CLASSES.palette)
        write_image(tmp_path / "data" / "valid_images" / f"{i}.png", image)
        write_mask(tmp_path / "data" / "valid_masks" / f"{i}.png", mask, CLASSES.palette)
    page = DatasetPage(tmp_path / "report", "data")
    page.data = inspect_data(find_splits(tmp_path / "data"))
    text = write(page)
    for i in range(2):
        assert f'"name": "train/{i}/a.png"' in text
        layers = read_layers(tmp_path / "report" / "page" / "train" / str(i) / "a.png.js")
        target = draw_pair(i, 80, 60)[1]
        assert (pixels(layers["target"]) == target).all()


def test_worst_pictures_that_are_at_hand_are_not_read_again(tmp_path):
    pairs = [Pair(tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png") for i in range(12)]
    pictures = WorstPictures(tmp_path, CLASSES, pairs)
    target = np.zeros((60, 80), np.uint8)
    for i in range(12):
        image = np.full((60, 80, 3), 20 * i, np.uint8)
        labels = target.copy()
        labels[:, : 6 * (i + 1)] = 1
        pictures.add(pairs[i], labels, target, image)
    pictures.draw()
    assert [entry["name"] for entry in pictures.pictures] == [f"{i}.png" for i in range(11, 5, -1)]
    for entry, i in zip(pictures.pictures, range(11, 5, -1), strict=True):
        picture = pixels(read_layers(tmp_path / entry["layers"])["picture"])
        assert abs(picture.mean() - 20 * i) < 2


def test_an_earlier_film_is_not_shown_as_this_start_s(tmp_path):
    text = write(video_page(tmp_path / "video"))
    assert "evil &lt;b&gt; film (2.0 s)" in text
    last = VideoPage(tmp_path / "video", CLASSES, {"codec": "libx264", "model": "b.pth"})
    assert "No film is finished yet" in write(last)


def test_a_class_that_is_predicted_alone_has_a_name_and_a_switch(tmp_path):
    image, target = picture(0)
    maps = {"prediction": np.full_like(target, 2), "target": np.zeros_like(target)}
    shown = show_picture(tmp_path, Path("a"), image, maps, CLASSES, name="a", numbers=[], note="")
    assert shown["shares"] == {0: 1.0, 2: 0.0}


def test_the_numbers_of_a_film_do_not_grow_with_its_length():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet((1, 1, 1), 5000)
    shares[:2500, 2] = 0
    numbers = FilmNumbers()
    for i, row in enumerate(shares):
        numbers.add(i / 25, 1 / 25, row)
    assert len(numbers.shares) < 1000
    assert (numbers.times[0], numbers.times[-1]) == (0, 200)
    means = np.diff(numbers.times) @ np.asarray(numbers.shares) / 200
    assert means == pytest.approx(shares.mean(0), abs=1e-4)
    assert numbers.least == pytest.approx(shares.min(0))
    assert numbers.most == pytest.approx(shares.max(0))
    assert numbers.seconds == pytest.approx([200, 200, 100])
