"""Draw text and the legend, legible at any picture size and in any script that has a font."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from unicodedata import normalize

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.labels.classes import Colour

SMALLEST_TEXT = 11  # pixels
LEGEND_ROWS = 12  # at most
# Fonts of Linux, macOS and Windows for what DejaVu Sans, which comes with matplotlib, lacks.
SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "AppleSDGothicNeo.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
    "NotoSansDevanagari-Regular.ttf",
)


@lru_cache
def font_file(text: str) -> str | None:
    """The font that has most letters of the text; None for the one of Pillow, which has ASCII."""
    if text.replace("…", "").isascii():
        return None
    return min(_fonts(), key=lambda path: len(set(map(ord, text)) - _fonts()[path]))


@lru_cache
def _fonts() -> dict[str, set[int]]:
    """The code points of each font that is there, by its path."""
    from matplotlib import get_data_path  # takes 0.3 s
    from matplotlib.ft2font import FT2Font

    found = [f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"]
    for name in SYSTEM_FONTS:
        with suppress(OSError):  # it is not installed
            found.append(ImageFont.truetype(name).path)
    return {path: set(FT2Font(path).get_charmap()) for path in found}


@lru_cache(maxsize=1024)
def letters(text: str, size: int, stroke: int = 0) -> np.ndarray:
    """The coverage of a line of text, (h, w) float32 0..1; size and stroke in pixels."""
    text = " ".join(text.splitlines()).encode("utf-8", "replace").decode()  # no lone surrogates
    text = normalize("NFC", text)  # fonts have few combining marks
    path = font_file(text)
    font = ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
    width = math.ceil(font.getlength(text)) + 2 * stroke
    canvas = Image.new("L", (max(1, width), sum(font.getmetrics()) + 2 * stroke))
    ImageDraw.Draw(canvas).text((stroke, stroke), text, 255, font, stroke_width=stroke)
    return np.asarray(canvas, np.float32) / 255


def stamp(image: np.ndarray, cover: np.ndarray, x: int, y: int, colour: Colour) -> None:
    """Blend a colour into image by the coverage (h, w), upper left corner at (x, y) >= 0."""
    part = image[y : y + cover.shape[0], x : x + cover.shape[1]]
    cover = cover[: part.shape[0], : part.shape[1], None]
    part[:] = (part * (1 - cover) + np.float32(colour) * cover).round()


def fitted_text(text: str, size: int, width: int) -> str:
    """The text, cut with an ellipsis if wider than `width` pixels; "" if nothing fits."""
    start = text[: max(0, width)]  # a letter takes a pixel at least
    if start == text and letters(text, size).shape[1] <= width:
        return text
    lengths = range(3, len(start))
    count = bisect_right(lengths, width, key=lambda n: letters(start[:n] + "…", size).shape[1])
    return start[: lengths[count - 1]] + "…" if count else ""


def text_size(image: np.ndarray) -> int:
    return max(SMALLEST_TEXT, round(min(image.shape[:2]) / 32))


def _row_height(image: np.ndarray) -> int:
    return round(1.5 * text_size(image))


def max_legend_rows(image: np.ndarray) -> int:
    return min(LEGEND_ROWS, max(0, image.shape[0] // _row_height(image) - 1))


def _legend_texts(image: np.ndarray, names: Sequence[str]) -> list[str]:
    row = _row_height(image)
    room = image.shape[1] - row - 2 * (row // 4)
    return [fitted_text(name, text_size(image), room) for name in names[: max_legend_rows(image)]]


def legend_box(image: np.ndarray, names: Sequence[str]) -> tuple[int, int]:
    """(width, height) in pixels of the legend in the upper left corner; (0, 0) without room."""
    texts = _legend_texts(image, names)
    if not any(texts):
        return 0, 0
    row, size = _row_height(image), text_size(image)
    width = max(letters(text, size).shape[1] for text in texts if text)
    return row + width + 2 * (row // 4), len(texts) * row + row // 4


def draw_legend(image: np.ndarray, names: Sequence[str], palette: Sequence[Colour]) -> np.ndarray:
    """The picture with a legend in its upper left corner, if there is room for one."""
    width, height = legend_box(image, names)
    if width == 0:
        return image
    image = image.copy()
    image[:height, :width] //= 4
    size, row = text_size(image), _row_height(image)
    gap = row // 4
    side = row - 2 * gap  # of the coloured square
    for i, (text, colour) in enumerate(zip(_legend_texts(image, names), palette, strict=False)):
        top = i * row + gap
        image[top : top + side, gap : gap + side] = 255
        image[top + 1 : top + side - 1, gap + 1 : gap + side - 1] = colour
        if text:
            stamp(image, letters(text, size), row, top - gap // 2, (255, 255, 255))
    return image
