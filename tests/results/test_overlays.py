"""Drawings show what they say, at any size."""

import time
import weakref

import matplotlib
import numpy as np
import pytest
import torch
from helpers.waiting import LIMIT

from data.labels.classes import ADE20K, Classes
from results import legend
from results.legend import LEGEND_ROWS, draw_legend, fitted_text, letters
from results.overlays import IGNORED_COLOUR, contact_sheet, overlay
from results.plots import draw_confusion

THING = Classes(("background", "thing"), ((0, 0, 0), (200, 0, 50)))


def grey(height, width, level=100):
    return np.full((height, width, 3), level, np.uint8)


def test_overlay_blends_classes_within_contours_and_leaves_black_background():
    labels = np.zeros((200, 300), np.uint8)
    labels[100:, 150:] = 1
    drawn = overlay(grey(200, 300), labels, THING, alpha=0.5)
    assert drawn[150, 50].tolist() == [100, 100, 100]
    assert drawn[150, 200].tolist() == [150, 50, 75]
    assert drawn[150, 150].tolist() == [200, 0, 50]
    assert drawn[150, 149].tolist() == [100] * 3
    drawn = overlay(grey(200, 300), labels, THING, alpha=0)
    assert drawn[150, 200].tolist() == [100] * 3


def test_ignored_pixels_are_hatched_and_in_the_legend():
    labels = np.full((200, 300), 255, np.uint8)
    drawn = overlay(grey(200, 300, 0), labels, THING, alpha=0.5)
    part = drawn[100:, 100:].reshape(-1, 3)
    striped = (part == np.array(IGNORED_COLOUR) // 2).all(axis=1).mean()
    assert striped == pytest.approx(0.5, abs=0.05)
    assert (part == 0).all(axis=1).mean() == pytest.approx(0.5, abs=0.05)
    assert (drawn[:20, :20] == IGNORED_COLOUR).all(axis=2).any()


def test_legend_shows_the_colours_of_present_classes():
    image = grey(300, 400, 90)
    drawn = draw_legend(image, ["road", "sky"], [(200, 10, 10), (10, 10, 200)])
    colours = {tuple(c) for c in drawn[:60, :60].reshape(-1, 3).tolist()}
    assert {(200, 10, 10), (10, 10, 200), (255, 255, 255)} <= colours
    assert np.array_equal(drawn[150:], image[150:])
    assert np.array_equal(image, grey(300, 400, 90))  # the input is not touched


@pytest.mark.parametrize("side", [60, 400, 3000])
def test_legend_grows_with_the_picture(side):
    drawn = draw_legend(grey(side, side, 0), ["a"], [(255, 0, 0)])
    rows = (drawn > 200).all(axis=2).any(axis=1).sum()
    assert rows >= max(6, side / 60)


@pytest.mark.parametrize("size", [(1, 1), (13, 400), (400, 13), (20, 20), (1, 3000)])
def test_nothing_breaks_a_small_picture(size):
    labels = (np.arange(size[0] * size[1]) % 150).astype(np.uint8).reshape(size)
    assert overlay(grey(*size), labels, ADE20K).shape == (*size, 3)
    names = ["a long name", "日本語", "é", ""] * 30
    assert draw_legend(grey(*size), names, [(1, 2, 3)] * 120).shape == (*size, 3)


def test_names_of_many_classes_stand_in_their_largest_region():
    labels = np.full((400, 600), 2, np.uint8)  # sky
    labels[200:] = 6  # road
    labels[300:304, :8] = 12  # a person too small for a name
    drawn = overlay(grey(400, 600), labels, ADE20K)
    white = (drawn > 250).all(axis=2)
    white[:120, :150] = False  # the legend
    assert white[:200].any()
    assert white[250:350, 200:400].any()
    assert not white[295:310, :20].any()
    assert not white[380:].any()


def test_a_legend_too_long_says_so():
    labels = np.repeat(np.arange(100, dtype=np.uint8), 40).reshape(100, 40).repeat(10, axis=1)
    drawn = overlay(grey(*labels.shape), labels, ADE20K)
    box = drawn[:, 0].max(axis=1) < 70  # darkened
    assert 0 < box.sum() <= (LEGEND_ROWS + 1) * 18


def test_a_contact_sheet_holds_one_large_picture_at_a_time():
    made = []

    def pictures():
        for _ in range(6):
            assert sum(picture() is not None for picture in made) <= 1  # the last one
            picture = grey(600, 800)
            made.append(weakref.ref(picture))
            yield picture

    assert contact_sheet(pictures(), ["caf\udce9"] * 6, columns=2).shape == (3 * 268, 640, 3)


def test_contact_sheet_holds_every_picture():
    levels = range(10, 130, 20)
    pictures = [grey(100 + i, 300 - i, i) for i in levels]
    sheet = contact_sheet(pictures, [f"a rather long name {i}" for i in levels], columns=4)
    assert sheet.shape[1] == 4 * 320
    assert all((sheet == level).all(axis=2).sum() > 10_000 for level in levels)
    assert contact_sheet([grey(1, 9000)], ["thin"]).shape[1] == 320


@pytest.mark.parametrize("name", ["x" * 70_000, "W" * 3_000_000, "half a pair \ud83d", "x\n" * 100])
def test_absurd_names_are_drawn_fast(name):
    classes = Classes(("a",) * 9 + (name,), tuple((20 * k, 90, 90) for k in range(10)))
    labels = np.full((200, 300), 9, np.uint8)
    start = time.monotonic()
    assert overlay(grey(200, 300), labels, classes).shape == (200, 300, 3)
    contact_sheet([grey(20, 20)], [name])
    assert time.monotonic() - start < LIMIT


@pytest.mark.parametrize("width", range(5, 120, 7))
def test_fitted_text_is_the_longest_that_fits(width):
    text = "a name of some length"
    found = fitted_text(text, 12, width)
    assert not found or letters(found, 12).shape[1] <= width
    longer = [text[:n] + "…" for n in range(3, len(text)) if n > len(found) - 1]
    assert found == text or all(letters(t, 12).shape[1] > width for t in longer)


@pytest.fixture
def another_font(monkeypatch):
    """A font that stands in for one of the system; DejaVu Sans lacks its letter ⌒."""
    path = f"{matplotlib.get_data_path()}/fonts/ttf/STIXGeneral.ttf"
    monkeypatch.setattr(legend, "SYSTEM_FONTS", ("not installed.ttf", path))
    caches = legend.font_file, legend._fonts, letters
    for function in caches:
        function.cache_clear()
    yield
    for function in caches:
        function.cache_clear()


@pytest.mark.parametrize("letter", "äéøжωשش⌒")
def test_letters_of_other_alphabets_are_drawn(letter, another_font):
    box = letters("\uffff", 40)  # which no font has
    assert not np.array_equal(letters(letter, 40), box)


def test_a_letter_and_its_combining_mark_are_drawn_as_one():
    assert np.array_equal(letters("a\u0308", 40), letters("ä", 40))


def test_a_confusion_matrix_has_letters_of_other_alphabets(another_font, recwarn):
    draw_confusion(torch.eye(3), ["⌒", "plain", "\ue999"])  # the last is in no font
    assert not [warning for warning in recwarn if "missing from font" in str(warning.message)]


def test_a_class_name_is_no_formula():
    assert draw_confusion(torch.eye(2), ["US$ or $", r"$\frac$"])
