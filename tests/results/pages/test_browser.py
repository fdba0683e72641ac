"""The pages in a real browser, opened from disk."""

import json
import time

import numpy as np
import pytest
from helpers import page_folders
from helpers.browser import Browser, chromium, find_chromium
from helpers.page_folders import EVIL, dataset_page, inference_page, run_page, video_page, write

from data.labels.classes import Classes
from results.pages.html import Page

pytestmark = pytest.mark.browser

IS_PAINTED = "document.querySelectorAll('.tile .top').length"


@pytest.fixture(scope="module")
def browser():
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed")
    with chromium(program) as browser:
        browser.size(900, 700)
        yield browser


@pytest.fixture(autouse=True)
def nothing_is_said(browser):
    """The console stays empty, and no name of a file or a class was run."""
    browser.said.clear()
    yield
    browser.run("1")
    assert browser.said == []


def differ(one: np.ndarray, other: np.ndarray) -> float:
    """The share of pixels that differ visibly between two screenshots."""
    return float((np.abs(one.astype(int) - other).max(axis=2) > 24).mean())


def show(browser: Browser, page: Page) -> None:
    write(page)
    browser.open(page.path)


def shot(browser: Browser, selector: str = ".tile .frame") -> np.ndarray:
    """An element, once its pictures are drawn."""
    time.sleep(0.05)
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return browser.screenshot(selector)


def test_gallery(browser, tmp_path):
    show(browser, inference_page(tmp_path / "gallery"))
    browser.until(f"{IS_PAINTED} === 5")
    assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    overlay = shot(browser)

    browser.run("{const s = document.querySelector('[type=range]'); s.value = 0; s.oninput()}")
    plain = shot(browser)
    assert differ(overlay, plain) > 0.2
    browser.press("1")
    assert differ(shot(browser), plain) < 0.01
    browser.press("f")
    browser.run("{const s = document.querySelector('[type=range]'); s.value = 1; s.oninput()}")
    opaque = shot(browser)
    assert differ(opaque, overlay) > 0.2

    browser.run("document.querySelectorAll('.legend input')[1].click()")
    hidden = shot(browser)
    assert 0.15 < differ(opaque, hidden) < 0.6  # class 1 is gone, class 2 has stayed
    assert (np.abs(hidden.astype(int) - (0, 114, 178)).max(axis=2) < 24).mean() > 0.02
    assert (np.abs(hidden.astype(int) - (230, 159, 0)).max(axis=2) < 24).mean() == 0
    browser.press("4")
    browser.until("document.querySelectorAll('.tile .top:not([hidden])').length === 5")
    confidence = shot(browser)
    half = confidence.shape[1] // 2
    assert confidence[:, 10 : half - 10].mean() > 200 > 100 > confidence[:, half + 10 :].mean()


def test_viewer_by_keyboard(browser, tmp_path):
    show(browser, inference_page(tmp_path / "gallery"))
    browser.run("document.querySelector('.tile').focus()")
    browser.press("Enter")
    browser.until("document.querySelector('dialog').open")
    browser.until("document.querySelector('.stage .top')")
    title = "document.querySelector('.title').textContent"
    assert browser.run(title).endswith("1 of 5")
    browser.press("ArrowRight")
    assert browser.run(title).endswith("2 of 5")
    browser.until("document.querySelector('.stage .top')")
    overlay = shot(browser, ".stage")
    browser.press("3")
    assert differ(overlay, shot(browser, ".stage")) > 0.2
    browser.press("F")  # as the hint has it
    assert differ(overlay, shot(browser, ".stage")) < 0.01
    browser.press("Escape")
    browser.until("!document.querySelector('dialog').open")
    assert browser.run("document.activeElement.className") == "tile"


def test_sorting_and_filters(browser, tmp_path):
    show(browser, inference_page(tmp_path / "gallery", 12))
    names = "[...document.querySelectorAll('.tile b')].map((name) => name.textContent)"
    assert browser.run(names)[0] == f"sub/{EVIL}"
    browser.run("{const s = document.querySelector('select'); s.value = 1; s.onchange()}")
    assert browser.run(names)[-1] == f"sub/{EVIL}"
    browser.run("{const s = document.querySelector('[type=search]'); s.value = '001'; s.oninput()}")
    assert browser.run(names) == ["0001", "0010", "0011"]


def test_run(browser, tmp_path):
    show(browser, run_page(tmp_path / "run"))
    output = "document.querySelector('.chart output').textContent"
    assert browser.run(output).startswith("epoch 3")
    box = json.loads(
        browser.run("JSON.stringify(document.querySelector('.chart svg').getBoundingClientRect())")
    )
    left = {"x": box["x"] + 0.2 * box["width"], "y": box["y"] + 20}
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", **left)
    assert browser.run(output) == "epoch 1: train 0.1000, valid 0.1200"
    browser.run("document.querySelector('.epochs').scrollIntoView()")
    last = shot(browser, ".epochs img")
    browser.run("{const s = document.querySelector('.epochs input'); s.value = 0; s.oninput()}")
    assert differ(last, shot(browser, ".epochs img")) > 0.9
    browser.run("document.querySelector('#worst').scrollIntoView()")
    browser.until(f"{IS_PAINTED} === 3")
    errors = shot(browser)
    browser.press("1")
    assert differ(errors, shot(browser)) > 0.02


def test_video(browser, tmp_path):
    show(browser, video_page(tmp_path / "video"))
    if not browser.run(
        "document.querySelector('video').canPlayType('video/mp4; codecs=avc1.42E01E')"
    ):
        pytest.skip("this Chromium has no H.264")
    browser.until("document.querySelector('video').readyState > 1")
    dark = shot(browser, "video")
    browser.run(
        "{const line = document.querySelector('.timeline'), box = line.getBoundingClientRect();"
        "line.setPointerCapture = () => {};"
        "line.onpointerdown({clientX: box.left + 0.9 * box.width, pointerId: 1})}"
    )
    browser.until("document.querySelector('video').seeking === false")
    assert browser.run("document.querySelector('video').currentTime") == pytest.approx(
        1.8, abs=0.05
    )
    assert differ(dark, shot(browser, "video")) > 0.5
    assert "one 84 %" in browser.run("document.querySelector('.film output').textContent")


def test_dataset(browser, tmp_path):
    show(browser, dataset_page(tmp_path / "report", tmp_path / "data"))
    browser.run("document.querySelector('#pictures').scrollIntoView()")
    browser.until(f"{IS_PAINTED} === 3")
    assert "Stops training" in browser.run("document.querySelector('.problems').textContent")
    browser.size(380, 700)  # the remedy, the last column, is seen without scrolling
    right = "document.querySelector('.problems td:last-child').getBoundingClientRect().right"
    assert browser.run(right) <= 380
    browser.size(900, 700)


@pytest.mark.parametrize("make", [inference_page, run_page, video_page])
def test_long_names_do_not_widen_a_page_beyond_a_phone(browser, tmp_path, monkeypatch, make):
    colours = page_folders.CLASSES.palette
    monkeypatch.setattr(page_folders, "CLASSES", Classes(("a" * 200, "b" * 200, "c"), colours))
    page = make(tmp_path / ("long" * 50))
    page._error = "d" * 200
    browser.size(380, 700)
    show(browser, page)
    browser.run("document.querySelector('.tile')?.click()")
    wide = "document.documentElement.scrollWidth, document.querySelector('.side')?.scrollWidth ?? 0"
    assert browser.run(f"Math.max({wide})") == 380
    browser.size(900, 700)


def test_shares_in_the_confusion_matrix_can_be_read(browser, tmp_path):
    """A contrast of 4.5, as WCAG 2 wants; cells of 0, 10, 25, 75, 90 and 100 %."""
    page = run_page(tmp_path / "run")
    page._scores["matrix"].counts[2, 2] = 7
    write(page)
    for dark in (False, True):
        browser.size(900, 700, dark=dark)
        browser.open(page.path)
        colours = browser.run(
            "[...document.querySelectorAll('.matrix td')].map((cell) => [getComputedStyle(cell)"
            ".color, getComputedStyle(cell).backgroundColor].map((text) => {"
            "const pen = new OffscreenCanvas(1, 1).getContext('2d'); pen.fillStyle = text;"
            "pen.fillRect(0, 0, 1, 1); return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)}))"
        )
        linear = (np.array(colours) / 255) ** 2.2
        light = np.sort(linear @ (0.2126, 0.7152, 0.0722) + 0.05, axis=1)
        assert (light[:, 1] / light[:, 0]).min() > 4.5
    browser.size(900, 700)


def test_of_a_thousand_pictures_those_in_view_are_painted(browser, tmp_path):
    show(browser, inference_page(tmp_path / "many", 1000, (40, 30)))
    browser.until("document.querySelectorAll('.tile').length === 1000")
    browser.run("scrollTo(0, document.body.scrollHeight)")
    browser.until(f"{IS_PAINTED} > 3")
    assert browser.run(IS_PAINTED) < 100
